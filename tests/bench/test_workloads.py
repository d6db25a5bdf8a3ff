import numpy as np

from minipar.bench.workloads import WORKLOADS, MiniparSteps, images, tokens


def small():
    sizes = {"vocab": 256, "block": 8, "layers": 1, "d": 8, "heads": 2}
    return WORKLOADS["gpt-128"]._replace(sizes=sizes, batch=tokens(2, 8))


def test_tokens_are_the_same_for_everyone_and_y_is_one_later():
    x, y = tokens(2, 8)(3)
    assert x.shape == y.shape == (2, 8) and (x[:, 1:] == y[:, :-1]).all()
    assert x.min() >= 0 and x.max() < 256
    assert (tokens(2, 8)(3)[0] == x).all() and (tokens(2, 8)(4)[0] != x).any()


def test_images_are_normalised_and_have_classes():
    x, y = images(50, 6, 6, 3)(1)
    assert x.shape == (50, 6, 6, 3) and x.dtype == np.float32 and abs(x.mean()) < 0.1
    assert 1 < x.std() < 1.3 and set(y.tolist()) <= set(range(10)) and y.shape == (50,)
    assert (images(50, 6, 6, 3)(2)[1] != y).any()


def test_a_step_trains():
    steps = MiniparSteps(small())
    before = steps.model.state_dict()
    assert steps.step(*steps.batch(0)) > 5  # about ln 256
    assert all((array != before[name]).any() for name, array in steps.model.state_dict().items())


def test_every_workload_can_be_built():
    for work in WORKLOADS.values():
        assert MiniparSteps(work).model.parameters()
