"""The command line: `minipar VERB ...`, or `python -m minipar VERB ...`.

Each verb (minipar/verbs) is a function from parsed arguments to an exit code. 0 means that what was
asked for worked; 1 that a rank failed; 2 that the question was wrong; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from typing import NoReturn

from minipar import __version__
from minipar.errors import MiniparError, UsageError
from minipar.verbs import (
    bench,
    checkpoint,
    doctor,
    generate,
    run,
    schedule,
    step,
    timeline,
    train,
    tutorials,
    verify,
)
from minipar.verbs.verb import Help, Parser

EXAMPLES = """examples:
  minipar train gpt --dp 2                 train a small GPT on two processes of this machine
  minipar run -n 4 script.py               run a script of your own on four ranks
  minipar doctor                           what this machine offers
"""


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Parse, run the verb, turn minipar's own errors into one message, and exit."""
    try:
        arguments, unknown = _parser().parse_known_args(argv)
        if unknown:
            raise UsageError(_unknown(unknown[0], arguments.options))
        code = arguments.verb(arguments)
    except MiniparError as error:
        print(f"minipar: {error}", file=sys.stderr)
        code = 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt as where:
        print(f"minipar: interrupted{where}", file=sys.stderr)
        code = 130
    except BrokenPipeError:  # the reader of our output has gone, as in `minipar ... | head`
        sys.stderr.close()
        code = 1
    except OSError as error:  # no space, no permission, no such folder: its text says which file
        option = _option_of(error, sys.argv[1:] if argv is None else argv)
        print(f"minipar: {option}{error}", file=sys.stderr)
        code = 2 if option else 1
    sys.exit(code)


def _option_of(error: OSError, argv: Sequence[str]) -> str:
    """What named a file that cannot be: "--figure x/y.png: "; nothing if it was no word of ours."""
    cannot_be = (FileNotFoundError, NotADirectoryError, IsADirectoryError, PermissionError)
    if not isinstance(error, cannot_be) or str(error.filename) not in argv:
        return ""
    before = argv[list(argv).index(str(error.filename)) - 1]
    return f"{before}: " if before.startswith("--") else f"{error.filename}: "


def _unknown(word: str, options: Sequence[str]) -> str:
    near = difflib.get_close_matches(word.partition("=")[0], options, n=1)
    return f"there is no option {word}; " + (f"is it {near[0]}?" if near else "see --help.")


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="minipar",
        description="Parallel training of neural networks by hand.",
        epilog=EXAMPLES,
        formatter_class=Help,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"minipar {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for module in (
        *(train, generate, run, verify, bench, schedule, step, timeline, checkpoint, doctor),
        tutorials,
    ):
        module.add(verbs)
    return parser
