"""Make the figures of docs/ (drawings.py), and the blocks of its pages (blocks/), by the code.

    python docs/make.py             writes all figures and all blocks
    python docs/make.py --check     writes nothing; fails if a block is not what it would write

A block stands between two markers, and says what makes it:

    <!-- made by docs/make.py: cost_table -->
    ...
    <!-- end -->

Words after the name are arguments: `example deadlock local` calls example("deadlock", "local").
Figures are not compared: their pixels depend on the version of matplotlib. One is drawn from
measurements (figures/comm_measured.json, see bench.md), which are not made anew; it carries their
hash, and that is compared.
"""

from __future__ import annotations

import re
import sys

import drawings
import drawings_checkpoints
import drawings_generation
import drawings_pipeline
import drawings_pipeline_run
import drawings_seeing
import drawings_server
import drawings_tensor
import drawings_together
import drawings_views
import drawings_virtual
from blocks import BLOCKS
from blocks.communication import measured_hash
from blocks.text import DOCS, FIGURES

DRAWINGS = (
    drawings,
    drawings_checkpoints,
    drawings_generation,
    drawings_pipeline,
    drawings_pipeline_run,
    drawings_seeing,
    drawings_server,
    drawings_tensor,
    drawings_together,
    drawings_views,
    drawings_virtual,
)
MARKED = re.compile(r"(<!-- made by docs/make\.py: (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)


def regenerated(page: str) -> str:
    """The page with every block made anew."""

    def block(match: re.Match[str]) -> str:
        name, *arguments = match[2].split()
        return f"{match[1]}{BLOCKS[name](*arguments)}\n{match[3]}"

    return MARKED.sub(block, page)


def main() -> int:
    check = sys.argv[1:] == ["--check"]
    drifted = []
    for path in sorted(DOCS.glob("*.md")):
        page = path.read_text(encoding="utf-8")
        new = regenerated(page)
        if new != page:
            drifted.append(path.name)
            if not check:
                path.write_text(new, encoding="utf-8")
    if check:
        for name in drifted:
            print(f"docs/{name} is not what docs/make.py would write; run it.", file=sys.stderr)
        if measured_hash().encode() not in (FIGURES / "comm_measured.png").read_bytes():
            drifted.append("comm_measured.png")
            print("docs/figures/comm_measured.png is drawn from other measurements; "
                  "run docs/make.py.", file=sys.stderr)  # fmt: skip
        return 1 if drifted else 0
    FIGURES.mkdir(exist_ok=True)
    made = {name: draw for file in DRAWINGS for name, draw in file.MADE.items()}
    for name, draw in made.items():
        draw(FIGURES / name)
    print(f"{len(made)} figures; changed pages: {', '.join(drifted) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
