"""What `minipar train` prints at the end, from the numbers that the ranks have left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from minipar.config import Config
from minipar.cost_card import table
from minipar.drills import VIRTUAL_S
from minipar.progress import speed
from minipar.run_folder import RunFolder
from minipar.trace.staleness_figure import draw_staleness


def report(
    summary: Mapping[str, Any],
    same: str,
    counted: str,
    sample: tuple[bytes, bytes] | None,
) -> str:
    s = summary
    lines = [
        "",
        same,
        f"training loss    {s['train_loss']:.3f} nats per {s['item']}",
        f"validation loss  {s['val_loss']:.3f}",
    ]
    if s["best_loss"] is not None:
        lines.append(f"best possible    {s['best_loss']:.3f}")
    if "val_accuracy" in s:
        lines.append(f"validation       {s['val_accuracy']:.1%} right")
    lines += _served(s.get("servers", ()))
    lines += [
        f"speed            {speed(s[f'{counted}_per_s'], counted)}, {s['seconds']:.0f} s in all",
        f"run folder       {s['run_dir']}",
    ]
    if "virtual_seconds" in s:
        took = (
            f"{s['virtual_seconds']:.1f} s, where each forward and backward takes {VIRTUAL_S:g} s"
        )
        lines.insert(-1, f"virtual time     {took}")
    if "timeline" in s:
        lines.append(f"see its steps    {s['timeline']}")
    if "cost_card" in s:
        lines += ["", *table(s["cost_card"])]
    if sample is not None:
        given, written = map(indented, sample)
        lines += ["", "A sample. After a piece of the validation text,", given]
        lines += ["the model goes on:", written]
    return "\n".join(lines)


def draw_served(c: Config, run: RunFolder, servers: Sequence[Mapping[str, Any]]) -> None:
    """The staleness of what the first server has applied; others saw the same pushes."""
    if c.ps != "sync" and servers:
        counts = {int(n): k for n, k in servers[0]["staleness"].items()}
        title = f"{c.model}, {c.ps}, {c.workers} workers, {run.path}"
        draw_staleness({"": counts}, title).savefig(run.path / "staleness.png")


def who_was_lost(run: RunFolder) -> str | None:
    """Why a run is another one than planned; None if nobody was lost."""
    lost = sorted({w for s in run.server_reports() for w in s["lost_workers"]})
    return f"worker {', '.join(map(str, lost))} was lost on the way" if lost else None


def _served(servers: Sequence[Mapping[str, Any]]) -> list[str]:
    """What the servers have to tell, in lines."""
    if not servers:
        return []
    s = servers[0]
    counts = {int(n): k for n, k in s["staleness"].items()}
    mean = sum(n * k for n, k in counts.items()) / max(1, s["applied"])
    lines = [
        f"pushes           {s['applied']} applied, {mean:.2f} updates old in the mean, "
        f"{max(counts, default=0)} at most"
    ]
    lost = sorted({w for s in servers for w in s["lost_workers"]})
    if lost:
        lines.append(f"lost             worker {', '.join(map(str, lost))}; the others went on")
    gone = sum(n for s in servers for n in s["lost_pushes"].values())
    if gone:
        lines.append(
            f"lost             {gone} pushes that a server had taken after its last snapshot"
        )
    return lines


def indented(text: bytes) -> str:
    """The text behind a margin, with dots for what could disturb a terminal."""
    lines = text.decode(errors="replace").split("\n")
    shown = ("".join(c if c.isprintable() else "·" for c in line) for line in lines)
    return "\n".join("    | " + line for line in shown)
