"""A snapshot holds all that a server needs, and replaces the last one at once."""

import numpy as np
import pytest

from minipar.errors import CheckpointError
from minipar.optim import Adam
from minipar.parallel.parameter_server import snapshot
from minipar.parallel.parameter_server.book import Book
from minipar.parallel.parameter_server.keys import shards_of
from minipar.parallel.parameter_server.report import Record
from minipar.parallel.parameter_server.rules import ASYNC
from minipar.parallel.parameter_server.store import Store
from tests.parallel.parameter_server.serving import Small


def book_of(slice_bytes=1 << 20, servers=1):
    model = Small()
    shard = shards_of(model, servers, slice_bytes)[0]
    store = Store(shard, model, lambda named: Adam(named, lr=0.1))
    return Book(range(3), store, ASYNC)


def lived():
    book = book_of()
    book.store.update({0: np.ones((3, 4))}, 0.1)
    book.store.update({0: np.ones((3, 4)), 1: np.ones(5)}, 0.1)
    book.clocks, book.numbers = {0: 4, 2: 7}, {0: 4, 1: 3, 2: 9}
    book.report.note(Record(0, 1, 2, 3))
    book.report.note(Record(2, 1, 0, 5))
    book.report.lost_pushes, book.report.skipped = {1: 2}, 6
    return book


def test_all_comes_back(tmp_path):
    old, new = lived(), book_of()
    assert not snapshot.load(tmp_path, new)
    snapshot.save(tmp_path, old)
    assert snapshot.load(tmp_path, new)
    assert (new.clocks, new.numbers) == (old.clocks, old.numbers)
    assert new.report == old.report
    assert new.report.records == [(0, 1, 2, 3), (2, 1, 0, 5)]
    assert new.store.updates == 2
    assert new.store.versions.tolist() == [2, 1, 0]
    for a, b in zip(old.store.tensors, new.store.tensors):
        assert (a.data == b.data).all()
    mine, theirs = new.store.optimizer.state_dict(), old.store.optimizer.state_dict()
    assert all((mine[name] == a).all() for name, a in theirs.items())


def test_there_is_one_and_it_is_the_last(tmp_path):
    book = lived()
    snapshot.save(tmp_path, book)
    book.store.update({1: np.ones(5)}, 0.1)
    snapshot.save(tmp_path, book)
    snapshot.save(tmp_path, book)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000003"]


def test_that_of_other_keys_is_refused(tmp_path):
    snapshot.save(tmp_path, lived())
    with pytest.raises(CheckpointError, match="has other keys than this server"):
        snapshot.load(tmp_path, book_of(16, 2))
