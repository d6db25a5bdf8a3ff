import builtins
import json

import numpy as np
import pytest

from minipar.errors import CheckpointError, MiniparError, ShapeMismatch, UsageError
from minipar.gpt2_files import IN_HEADER, load_gpt2, save_gpt2
from minipar.models import GPT
from minipar.random import Init, normal
from minipar.tensor import no_grad

SIZES = {"vocab": 40, "block": 9, "layers": 2, "d": 12, "heads": 3}
CONFIG = {"model_type": "gpt2", "vocab_size": 40, "n_positions": 9, "n_layer": 2, "n_embd": 12}
CONFIG |= {"n_head": 3}
IDS = np.random.default_rng(0).integers(0, 40, (2, 9))


@pytest.fixture
def package():
    return pytest.importorskip("safetensors.numpy")


def gpt(dtype=np.float64, sizes=SIZES):
    """A model in which no bias is zero and no gain is one."""
    model = GPT(Init(0, dtype), **sizes)
    for name, x in model.named_parameters():
        x.data += (0.3 * normal(1, name, x.shape)).astype(dtype)
    return model


def logits_of(model):
    with no_grad():
        return model(IDS).data


def gpt2_forward(w, ids, heads):
    """GPT-2 by its paper and release, on PyTorch's names.   ids [b, t] -> [b, t, vocab]."""

    def norm(x, at):
        mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(var + 1e-5) * w[f"{at}.weight"] + w[f"{at}.bias"]

    def conv1d(x, at):
        return np.einsum("bti,io->bto", x, w[f"{at}.weight"]) + w[f"{at}.bias"]

    def attend(x, at):
        q, k, v = np.split(conv1d(x, f"{at}.c_attn"), 3, axis=-1)
        out, c = [], x.shape[-1] // heads
        for h in range(heads):
            own = slice(h * c, (h + 1) * c)
            scores = np.einsum("btc,bsc->bts", q[..., own], k[..., own]) / np.sqrt(c)
            scores = np.where(np.tri(x.shape[1], dtype=bool), scores, -np.inf)
            p = np.exp(scores - scores.max(-1, keepdims=True))
            p /= p.sum(-1, keepdims=True)
            out.append(np.einsum("bts,bsc->btc", p, v[..., own]))
        return conv1d(np.concatenate(out, -1), f"{at}.c_proj")

    def gelu_new(x):
        return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))

    w = {name.removeprefix("transformer."): a for name, a in w.items()}
    x = w["wte.weight"][ids] + w["wpe.weight"][: ids.shape[1]]
    for n in range(sum(name.endswith("ln_1.weight") for name in w)):
        x = x + attend(norm(x, f"h.{n}.ln_1"), f"h.{n}.attn")
        x = x + conv1d(
            gelu_new(conv1d(norm(x, f"h.{n}.ln_2"), f"h.{n}.mlp.c_fc")), f"h.{n}.mlp.c_proj"
        )
    return norm(x, "ln_f") @ w["wte.weight"].T


def test_what_was_saved_is_gpt2(package, tmp_path):
    model, path = gpt(), tmp_path / "gpt2.safetensors"
    save_gpt2(model.state_dict(), SIZES, path)
    theirs = package.load_file(path)
    assert len(theirs) == 2 + 12 * 2 + 2 and "transformer.h.1.attn.c_attn.weight" in theirs
    assert theirs["transformer.h.1.mlp.c_fc.weight"].shape == (12, 48)  # Conv1D: [in, out]
    np.testing.assert_allclose(
        gpt2_forward(theirs, IDS, 3), logits_of(model), rtol=1e-12, atol=1e-12
    )
    assert [p.name for p in tmp_path.iterdir()] == ["gpt2.safetensors"]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_there_and_back_no_bit_changes(package, tmp_path, dtype):
    weights = {n: a.astype(dtype) for n, a in gpt().state_dict().items()}
    save_gpt2(weights, SIZES, tmp_path / "m.safetensors")
    found, settings = load_gpt2(tmp_path / "m.safetensors")
    assert settings == SIZES and list(found) == list(weights)
    for name, a in weights.items():
        assert found[name].dtype == dtype and found[name].tobytes() == a.tobytes()


@pytest.fixture
def theirs(package, tmp_path):
    """Writes a file as others would: another prefix, masks, a head, the config beside it."""
    save_gpt2(gpt().state_dict(), SIZES, tmp_path / "ours.safetensors")
    arrays = package.load_file(tmp_path / "ours.safetensors")

    def write(change=None, config=None, prefix="transformer.", header=None):
        own = {n.replace("transformer.", prefix): a for n, a in arrays.items()} | (change or {})
        own = {n: a for n, a in own.items() if a is not None}
        if config is not None:
            (tmp_path / "config.json").write_text(json.dumps(config))
        package.save_file(own, tmp_path / "theirs.safetensors", header)
        return tmp_path / "theirs.safetensors"

    return write


def test_files_of_others_are_read(theirs):
    mask = np.tril(np.ones((1, 1, 9, 9), np.float32))
    extra = {"h.0.attn.bias": mask, "h.1.attn.masked_bias": np.array(-1e4, np.float32)}
    extra["lm_head.weight"] = gpt().token.weight.data
    more = {"n_ctx": 9, "n_inner": None, "activation_function": "gelu_pytorch_tanh"}
    weights, settings = load_gpt2(theirs(extra, {**CONFIG, **more}, prefix=""))
    model = GPT(Init(7, np.float64), **settings)
    model.load_state_dict(weights)
    np.testing.assert_array_equal(logits_of(model), logits_of(gpt()))


