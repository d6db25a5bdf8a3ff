"""What a step of a pipeline was really like, in the form in which schedules are simulated, drawn.

    timeline = measured(pipeline)                        on all ranks, after pipeline.train(...)
    draw_schedule(timeline).savefig("step.png")

So it can be laid beside what `simulate` gives for the same schedule. An action is there from when
it had what it needs until it was done; with recomputation, B includes the forward that is done
again. Times are those of the ranks' own clocks: processes of one host have the same.
"""

from __future__ import annotations

import numpy as np

from minipar.errors import UsageError
from minipar.parallel.pipeline_strategy import union
from minipar.parallel.pipelined import Pipeline
from minipar.parallel.schedule import Action
from minipar.parallel.schedule_time import Span, Timeline

PHASES = "FBIW"


def measured(pipeline: Pipeline) -> Timeline:
    """The last step on all stages, in ms from its first action on.  Collective.

    Raises: UsageError if there was none.
    """
    run, rank = pipeline.last, pipeline.group.rank
    if run is None:
        raise UsageError("measured(pipeline): there is no step yet; call pipeline.train() first.")
    rows = [
        (PHASES.index(phase), micro, chunk, span.begin + span.waited, span.end)
        for span in run.spans
        for phase, micro, chunk in [span.action]
    ]
    found = union({f"{rank}": np.array(rows), f"{rank} peak": np.array(run.peak)}, pipeline.group)
    stages = [found[f"{stage}"].tolist() for stage in range(pipeline.group.size)]
    first = min(row[3] for rows in stages for row in rows)
    spans = [
        [Span(Action(PHASES[p], m, c), (a - first) / 1e6, (b - first) / 1e6) for p, m, c, a, b in s]
        for s in stages
    ]
    length = max(span.end for row in spans for span in row)
    busy = sum(span.end - span.start for row in spans for span in row)
    peaks = [int(found[f"{stage} peak"]) for stage in range(len(stages))]
    return Timeline(spans, length, 1 - busy / (length * len(spans)), peaks)
