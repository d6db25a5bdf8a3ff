"""Keys are spread by size, and every process finds the same."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import minipar
from minipar.models import GPT, WideDeep
from minipar.nn import Module
from minipar.parallel.parameter_server.keys import shards_of, table_names
from minipar.random import Init
from minipar.tensor import Tensor


class Sized(Module):
    """A vector of so many numbers of float64 for each size."""

    def __init__(self, *sizes):
        self.parts = [Tensor(np.zeros(n), requires_grad=True) for n in sizes]


def names(model, servers, slice_bytes=1 << 20):
    return [[key.name for key in shard.keys] for shard in shards_of(model, servers, slice_bytes)]


def test_the_largest_first_each_to_the_server_with_least():
    assert names(Sized(1, 9, 5, 4), 2) == [["parts.0", "parts.1"], ["parts.2", "parts.3"]]


def test_what_is_large_is_cut_by_rows_into_one_slice_for_each_server():
    shards = shards_of(Sized(10, 2), 3, slice_bytes=72)
    found = [(key.name, key.shape) for shard in shards for key in shard.keys]
    assert found == [
        *(("parts.0[0:4]", (4,)), ("parts.0[4:7]", (3,)), ("parts.1", (2,))),
        ("parts.0[7:10]", (3,)),
    ]


@pytest.mark.parametrize("servers", [1, 2, 3, 5])
@pytest.mark.parametrize("slice_bytes", [1, 1000, 1 << 20])
def test_each_row_has_one_place(servers, slice_bytes):
    model = WideDeep(Init(), (50, 30), 3)
    rows = {name: np.zeros(len(x), int) for name, x in model.named_parameters()}
    for shard in shards_of(model, servers, slice_bytes):
        for key in shard.keys:
            assert key.of(dict(model.named_parameters())[key.parameter].data).shape == key.shape
            rows[key.parameter][key.start : key.stop] += 1
    assert all((n == 1).all() for n in rows.values())


def test_servers_have_nearly_equal_loads():
    loads = [shard.nbytes for shard in shards_of(GPT(Init()), 4)]
    assert max(loads) < 1.05 * min(loads)


def test_frozen_parameters_are_nobodys_key():
    model = Sized(3, 4)
    model.parts[0].requires_grad = False
    assert names(model, 1) == [["parts.1"]]


def test_tables_are_those_whose_gradients_are_rows():
    assert table_names(WideDeep(Init(), (5, 3), 3)) == {"wide.weight", "deep.weight"}
    assert table_names(WideDeep(Init(), (5, 3), 3, sparse=False)) == set()


def test_small_keys_share_a_message_large_ones_have_their_own():
    (shard,) = shards_of(Sized(3, 10_000, 4), 1)
    assert [[shard.keys[i].name for i in bundle] for bundle in shard.bundles] == [
        ["parts.1"],
        ["parts.0", "parts.2"],
    ]


def test_another_process_with_another_hash_seed_finds_the_same():
    code = (
        "from minipar.models import GPT; from minipar.random import Init;"
        "from minipar.parallel.parameter_server.keys import shards_of;"
        "print([shard.checksum for shard in shards_of(GPT(Init()), 3, 1000)])"
    )
    here = [shard.checksum for shard in shards_of(GPT(Init()), 3, 1000)]
    env = {"PYTHONHASHSEED": "77", "PYTHONPATH": str(Path(minipar.__file__).parent.parent)}
    said = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert said.stdout.strip() == str(here)
