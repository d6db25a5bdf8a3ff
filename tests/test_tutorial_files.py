"""`minipar tutorials`: a line each, copies that overwrite nothing."""

import pytest

from minipar import tutorial_files
from minipar.errors import UsageError


def test_listing_has_a_title_for_every_file():
    lines = tutorial_files.listing().splitlines()
    assert [line.split()[0] for line in lines] == [p.name for p in tutorial_files.files()]
    assert all(len(line.split()) > 2 for line in lines)


def test_copy_never_overwrites(tmp_path):
    copied = tutorial_files.copy(str(tmp_path / "new"))
    assert [p.read_text() for p in copied] == [p.read_text() for p in tutorial_files.files()]
    copied[0].write_text("my work")
    with pytest.raises(UsageError, match="already there"):
        tutorial_files.copy(str(tmp_path / "new"))
    assert copied[0].read_text() == "my work"
