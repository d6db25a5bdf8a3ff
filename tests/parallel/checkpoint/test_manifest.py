"""Manifests: what is written can be read, and what cannot be true is refused before it costs."""

import json
import os
import tracemalloc

import pytest

from minipar.errors import CheckpointError
from minipar.parallel.boxes import Box, whole
from minipar.parallel.checkpoint import manifest
from minipar.parallel.checkpoint.manifest import Entry, Manifest, Shard

DIGEST = "a" * 64


def shard(box, file, itemsize=4, rank=0):
    return Shard(file, box, 128 + box.size * itemsize, DIGEST, rank)


def good():
    halves = (Box((0, 0), (2, 2)), Box((0, 2), (2, 4)))
    shards = tuple(shard(box, f"model/w.{n}.npy", rank=n) for n, box in enumerate(halves))
    scalar = Entry((), "int64", (shard(whole(()), "step.npy", 8),))
    return Manifest({"model/w": Entry((2, 4), "float32", shards), "step": scalar}, {"step": 7})


def test_what_is_written_is_read(tmp_path):
    (tmp_path / "manifest.json").write_text(manifest.text_of(good()))
    found = manifest.read(tmp_path)
    assert found == good()
    assert found.arrays["model/w"].nbytes == 32


def changed(change, signed=True):
    """The text of the good one, changed; signed: its own sha256 fits."""
    found = json.loads(manifest.text_of(good()))
    change(found)
    if signed:
        found["sha256"] = manifest.signature(found)
    return json.dumps(found)


def w(**fields):
    return lambda found: found["arrays"]["model/w"].update(fields)


def first(**fields):
    return lambda found: found["arrays"]["model/w"]["shards"][0].update(fields)


def second(**fields):
    return lambda found: found["arrays"]["model/w"]["shards"][1].update(fields)


HOSTILE = {
    "path upwards": (first(file="../secret.npy"), "outside the checkpoint"),
    "path upwards later": (first(file="model/../../secret.npy"), "outside the checkpoint"),
    "absolute path": (first(file="/etc/passwd.npy"), "outside the checkpoint"),
    "path of windows": (first(file="..\\secret.npy"), "outside the checkpoint"),
    "no array file": (first(file="model/w.pkl"), "is no .npy"),
    "a file twice": (second(file="model/w.0.npy"), "a file is named twice"),
    "no file": (first(file=7), "says what cannot be"),
    "huge shape": (w(shape=[2**40, 4]), "are in no box"),
    "shape beyond numbers": (w(shape=[2**61, 2**61]), "has the shape"),
    "many axes": (w(shape=[1] * 33), "33 axes"),
    "negative": (w(shape=[-2, 4]), "should be a list of numbers"),
    "a truth as number": (w(shape=[True, 4]), "should be a list of numbers"),
    "a fraction": (w(shape=[2.0, 4]), "should be a list of numbers"),
    "no list": (w(shape="24"), "should be a list of numbers"),
    "objects": (w(dtype="object"), "has the dtype 'object'"),
    "text": (w(dtype="U1000000"), "has the dtype"),
    "fields": (w(dtype=[["a", "f4"]]), "has the dtype"),
    "another dtype": (w(dtype="float64"), "cannot have 144 bytes"),
    "overlap": (second(start=[0, 1], stop=[2, 3]), "overlaps another"),
    "a hole": (w(shape=[2, 5]), "2 of its numbers are in no box"),
    "beyond": (second(stop=[2, 9], bytes=184), "is not inside"),
    "fewer axes": (second(start=[2], stop=[4], bytes=136), "is not inside"),
    "huge file": (first(bytes=10**12), "cannot have 1000000000000 bytes"),
    "no bytes": (first(bytes=0), "cannot have 0 bytes"),
    "no digest": (first(sha256="abc"), "the sha256 of"),
    "no shards": (w(shards=[]), "8 of its numbers are in no box"),
    "shards of another kind": (w(shards={"a": 1}), "says what cannot be"),
    "arrays of another kind": (lambda found: found.update(arrays=[1]), "says what cannot be"),
    "an entry missing": (lambda found: found["arrays"]["step"].pop("dtype"), "no 'dtype'"),
    "meta of another kind": (lambda found: found.update(meta=[]), "meta is no object"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_cannot_be_is_refused_and_nothing_is_allocated_for_it(tmp_path, name):
    change, said = HOSTILE[name]
    (tmp_path / "manifest.json").write_text(changed(change))
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError, match=r"manifest\.json says what cannot be") as error:
            manifest.read(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
    assert said in str(error.value)


def test_a_flipped_bit_in_the_manifest_is_seen(tmp_path):
    (tmp_path / "manifest.json").write_text(changed(lambda m: m["meta"].update(step=3), False))
    with pytest.raises(CheckpointError, match="is damaged: its sha256 differs"):
        manifest.read(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"format": "another"}', "[" * 100_000, "\xff"])
def test_another_file_is_no_manifest(tmp_path, text):
    with pytest.raises(CheckpointError, match="is not a checkpoint"):
        manifest.read(tmp_path / "nowhere")
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(CheckpointError, match=str(tmp_path)):
        manifest.read(tmp_path)


@pytest.mark.parametrize("what", ["device", "pipe", "nothing"])
def test_what_is_no_file_is_not_waited_for(tmp_path, what):
    if what == "device":
        (tmp_path / "manifest.json").symlink_to("/dev/zero")
    elif what == "pipe":
        os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(CheckpointError, match="is not a checkpoint: it has no file"):
        manifest.read(tmp_path)


def test_a_manifest_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(manifest, "MOST_BYTES", 100)
    (tmp_path / "manifest.json").write_text(manifest.text_of(good()))
    with pytest.raises(CheckpointError, match="more than 100 bytes"):
        manifest.read(tmp_path)


def test_the_format_before_is_read(tmp_path):
    """It knew no ranks, and not how long files are."""
    old = {
        "format": "minipar checkpoint 1",
        "meta": {"step": 3},
        "arrays": {
            "x": {
                "shape": [4],
                "dtype": "float32",
                "slices": [{"file": "x.npy", "start": [0], "stop": [4], "sha256": DIGEST}],
            }
        },
    }
    (tmp_path / "manifest.json").write_text(json.dumps(old))
    found = manifest.read(tmp_path)
    assert found.arrays["x"].shards == (Shard("x.npy", Box((0,), (4,)), None, DIGEST, 0),)
    old["arrays"]["x"]["slices"][0]["file"] = "../x.npy"
    (tmp_path / "manifest.json").write_text(json.dumps(old))
    with pytest.raises(CheckpointError, match="outside the checkpoint"):
        manifest.read(tmp_path)


def test_one_that_would_not_be_read_is_not_written():
    one = good()
    half = one.arrays["model/w"]._replace(shards=one.arrays["model/w"].shards[:1])
    with pytest.raises(CheckpointError, match="4 of its numbers are in no box"):
        manifest.text_of(one._replace(arrays={"model/w": half}))


def test_names_of_files():
    shape, half = (4, 2), Box((0, 1), (4, 2))
    assert manifest.file_name("model/a.weight", shape, whole(shape)) == "model/a.weight.npy"
    assert manifest.file_name("model/a.weight", shape, half) == "model/a.weight.0-1.npy"
    assert manifest.file_name("optimizer/a/m", (), whole(())) == "optimizer/a,m.npy"
    odd = {manifest.file_name(name, (), whole(())) for name in ("a/b,c", "a/b/c", "a/../c", "../c")}
    assert odd == {"a/b%2Cc.npy", "a/b,c.npy", "a/.%2E,c.npy", ".%2E/c.npy"}
