from functools import partial

import numpy as np
import pytest

import minipar
from minipar.errors import ShapeMismatch, UsageError
from minipar.models import GPT, Reader, generate, write
from minipar.nn import ONE_RANK
from minipar.parallel.generation import StageReader
from minipar.parallel.mesh import Mesh
from minipar.parallel.parameter_server.tables import Hollow
from minipar.parallel.tensor_layers import TensorKit
from minipar.random import Init, normal

SIZES = {"vocab": 250, "block": 16, "layers": 2, "d": 24, "heads": 12}
PROMPT, COUNT = b"abc", 40  # beyond the block


def weights():
    state = GPT(Init(0, np.float64), **SIZES).state_dict()
    return {name: a + 0.3 * normal(1, name, a.shape) for name, a in state.items()}


def one_rank():
    model = GPT(Init(0, np.float64), **SIZES)
    model.load_state_dict(weights())
    return model


def reader_of(group, pp, tp, state=None):
    mesh = Mesh(group, pp=pp, tp=tp)
    kit = TensorKit(mesh.tp) if tp > 1 else ONE_RANK
    model = GPT(Hollow(0, np.float64), **SIZES, kit=kit)
    return StageReader(model, mesh, weights() if state is None else state)


def work(group, pp, tp, options):
    reader = reader_of(group, pp, tp)
    return list(write(reader, PROMPT, COUNT, **options)), reader.nbytes


@pytest.mark.parametrize(
    "pp, tp, options",
    [
        *((pp, tp, {"seed": 3}) for pp, tp in [(1, 1), (2, 1), (4, 1), (1, 2), (1, 3), (3, 2)]),
        *((2, 2, options) for options in [{"temperature": 0}, {"seed": 1, "top_k": 5}]),
    ],
)
def test_every_layout_writes_what_one_rank_does(pp, tp, options):
    model = one_rank()
    expected = list(write(Reader(model), PROMPT, COUNT, **options))
    within = generate(model, PROMPT, SIZES["block"] - len(PROMPT), **options)
    assert bytes(expected[: SIZES["block"] - len(PROMPT)]) == within[len(PROMPT) :]
    for found, _ in minipar.run(work, pp * tp, args=(pp, tp, options)):
        assert found == expected


def test_ranks_share_the_cache_evenly_by_heads_and_by_layers():
    whole = 2 * SIZES["layers"] * SIZES["block"] * SIZES["d"] * 8
    for pp, tp in ((1, 1), (2, 1), (1, 3), (2, 2)):
        held = [nbytes for _, nbytes in minipar.run(work, pp * tp, args=(pp, tp, {}))]
        assert held == [whole // (pp * tp)] * (pp * tp)


def held(group, pp, tp):
    model = reader_of(group, pp, tp).model
    return sum(x.data.nbytes for x in model.parameters() if any(x.data.strides))


def test_a_rank_has_memory_for_its_own_weights_only():
    whole = sum(a.nbytes for a in weights().values())
    token = weights()["token.weight"].nbytes
    assert sum(minipar.run(held, 3, args=(3, 1))) == whole + token  # on two stages, as it is tied


@pytest.mark.slow
def test_on_processes_it_is_the_same():
    expected = list(write(Reader(one_rank()), PROMPT, COUNT))
    for found, _ in minipar.run(work, 4, args=(2, 2, {}), backend="process"):
        assert found == expected


@pytest.mark.parametrize(
    "pp, tp, error, words",
    [(1, 5, UsageError, "12 heads cannot be shared out"), (5, 1, UsageError, "4 pieces")],
)
def test_a_layout_that_cannot_be_is_refused(pp, tp, error, words):
    with pytest.raises(error, match=words):
        minipar.run(work, pp * tp, args=(pp, tp, {}))


def test_weights_of_another_model_are_refused():
    state = weights()
    for changed, error, words in (
        ({n: a for n, a in state.items() if n != "norm.bias"}, UsageError, "norm.bias"),
        ({**state, "blocks.9.norm1.bias": state["norm.bias"]}, UsageError, "blocks.9"),
        ({**state, "norm.bias": np.zeros(3)}, ShapeMismatch, "norm.bias"),
    ):
        with pytest.raises(error, match=words):
            minipar.run(partial(reader_of, pp=1, tp=1, state=changed), 1)
