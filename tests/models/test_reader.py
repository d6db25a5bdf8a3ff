from functools import partial

import numpy as np
import pytest

from minipar.errors import ShapeMismatch, UsageError
from minipar.models import GPT, Reader, generate, write
from minipar.models.generate import chance, choose
from minipar.models.reader import window
from minipar.random import Init, normal
from minipar.tensor import no_grad
from minipar.testing.flops import counting_products

BLOCK, LAYERS, D = 12, 2, 24


def gpt(block=BLOCK):
    """With weights large enough that what it expects depends on the text."""
    model = GPT(Init(0, np.float64), block=block, layers=LAYERS, d=D, heads=4)
    for name, x in model.named_parameters():
        x.data += 0.2 * normal(1, name, x.shape)
    return model


@pytest.mark.parametrize("prompt", [1, 5, BLOCK])
def test_cached_logits_are_those_without_a_cache_at_every_position(prompt):
    model = gpt()
    reader, idx = Reader(model, b=2), np.random.default_rng(0).integers(0, 256, (2, BLOCK))
    with no_grad():
        whole = model(idx).data
    for start, stop in [(0, prompt), *((n, n + 1) for n in range(prompt, BLOCK))]:
        logits = reader.read(idx[:, start:stop]).data
        np.testing.assert_allclose(logits[:, 0], whole[:, stop - 1], rtol=1e-12, atol=1e-12)
    assert reader.length == BLOCK
    with pytest.raises(ShapeMismatch, match="13 positions"):
        reader.read(idx[:, :1])


@pytest.mark.parametrize("options", [{}, {"temperature": 0}, {"temperature": 1.5, "top_k": 7}])
def test_within_a_block_it_writes_what_is_written_without_a_cache(options):
    model = gpt()
    text = bytes(write(Reader(model), b"def", 9, seed=3, **options))
    assert b"def" + text == generate(model, b"def", 9, seed=3, **options)


def test_beyond_a_block_it_sees_the_window():
    """The definition: the model called on each window, with nothing remembered."""
    model, text = gpt(), list(b"a prompt that is longer than the block")
    begun = len(text)
    written = list(write(Reader(model), bytes(text), 30, seed=5))
    with no_grad():
        for token in written:
            n = len(text)
            logits = model(np.array([text[window(n, BLOCK) :]])).data[0, -1]
            text.append(choose(logits, chance(5, n), 1.0, None))
            assert text[-1] == token
    assert len(text) == begun + 30


def test_windows_fit_the_block_and_are_never_nearly_empty():
    for block in (1, 2, 5, 12):
        for n in range(1, 5 * block):
            kept = n - window(n, block)
            assert 1 <= kept <= block
            assert kept == n if n <= block else kept > block - max(1, block // 2)


def test_the_cost_of_a_token_does_not_grow_with_the_text():
    """Products with weights: one row a token. Only the scores grow, 2·d a position and layer."""
    model, costs = gpt(block=64), []
    with counting_products(model) as counter:
        reader = Reader(model)
        for n in range(64):
            before = counter[0]
            reader.read(np.array([[n]]))
            costs.append(counter[0] - before)
    weights = LAYERS * 12 * D * D + 256 * D
    assert costs == [weights + LAYERS * 2 * D * (n + 1) for n in range(64)]


def test_without_a_cache_it_does():
    model = gpt(block=64)
    with counting_products(model) as counter, no_grad():
        model(np.zeros((1, 1), int))
        one = counter[0]
        model(np.zeros((1, 64), int))
    assert counter[0] - one > 60 * one


def test_a_token_that_the_model_does_not_know_is_refused():
    with pytest.raises(ShapeMismatch, match="the table has 256 rows"):
        list(write(Reader(gpt()), [1, 300], 1))


def test_pieces_in_two_readers_are_the_model():
    model, idx = gpt(), np.array([[1, 2, 3]])
    front, back = Reader(model, 0, 2), Reader(model, 2)
    logits = back.read(front.read(idx)).data
    np.testing.assert_array_equal(logits, Reader(model).read(idx).data)
    assert front.nbytes == back.nbytes == Reader(model).nbytes / 2


def test_a_text_is_forgotten_before_the_next():
    reader = Reader(gpt())
    once = list(write(reader, b"abc", 20))
    assert list(write(reader, b"abc", 20)) == once


@pytest.mark.parametrize("options", [{"prompt": b""}, {"temperature": -1}, {"top_k": 0}])
def test_misuse_gets_a_sentence(options):
    call = partial(write, Reader(gpt()), **{"prompt": b"a", "count": 1, **options})
    with pytest.raises(UsageError, match="generate"):
        list(call())
