import numpy as np
import pytest

from minipar.errors import UsageError
from minipar.models import GPT, MLP, generate
from minipar.models.generate import chance, choose
from minipar.random import Init
from minipar.tensor import Tensor


@pytest.mark.parametrize("model", [GPT(Init(), block=8, layers=1, d=8, heads=2), MLP(Init(), d=4)])
def test_the_seed_decides(model):
    text = generate(model, b"def ", 30, seed=1)
    assert text == generate(model, b"def ", 30, seed=1) != generate(model, b"def ", 30, seed=2)
    assert text.startswith(b"def ") and len(text) == 34
    assert generate(model, b"def ", 10, seed=1) == text[:14]


def test_a_text_given_back_as_a_prompt_goes_on_as_it_would_have():
    model = GPT(Init(), block=8, layers=1, d=8, heads=2)
    text = generate(model, b"def ", 20, seed=1)
    assert generate(model, text[:11], 13, seed=1) == text


def test_chance_belongs_to_a_place_and_a_seed():
    drawn = [chance(seed, n) for seed in range(4) for n in range(500)]
    assert len(set(drawn)) == 2000 and 0 <= min(drawn) < max(drawn) < 1
    assert abs(np.mean(drawn) - 0.5) < 0.03


class Next:
    """Sure that the next byte is one more, and sees two bytes at most."""

    block = 2

    def __call__(self, idx):
        assert idx.shape[1] <= 2
        return Tensor(np.eye(256)[(idx + 1) % 256] * 50)


def test_a_sure_model_is_followed():
    for options in ({}, {"temperature": 0}, {"top_k": 1, "temperature": 9.0}):
        assert generate(Next(), b"abc", 4, **options) == b"abcdefg"


def test_choices_have_their_probabilities():
    logits = np.log([0.1, 0.6, 0.3])
    u = (np.arange(1000) + 0.5) / 1000

    def shares(**options):
        picks = [choose(logits, v, **{"temperature": 1.0, "top_k": None, **options}) for v in u]
        return np.bincount(picks, minlength=3) / 1000

    np.testing.assert_allclose(shares(), [0.1, 0.6, 0.3], atol=0.002)
    np.testing.assert_allclose(shares(top_k=2), [0, 2 / 3, 1 / 3], atol=0.002)
    squares = np.array([0.01, 0.36, 0.09])
    np.testing.assert_allclose(shares(temperature=0.5), squares / squares.sum(), atol=0.002)
    assert shares(temperature=0).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    "options", [{"prompt": b""}, {"temperature": -1}, {"temperature": np.nan}, {"top_k": 0}]
)
def test_misuse_gets_a_sentence(options):
    with pytest.raises(UsageError, match="generate"):
        generate(Next(), **{"prompt": b"a", "count": 1, **options})
