"""Runs that are held: the same state at the same event, however one gets there."""

import random

import numpy as np
import pytest

from minipar.comm.cluster import Cluster
from minipar.stepping.stepper import Leave, Session
from minipar.stepping.view import chunks_text, value_text

RING = """
import numpy as np
import minipar

group = minipar.init()
x = np.arange(8.0) + 10 * group.rank
y = group.all_reduce(x, algorithm="ring")
print("sum", y[0])
"""


class Walk:
    """A prompt that goes to given events, and notes what it sees there."""

    def __init__(self, events):
        self.events, self.seen, self.totals = iter(events), [], []

    def __call__(self, at):
        if at.now is None and at.count:
            self.totals.append(at.count)
        else:
            values = [
                value_text(v) if isinstance(v, np.ndarray) else str(v) for v in at.evaluate("x")
            ]
            parts = at.contributions()
            buffers = None if parts is None else chunks_text(at.buffers(), parts)
            self.seen.append((at.count, str(at.now), at.view(120), values, buffers))
        following = next(self.events, None)
        if following is None:
            raise Leave
        if at.now is None or following <= at.count:
            self.session.again = following
        else:
            at.stop_at = following


def walk(tmp_path, events, source=RING, ranks=4, cluster=None):
    path = tmp_path / "ring.py"
    path.write_text(source)
    prompt = Walk(events)
    prompt.session = Session(str(path), [], ranks, prompt, cluster)
    prompt.session.run()
    return prompt


def test_back_and_forward_a_hundred_times_always_shows_the_same(tmp_path, capsys):
    """A ring all_reduce of 4 ranks: 4 begin, 24 messages are sent and got."""
    steps = random.Random(0)
    events = [steps.randrange(1, 53) for _ in range(100)]
    seen = {}
    for number, *what in walk(tmp_path, events).seen[1:]:
        assert seen.setdefault(number, what) == what
    assert len(seen) > 35


def test_every_event_is_a_call_a_message_or_its_receipt(tmp_path, capsys):
    prompt = walk(tmp_path, [*range(1, 53), 10**6])
    happened = [event for _, event, *_ in prompt.seen[1:]]
    assert prompt.totals == [4 + 2 * 24] == [len(happened)]
    assert sum(" begins " in h for h in happened) == 4
    assert sum(" sends " in h for h in happened) == sum(" gets " in h for h in happened) == 24


def test_chunks_hold_the_sums_of_who_has_contributed(tmp_path, capsys):
    """Element 2c of rank q is 2c + 10q: what a chunk shows must be the sum over those in it."""
    checked = 0
    for _, _, _, _, text in walk(tmp_path, range(1, 53)).seen[1:]:
        for line in text.splitlines()[1:]:
            cells = line.split()[2:]
            if cells[0] == "-":  # a rank that has not begun
                continue
            for c in range(len(cells) // 3):
                who, first, _ = cells[3 * c : 3 * c + 3]
                ranks = [int(q) for q in who if q != "."]
                assert float(first) == sum(2 * c + 10 * q for q in ranks)
                checked += 1
    assert checked > 600


def test_the_output_is_seen_once(tmp_path, capsys):
    walk(tmp_path, [52, 20, 52, 30, 10**6])  # at event 52 all but one have printed
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["[rank 0,2,3] sum 60.0", "[rank 1] sum 60.0"]


def test_a_deadlock_is_seen_and_one_can_go_back(tmp_path, capsys):
    source = "import minipar\ng = minipar.init()\nx = 1\ng.recv(1 - g.rank)\n"
    prompt = walk(tmp_path, [10**6, 0], source, ranks=2)
    assert prompt.totals == [] or prompt.totals == [0]


def test_in_virtual_time(tmp_path, capsys):
    prompt = walk(tmp_path, [30, 10, 30], cluster=Cluster())
    assert prompt.seen[1][1:] == prompt.seen[3][1:]


def test_what_the_script_raises_is_the_failure(tmp_path, capsys):
    source = "import minipar\ng = minipar.init()\ng.barrier()\nraise ValueError('enough')\n"
    path = tmp_path / "ring.py"
    path.write_text(source)

    def prompt(at):
        at.stop_at = 10**6

    ended = Session(str(path), [], 2, prompt).run()
    assert isinstance(ended.failure, ValueError)


@pytest.mark.parametrize("text", ["1 / 0", "nothing_like_this"])
def test_an_expression_that_fails_says_so_on_every_rank(tmp_path, capsys, text):
    path = tmp_path / "ring.py"
    path.write_text(RING)
    found = []

    def prompt(at):
        if at.count < 30:
            at.stop_at = 30
            return
        found.extend(at.evaluate(text))
        raise Leave

    Session(str(path), [], 4, prompt).run()
    assert len(found) == 4 and all("Error" in str(value) for value in found)
