import numpy as np
import pytest

from minipar.bench.workloads import MiniparSteps, Workload, tokens

torch = pytest.importorskip("torch")

GPT = Workload("gpt", {"vocab": 256, "block": 8, "layers": 2, "d": 12, "heads": 3}, 2, 8)
MLP = Workload("mlp", {"vocab": 256, "context": 4, "d": 6, "hidden": (9, 7)}, 2, 8)


@pytest.mark.parametrize("work", [GPT, MLP], ids=lambda work: work.kind)
def test_the_peer_is_the_same_model_and_trains_the_same(work):
    from minipar.bench.torch_peer import TorchSteps, load_minipar

    mine, peer = MiniparSteps(work), TorchSteps(work, threads=1)
    for x in mine.model.parameters():
        x.data *= 5  # away from where every gelu looks the same
    load_minipar(peer.model, mine.model.state_dict())
    x, _ = tokens(work, 0)
    theirs = peer.model(torch.from_numpy(x.copy())).detach().numpy()
    np.testing.assert_allclose(mine.model(x).data, theirs, atol=1e-4)
    losses = [(mine.step(n), peer.step(n)) for n in range(5)]
    np.testing.assert_allclose(*zip(*losses), rtol=1e-4)
