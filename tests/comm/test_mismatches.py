"""Calls that do not go together: soon an error on all ranks, which shows what each of them did."""

import re
import time

import pytest

import minipar
from minipar.errors import CommError
from tests.comm import mismatches

ENDED_IN_S = 5 * 2.0  # promised: 2 s
SOME = (  # one of each way in which processes find out; the whole table is slow
    "left out by rank 0",
    "broadcast left out by the others",
    "other collective",
    "dtype, same size",
    "root of reduce",
    "root of gather, turned round",
)


def on(backend, pairs=tuple(mismatches.PAIRS), ranks=(2, 3), marks=()):
    return [
        pytest.param(backend, pair, where, p, marks=marks, id=f"{backend}-{pair}-{where}-{p}")
        for pair in pairs
        for where in ("middle", "end")
        for p in ranks
    ]


REST = [pair for pair in mismatches.PAIRS if pair not in SOME]
CASES = [
    *on("local"),
    *on("process", SOME, ranks=(2,)),
    *on("process", SOME, ranks=(3,), marks=pytest.mark.slow),
    *on("process", REST, marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("backend", "pair", "where", "p"), CASES)
def test_calls_that_do_not_go_together(backend, pair, where, p, tmp_path):
    begun = time.monotonic()
    with pytest.raises(CommError) as caught:
        args = (pair, where, str(tmp_path))
        minipar.run(mismatches.work, p, args=args, backend=backend, timeout_s=60)
    assert time.monotonic() - begun < ENDED_IN_S
    text = str(caught.value)
    assert len(set(re.findall(r"mismatches\.py:\d+", text))) >= 2, text
    assert re.search(r"#[12]\b", text), text
    assert "sual cause" in text, text
    if "root of" in pair:
        assert re.search("(to|from) 0", text) and re.search("(to|from) 1", text), text
    ends = [(tmp_path / str(rank)).read_text() for rank in range(p)]
    assert all(end != "neither returned nor raised" for end in ends)
    if where == "middle":  # a rank whose own messages all agreed may get to its end
        assert ends.count("returned") <= (p - 2 if "turned round" in pair else 0)


@pytest.mark.parametrize(
    ("backend", "programs"),
    [("local", 60), pytest.param("process", 20, marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("p", [2, 3, 4])
def test_whichever_call_a_rank_leaves_out_it_is_an_error(backend, programs, p):
    for seed in range(1, 1 + programs):
        begun = time.monotonic()
        with pytest.raises(CommError, match="sual cause"):
            minipar.run(mismatches.random_program, p, args=(seed,), backend=backend)
        assert time.monotonic() - begun < ENDED_IN_S
        if backend == "local":
            minipar.run(mismatches.random_program, p, args=(-seed,))
