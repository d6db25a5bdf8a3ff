"""Where the ranks' call sites parted: remembered, and told only when a job ends in an error."""

import re
from pathlib import Path

import pytest

import minipar
from minipar.comm.frame import Call
from minipar.comm.history import LAST_CALLS, MOST_GROUPS, History, Parting, first_partings
from minipar.errors import CommError
from tests.comm import mismatches
from tests.comm.test_script import minipar_run

BOTH = pytest.mark.parametrize("backend", ["local", "process"])


def line(marked):
    lines = Path(mismatches.__file__).read_text().splitlines()
    return 1 + next(i for i, text in enumerate(lines) if text.endswith(f"# {marked}"))


def call(sequence, site="a:1", op="barrier", group=0):
    return Call(group, sequence, op, "by tree", site)


@BOTH
@pytest.mark.parametrize("p", [2, 3])
@pytest.mark.parametrize("how", ["mismatch", "left out"])
def test_a_skipped_call_that_was_paired_with_a_later_one_is_found(how, p, backend):
    with pytest.raises(CommError) as caught:
        minipar.run(mismatches.skipped, p, args=(how,), backend=backend)
    *_, last = str(caught.value).splitlines()
    first, second = line("IN ITS PLACE"), line("SKIPPED")
    assert re.search(
        rf"^The ranks' call sites first parted at all_reduce #1: rank 0 at .*mismatches\.py:{first}"
        rf", rank [12] at .*mismatches\.py:{second}\. \(Legal if meant so; a call that one ",
        last,
    )


@BOTH
def test_it_is_told_whatever_error_there_is(backend, tmp_path):
    source = "import minipar; from tests.comm import mismatches as m; m.{}(minipar.init(), {})"
    source = "import sys; sys.path.insert(0, {!r}); " + source
    root = str(Path(__file__).parents[2])
    text = source.format(root, "skipped", "'fails later'")
    lines = minipar_run(tmp_path, text, "--backend", backend).stderr.splitlines()
    assert lines[-1] == "minipar: rank 1 raised ValueError: something else"
    note = "minipar: The ranks' call sites first parted at all_reduce #1: rank 0 "
    assert any(line.startswith(note) for line in lines)
    done = minipar_run(tmp_path, source.format(root, "branches", "False"), "--backend", backend)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@BOTH
def test_calls_that_are_meant_to_part_are_legal(backend):
    assert minipar.run(mismatches.branches, 3, args=(False,), backend=backend) == [True] * 3


@BOTH
def test_an_error_of_the_user_keeps_its_text(backend):
    with pytest.raises(ValueError) as caught:
        minipar.run(mismatches.branches, 3, args=(True,), backend=backend)
    assert str(caught.value) == "why"
    notes = getattr(caught.value, "__notes__", None)  # Python 3.11
    if notes is not None:
        *_, world, subgroup = notes
        assert f"broadcast #1: rank 0 at {mismatches_site('THE ROOT')}, rank " in world
        assert re.search(r"parted at broadcast #0 of group \d+: rank 0 at .*, rank 2 at ", subgroup)


def mismatches_site(marked):
    return f"tests/comm/mismatches.py:{line(marked)}"


def test_the_first_of_each_group_counts():
    history = History()
    history.part(1, call(3), 0, call(3, "b:1"))
    history.part(1, call(4), 2, call(4, "b:2"))
    history.part(1, call(9, group=7), 0, call(9, "b:9", group=7))
    earlier = History()
    earlier.part(0, call(2), 2, call(2, "b:0"))
    later = [h.partings.values() for h in (history, earlier)]
    assert [text.partition(". ")[0] for text in first_partings(later)] == [
        "The ranks' call sites first parted at barrier #2: rank 0 at a:1, rank 2 at b:0",
        "The ranks' call sites first parted at barrier #9 of group 7: rank 0 at b:9, rank 1 at a:1",
    ]


def test_what_is_remembered_does_not_grow():
    history = History()
    for i in range(1000):
        history.begin(call(i))
        history.part(0, call(i, group=i), 1, call(i, "b:1", group=i))
    assert len(history.partings) == MOST_GROUPS and isinstance(history.partings[0], Parting)
    assert history.other_than(call(999 - LAST_CALLS, op="gather")) is None
    assert history.other_than(call(1000 - LAST_CALLS, op="gather")) == call(1000 - LAST_CALLS)


def test_the_own_call_in_the_place_of_another():
    history = History()
    for own in (call(0), call(1, op="gather"), call(1, op="reduce", group=5)):
        history.begin(own)
    assert history.other_than(call(1)) == call(1, op="gather")
    assert history.other_than(call(1, "elsewhere", op="gather")) is None
    assert history.other_than(call(1, group=5)) == call(1, op="reduce", group=5)
