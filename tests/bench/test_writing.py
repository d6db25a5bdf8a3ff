import pytest

from minipar.bench.workloads import WORKLOADS
from minipar.bench.writing import PROMPT, Writing

SIZES = {"vocab": 256, "block": 24, "layers": 2, "d": 12, "heads": 3}
WORK = WORKLOADS["gpt-256"]._replace(sizes=SIZES)


def test_both_ways_write_the_same_text_each_time():
    cached, uncached = Writing(WORK, cached=True), Writing(WORK, cached=False)
    for x, y in zip(cached.model.parameters(), uncached.model.parameters()):
        x.data *= 8
        y.data *= 8
    text = cached.step(*cached.batch(0))
    assert text == uncached.step(*uncached.batch(0)) == cached.step(*cached.batch(1))
    assert text.startswith(PROMPT) and len(text) == 24 and len(set(text)) > 8


def test_torch_writes_the_same():
    pytest.importorskip("torch")
    from minipar.bench.torch_peer import TorchWriting, load_minipar

    mine, peer = Writing(WORK, cached=True), TorchWriting(WORK, threads=1)
    for x in mine.model.parameters():
        x.data *= 8
    load_minipar(peer.model, mine.model.state_dict())
    assert peer.step(*peer.batch(0)) == mine.step(*mine.batch(0)) == peer.step(*peer.batch(1))
