"""What an exchange knows of a whole host: calls that were never answered."""

import numpy as np

from minipar.comm.exchange import left_in_cells
from tests.comm.onehost import Host, enter


def test_a_call_that_the_other_never_made_is_found_at_the_end():
    host = Host(2)
    circle = enter(host.circles[0].of((0, 1)), 3, host, 0, "broadcast")
    assert left_in_cells(host.segment, 2) is None
    circle.show_from(0, np.zeros(1))
    error = left_in_cells(host.segment, 2)
    assert "rank 1 has returned, but never took part in rank 0's broadcast #3" in str(error)
    enter(host.circles[1].of((0, 1)), 3, host, 1, "broadcast").show_from(0, np.zeros(1))
    assert left_in_cells(host.segment, 2) is None


def test_two_that_both_believe_to_be_the_root_are_found_at_the_end():
    host = Host(2)
    for r in range(2):
        circle = enter(host.circles[r].of((0, 1)), 3, host, r, f"broadcast_{r}")
        circle.show_from(r, np.zeros(1))
    assert "rank 1's own call of that number: broadcast_1 #3" in str(left_in_cells(host.segment, 2))
