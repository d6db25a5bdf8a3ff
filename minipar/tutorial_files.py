"""Where the tutorials are: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

import shutil
from pathlib import Path

from minipar.errors import UsageError


def files() -> list[Path]:
    """The tutorials, in reading order."""
    package = Path(__file__).parent
    for folder in (package / "tutorials", package.parent / "tutorials"):
        if found := sorted(folder.glob("[0-9]*.py")):
            return found
    raise UsageError("this installation has no tutorials; install minipar from its repository.")


def listing() -> str:
    """A line per tutorial: its file, and its title (the first heading in it)."""
    titles = []
    for path in files():
        heading = next(line for line in path.read_text().splitlines() if line.startswith("# # "))
        titles.append(f"{path.name:24s} {heading.removeprefix('# # ')}")
    return "\n".join(titles)


def copy(folder: str) -> list[Path]:
    """Copy them into a folder, which is made if need be; never over a file that is there."""
    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder} cannot be a folder for the tutorials: {error}.") from None
    for path in files():
        if (target / path.name).exists():
            raise UsageError(f"{target / path.name} is already there; choose another folder.")
    return [Path(shutil.copy(path, target)) for path in files()]
