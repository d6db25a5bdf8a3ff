"""The pages say what the code does, and point to what is there."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")


def headings(page: Path) -> set[str]:
    """The anchors that a page's headings make."""
    lines = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.slow
def test_generated_blocks_are_what_the_code_prints() -> None:
    """Also the answers of minipar to the scripts in docs/examples."""
    done = subprocess.run(
        [sys.executable, "docs/make.py", "--check"],
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_and_images_exist(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith(("http://", "https://")):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), target
        assert path.is_relative_to(REPOSITORY), target
        if anchor:
            assert anchor in headings(path), target


def test_every_tutorial_page_and_figure_is_mentioned() -> None:
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    expected = [*(REPOSITORY / "tutorials").glob("*.py"), *(REPOSITORY / "docs").glob("*.md")]
    expected += [*(REPOSITORY / "docs").glob("figures/*.png")]
    for path in expected:
        if path.name != "index.md":
            assert path.name in text, f"{path.name} is mentioned nowhere"


@pytest.mark.slow
def test_a_trained_model_is_used_as_the_page_says(tmp_path: Path) -> None:
    """docs/make.py runs the other examples; this one needs a run folder."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}

    def python(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    small = "--backend local --steps 2 --layers 1 --d 32 --heads 2 --block 16 --eval-batches 1"
    printed = python("-m", "minipar", "train", "gpt", "--json", *small.split())
    page = (REPOSITORY / "docs/training.md").read_text(encoding="utf-8")
    fields = re.findall(r"`(\w+)`", page.split("| field |")[1].split("\n\n")[0])
    others = {"images_per_s", "rows_per_s", "servers", "timeline", "virtual_seconds"}
    assert set(json.loads(printed)) == set(fields) - others
    said = python(str(REPOSITORY / "docs/examples/use_model.py"), "runs/gpt-1")
    assert said.startswith("after 2 steps it writes:\ndef ")


def test_the_picture_of_the_floors_is_the_table_of_the_test() -> None:
    spec = importlib.util.spec_from_file_location("floors", REPOSITORY / "tests/test_floors.py")
    assert spec is not None and spec.loader is not None
    floors = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(floors)
    page = (REPOSITORY / "docs/floors.md").read_text(encoding="utf-8")
    drawn: dict[str, int] = {}
    number = -1
    for line in page.split("```text\n")[1].split("```")[0].splitlines():
        if start := re.match(r" ?(\d+)  ", line):
            number = int(start[1])
        for name in re.findall(r"[a-z][a-z0-9_]*(?:/[a-z0-9_]*)*", line):
            drawn[name.strip("/").replace("/", ".")] = number
    assert {name: drawn.get(name) for name in floors.FLOORS} == floors.FLOORS
