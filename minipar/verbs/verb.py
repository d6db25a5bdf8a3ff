"""How all verbs of the command line look."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Callable
from typing import Any, NoReturn

from minipar.errors import UsageError


class Help(argparse.RawDescriptionHelpFormatter):
    """Texts as they are written, options and their meaning on one line."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


class Parser(argparse.ArgumentParser):
    """Says in one sentence what is wrong.

    What begins with a minus and a digit is a value: --memory-limit -5GB is a wrong size, and not an
    option without one.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._negative_number_matcher = re.compile(r"-\.?\d")

    def error(self, message: str) -> NoReturn:
        for pattern, words in PLAIN:
            if found := re.fullmatch(pattern, message, re.DOTALL):
                raise UsageError(f"{words(*found.groups())} See {self.prog} --help.")
        raise UsageError(f"{message}. See {self.prog} --help.")


def _choice(where: str, word: str, choices: str) -> str:
    known = re.findall(r"[\w-]+", choices)
    near = difflib.get_close_matches(word, known, n=1)
    there = f"is it {near[0]}?" if near else f"there are {', '.join(known)}."
    return f"there is no {where.partition('/')[0]} {word!r}; {there}"


def _kind(name: str) -> str:
    return {"int": "an integer", "float": "a number"}.get(name, f"of type {name}")


# What argparse says, and how we do.
PLAIN: tuple[tuple[str, Callable[..., str]], ...] = (
    (r"argument (\S+): expected one argument", lambda option: f"{option} needs a value."),
    (
        r"argument (\S+): invalid (\w+) value: (.*)",
        lambda option, kind, value: f"{option} is {_kind(kind)}, not {value}.",
    ),
    (r"argument (\S+): invalid choice: '(.*)' \(choose from (.*)\)", _choice),
    (r"the following arguments are required: (.*)", lambda names: f"{names} is missing."),
)


def verb(verbs: Any, name: str, does: str, example: str, run: Any) -> argparse.ArgumentParser:
    parser = verbs.add_parser(
        name,
        help=does,
        description=f"{does[0].upper()}{does[1:]}.",
        epilog=f"example:\n  {example}",
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.set_defaults(verb=run, options=parser._option_string_actions.keys())
    return parser


def listed(text: str) -> list[str]:
    """The words of an option that takes several, with commas between them."""
    return [word.strip() for word in text.split(",") if word.strip()]
