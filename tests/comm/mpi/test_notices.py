"""Notices: what goes in comes out, and nothing else is let in."""

import pytest

from minipar.comm import frame
from minipar.comm.mpi import notices
from minipar.comm.mpi.notices import Kind, Notice
from minipar.errors import CommError


@pytest.mark.parametrize("kind", Kind)
def test_round_trip(kind):
    notice = Notice(kind, "rank 1 raised ValueError: naïve", 7)
    raw = notices.pack(notice)
    assert notices.is_notice(raw) and notices.unpack(raw) == notice


def test_a_long_text_is_cut_and_a_large_code_is_that_of_a_process():
    notice = notices.unpack(notices.pack(Notice(Kind.FAILED, "é" * 5000, 256 + 3)))
    assert set(notice.text[:-1]) == {"é"} and len(notice.text.encode()) <= notices.MAX_TEXT + 3
    assert notice.code == 3


def test_the_header_of_a_message_is_no_notice():
    header = frame.Header(frame.Call(0, 0, "send", "", "a.py:1"), "float64", (3,))
    assert not notices.is_notice(frame.pack(header))


@pytest.mark.parametrize(
    "raw", [b"", b"mpn1", b"mpn1\xff\0\0\0", b"xxxx\0\0\0\0", b"mpn1\0\0\0\0" + b"x" * 2001]
)
def test_other_bytes_are_refused(raw):
    with pytest.raises(CommError, match="none of minipar's"):
        notices.unpack(raw)
