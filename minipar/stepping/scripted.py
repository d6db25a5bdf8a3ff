"""Step through a script with commands that were written down, as `minipar step --script` does."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from minipar.comm.cluster import Cluster
from minipar.stepping.prompt import Prompt
from minipar.stepping.stepper import Session


def stepped(
    script: str,
    ranks: int,
    commands: Sequence[str],
    *,
    cluster: Cluster | None = None,
    width: int = 100,
) -> str:
    """What is shown on the way.

    script:   the text of a Python file, to be run on every rank of `local`.
    commands: what one would type at the prompt; behind the last one the run is left.
    Raises:   what the script raises.
    """
    out, argv = io.StringIO(), list(sys.argv)
    prompt = Prompt(iter(commands), out, width)
    with TemporaryDirectory() as folder:
        path = Path(folder, "script.py")
        path.write_text(script, encoding="utf-8")
        session = Session(str(path), [], ranks, prompt, cluster)
        prompt.session = session
        try:
            failure = session.run().failure
        finally:
            sys.argv[:] = argv
    if failure is not None:
        raise failure
    return out.getvalue()
