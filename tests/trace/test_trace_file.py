"""The files: there and back, and what is no trace is refused in a sentence."""

import json
import zipfile

import numpy as np
import pytest

import minipar
from minipar.comm.tracing import tracing
from minipar.errors import TraceError
from minipar.spans import Mark, Span, Tape, name_group, span
from minipar.trace import trace_file
from minipar.trace.trace_file import file_of, load, save

FACTS = {"backend": "process", "virtual": False, "ranks": 1, "rank": 0, "begin": 100, "end": 900}
CLOCKS = {"offset_ns": 1000, "doubt_ns": 3}


def write(folder, rank=0, ranks=1, offset=1000, **more):
    tape = Tape(lambda: 0)
    tape.rows = [["forward", "blocks.0", 200, 300, 1, 2, 0, False]]
    tape.collectives = [[rank, -1, "all_reduce", 4, 80, "file.py:3", "ring", 8, 310, 350]]
    tape.apart = [True]
    tape.messages = [[rank, 1, "send", 0, 16, "file.py:4", "", 0, 400, 0]]  # never waited for
    tape.memory = [(500, 2**20)]
    tape.held = [(450, 1, 2, 3, 4, 5)]
    tape.marks = [Mark("version", 600, 1, 7, 2), Mark("clock", 650, rank, 3)]
    tape.groups = {8: ("tp", (0, 1))}
    facts = FACTS | CLOCKS | {"rank": rank, "ranks": ranks, "offset_ns": offset} | more
    save(file_of(folder, rank), tape, facts)


def test_there_and_back_with_times_from_the_beginning(tmp_path):
    write(tmp_path, 0, 2)
    write(tmp_path, 1, 2, offset=1050)
    trace = load(tmp_path)
    first, second = trace.ranks
    assert (first.begin, first.end, second.begin, second.end) == (0, 800, 50, 850)
    assert first.spans == [Span("forward", "blocks.0", 100, 200, 1, 2, 0, False)]
    assert second.spans[0].begin == 150
    assert tuple(first.calls[0])[1:] == (-1, "all_reduce", 4, 80, "file.py:3", "ring", 8, 210, 250)
    assert first.apart == [True] and first.memory == [(400, 2**20)]
    assert first.held == [(350, 1, 2, 3, 4, 5)]
    assert (first.messages[0].begin, first.messages[0].end) == (300, 300)
    assert first.marks == [Mark("version", 500, 1, 7, 2), Mark("clock", 550, 0, 3)]
    assert [mark.at for mark in second.marks] == [550, 600]
    assert trace.axis(first.calls[0]) == "tp" and trace.axis(first.messages[0]) == "world"
    assert trace.end == 850 and trace.doubt_ns == 3
    assert not list(tmp_path.glob("*.unfinished"))


def cut(path):
    path.write_bytes(path.read_bytes()[:-200])


def foreign(path):
    path.write_text("rank,begin,end\n")


def other_arrays(path):
    np.savez(path, weights=np.zeros(3))


def pickled(path):
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("facts.npy", b"cos\nsystem\n(S'echo hi'\ntR.")


def wrong_table(path):
    write_raw(path, spans=np.zeros((2, 5), np.int64))


def wrong_marks(path):
    write_raw(path, marks=np.zeros((2, 4), np.int64))


def words_missing(path):
    write_raw(path, spans=np.full((1, 8), 99, np.int64))


def text(x):
    return np.frombuffer(json.dumps(x).encode(), np.uint8)


def facts(version=trace_file.VERSION):
    return text({"version": version, "groups": {}, **FACTS, **CLOCKS})


def write_raw(path, **more):
    empty = {name: np.zeros((0, 10), np.int64) for name in trace_file.TABLES[1:]}
    rest = {"apart": np.zeros(0, bool), "memory": np.zeros((0, 2), np.int64)}
    rest |= {"held": np.zeros((0, 6), np.int64)}
    rest |= {"spans": np.zeros((0, 8), np.int64), "marks": np.zeros((0, 5), np.int64)}
    texts = {"facts": facts(), "words": text([])}
    np.savez(path, **(texts | empty | rest | more))


def no_marks(path):
    arrays = dict(np.load(path))
    del arrays["marks"]
    np.savez(path, **arrays)


def wrong_memory(path):
    write_raw(path, held=np.zeros((3, 2), np.int64))


SPOILT = (
    *(cut, foreign, other_arrays, pickled, wrong_table, wrong_marks, no_marks, words_missing),
    wrong_memory,
)


def test_the_raw_file_of_these_tests_is_a_trace_before_it_is_spoilt(tmp_path):
    write_raw(file_of(tmp_path, 0))
    assert load(tmp_path).ranks[0].marks == []


@pytest.mark.parametrize("spoil", SPOILT)
def test_a_damaged_or_foreign_file_is_refused_by_name(tmp_path, spoil):
    write(tmp_path)
    spoil(file_of(tmp_path, 0))
    with pytest.raises(TraceError, match=r"rank-0\.npz is no trace of minipar, or is damaged"):
        load(tmp_path)


def test_whatever_byte_is_wrong_it_is_refused_or_does_not_matter(tmp_path):
    write(tmp_path)
    path, whole = file_of(tmp_path, 0), load(tmp_path)
    data = path.read_bytes()
    refused = 0
    for at in range(0, len(data), 11):
        path.write_bytes(data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :])
        try:
            assert load(tmp_path) == whole
        except TraceError:
            refused += 1
    assert refused > len(data) // 22


def test_other_versions_and_missing_ranks(tmp_path, monkeypatch):
    with pytest.raises(TraceError, match=r"there is no trace in .*rank-0\.npz.*--trace"):
        load(tmp_path)
    write(tmp_path, 1, 3, offset=1050)
    write(tmp_path, 7, 8)  # of an earlier run
    trace = load(tmp_path)
    assert trace.silent == [0, 2] and trace.ranks[1].begin == 0 and len(trace.ranks) == 3
    write(tmp_path, 2, 8)
    with pytest.raises(TraceError, match=r"rank-2.npz is of another run: of 8 ranks on .*not of 3"):
        load(tmp_path)
    monkeypatch.setattr(trace_file, "VERSION", 99)
    with pytest.raises(TraceError, match="another version of minipar"):
        load(tmp_path)


def test_a_trace_without_marks_is_of_format_1_and_must_be_recorded_again(tmp_path):
    write_raw(file_of(tmp_path, 0), facts=facts(version=1))
    with pytest.raises(TraceError, match=r"\(format 1, this one reads 2\). Record the run again"):
        load(tmp_path)


def test_it_holds_no_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("MINIPAR_TOKEN", "a-secret-word")
    (tmp_path / "data.txt").write_text("what-a-file-says")

    def work(group):
        with tracing(group, tmp_path):
            name_group(group, "dp")
            text = (tmp_path / "data.txt").read_text()
            with span("data", "batch"):
                group.broadcast(np.frombuffer(text.encode(), np.uint8))

    minipar.run(work, 2)
    for path in tmp_path.glob("*.npz"):
        with zipfile.ZipFile(path) as file:
            everything = b"".join(file.read(name) for name in file.namelist())
        assert b"broadcast" in everything
        assert b"a-secret-word" not in everything and b"what-a-file-says" not in everything