@pytest.mark.parametrize(
    "config, words",
    [
        ({"activation_function": "relu"}, "activation_function is 'relu'"),
        ({"layer_norm_epsilon": 1e-6}, "layer_norm_epsilon is 1e-06"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings is False"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx"),
        ({"add_cross_attention": True}, "add_cross_attention"),
        ({"n_inner": 24}, "n_inner is 24"),
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"n_head": None}, "n_head is None"),
        ({"n_layer": -1}, "n_layer is -1"),
        ({"n_layer": 10**12}, "n_layer is 1000000000000"),
        ({"n_layer": 3}, r"has no transformer\.h\.2\.attn\.c_attn\.bias"),
        ({"n_layer": 1}, r"has transformer\.h\.1\.attn\.c_attn\.bias, for which"),
        ({"n_embd": 24}, r"wte\.weight is float64\[40, 12\]"),
    ],
)
def test_what_our_gpt_cannot_hold_is_named(theirs, config, words):
    with pytest.raises((UsageError, ShapeMismatch), match=words):
        load_gpt2(theirs(config={**CONFIG, **config}))


@pytest.mark.parametrize(
    "change, words",
    [
        ({"transformer.h.0.attn.c_attn.bias": None}, "has no transformer.h.0.attn.c_attn.bias"),
        ({"transformer.h.0.ln_9.weight": np.zeros(3)}, "ln_9"),
        ({"lm_head.weight": np.zeros((40, 12))}, "lm_head.weight is not wte.weight"),
        ({"transformer.h.0.mlp.c_fc.weight": np.zeros((48, 12))}, "nn.Linear"),
        ({"transformer.ln_f.bias": np.zeros(12, np.int64)}, "ln_f.bias is I64"),
    ],
)
def test_other_parameters_are_named(theirs, change, words):
    with pytest.raises((UsageError, ShapeMismatch), match=words):
        load_gpt2(theirs(change, CONFIG))


def test_without_a_config_of_gpt2_it_asks_for_one(theirs):
    for config in (None, {"model": "gpt"}):  # the second: that of a run folder
        with pytest.raises(UsageError, match=r"put GPT-2's config\.json beside it"):
            load_gpt2(theirs(config=config))
    with pytest.raises(CheckpointError, match="not JSON"):
        load_gpt2(theirs(header={IN_HEADER: "{"}))


def test_damaged_and_missing_files(package, tmp_path):
    path = tmp_path / "m.safetensors"
    with pytest.raises(CheckpointError, match=r"m\.safetensors"):
        load_gpt2(path)
    save_gpt2(gpt().state_dict(), SIZES, path)
    whole = path.read_bytes()
    for damaged in (b"", whole[:-1], whole[:100], b"\xff" * 8 + whole[8:]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=r"m\.safetensors"):
            load_gpt2(path)


def test_weights_that_are_no_gpt_are_not_written(package, tmp_path):
    weights, path = gpt().state_dict(), tmp_path / "m.safetensors"
    path.write_bytes(b"what was there")
    for wrong in (
        {n: a for n, a in weights.items() if n != "norm.bias"},
        {**weights, "blocks.0.extra": weights["norm.bias"]},
        {**weights, "norm.bias": np.zeros(5)},
    ):
        with pytest.raises((UsageError, ShapeMismatch), match=r"norm\.bias|blocks\.0\.extra"):
            save_gpt2(wrong, SIZES, path)
    assert path.read_bytes() == b"what was there" and len(list(tmp_path.iterdir())) == 1


def test_without_the_package_one_sentence_says_how_to_get_it(monkeypatch, tmp_path):
    usual = builtins.__import__

    def without(name, *rest):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return usual(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MiniparError, match=r"pip install 'minipar\[safetensors\]'"):
        load_gpt2(tmp_path / "m.safetensors")


@pytest.mark.slow
def test_transformers_gives_the_same_logits_both_ways(package, tmp_path):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.GPT2Config(**CONFIG, attn_pdrop=0.0)
    theirs = transformers.GPT2LMHeadModel(config).double().eval()
    for x in theirs.parameters():
        x.data += 0.2 * torch.randn_like(x)
    theirs.save_pretrained(tmp_path)
    weights, settings = load_gpt2(tmp_path / "model.safetensors")
    ours = GPT(Init(0, np.float64), **settings)
    ours.load_state_dict(weights)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(IDS)).logits.numpy()
    np.testing.assert_allclose(logits_of(ours), expected, rtol=1e-9, atol=1e-9)

    save_gpt2(gpt().state_dict(), SIZES, tmp_path / "back.safetensors")
    state = {
        n: torch.from_numpy(a) for n, a in package.load_file(tmp_path / "back.safetensors").items()
    }
    assert theirs.load_state_dict(state, strict=False).missing_keys == ["lm_head.weight"]
    with torch.no_grad():
        found = theirs(torch.from_numpy(IDS)).logits.numpy()
    np.testing.assert_allclose(found, logits_of(gpt()), rtol=1e-9, atol=1e-9)
