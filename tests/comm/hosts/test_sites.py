"""What a launcher has to do with others: on one host nothing."""

from minipar.comm.failure import Failure
from minipar.comm.hosts.neighbours import Neighbours
from minipar.comm.hosts.nodes import Nodes
from minipar.comm.hosts.sites import OneHost, SeveralHosts


def test_on_one_host_nobody_is_heard_and_everything_is_settled():
    site = OneHost(2)
    assert (site.here, site.ranks, site.sockets, site.hear()) == (range(2), 2, [], [])
    assert site.neighbours(0) is None and site.settled() and site.left() is None
    site.note_finished(0)
    site.note_all_finished()
    site.note_end(Failure(0, "why"))
    assert site.may_leave_at == 0.0
    site.started()
    site.forget_memory()
    site.tell("reported", 1, "why", True)
    assert site.hear() == [("reported", 1, "why", True)] and site.hear() == []


def test_on_several_hosts_ranks_leave_together():
    """A socket that is closed early would take back what it has not delivered."""
    known = Neighbours(range(1, 2), -1, (("h", 1),) * 2, b"")
    site = SeveralHosts(Nodes(1, (1, 1), [], known, 1))
    site.note_finished(1)
    assert site.may_leave_at == float("inf")
    site.note_all_finished()
    assert site.may_leave_at < float("inf")
    site.forget_memory()


def test_a_circle_is_looked_for_only_where_all_can_be_seen():
    known = Neighbours(range(2), -1, (("", 0),) * 2, b"")
    sites = [SeveralHosts(Nodes(node, (1, 1), [], known, 2)) for node in range(2)]
    apart = SeveralHosts(Nodes(0, (1, 1), [], known._replace(shared=range(1)), 1))
    for site in (*sites, apart):
        assert site.deadlock(()) is None
    assert [site._watch is not None for site in (*sites, apart)] == [True, False, False]
    for site in (*sites, apart):
        site.forget_memory()
