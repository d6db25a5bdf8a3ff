"""A file without a name, that a child can have."""

import os
import subprocess
import sys

from minipar.comm import shared_file


def check():
    descriptor = shared_file.anonymous_file()
    assert os.fstat(descriptor).st_nlink == 0
    os.write(descriptor, b"from the parent")
    code = f"import os; print(os.pread({descriptor}, 100, 0).decode())"
    done = subprocess.run(
        [sys.executable, "-c", code], pass_fds=(descriptor,), capture_output=True, text=True
    )
    os.close(descriptor)
    assert done.stdout == "from the parent\n"


def test_it_has_no_name_and_is_inherited():
    check()


def test_where_there_is_no_memfd(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_file.sys, "platform", "darwin")
    monkeypatch.setattr(shared_file.tempfile, "tempdir", str(tmp_path))
    check()
    assert list(tmp_path.iterdir()) == []
