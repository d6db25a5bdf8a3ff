"""What is typed and what is answered, through the command line."""

import re

import pytest

from minipar.cli import main
from tests.stepping.test_stepper import RING


@pytest.fixture
def step(tmp_path, capsys):
    def ask(*commands, ranks=3, options=()):
        (tmp_path / "ring.py").write_text(RING)
        (tmp_path / "commands.txt").write_text("\n".join(commands))
        words = ["step", "-n", str(ranks), "--script", str(tmp_path / "commands.txt"), *options]
        with pytest.raises(SystemExit) as end:
            main([*words, "--width", "100", str(tmp_path / "ring.py")])
        return end.value.code, capsys.readouterr().out

    return ask


def events(out):
    return [int(n) for n in re.findall(r"^event (\d+)", out, re.M)]


def test_forward_back_and_to(step):
    code, out = step("n", "n 3", "", "back", "p 2", "g 7", "g 2", "q")
    assert code == 0
    assert events(out) == [0, 1, 4, 5, 4, 2, 7, 2]


def test_of_one_rank_only(step):
    _, out = step("r 1", "r 1", "r 9", "r")
    assert re.findall(r"^event \d+: (rank \d)", out, re.M)[1:] == ["rank 1", "rank 1"]
    assert out.count("r takes a rank, 0 to 2.") == 2


def test_breaks(step):
    _, out = step("b", "b rank 2, gets", "b bytes > 1e6", "c", "d 1", "d 5", "c", "b nonsense")
    assert "there are no breaks" in out and "d takes the number of a break" in out
    assert re.findall(r"^event \d+: (rank 2 gets)", out, re.M) == ["rank 2 gets"]
    assert "the run is over (after" in out and "'nonsense' is no condition" in out


def test_values_and_chunks(step):
    _, out = step("n 20", "print x[:2]", "!group.rank", "show", "show x", "print", "show zzz", "l")
    assert "rank 1  float64[2] 10 11" in out and "rank 2  2" in out
    assert out.count("chunk 2") == 2 and "print and show take an expression" in out
    assert "NameError: name 'zzz' is not defined" in out
    assert '7 > y = group.all_reduce(x, algorithm="ring")' in out


def test_at_the_end_one_can_only_go_back(step):
    code, out = step("c", "n", "show", "back", "w", "h")
    assert "the run is over; go back" in out and "no collective is under way" in out
    total = int(re.search(r"over \(after (\d+) events\)", out)[1])
    assert events(out) == [0, total, total] and "q            leave" in out and code == 0


def test_wrong_questions(step, tmp_path, capsys):
    _, out = step("jump", "n many", "g", "q")
    assert "there is no 'jump'; h lists what you can type." in out
    assert "'many' is no number." in out and "g takes the number of an event." in out
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    unreadable = [["--script", str(tmp_path / name), __file__] for name in ("binary", "none")]
    for words in (["nothing.py"], ["-n", "0", __file__], *unreadable):
        with pytest.raises(SystemExit) as end:
            main(["step", *words])
        assert end.value.code == 2 and capsys.readouterr().err.count("\n") == 1
