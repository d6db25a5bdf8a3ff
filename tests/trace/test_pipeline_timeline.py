"""What was measured has the form of what is simulated."""

import numpy as np
import pytest

import minipar
from minipar.errors import UsageError
from minipar.nn import Linear, Sequential
from minipar.ops import mse
from minipar.parallel.pipelined import Pipeline, micro_batches
from minipar.parallel.schedule import named
from minipar.parallel.schedule_time import drawn, simulate
from minipar.random import Draw, Init
from minipar.tensor import Tensor
from minipar.trace.pipeline_timeline import measured


def one_step(group, schedule, cuts):
    model = Sequential(*(Linear(Init() / n, 4, 4) for n in range(4)))
    pipe = Pipeline(model, group, mse, schedule, cuts)
    x = np.ones((4, 4), np.float32)
    pipe.train(micro_batches(Tensor(x), x, Draw(0, 0, range(4)), 4))
    return measured(pipe)


@pytest.mark.parametrize(
    ("schedule", "cuts"), [("1f1b", None), ("zero-bubble", None), ("interleaved", range(5))]
)
def test_it_is_the_schedule_with_other_times(schedule, cuts):
    first, second = minipar.run(one_step, 2, args=(schedule, cuts))
    assert first == second
    right = simulate(named(schedule, 2, 4, 1 if cuts is None else 2))
    actions = [[[span.action for span in row] for row in t.spans] for t in (first, right)]
    assert actions[0] == actions[1] and first.peaks == right.peaks
    assert 0 < first.bubble < 1 and first.spans[0][0].start == 0
    times = {(i, s.action): (s.start, s.end) for i, row in enumerate(first.spans) for s in row}
    assert all(a < b for a, b in times.values())
    assert all(times[0, a][1] <= times[1, a][0] for i, a in times if a[0] == "F" and not i)
    assert drawn(first).startswith("stage 0")


def test_before_the_first_step_there_is_nothing_to_see():
    def work(group):
        measured(Pipeline(Sequential(Linear(Init(), 2, 2)), group, mse))

    with pytest.raises(UsageError, match=r"call pipeline\.train"):
        minipar.run(work, 1)
