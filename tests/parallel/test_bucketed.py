import numpy as np

import minipar
from minipar.parallel.bucketed import BucketedDataParallel
from minipar.tensor import Tensor
from tests.parallel.exact import Net, momentum


def test_gradients_are_views_into_the_buckets_and_stay_so():
    def work(group):
        model = Net()
        parallel = BucketedDataParallel(model, group, momentum, bucket_bytes=300)
        inside = []
        for _ in range(2):
            parallel.optimizer.zero_grad()  # the optimizer's: it zeroes views
            for _ in range(2):
                model(Tensor(np.ones((2, 5)))).sum().backward()
            grads = [x.grad for _, x in parallel.trained]
            inside += [any(np.shares_memory(g, b) for b in parallel.buckets) for g in grads]
            parallel.sync_gradients()
            parallel.clip(1e-3)
            parallel.step()
        return all(inside), len(parallel.buckets)

    assert minipar.run(work, 2) == [(True, 4)] * 2


def test_a_gradient_that_was_set_by_hand_is_sent():
    def work(group):
        model = Net()
        parallel = BucketedDataParallel(model, group)
        for _, x in parallel.trained:
            x.grad = np.full(x.shape, 1.0 + group.rank)
        parallel.sync_gradients()
        return [x.grad for _, x in parallel.trained]

    for grads in minipar.run(work, 3):
        assert all(np.abs(g - 2).max() < 1e-15 for g in grads)
