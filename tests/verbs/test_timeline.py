"""`minipar timeline` on a real training, and its answers to wrong questions."""

import json
import shutil

import pytest

from minipar.alive import KINDS
from minipar.cli import main
from minipar.trace.expected_figure import memory_of, step_of
from minipar.trace.totals import window_of
from minipar.trace.trace_file import load

pytestmark = pytest.mark.slow  # a training
SMALL = ["--steps", "2", "--layers", "1", "--d", "16", "--heads", "2", "--block", "8"]
SMALL += ["--batch", "4", "--eval-batches", "1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A traced training of 2 × 2 ranks in turns."""
    folder = tmp_path_factory.mktemp("runs") / "gpt"
    words = ["train", "gpt", "--backend", "local", "--dp", "2", "--tp", "2", "--trace", *SMALL]
    with pytest.raises(SystemExit) as end:
        main([*words, "--out", str(folder)])
    assert end.value.code == 0
    return folder


@pytest.fixture
def timeline(capsys):
    def ask(*arguments):
        with pytest.raises(SystemExit) as end:
            main(["timeline", *map(str, arguments)])
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return ask


def test_a_figure_and_the_totals(run, timeline, tmp_path):
    for name in ("step.png", "step.svg"):
        code, out, _ = timeline(run, "--step", 1, "--out", tmp_path / name)
        assert code == 0 and (tmp_path / name).stat().st_size > 10_000
    assert out.splitlines()[0].split()[:2] == ["rank", "ms"] and len(out.splitlines()) == 9
    assert timeline(run, "--step", 0)[0] == 0 and (run / "timeline.png").exists()
    assert timeline(run, "--step", 1, "--view", "layers")[0] == 0 and (run / "layers.png").exists()


def test_the_figure_of_a_folder_of_a_trace_lies_in_it(run, timeline, tmp_path):
    shutil.copytree(run / "trace", tmp_path / "mine")
    code, out, _ = timeline(tmp_path / "mine")
    assert code == 0 and out.splitlines()[-1] == str(tmp_path / "mine" / "timeline.png")


def test_numbers_for_programs_are_those_of_the_trace(run, timeline, tmp_path):
    _, out, _ = timeline(run, "--json", "--out", tmp_path / "all.json")
    rows = json.loads(out)["ranks"]
    trace = load(run / "trace")
    for rank, row in zip(trace.ranks, rows, strict=True):
        assert sum(row["bytes_sent"].values()) == sum(m.nbytes for m in rank.messages)
        assert row["bytes_sent"].keys() >= {"dp", "tp"}
    assert len(json.loads((tmp_path / "all.json").read_text())["traceEvents"]) > 100


@pytest.mark.parametrize("view", ["memory", "bytes", "overlap", "expected"])
def test_views_that_a_trace_has_are_drawn_and_named(run, timeline, tmp_path, view):
    code, out, _ = timeline(run, "--view", view, "--out", tmp_path / "x.png")
    assert code == 0 and (tmp_path / "x.png").stat().st_size > 10_000
    (named,) = [line for line in out.splitlines() if line.startswith("--view ")]
    others = named.removeprefix("--view ").partition(" show")[0].split(" | ")
    assert {*others, view} == {"timeline", "layers", "memory", "bytes", "overlap", "expected"}


def test_bytes_and_memory_expected_are_those_in_the_trace(run):
    """Of dp and tp by formulas and by messages, up to a few numbers that ranks tell each other (the
    norm of the gradient); of memory what stays.
    """
    trace, costs = load(run / "trace"), json.loads((run / "costs.json").read_text())
    sent = step_of(trace, *window_of(trace, 1))[1]
    rows = {row["what"]: row["expected"] for row in costs["card"]}
    for axis in ("dp", "tp"):
        assert sent[axis] == pytest.approx(rows[f"sent {axis}"], abs=32) and sent[axis] > 1000
    ((_, forecast, held),) = memory_of(trace, costs["forecast"], 0, trace.end)
    for kind in ("weights", "gradients", "optimizer"):
        n = KINDS.index(kind)
        assert held[n] == pytest.approx(forecast[n], rel=0.02)


def test_layers_steps_and_phases_are_there(run):
    (first, *_) = load(run / "trace").ranks
    kinds = {(s.kind, s.step) for s in first.spans}
    for kind in ("data", "forward", "backward", "reduce", "clip", "optimizer"):
        assert {(kind, 0), (kind, 1)} <= kinds
    assert {"checkpoint", "evaluate", "sample"} <= {s.kind for s in first.spans}
    names = {s.name for s in first.spans if s.kind == "backward"}
    assert {"blocks.0.attention", "head"} & names or any("blocks.0" in name for name in names)


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (
            ["RUN", "--out", "step.gif"],
            2,
            "--out ends in .png, .svg, .pdf, .json, .html, not in '.gif'.",
        ),
        (["RUN", "--view", "memory", "--out", "m.html"], 2, "--view memory is a figure (.png, .sv"),
        (["RUN", "--view", "moods"], 2, "--view is one of timeline, layers, memory"),
        (["RUN", "--view", "clocks"], 2, "there are no clocks of parameter servers in this trace"),
        (["RUN", "--view", "staleness"], 2, "there are no clocks of parameter servers in this"),
        (["RUN", "--step", "9"], 2, "step 9 is not in the trace, which has steps 0 to 1."),
        (
            ["nowhere"],
            1,
            "there is no trace in nowhere: no rank-0.npz, rank-1.npz, ... minip",
        ),
        (["RUN", "--view", "pipeline"], 2, "no rank of this trace was a stage of a pipeline"),
        (["RUN", "--view", "clocks"], 2, "there are no clocks of parameter servers in this"),
        (["RUN", "--view", "staleness"], 2, "there are no clocks of parameter servers in this"),
        (["TRACE", "--view", "expected"], 2, "what was expected lies beside the trace (costs"),
    ],
)
def test_wrong_questions(run, timeline, tmp_path, arguments, code, sentence):
    places = {"RUN": run, "TRACE": tmp_path / "script"}
    shutil.copytree(run / "trace", places["TRACE"])  # as of a script: no run folder around it
    found, _, err = timeline(*(places.get(word, word) for word in arguments))
    assert found == code and err.startswith(f"minipar: {sentence}") and err.count("\n") == 1
