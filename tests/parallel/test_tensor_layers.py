"""Each layer equals its plain twin: outputs, input gradients, weight gradients, bytes, memory."""

from types import FunctionType

import numpy as np
import pytest

import minipar
from minipar import cost
from minipar.errors import ShapeMismatch, UsageError
from minipar.events import EVERYBODY, last, recording
from minipar.graph import Node
from minipar.models import GPT, MLP, ViT
from minipar.nn import ONE_RANK, Embedding, GroupedSelfAttention, Linear, SelfAttention
from minipar.nn.transformer import Block
from minipar.ops import cross_entropy
from minipar.optim import AdamW
from minipar.parallel.sharding import Replicated, sharding, sum_gradients, whole_state
from minipar.parallel.shards import Shards
from minipar.parallel.tensor_layers import (
    ColumnLinear,
    RowLinear,
    TensorKit,
    VocabParallelEmbedding,
)
from minipar.parallel.tensor_parallel import own_positions
from minipar.parallel.tensor_strategy import TensorParallel
from minipar.random import Draw, Init, normal
from minipar.tensor import Tensor

B, T = 2, 24
SIZES = ((24, 24), (24, 48), (48, 24))  # square, and not
RANKS = (1, 2, 3, 4, 8)
INIT = Init(0, np.float64)


def given(*shape):
    return normal(5, "given", shape)


def fill(model):
    """Weights of one rank that are all different, the biases too."""
    state = {name: normal(2, name, x.shape) for name, x in model.named_parameters()}
    model.load_state_dict(state)
    return state


def load(model, state, group):
    for name, x in model.named_parameters():
        how = sharding(model)[name]
        part = state[name]
        x.data[...] = part if isinstance(how, Replicated) else how.cut(part, group.rank, group.size)


def complete(model, group):
    """The gradients of one rank."""
    named, table = list(model.named_parameters()), sharding(model)
    sum_gradients(named, table, group)
    return whole_state({name: x.grad for name, x in named}, table, group)


def compare(p, work, plain):
    """work(group) -> arrays by name, on every rank; plain: the right ones."""
    for found in minipar.run(work, p):
        assert found.keys() == plain.keys()
        for name, wanted in plain.items():
            assert found[name].shape == wanted.shape, name
            np.testing.assert_allclose(found[name], wanted, rtol=0, atol=1e-10, err_msg=name)


@pytest.mark.parametrize("p", RANKS)
@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize(("i", "o"), SIZES)
def test_column_linear(p, sequence, i, o):
    x, dz = given(B, T, i), given(B, T, o)
    w, b = normal(2, "weight", (i, o)), normal(2, "bias", (o,))
    rows = x.reshape(-1, i)
    plain = {"z": x @ w + b, "dx": dz @ w.T}
    plain |= {"weight": rows.T @ dz.reshape(-1, o), "bias": dz.sum(axis=(0, 1))}

    def work(group):
        layer = ColumnLinear(INIT, i, o, Shards(group, sequence), gather=True)
        load(layer, {"weight": w, "bias": b}, group)
        leaf = Tensor(x, requires_grad=True)
        here = own_positions(leaf, group) if sequence else leaf
        z = layer(here)
        z.backward(dz)
        dx = group.all_reduce(leaf.grad) if sequence else leaf.grad
        return {"z": z.data, "dx": dx, **complete(layer, group)}

    compare(p, work, plain)


@pytest.mark.parametrize("p", RANKS)
@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize(("i", "o"), SIZES)
def test_row_linear(p, sequence, i, o):
    x, dz = given(B, T, i), given(B, T, o)
    w, b = normal(2, "weight", (i, o)), normal(2, "bias", (o,))
    rows = x.reshape(-1, i)
    plain = {"z": x @ w + b, "dx": dz @ w.T}
    plain |= {"weight": rows.T @ dz.reshape(-1, o), "bias": dz.sum(axis=(0, 1))}

    def work(group):
        layer, k = RowLinear(INIT, i, o, Shards(group, sequence)), i // group.size
        load(layer, {"weight": w, "bias": b}, group)
        mine = slice(group.rank * k, (group.rank + 1) * k)
        leaf = Tensor(x[..., mine].copy(), requires_grad=True)
        z = layer(leaf)
        z.backward(own_positions(Tensor(dz), group) if sequence else dz)
        whole = z.data
        if sequence:
            whole = np.concatenate(list(group.all_gather(z.data)), axis=1)
        dx = np.concatenate(list(group.all_gather(leaf.grad)), axis=-1)
        return {"z": whole, "dx": dx, **complete(layer, group)}

    compare(p, work, plain)


