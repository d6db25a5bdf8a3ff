"""`minipar timeline`: a recorded run as a figure, or as a file for a trace viewer."""

from __future__ import annotations

import argparse
import json
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

from minipar.errors import UsageError
from minipar.verbs.verb import verb

FORMATS = (".png", ".svg", ".pdf", ".json", ".html")
VIEWS = MappingProxyType(  # module and function: (trace, begin, end, title) -> Figure
    {
        "timeline": ("timeline_figure", "draw_timeline"),
        "layers": ("layer_figure", "draw_layers"),
        "memory": ("memory_figure", "draw_memory"),
        "bytes": ("bytes_figure", "draw_bytes"),
        "overlap": ("overlap_figure", "draw_overlap_of"),
        "pipeline": ("pipeline_figure", "draw_pipeline"),
        "expected": ("expected_figure", "draw_expected"),
        "clocks": ("clock_figure", "draw_clocks"),
        "staleness": ("staleness_figure", "draw_staleness_of"),
    }
)
ONE_STEP = ("overlap", "pipeline")  # views of the last step, unless another one is asked for


def add(verbs: Any) -> None:
    parser = verb(
        verbs,
        "timeline",
        "draw what every rank did in a recorded run (--trace)",
        "minipar timeline runs/gpt-1 --step 3 --out step.png",
        _timeline,
    )
    parser.add_argument("run", metavar="RUN", help="a run folder, or the folder of a trace")
    parser.add_argument(
        "--out",
        metavar="FILE",
        help="a figure (.png, .svg, .pdf), a page to play (.html), or for Perfetto (.json); "
        "default: RUN/VIEW.png",
    )
    parser.add_argument(
        "--view",
        metavar="NAME",
        default="timeline",
        help=f"what the figure shows: {', '.join(VIEWS)} (default: timeline)",
    )
    parser.add_argument("--step", type=int, metavar="N", help="only that step of the training")
    parser.add_argument("--last", type=float, metavar="MS", help="only the last milliseconds")
    parser.add_argument("--json", action="store_true", help="the totals of each rank on stdout")


def _timeline(arguments: argparse.Namespace) -> int:
    from minipar.trace.perfetto import perfetto
    from minipar.trace.replay import replay_page
    from minipar.trace.totals import only_step, report, steps_of, window_of
    from minipar.trace.trace_file import load

    run = Path(arguments.run)
    folder = run / "trace" if (run / "trace").is_dir() else run
    out = Path(arguments.out or run / f"{arguments.view}.png")
    _check(arguments.view, out)
    trace = load(folder)
    if arguments.view in ONE_STEP and (arguments.step, arguments.last) == (None, None):
        arguments.step = max(steps_of(trace), default=None)
    begin, end = window_of(trace, arguments.step, arguments.last)
    if arguments.step is not None:
        trace = only_step(trace, arguments.step)
    if out.suffix == ".json":
        out.write_text(json.dumps(perfetto(trace, begin, end)))
    elif out.suffix == ".html":
        out.write_text(replay_page(trace, begin, end, _title(arguments, trace)), encoding="utf-8")
    else:
        if reason := _lacks(arguments.view, trace):
            raise UsageError(reason)
        draw = getattr(_module(arguments.view), VIEWS[arguments.view][1])
        draw(trace, begin, end, _title(arguments, trace)).savefig(out)
    rows = report(trace, begin, end)
    if arguments.json:
        print(json.dumps({"out": str(out), "ranks": rows}))
    else:
        print(_table(rows))
        for rank in trace.silent:
            print(f"rank {rank} has left no trace: it was killed, or never began")
        for each in trace.ranks:
            if each.lost:
                print(f"rank {each.rank} was lost at {each.end / 1e6:g} ms, as declared")
        if others := [view for view in VIEWS if view != arguments.view and not _lacks(view, trace)]:
            print(f"\n--view {' | '.join(others)} show more of it, --out replay.html plays it")
        earlier = sorted(run.glob("trace-*")) if folder != run else []
        if earlier:
            names = ", ".join(path.name for path in earlier)
            print(f"\nthe last part of a resumed run; the parts before it: {names} in {run}")
        print(f"\n{out}")
    return 0


def _module(view: str) -> Any:
    return import_module(f"minipar.trace.{VIEWS[view][0]}")


def _lacks(view: str, trace: Any) -> str:
    """Why the trace cannot show the view; empty if it can."""
    lacks = getattr(_module(view), "lacks", None)
    return "" if lacks is None else lacks(trace)


def _check(view: str, out: Path) -> None:
    """Raises: UsageError."""
    if view not in VIEWS:
        raise UsageError(f"--view is one of {', '.join(VIEWS)}, not {view!r}.")
    if out.suffix not in FORMATS:
        raise UsageError(f"--out ends in {', '.join(FORMATS)}, not in {out.suffix!r}.")
    if view != "timeline" and out.suffix in (".json", ".html"):
        raise UsageError(f"--view {view} is a figure (.png, .svg, .pdf), not a {out.suffix}.")


def _title(arguments: argparse.Namespace, trace: Any) -> str:
    step = "" if arguments.step is None else f", step {arguments.step}"
    return f"{Path(arguments.run).name}{step}: {len(trace.ranks)} ranks on {trace.backend}"


def _table(rows: list[dict[str, Any]]) -> str:
    """The totals of each rank, aligned."""
    axes = sorted({axis for row in rows for axis in row["bytes_sent"]})
    head = ["rank", "ms", "computing", "moving", "waiting", "overlapped"]
    lines = ["  ".join([*head, *(f"{axis} MB".rjust(9) for axis in axes)])]
    for row in rows:
        shares = [f"{row[name]:.1%}".rjust(len(name)) for name in head[2:]]
        sent = [f"{row['bytes_sent'].get(axis, 0) / 2**20:9.3f}" for axis in axes]
        lines.append("  ".join([f"{row['rank']:4d}", f"{row['ms']:.0f}".rjust(2), *shares, *sent]))
    return "\n".join(lines)
