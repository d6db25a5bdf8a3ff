"""`minipar checkpoint` as it is typed."""

import json

import numpy as np
import pytest

from minipar.cli import main
from minipar.parallel import checkpoint


def said(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(["checkpoint", *map(str, words)])
    found = capsys.readouterr()
    return end.value.code, found.out, found.err


@pytest.fixture
def folder(tmp_path):
    checkpoint.save(tmp_path / "c", {"model/x": np.arange(6.0).reshape(2, 3)}, {"step": 4})
    return tmp_path / "c"


def test_show(capsys, folder):
    code, out, _ = said(capsys, "show", folder)
    assert code == 0 and "step       4" in out and "2 x 3" in out
    code, out, _ = said(capsys, "show", folder, "--json", "--verify")
    found = json.loads(out)
    assert (code, found["problems"], found["files"], found["bytes"]) == (0, [], 1, 48)


def test_show_of_a_damaged_one_ends_with_1(capsys, folder):
    (folder / "model/x.npy").write_bytes(b"")
    assert said(capsys, "show", folder)[0] == 0  # nobody has looked
    code, out, _ = said(capsys, "show", folder, "--verify")
    assert code == 1 and "x.npy cannot be read: it has 0 bytes, not 176" in out


def test_convert(capsys, folder, tmp_path):
    code, out, _ = said(capsys, "convert", folder, tmp_path / "d")
    assert code == 0 and out.strip() == str(tmp_path / "d")
    assert checkpoint.load(tmp_path / "d")[0]["model/x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    code, _, err = said(capsys, "convert", folder, tmp_path / "d")
    assert code == 2 and "is there already" in err
    code, _, err = said(capsys, "convert", tmp_path / "nowhere", tmp_path / "e")
    assert code == 1 and "neither a checkpoint" in err
