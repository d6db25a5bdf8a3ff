"""The table: small arrays by rounds, large ones by bytes, and only what exists."""

import pytest

from minipar import cost
from minipar.comm.algorithms import ALGORITHMS, pick
from minipar.comm.choose import MESSAGES, SMALL_BYTES, TABLES, choose

SIZES = (0, SMALL_BYTES, SMALL_BYTES + 1, 1 << 30)


def test_every_collective_is_in_the_table_and_every_choice_exists():
    assert all(set(table) == set(ALGORITHMS) for table in (MESSAGES, *TABLES.values()))
    for op in ALGORITHMS:
        for p in range(1, 18):
            for nbytes in SIZES:
                for backend in ("local", "process", "hosts", "mpi"):
                    assert pick(op, None, nbytes, p, backend)[0] in ALGORITHMS[op]
                if op != "barrier":  # which moves no array of a GPU
                    name, _ = pick(op, None, nbytes, p, "nccl")
                    assert name == ("tree" if op == "scatter" else "native")


@pytest.mark.parametrize(
    ("op", "nbytes", "backend", "name"),
    [
        ("all_reduce", 8, "process", "flat"),
        ("all_reduce", SMALL_BYTES + 1, "process", "direct"),
        ("all_reduce", 8, "hosts", "tree"),
        ("all_reduce", SMALL_BYTES, "local", "tree"),
        ("all_reduce", SMALL_BYTES + 1, "local", "ring"),
        ("broadcast", 1 << 30, "process", "direct"),
        ("broadcast", 1 << 30, "local", "tree"),
        ("broadcast", 1 << 30, "mpi", "ring"),
        ("scatter", 0, "process", "tree"),
    ],
)
def test_choices(op, nbytes, backend, name):
    assert choose(op, nbytes, 4, backend) == name


@pytest.mark.parametrize("p", [4, 6, 7, 8, 16, 64])
def test_small_choices_have_the_fewest_rounds_of_all(p):
    for op in ("all_reduce", "all_gather", "reduce_scatter", "broadcast", "reduce"):
        names = set(ALGORITHMS[op]) - {"direct", "flat"}  # meant for memory, not for messages
        rounds = {name: cost.of(op, name, p, 1).messages for name in names}
        assert rounds[choose(op, 1, p, "mpi")] == min(rounds.values()), (op, rounds)


@pytest.mark.parametrize("p", [3, 4, 5, 8, 64])
def test_large_choices_send_the_fewest_bytes_of_all(p):
    for op in ALGORITHMS:
        if op != "barrier":
            sent = {name: cost.of(op, name, p, 1).sent for name in ALGORITHMS[op]}
            assert sent[choose(op, 1 << 30, p, "mpi")] == pytest.approx(min(sent.values())), op