@pytest.mark.parametrize("p", RANKS)
@pytest.mark.parametrize("sequence", [False, True])
def test_embedding_and_tied_logits(p, sequence):
    ids, n, d = np.random.default_rng(0).integers(0, 17, size=(B, T)), 17, 6
    one = Embedding(INIT, n, d)
    state = fill(one)
    logits = one.logits(one(ids))
    dz = given(*logits.shape)
    logits.backward(dz)

    def work(group):
        kit = TensorKit(group, sequence)
        layer = VocabParallelEmbedding(INIT, n, d, kit.shards)
        load(layer, state, group)
        z = layer.logits(layer(ids))
        whole = kit.output(n).whole(z)
        whole.backward(dz)
        return {"logits": whole.data, **complete(layer, group)}

    compare(p, work, {"logits": logits.data, "weight": one.weight.grad})


def attention_of(groups, causal):
    def build(kit):
        if groups is None:
            return SelfAttention(INIT, 24, 24, causal=causal, kit=kit)
        return GroupedSelfAttention(INIT, 24, 8, groups, causal, kit)

    return build


def check_part(p, build, sequence, d=24, **options):
    """A part of a model between f and g, [b, t, d] -> [b, t, d]: all gradients."""
    x, dz = given(B, T, d), given(B, T, d)
    one = build(ONE_RANK)
    state = fill(one)
    leaf = Tensor(x, requires_grad=True)
    z = one(leaf, **options)
    z.backward(dz)
    plain = {"z": z.data, "dx": leaf.grad, **{n: w.grad for n, w in one.named_parameters()}}

    def work(group):
        part = build(TensorKit(group, sequence))
        load(part, state, group)
        leaf = Tensor(x, requires_grad=True)
        z = part(own_positions(leaf, group) if sequence else leaf, **options)
        z.backward(own_positions(Tensor(dz), group) if sequence else dz)
        whole, dx = z.data, leaf.grad
        if sequence:
            whole = np.concatenate(list(group.all_gather(z.data)), axis=1)
            dx = group.all_reduce(leaf.grad)
        return {"z": whole, "dx": dx, **complete(part, group)}

    compare(p, work, plain)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("p", [2, 3, 8])
def test_attention_by_heads(p, causal):
    check_part(p, attention_of(None, causal), sequence=False)


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize(("p", "groups"), [(2, 4), (2, 2), (4, 2), (8, 1), (8, 2)])
def test_grouped_attention_also_with_fewer_key_heads_than_ranks(p, groups, sequence):
    check_part(p, attention_of(groups, causal=True), sequence)


@pytest.mark.parametrize("sequence", [False, True])
def test_a_block_with_dropout(sequence):
    def build(kit):
        return Block(INIT, 24, 24, 0.3, 0.1, True, kit)

    check_part(3, build, sequence, draw=Draw(0, 1, range(4, 4 + B)))


@pytest.mark.parametrize("sequence", [False, True])
@pytest.mark.parametrize("p", [2, 4])
def test_vit(p, sequence):
    sizes = {"image": (8, 8, 1), "patch": 2, "layers": 1, "d": 24, "heads": 24, "dropout": 0.2}
    x, y = given(B, 8, 8, 1), np.array([3, 1])
    one = ViT(INIT, **sizes)
    state = fill(one)
    leaf = Tensor(x, requires_grad=True)
    logits = one(leaf, Draw(0, 0, range(B)))
    cross_entropy(logits, y).backward()
    plain = {"z": logits.data, "dx": leaf.grad, **{n: w.grad for n, w in one.named_parameters()}}

    def work(group):
        model = ViT(INIT, **sizes, kit=TensorKit(group, sequence))
        load(model, state, group)
        leaf = Tensor(x, requires_grad=True)
        logits = model(leaf, Draw(0, 0, range(B)))
        model.output.loss(logits, y).backward()
        return {"z": logits.data, "dx": leaf.grad, **complete(model, group)}

    compare(p, work, plain)


# -- what is sent, and what is kept -------------------------------------------------------------


LONG = 720  # positions, so that x is large for `choose`


