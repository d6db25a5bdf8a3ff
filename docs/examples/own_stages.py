"""Train a model of your own as a pipeline: is a point in the upper right or lower left quarter?"""

import numpy as np

import minipar
from minipar.data import Sampler
from minipar.nn import Linear, Sequential
from minipar.ops import cross_entropy, tanh
from minipar.optim import AdamW
from minipar.parallel.pipeline_strategy import PipelineParallel
from minipar.parallel.pipelined import Pipeline, micro_batches

points = np.random.default_rng(0).normal(size=(1000, 2)).astype(np.float32)
yes = (points[:, 0] * points[:, 1] > 0).astype(int)

group, init = minipar.init(), minipar.Init(seed=0)
first, last = Linear(init / "first", 2, 16, std=1.0), Linear(init / "last", 16, 2)
pipeline = Pipeline(Sequential(first, tanh, last), group, cross_entropy, "1f1b", cuts=(0, 1, 3))
strategy = PipelineParallel(pipeline, lambda named: AdamW(named, lr=0.01))
sampler = Sampler(len(points), batch=32, seed=0)
for step in range(300):
    rows = sampler.indices(step)  # all stages know the batch; the first takes x, the last y
    x, y = minipar.Tensor(points[rows]), yes[rows]
    strategy.zero_grad()
    loss = pipeline.train(micro_batches(x, y, minipar.Draw(0, step, range(32)), 4))
    strategy.sync_gradients()
    strategy.step()

_, logits = pipeline.evaluate(minipar.Tensor(points), yes)
held = ", ".join(name for name, _ in pipeline.stage.named_parameters())
print(f"stage {group.rank} has {held}; most stored at once: {pipeline.last.peak}")
if logits is not None:  # on the last stage
    print(f"{(logits.argmax(axis=1) == yes).mean():.0%} are right")
