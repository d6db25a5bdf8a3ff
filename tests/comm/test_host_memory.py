"""Memory: what a machine and its cgroups say, from files that look like theirs."""

import numpy as np
import pytest

from minipar.comm.host_memory import (
    available_bytes,
    in_words,
    parsed_bytes,
    peak_bytes,
    resident_bytes,
)


def host(folder, **files):
    (folder / "meminfo").write_text("MemTotal: 9000 kB\nMemAvailable:    4000 kB\n")
    (folder / "own").write_text("4:memory:/job\n0::/job\n")
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return available_bytes(str(folder), str(folder / "own"), str(folder / "meminfo"))


def test_without_a_limit_it_is_what_the_machine_says(tmp_path):
    assert host(tmp_path) == 4000 * 1024
    assert host(tmp_path, job__memory_dot_max="max", job__memory_dot_current="5") == 4000 * 1024


def test_a_cgroup_of_either_version_grants_less(tmp_path):
    files = {"job__memory_dot_max": "3000", "job__memory_dot_current": "1000"}
    assert host(tmp_path, **files) == 2000
    assert host(tmp_path, **files, job__memory_dot_stat="inactive_file 300\nanon 9\n") == 2300
    old = {
        "memory__job__memory_dot_limit_in_bytes": "900",
        "memory__job__memory_dot_usage_in_bytes": "800",
    }
    assert host(tmp_path, **old) == 100


def test_where_nobody_says(tmp_path):
    assert available_bytes(str(tmp_path), "nowhere", "nowhere") is None


def test_what_this_process_has():
    before = resident_bytes()
    block = np.ones(8 << 20, np.uint8)
    assert before > 1 << 20 and peak_bytes() >= before
    assert peak_bytes() >= block.nbytes


def test_sizes_as_people_write_them():
    assert parsed_bytes("500MB") == 500 * 2**20 and parsed_bytes("1.5gb") == 1.5 * 2**30
    assert [in_words(n) for n in (12, 2048, 1.5 * 2**20, 2**31)] == [
        "12 B", "2.0 KB", "1.5 MB", "2.0 GB",
    ]  # fmt: skip
    for text in ("500", "MB", "-1MB", "nanMB", "1TB"):
        with pytest.raises(ValueError):
            parsed_bytes(text)
