"""`minipar generate`: what becomes of its options."""

import pytest

from minipar import generation_job
from minipar.cli import main


@pytest.fixture
def asked(monkeypatch):
    """What the job was asked for."""
    calls = []
    monkeypatch.setattr(generation_job, "execute", lambda *args: calls.append(args) or 0)

    def ask(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["generate", "--checkpoint", "runs/gpt-1", *arguments])
        return end.value.code, calls[-1] if calls else None

    return ask


def test_options_become_a_request(asked):
    numbers = {"--tokens": 7, "--seed": 5, "--tp": 2, "--pp": 3, "--temperature": 0, "--top-k": 4}
    options = [str(word) for pair in numbers.items() for word in pair] + ["--json"]
    request = generation_job.Request(b"def ", 7, 0.0, 4, 5, 3, 2)
    assert asked("--prompt", "def ", *options) == (0, ("runs/gpt-1", request, "process", True))


def test_one_rank_is_this_process(asked):
    code, (_, request, backend, as_json) = asked("--prompt", "é")
    assert (code, request.prompt, backend, as_json) == (0, "é".encode(), "local", False)
    assert (request.tokens, request.temperature, request.top_k) == (200, 0.7, None)
    assert asked("--prompt", "a", "--tp", "2", "--backend", "local")[1][2] == "local"


def test_without_a_prompt_it_is_a_usage_error(asked, capsys):
    assert asked() == (2, None)
    assert "--prompt" in capsys.readouterr().err
