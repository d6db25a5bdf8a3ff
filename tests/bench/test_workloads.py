from minipar.bench.workloads import WORKLOADS, MiniparSteps, Workload, tokens


def small() -> Workload:
    sizes = {"vocab": 256, "block": 8, "layers": 1, "d": 8, "heads": 2}
    return Workload("gpt", sizes, batch=2, block=8)


def test_tokens_are_the_same_for_everyone_and_y_is_one_later():
    x, y = tokens(small(), 3)
    assert x.shape == y.shape == (2, 8) and (x[:, 1:] == y[:, :-1]).all()
    assert x.min() >= 0 and x.max() < 256
    assert (tokens(small(), 3)[0] == x).all() and (tokens(small(), 4)[0] != x).any()


def test_a_step_trains():
    steps = MiniparSteps(small())
    before = steps.model.state_dict()
    assert steps.step(0) > 5  # about ln 256
    assert all((array != before[name]).any() for name, array in steps.model.state_dict().items())


def test_every_workload_can_be_built():
    for work in WORKLOADS.values():
        assert MiniparSteps(work).model.parameters()
