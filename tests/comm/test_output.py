"""What ranks print: whole lines, labels, the same line once, progress only on a terminal."""

import io

import pytest

from minipar.comm import output
from minipar.comm.output import HOLD_S, Output


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until the test moves it."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(output, "time", clock)
    return clock


def test_a_line_that_all_print_is_shown_once(clock):
    stream = io.StringIO()
    out = Output(stream, 3)
    for rank in (2, 0, 1):
        assert stream.getvalue() == ""
        out.feed(rank, "same\n")
    assert stream.getvalue() == "[all 3] same\n"


def test_a_line_of_one_rank_waits_a_moment_for_the_others(clock):
    stream = io.StringIO()
    out = Output(stream, 2)
    out.feed(1, "mine\n")
    assert out.flush() == pytest.approx(HOLD_S)
    assert stream.getvalue() == ""
    clock.now += HOLD_S
    assert out.flush() is None
    assert stream.getvalue() == "[rank 1] mine\n"


def test_order_within_a_rank_is_kept_and_later_lines_still_meet(clock):
    stream = io.StringIO()
    out = Output(stream, 2)
    out.feed(0, "only 0\nboth\n")
    clock.now += HOLD_S / 2
    out.feed(1, "both\n")
    clock.now += HOLD_S / 2
    out.flush()
    assert stream.getvalue() == "[rank 0] only 0\n[all 2] both\n"


def test_pieces_become_whole_lines(clock):
    stream = io.StringIO()
    out = Output(stream, 2)
    out.feed(0, "he")
    out.feed(1, "other\n")
    out.feed(0, "llo\nrest")
    out.close()
    assert stream.getvalue() == "[rank 0] hello\n[rank 1] other\n" or stream.getvalue() == (
        "[rank 1] other\n[rank 0] hello\n"
    )


def test_some_of_the_ranks_share_a_line(clock):
    stream = io.StringIO()
    out = Output(stream, 3)
    out.feed(0, "x\n")
    out.feed(2, "x\n")
    clock.now += HOLD_S
    out.flush()
    assert stream.getvalue() == "[rank 0,2] x\n"


def test_an_unfinished_line_is_shown_at_the_end_and_the_ended_are_not_waited_for(clock):
    stream = io.StringIO()
    out = Output(stream, 2)
    out.feed(0, "half")
    out.end(0)
    out.end(1)
    assert stream.getvalue() == "[rank 0] half\n"


def test_one_rank_needs_no_waiting_and_plain_ranks_no_label(clock):
    stream = io.StringIO()
    Output(stream, 1).feed(0, "a\n")
    out = Output(stream, 2, plain=(0,))
    out.feed(0, "b\n")
    out.feed(1, "c\n")
    out.close()
    assert stream.getvalue() == "[rank 0] a\nb\n[rank 1] c\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_is_shown_in_place_on_a_terminal_and_nowhere_else(clock):
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        out = Output(stream, 1, plain=(0,))
        out.feed(0, "10 %\r")
        out.feed(0, "20 %\r")
        out.feed(0, "done\n")
        out.close()
    assert terminal.getvalue() == "\r10 %\r20 %\r    \rdone\n"
    assert file.getvalue() == "done\n"


def test_a_file_for_each_rank(clock, tmp_path):
    out = Output(io.StringIO(), 2, log_dir=str(tmp_path / "logs"))
    out.feed(0, "a\nb\n")
    out.feed(1, "c\n")
    out.close()
    assert (tmp_path / "logs/rank-0.log").read_text() == "a\nb\n"
    assert (tmp_path / "logs/rank-1.log").read_text() == "c\n"


def test_progress_that_ends_in_a_newline_is_a_line(clock):
    stream = io.StringIO()
    out = Output(stream, 1, plain=(0,))
    out.feed(0, "50 %\r")
    out.feed(0, "100 %\r")
    out.feed(0, "\n")
    out.feed(0, "\n")
    assert stream.getvalue() == "100 %\n\n"


def test_a_flood_of_lines_does_not_wait(clock):
    stream = io.StringIO()
    out = Output(stream, 2)
    out.feed(0, "".join(f"{i}\n" for i in range(output.MOST_HELD + 10)))
    assert len(stream.getvalue().splitlines()) == 10
