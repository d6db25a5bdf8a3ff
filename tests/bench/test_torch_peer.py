import numpy as np
import pytest

from minipar.bench.workloads import WORKLOADS, MiniparSteps, images, tokens

torch = pytest.importorskip("torch")

SMALL = {
    "gpt": ({"vocab": 256, "block": 8, "layers": 2, "d": 12, "heads": 3}, tokens(2, 8)),
    "mlp-text": ({"vocab": 256, "context": 4, "d": 6, "hidden": (9, 7)}, tokens(2, 8)),
    "cnn": ({"classes": 10, "layers": (1, 2), "width": 4}, images(5, 8, 8, 3)),
    "mlp": ({"sizes": (12, 9, 10)}, images(5, 12)),
    "shallow": ({"sizes": (12, 9, 10)}, images(5, 12)),
}


def small(kind):
    """A workload of this kind that is quick."""
    sizes, batch = SMALL[kind]
    work = next(work for work in WORKLOADS.values() if work.kind == kind)
    return work._replace(sizes=sizes, batch=batch)


def test_every_kind_is_compared_below():
    from minipar.bench.torch_peer import TWINS

    assert {work.kind for work in WORKLOADS.values()} == SMALL.keys() == TWINS.keys()


@pytest.mark.parametrize("kind", SMALL)
def test_the_peer_is_the_same_model_and_trains_the_same(kind):
    from minipar.bench.torch_peer import TorchSteps, load_minipar

    work = small(kind)
    mine, peer = MiniparSteps(work), TorchSteps(work, threads=1)
    if work.batch(0)[0].dtype.kind == "i":
        for x in mine.model.parameters():
            x.data *= 5  # away from where every gelu looks the same
    load_minipar(peer.model, mine.model.state_dict())
    theirs = peer.model.eval()(peer.batch(0)[0]).detach().numpy()
    np.testing.assert_allclose(mine.model(work.batch(0)[0]).data, theirs, atol=1e-4)
    peer.model.train()
    losses = [(mine.step(*mine.batch(n)), peer.step(*peer.batch(n))) for n in range(5)]
    np.testing.assert_allclose(*zip(*losses), rtol=1e-4)
