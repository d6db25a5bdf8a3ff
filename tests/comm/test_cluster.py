"""A declared cluster: what its numbers mean, and which it refuses. Its clock: test_virtual."""

import sys

import numpy as np
import pytest

import minipar
from minipar import Cluster
from minipar.errors import UsageError


def test_times_are_whole_nanoseconds():
    cluster = Cluster(alpha_s=5e-6, beta_s_per_byte=1 / 10e9, gamma_s_per_byte=1 / 20e9)
    assert cluster == Cluster()
    assert [cluster.message_ns(0, 1, n) for n in (0, 4, 6, 10**6)] == [5000, 5000, 5001, 105_000]
    assert cluster.adding_ns(0, 10**6) == 50_000
    assert cluster.computing_ns(0, 0.1) == 10**8


def test_a_slow_rank_takes_longer_to_compute_and_to_add_but_not_to_send():
    cluster = Cluster(1e-6, 1e-9, 1e-9, slow={1: 2.5})
    assert cluster.computing_ns(1, 1e-6) == 2500
    assert cluster.adding_ns(1, 1000) == 2500
    assert cluster.message_ns(1, 0, 1000) == 2000


def test_links_between_nodes_have_numbers_of_their_own():
    cluster = Cluster(1e-6, 1e-9, per_node=2, between=(9e-6, 4e-9))
    assert [cluster.message_ns(2, dst, 1000) for dst in range(6)] == [13_000] * 2 + [2000] * 2 + [
        13_000
    ] * 2
    assert Cluster(1e-6, 1e-9, per_node=2).message_ns(0, 5, 1000) == 2000


def test_a_pair_has_a_link_of_its_own_both_ways_and_nobody_else():
    even = Cluster(1e-6, 1e-9, per_node=2, between=(9e-6, 4e-9))
    odd = Cluster(1e-6, 1e-9, per_node=2, between=(9e-6, 4e-9), pairs={(2, 1): [5e-6, 2e-9]})
    links = [(src, dst) for src in range(5) for dst in range(5) if src != dst]
    for link in links:
        expected = 7000 if set(link) == {1, 2} else even.message_ns(*link, 1000)
        assert odd.message_ns(*link, 1000) == expected


def test_it_cannot_be_changed_and_can_be_compared():
    slow = {1: 2.0}
    cluster = Cluster(slow=slow)
    slow[1] = 3.0
    assert cluster == Cluster(slow={1: 2.0}) != Cluster(slow=slow)
    with pytest.raises(AttributeError):
        cluster.alpha_s = 1.0
    with pytest.raises(TypeError):
        cluster.slow[1] = 1.0


@pytest.mark.parametrize(
    ("use", "says"),
    [
        (lambda: Cluster(alpha_s=-1), "alpha_s is finite and not negative, not -1"),
        (lambda: Cluster(slow={0: float("nan")}), "slow, rank 0, is finite and not negative"),
        (lambda: Cluster(between=(1.0, float("inf"))), "finite and not negative"),
        (lambda: minipar.run(print, 2, cluster=Cluster(slow={2: 3})), "there are ranks 0 to 1"),
        (lambda: minipar.run(print, 2, cluster=Cluster(lost={2: 3})), "lost, .*, names rank 2"),
        (
            lambda: minipar.run(print, 2, cluster=Cluster(pairs={(0, 3): (0, 0)})),
            "pairs, of the cluster, names rank 3, but there are ranks 0 to 1",
        ),
        (lambda: Cluster(pairs={(1, 1): (0, 0)}), r"between two ranks, and \(1, 1\) is no two"),
        (lambda: Cluster(pairs={"01": (0, 0)}), "between two ranks, and '01' is no two"),
        (lambda: Cluster(pairs={(0, "1"): (0, 0)}), "is no two"),
        (lambda: Cluster(pairs={(0, 1): (0, 0), (1, 0): (0, 0)}), "ranks 0 and 1 twice"),
        (lambda: Cluster(lost={0: 1e-10}), "lost, rank 0, is a moment after the begin, not 1e-10"),
        (
            lambda: minipar.run(np.zeros, 2, backend="process", cluster=Cluster()),
            "virtual time exists on local only",
        ),
        (lambda: minipar.run(lambda g: g.spend(-1.0), 1), "spend takes seconds"),
    ],
)
def test_wrong_use_is_one_sentence(use, says):
    with pytest.raises(UsageError, match=says):
        use()


FILE = """
alpha_s = 20e-6
beta_s_per_byte = 2e-10
per_node = 4
between = [50e-6, 1e-9]

[slow]
1 = 5.0

[pairs]
5-2 = [1e-3, 0]

[lost]
3 = 0.01
"""


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no tomllib")
def test_a_file_says_the_same_as_the_arguments(tmp_path):
    (tmp_path / "cluster.toml").write_text(FILE)
    found = Cluster.from_file(tmp_path / "cluster.toml")
    assert found == Cluster(
        *(20e-6, 2e-10),
        slow={1: 5.0},
        per_node=4,
        between=(50e-6, 1e-9),
        pairs={(2, 5): (1e-3, 0)},
        lost={3: 0.01},
    )


@pytest.mark.skipif(sys.version_info < (3, 11), reason="no tomllib")
@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("alpha_s = ", "is no cluster file: Invalid value .*; it is in TOML"),
        ("alpha_s = 1\nalpha_s = 2", "is no cluster file: Cannot overwrite a value"),
        ("latency = 3", "a cluster has alpha_s, .*; not latency"),
        ("between = [1.0]", "between is .alpha_s, beta_s_per_byte. from node to node, not .1.0."),
        ("between = 3", "between is .alpha_s, beta_s_per_byte. from node to node, not 3"),
        ('between = ["a", 2]', "between is a number, not 'a'"),
        ("slow = 3", "slow is a table of ranks and factors, not 3"),
        ("alpha_s = -1.0", "alpha_s is finite and not negative, not -1.0"),
        ("beta_s_per_byte = nan", "beta_s_per_byte is finite and not negative, not nan"),
        ('alpha_s = "fast"', "alpha_s is a number, not 'fast'"),
        ("alpha_s = true", "alpha_s is a number, not True"),
        ("per_node = 2.5", "per_node is a whole number of ranks, not 2.5"),
        ("[slow]\none = 2", "'one' is no rank"),
        ("[slow]\n-1 = 2", "'-1' is no rank"),
        ("lost = 3", "lost is a table of ranks and moments, not 3"),
        ("[lost]\n1-2 = 3", "lost is a table of ranks, .* '1-2' is no rank"),
        ("[lost]\n1 = 0", "lost, rank 1, is a moment after the begin, not 0"),
        ("[lost]\n1 = inf", "lost, rank 1, is finite and not negative, not inf"),
        ("pairs = 3", "pairs is a table of pairs of ranks and their links, not 3"),
        ("[pairs]\n1 = [1, 2]", "pairs is a table of links, .* '1' is no pair"),
        ("[pairs]\n1-2 = 3", "pairs, 1-2, is .alpha_s, beta_s_per_byte. both ways, not 3"),
        ("[pairs]\n1-2 = [0, -1]", "pairs, 1-2, is finite and not negative, not -1"),
        ("[slow]\n1 = -2.0", "slow, rank 1, is finite and not negative, not -2.0"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path, text, says):
    (tmp_path / "cluster.toml").write_text(text)
    with pytest.raises(UsageError, match=says):
        Cluster.from_file(tmp_path / "cluster.toml")
    with pytest.raises(UsageError, match="is no cluster file"):
        Cluster.from_file(tmp_path / "nothing.toml")
