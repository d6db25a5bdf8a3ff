"""Who works and who serves."""

import pytest

import minipar
from minipar.errors import UsageError
from minipar.parallel.parameter_server import ASYNC, ParameterServer, Roles, serve
from tests.parallel.parameter_server.serving import Small, sgd


@pytest.mark.parametrize(("ranks", "servers"), [(2, 1), (5, 2), (4, 3)])
def test_workers_come_first_and_each_kind_has_its_group(ranks, servers):
    def work(world):
        roles = Roles(world, servers)
        own = roles.servers if roles.is_server else roles.workers
        other = roles.workers if roles.is_server else roles.servers
        return roles.worker, roles.server, own.world_ranks, own.rank, other

    workers = ranks - servers
    for rank, (worker, server, own, place, other) in enumerate(minipar.run(work, ranks)):
        serves = rank >= workers
        assert (worker, server) == ((None, rank - workers) if serves else (rank, None))
        assert list(own) == list(range(workers, ranks) if serves else range(workers))
        assert own[place] == rank and other is None


@pytest.mark.parametrize("servers", [0, 2, 3])
def test_there_must_be_some_of_both(servers):
    with pytest.raises(UsageError, match=f"{servers} of 2 ranks cannot be servers"):
        minipar.run(lambda world: Roles(world, servers), 2)


def test_who_is_started_again_has_its_part_but_no_group():
    def work(world):
        roles = Roles(world, 1) if world.rank else None
        if world.rank and not world.incarnation:
            raise RuntimeError("dies once")
        return None if roles is None else (roles.worker, roles.server, roles.workers, roles.servers)

    def alone(world):
        return work(world) if world.incarnation or world.rank else Roles(world, 1).worker

    found = minipar.run(alone, 2, on_lost="report", restarts=1)
    assert found == [0, (None, 0, None, None)]


def test_two_runs_need_roles_of_their_own():
    def work(world):
        roles = Roles(world)
        for _ in range(2):
            if roles.is_server:
                serve(roles, Small(), sgd, ASYNC)
            else:
                ParameterServer(Small(), roles, sgd).close()

    with pytest.raises(UsageError, match="these Roles have been used by another run"):
        minipar.run(work, 2)
