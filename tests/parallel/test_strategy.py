"""The protocol is that of the strategies: all its names, and nothing that one of them lacks."""

import inspect

from minipar.parallel.strategy import Strategy


def test_every_call_says_what_it_does_or_is_plain():
    calls = [f for name, f in vars(Strategy).items() if inspect.isfunction(f) and name[0] != "_"]
    assert {f.__name__ for f in calls} == {
        *("zero_grad", "announce", "no_sync", "sync_gradients", "clip", "step"),
        *("whole", "held", "state_dict", "load_state_dict"),
    }