def a_pair(group, sequence):
    shards = Shards(group, sequence)
    up, down = ColumnLinear(INIT / 0, 24, 48, shards), RowLinear(INIT / 1, 48, 24, shards)
    leaf = Tensor(given(B, LONG // group.size if sequence else LONG, 24), requires_grad=True)
    found = []
    with recording() as log:
        z = down(up.gelu(leaf))
        found.append([e.op for e in last() if e.peer == EVERYBODY])
        z.backward(np.ones(z.shape))
        found.append([e.op for e in last() if e.peer == EVERYBODY][len(found[0]) :])
    return *found, sum(e.nbytes for e in log)


@pytest.mark.parametrize("p", [2, 3, 4])
def test_a_pair_sends_once_in_each_direction_and_the_bytes_of_the_formula(p):
    n = B * LONG * 24 * 8
    plain = minipar.run(a_pair, p, args=(False,))
    assert all(found[:2] == (["all_reduce"], ["all_reduce"]) for found in plain)
    positions = minipar.run(a_pair, p, args=(True,))
    both = ["all_gather", "reduce_scatter"]
    assert all(found[:2] == (both, both) for found in positions)
    for runs in (plain, positions):
        assert sum(sent for _, _, sent in runs) / p == cost.tensor_pair_sent(p, n)


def nodes_of(z):
    stack, seen = [z._node], {}
    while stack:
        node = stack.pop()
        if isinstance(node, Node) and id(node) not in seen:
            seen[id(node)] = node
            stack += node.parents
    return seen.values()


def kept_by(z, ops):
    """Bytes that the vjps of these ops keep: rows of the batch, not weights."""
    arrays = {}
    for node in nodes_of(z):
        if str(node).split(" ")[0] in ops:
            for value in captured(node.vjp):
                if value.ndim > 1:
                    arrays[id(value)] = value.nbytes
    return sum(arrays.values())


def captured(function):
    """The arrays in the closure of a function, and of functions in it."""
    for cell in function.__closure__ or ():
        value = cell.cell_contents
        if isinstance(value, FunctionType):
            yield from captured(value)
        if isinstance(value, Tensor):
            value = value.data
        if isinstance(value, np.ndarray):
            yield value


def kept_between(group, sequence):
    block = Block(INIT, 24, 24, 0.3, 0.1, True, TensorKit(group, sequence))
    x = Tensor(given(B, T // group.size if sequence else T, 24), requires_grad=True)
    z = block(x, Draw(0, 0, range(B)))
    return [kept_by(z, ops) for ops in (("layer_norm",), ("dropout",), ("linear", "linear_gelu"))]


@pytest.mark.parametrize("p", [2, 4])
def test_norms_and_dropout_keep_a_part_of_the_positions(p):
    (norm, mask, linear) = minipar.run(kept_between, p, args=(False,))[0]
    assert norm > 0 and mask == 2 * B * T * 24
    for norm_part, mask_part, linear_part in minipar.run(kept_between, p, args=(True,)):
        assert (norm_part * p, mask_part * p) == (norm, mask)
        assert linear_part == linear


# -- what does not fit --------------------------------------------------------------------------


def built(group, what):
    kit = TensorKit(group, sequence=what == "positions")
    if what == "outputs":
        kit.column(INIT / "up", 6, 8)
    if what == "inputs":
        kit.row(INIT / "down", 8, 6)
    if what == "heads":
        SelfAttention(INIT / "attention", 12, 4, kit=kit)
    if what == "groups":
        GroupedSelfAttention(INIT, 12, 12, 4, kit=kit)
    if what == "positions":
        kit.column(INIT, 6, 6)(Tensor(np.ones((2, 4, 6))))
        kit.row(INIT, 6, 6)(Tensor(np.ones((2, 8, 2))))
    if what == "mlp":
        MLP(INIT, kit=TensorKit(group, sequence=True))


MESSAGES = {
    "outputs": "up: 8 outputs cannot be shared out evenly among 3 ranks",
    "inputs": "down: 8 inputs cannot be shared",
    "heads": "attention.qkv: 4 heads cannot be shared",
    "groups": "4 heads of keys and 3 ranks: one number must divide the other",
    "mlp": "MLP: its layers see several positions",
}


@pytest.mark.parametrize("what", MESSAGES)
def test_sizes_that_cannot_be_shared_out_are_refused(what):
    with pytest.raises(UsageError, match=MESSAGES[what]):
        minipar.run(built, 3, args=(what,))


def test_positions_that_cannot_be_shared_out_are_refused():
    with pytest.raises(ShapeMismatch, match=r"its positions .* shared out evenly among 3 ranks"):
        minipar.run(built, 3, args=("positions",))


def test_ids_that_are_not_in_the_vocabulary_are_named():
    def work(group):
        TensorKit(group).table(INIT, 17, 4)(np.array([[17]]))  # there is padding for it

    with pytest.raises(ShapeMismatch, match="ids run from 17 to 17, the table has 17 rows"):
        minipar.run(work, 2)


def test_a_plain_kit_gives_plain_layers():
    assert type(ONE_RANK.column(INIT, 2, 3)) is Linear
    assert type(ONE_RANK.table(INIT, 2, 3)) is Embedding


def a_step(group, sequence):
    kit = TensorKit(group, sequence)
    model = GPT(Init(0), 96, LONG, 2, 48, 4, kit=kit)  # float32
    strategy = TensorParallel(model, group, AdamW)
    ids = np.zeros((B, LONG), np.int64)
    with recording() as log:
        model.output.loss(model(ids), ids).backward()
        strategy.sync_gradients()
    return sum(e.nbytes for e in log)


@pytest.mark.parametrize("p", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_a_step_of_a_gpt_sends_the_bytes_of_the_formula(p):
    n, m = B * LONG * 48 * 4, B * LONG * 4
    summed = 4 * (LONG * 48 + 2 * (4 + 2) * 48 + 2 * 48)  # positions, norms and row biases
    plain, positions = (sum(minipar.run(a_step, p, args=(s,))) / p for s in (False, True))
    assert plain == cost.tensor_gpt_sent(p, n, m, layers=2)
    assert positions == cost.sequence_gpt_sent(p, n, m, 2, summed)
