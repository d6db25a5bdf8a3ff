"""Messages between launchers: what goes in comes out, and nothing else is let in."""

import json
import random
import tracemalloc

import pytest

from minipar.comm.hosts.message import KINDS, LENGTH, MAX_BYTES, MAX_RANKS, decode, encode
from minipar.errors import CommError

GOOD = (
    ("hello", "0.1", 3, [5000, 5001]),
    ("refused", "it is full"),
    ("welcome", [2, 1], [["10.0.0.1", 1], ["::1", 2], ["h", 3]], "nonce"),
    ("beat",),
    ("notice", 3, "QUJD"),
    ("finished", 2),
    ("failed", 1, "rank 1 raised ValueError: é", 3),
    ("fates", [2, 3], ["was killed", ""]),
    ("reported", 1, "rank 1 was killed", True),
    ("joined", 1, 5000),
    ("job", "{}"),
    ("interrupt", 0),
    ("done",),
)


def framed(raw):
    return bytearray(LENGTH.pack(len(raw)) + raw)


def test_every_kind_goes_through_whole_and_in_pieces():
    assert {message[0] for message in GOOD} == set(KINDS)
    raw = b"".join(encode(*message) for message in GOOD)
    assert decode(bytearray(raw)) == list(GOOD)
    buffer, got = bytearray(), []
    for byte in raw:
        buffer.append(byte)
        got += decode(buffer)
    assert got == list(GOOD) and not buffer


@pytest.mark.parametrize(
    "message",
    [
        [],
        {},
        "beat",
        ["beat", 1],
        ["finished"],
        ["finished", -1],
        ["finished", True],
        ["finished", 1.0],
        ["finished", MAX_RANKS + 1],
        ["finished", "1"],
        ["failed", 1, None, 3],
        ["failed", 1, "x" * 20_000, 3],
        ["failed", 1, "x", 256],
        ["welcome", [1], [["h", 1, 2]], "n"],
        ["welcome", [1], [["h", 65536]], "n"],
        ["welcome", [1], [[1, 1]], "n"],
        ["welcome", {"0": 1}, [], "n"],
        ["hello", "v", 2, [1] * (MAX_RANKS + 1)],
        ["exec", "import os"],
        [["beat"]],
    ],
)
def test_what_does_not_fit_is_refused(message):
    with pytest.raises(CommError, match="not a launcher's message"):
        decode(framed(json.dumps(message).encode()))


@pytest.mark.parametrize("raw", [b"", b"[", b"[" * 100_000, b"\xff\xfe", b"9" * 10_000, b"[NaN]"])
def test_what_is_no_json_is_refused(raw):
    with pytest.raises(CommError):
        decode(framed(raw))


def test_a_length_beyond_the_limit_is_refused_before_anything_is_read():
    with pytest.raises(CommError, match=f"{MAX_BYTES} are the limit"):
        decode(bytearray(LENGTH.pack(MAX_BYTES + 1)))


def test_fuzz_ends_in_messages_or_in_our_error_and_takes_little_memory():
    """Random, truncated, and mutated frames; the seed makes them the same each time."""
    dice = random.Random(0)
    valid = [encode(*message) for message in GOOD]
    refused = 0
    tracemalloc.start()
    for _ in range(5000):
        buffer = bytearray(b"".join(dice.choices(valid, k=3)))
        how = dice.randrange(4)
        if how == 0:
            buffer = bytearray(dice.randbytes(dice.randrange(200)))
        elif how == 1:
            del buffer[dice.randrange(len(buffer)) :]
        else:
            for _ in range(dice.randrange(1, 5)):
                buffer[dice.randrange(len(buffer))] = dice.randrange(256)
        try:
            for kind, *values in decode(buffer):
                checks = KINDS[kind]
                assert all(check(v) for check, v in zip(checks, values, strict=True))
        except CommError:
            refused += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert refused > 1000 and peak < 1 << 20
