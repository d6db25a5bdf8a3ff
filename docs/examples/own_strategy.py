"""A way of training of one's own, held against one rank with the whole batch."""

import numpy as np

from minipar.parallel.replicas import Replicas
from minipar.parallel.shares import dense_gradient
from minipar.testing import WrongStrategy, check_strategy


class Gathered(Replicas):
    """Everybody gets everybody's gradients, and takes the mean. Simple, and p/2 times too much."""

    def _reduce(self, rows):
        for _, x in self.trained:
            x.grad = self.group.all_gather(dense_gradient(x)).mean(axis=0)


class Weighted(Replicas):
    """The same, where a rank with more rows counts more."""

    def _reduce(self, rows):
        share = rows / self.group.all_reduce(np.array(float(rows)))
        for _, x in self.trained:
            x.grad = self.group.all_gather(dense_gradient(x) * share).sum(axis=0)


if __name__ == "__main__":
    for strategy in (Gathered, Weighted):
        try:
            check_strategy(strategy)
            print(f"{strategy.__name__}: what one rank does")
        except WrongStrategy as error:
            print(f"{strategy.__name__}: {error}")
