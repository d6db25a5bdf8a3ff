import math

import pytest

from minipar.models import reader
from minipar.parallel import generation as parallel_generation
from minipar.testing import generation


@pytest.mark.parametrize("axis", ["tp", "pp"])
def test_right_layouts_are_near_one_rank(axis):
    error, where = generation.difference(3, "local", axis)
    assert error < 1e-12
    assert not where or "logits" in where


def test_a_reader_that_forgets_too_little_is_found(monkeypatch):
    monkeypatch.setattr(reader, "window", lambda n, block: max(0, n - block))
    assert generation.difference(2, "local") == (math.inf, "drawn: token 8 on rank 0")


def test_a_wrong_token_on_one_rank_is_found(monkeypatch):
    usual = parallel_generation.StageReader.next

    def off_by_one(self, ids, pick):
        return usual(self, ids, pick) + (self.pp.rank == 1)

    monkeypatch.setattr(parallel_generation.StageReader, "next", off_by_one)
    error, where = generation.difference(2, "local", "pp")
    assert error == math.inf and where.startswith("drawn: token")


def test_logits_of_other_weights_are_found(monkeypatch):
    usual = parallel_generation.take

    def changed(model, here, weights, tp):
        usual(model, here, weights, tp)
        model.norm.bias.data = model.norm.bias.data + 1e-7

    monkeypatch.setattr(parallel_generation, "take", changed)
    error, where = generation.difference(2, "local")
    assert 1e-8 < error < 1e-5 and "logits on rank" in where
