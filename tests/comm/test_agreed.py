"""A native call: nobody enters it before all are known to be in it."""

import numpy as np
import pytest

from minipar.comm import agreed


@pytest.mark.parametrize(
    ("check", "happened"), [(True, ["barrier", "made", "run"]), (False, ["made", "run"])]
)
def test_the_barrier_comes_before_the_communicator(check, happened):
    seen = []

    class Link:
        def native(self):
            return agreed.Native(lambda: seen.append("made"), 0, np.add, check)

    agreed.agreed(lambda *_: seen.append("run"), lambda _: seen.append("barrier"))(Link())
    assert seen == happened
