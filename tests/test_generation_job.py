import json
import re
from dataclasses import replace

import numpy as np
import pytest

import minipar
from minipar.config import Config
from minipar.errors import CheckpointError, UsageError
from minipar.generation_job import (
    Request,
    check_request,
    execute,
    find_checkpoint,
    in_words,
    open_model,
    printable,
)
from minipar.models import generate
from minipar.parallel import checkpoint
from minipar.recipes import build_model
from minipar.run_folder import RunFolder
from minipar.training import Trainer

CONFIG = Config(steps=1, batch=2, block=24, layers=2, d=24, heads=4, dtype="float64")
REQUEST = Request(b"def ", 30, seed=3)


def untrained(group, config, path):
    Trainer(group, config).save(RunFolder(path))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that has not learnt anything yet."""
    path = tmp_path_factory.mktemp("runs") / "gpt-1"
    RunFolder.create(CONFIG, str(path))
    minipar.run(untrained, 1, args=(CONFIG, str(path)))
    return path


def told(capsys, *arguments, **options):
    assert execute(*arguments, as_json=True, **options) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return json.loads(out)


@pytest.mark.parametrize("pp, tp", [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_a_run_writes_the_same_in_every_layout(folder, capsys, pp, tp):
    found = told(capsys, str(folder), REQUEST._replace(pp=pp, tp=tp), "local")
    within = CONFIG.block - len(REQUEST.prompt)
    expected = generate(build_model(CONFIG), REQUEST.prompt, within, seed=3)
    assert bytes(found["tokens"][:within]) == expected[len(REQUEST.prompt) :]
    assert found["tokens"] == told(capsys, str(folder), REQUEST, "local")["tokens"]
    assert (found["ranks"], len(found["cache_bytes"])) == (pp * tp, pp * tp)
    assert sum(found["cache_bytes"]) == 2 * CONFIG.layers * CONFIG.block * CONFIG.d * 8
    assert len(found["tokens"]) == 30 and found["tokens_per_s"] > 0


@pytest.mark.slow
def test_on_processes_it_is_the_same(folder, capsys):
    expected = told(capsys, str(folder), REQUEST, "local")["tokens"]
    assert told(capsys, str(folder), REQUEST._replace(tp=2), "process")["tokens"] == expected


def test_the_text_is_shown_with_its_prompt_and_the_numbers_go_elsewhere(folder, capsys):
    tokens = told(capsys, str(folder), REQUEST, "local")["tokens"]
    assert execute(str(folder), REQUEST, "local") == 0
    out, err = capsys.readouterr()
    assert out == printable((REQUEST.prompt + bytes(tokens)).decode(errors="replace")) + "\n"
    assert re.fullmatch(
        r"prompt of 4 in \d+ ms; 30 tokens in \d+\.\d\d s, \d+ tokens/s; cache 18,432 bytes\n", err
    )


def test_characters_of_several_bytes_are_shown_whole(folder, capsys, monkeypatch):
    monkeypatch.setattr("minipar.generation_job.write", lambda *_: iter("né\x1b[2J".encode()))
    execute(str(folder), REQUEST._replace(prompt="è".encode()), "local")
    assert capsys.readouterr().out == "èné\N{REPLACEMENT CHARACTER}[2J\n"


def test_the_caches_of_several_ranks_are_told():
    told = {"prompt_tokens": 2, "prompt_seconds": 0.5, "tokens": [1], "seconds": 0.5}
    told |= {"tokens_per_s": None, "cache_bytes": [1000, 2000]}
    words = "prompt of 2 in 500 ms; 1 tokens in 0.50 s; cache 2,000 bytes on a rank, 3,000 on all 2"
    assert in_words(told) == words


def test_a_checkpoint_is_found_by_its_run_or_by_itself(folder):
    last = RunFolder(folder).latest_checkpoint()
    assert find_checkpoint(folder) == find_checkpoint(last) == (CONFIG, last)


def test_what_is_no_checkpoint_is_refused(folder, tmp_path):
    with pytest.raises(UsageError, match="no folder"):
        find_checkpoint(tmp_path / "nothing")
    with pytest.raises(UsageError, match="neither a run folder nor"):
        find_checkpoint(tmp_path)
    CONFIG.save(tmp_path / "config.json")
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        find_checkpoint(tmp_path)
    lonely = tmp_path / "a" / "b" / "c"
    checkpoint.save(lonely, {"x": np.zeros(2)}, {})
    with pytest.raises(CheckpointError, match="does not say which model it is of"):
        find_checkpoint(lonely)


@pytest.mark.parametrize(
    "changed, words",
    [
        ({"tp": 3}, "4 heads cannot be shared out evenly; use 1, 2, 4"),
        ({"pp": 5}, "4 pieces"),
        ({"tokens": 0}, "--tokens must be at least 1"),
        ({"pp": 0}, "--pp must be at least 1"),
        ({"prompt": b""}, "at least one byte"),
        ({"temperature": -1.0}, "temperature is a number from 0 .*, not -1.0"),
        ({"top_k": 0}, "top_k is how many bytes may be drawn, from 1 on, not 0"),
    ],
)
def test_what_cannot_be_is_said_before_a_rank_starts(changed, words):
    with pytest.raises(UsageError, match=words):
        check_request(CONFIG, REQUEST._replace(**changed), "local")


def test_only_gpt_writes():
    with pytest.raises(UsageError, match="not mlp"):
        check_request(replace(CONFIG, model="mlp"), REQUEST, "local")
    with pytest.raises(UsageError, match="no backend 'threads'"):
        check_request(CONFIG, REQUEST, "threads")


def test_a_vocabulary_that_is_not_bytes_is_refused(tmp_path):
    checkpoint.save(tmp_path / "c", {"model/token.weight": np.zeros((65, CONFIG.d))}, {})
    with pytest.raises(UsageError, match="knows 65 tokens"):
        minipar.run(open_model, 1, args=(CONFIG, str(tmp_path / "c")))


def test_a_rank_reads_the_weights_of_its_stage_only(folder, monkeypatch):
    read, usual = [], checkpoint.Checkpoint.array
    monkeypatch.setattr(
        checkpoint.Checkpoint, "array", lambda s, name: read.append(name) or usual(s, name)
    )
    last = RunFolder(folder).latest_checkpoint()
    minipar.run(open_model, 4, args=(CONFIG, str(last), 4))
    assert len(read) == 2 + 2 * 12 + 3  # the token table by the first and by the last
    assert all(name.startswith("model/") for name in read)
