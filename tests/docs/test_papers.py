"""docs/papers.md and docs/together.md: files, functions and options that they name exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from minipar.config import option, option_types

REPOSITORY = Path(__file__).parents[2]
PAPERS = (REPOSITORY / "docs/papers.md").read_text(encoding="utf-8")
TOGETHER = (REPOSITORY / "docs/together.md").read_text(encoding="utf-8")


def rows(page: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_file_of_a_paper_has_the_functions_that_are_named() -> None:
    named = [(row[-2], row[-1]) for row in rows(PAPERS) if row[-2].startswith("`")]
    assert len(named) > 40
    for file, functions in named:
        tree = ast.parse((REPOSITORY / "minipar" / file.strip("`")).read_text(encoding="utf-8"))
        there = {n.name for n in tree.body if isinstance(n, ast.ClassDef | ast.FunctionDef)}
        for function in re.findall(r"`(\w+)`", functions):
            assert function in there, f"{file} has no {function}"


def test_every_paper_is_named_in_the_code() -> None:
    """By its authors and year, in some file that is named for it."""
    paper = ""
    cited: dict[str, bool] = {}
    for row in rows(PAPERS):
        if not row[-2].startswith("`"):
            continue
        paper = row[0].split(", *")[0] or paper
        text = (REPOSITORY / "minipar" / row[-2].strip("`")).read_text(encoding="utf-8")
        cited[paper] = cited.get(paper, False) or paper in " ".join(text.split())
    assert [name for name, found in cited.items() if not found] == []


def test_options_of_minipar_in_the_table_of_names_exist() -> None:
    table = TOGETHER.split("## From Megatron-LM and DeepSpeed")[1]
    known = {option(name) for name in option_types()} | {"resume"}
    named = [name for row in rows(table) for name in re.findall(r"--([a-z-]+)", row[2])]
    assert len(named) > 25
    assert [name for name in named if name not in known] == []
