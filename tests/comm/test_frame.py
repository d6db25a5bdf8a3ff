"""Headers: what goes in comes out, and nothing else is let in."""

import random
from pathlib import Path

import numpy as np
import pytest

from minipar.comm import frame
from minipar.errors import CommError, UsageError

CALL = frame.Call(3, 2**40, "all_reduce", "sum float32[2, 3]", "train.py:17")


@pytest.mark.parametrize("shape", [(), (0,), (5,), (2, 3), (1,) * 8])
@pytest.mark.parametrize("dtype", sorted(frame.DTYPES - {"bfloat16"}))
def test_round_trip(dtype, shape):
    header = frame.header_for(CALL, np.zeros(shape, dtype))
    raw = frame.pack(header)
    assert len(raw) == frame.HEADER_BYTES
    assert frame.unpack(raw) == header
    assert header.nbytes == np.zeros(shape, dtype).nbytes


def test_long_texts_are_cut_to_the_telling_end():
    call = CALL._replace(site="/a" * 200 + "/script.py:12", signature="x" * 200)
    back = frame.unpack(frame.pack(frame.Header(call, "float32", (1,)))).call
    assert back.site.endswith("/script.py:12") and back.signature == "x" * frame.MAX_SIGNATURE


def test_random_bytes_raise_our_error_and_nothing_else():
    dice = random.Random(0)
    for _ in range(2000):
        with pytest.raises(CommError):
            frame.unpack(dice.randbytes(frame.HEADER_BYTES))


def test_a_header_with_any_wrong_byte_is_refused_or_harmless():
    good = frame.pack(frame.header_for(CALL, np.zeros((2, 3), np.float32)))
    dice = random.Random(1)
    for place in range(len(good)):
        bad = bytearray(good)
        bad[place] ^= dice.randrange(1, 256)
        try:
            header = frame.unpack(bad)
        except CommError:
            continue
        assert header.nbytes == 24  # a changed text or number, but never another length


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([None]), np.zeros((1,) * 9)])
def test_what_cannot_travel_is_refused_before_it_is_sent(array):
    with pytest.raises(UsageError, match=r"all_reduce #\d+ of group 3 \(.*\) at train.py:17"):
        frame.header_for(CALL, array)


def test_the_call_site_is_the_callers_line():
    site = frame.call_site()
    assert site.rpartition(":")[0].endswith("test_frame.py")
    assert int(site.rpartition(":")[2]) == line_of_the_call()


def line_of_the_call() -> int:
    source = Path(__file__).read_text().splitlines()
    return next(n for n, line in enumerate(source, 1) if "site = frame.call_site()" in line)


def test_bytes_of_an_array():
    assert bytes(frame.as_bytes(np.array([1, 258], "<i2"))) == b"\x01\x00\x02\x01"
    assert frame.as_bytes(np.zeros((0, 3))).nbytes == 0
