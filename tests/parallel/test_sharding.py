import numpy as np
import pytest

import minipar
from minipar.errors import UsageError
from minipar.models import GPT
from minipar.parallel.sharding import Replicated, Sharded, sharding
from minipar.parallel.tensor_layers import TensorKit
from minipar.random import Init


@pytest.mark.parametrize("p", [1, 2, 3, 4, 8])
@pytest.mark.parametrize(
    ("shape", "how"),
    [
        ((5, 24), Sharded(1, 24)),
        ((24, 5), Sharded(0, 24)),
        ((5, 72), Sharded(1, 72, parts=3)),
        ((72,), Sharded(0, 72, parts=3)),
        ((17, 3), Sharded(0, 17)),  # padded
        ((2, 7, 3), Sharded(1, 7)),
    ],
)
def test_pieces_make_the_whole_again_to_the_bit(shape, how, p):
    whole = np.random.default_rng(0).normal(size=shape)
    pieces = [how.cut(whole, r, p) for r in range(p)]
    assert len({piece.shape for piece in pieces}) == 1
    assert all(piece.flags.c_contiguous and piece.base is None for piece in pieces)
    assert how.whole_shape(pieces[0].shape) == shape
    joined = how.join(np.stack(pieces))
    assert joined.flags.c_contiguous and (joined == whole).all()


def test_each_part_is_cut_by_itself():
    whole = np.arange(12)  # q 0..3, k 4..7, v 8..11, of two heads
    assert Sharded(0, 12, 3).cut(whole, 1, 2).tolist() == [2, 3, 6, 7, 10, 11]
    with pytest.raises(UsageError, match="3 parts of 12 cannot be cut into 8 each"):
        Sharded(0, 12, 3).cut(whole, 1, 8)


def test_what_p_does_not_divide_is_filled_up_with_zeros():
    assert [Sharded(0, 5).cut(np.ones(5), r, 4).tolist() for r in range(4)] == [
        [1, 1],
        [1, 1],
        [1, 0],
        [0, 0],
    ]


@pytest.mark.parametrize("sequence", [False, True])
def test_the_table_of_a_gpt(sequence):
    def work(group):
        return sharding(GPT(Init(), 17, 8, 1, 8, 4, kit=TensorKit(group, sequence)))

    where = Replicated(summed=sequence)  # used at the own positions
    assert minipar.run(work, 2)[1] == {
        "token.weight": Sharded(0, 17),
        "position.weight": where,
        "blocks.0.norm1.weight": where,
        "blocks.0.norm1.bias": where,
        "blocks.0.attention.qkv.weight": Sharded(1, 24, 3),
        "blocks.0.attention.qkv.bias": Sharded(0, 24, 3),
        "blocks.0.attention.out.weight": Sharded(0, 8),
        "blocks.0.attention.out.bias": where,
        "blocks.0.norm2.weight": where,
        "blocks.0.norm2.bias": where,
        "blocks.0.mlp.up.weight": Sharded(1, 32),
        "blocks.0.mlp.up.bias": Sharded(0, 32),
        "blocks.0.mlp.down.weight": Sharded(0, 32),
        "blocks.0.mlp.down.bias": where,
        "norm.weight": where,
        "norm.bias": where,
    }


def test_a_plain_model_is_replicated():
    assert set(sharding(GPT(Init(), 17, 8, 1, 8, 4)).values()) == {Replicated()}
