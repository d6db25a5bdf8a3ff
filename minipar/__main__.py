"""The command `minipar`, which python -m minipar is, too."""

import sys
from typing import NoReturn


def main() -> NoReturn:
    """As cli.main; Ctrl-C while that is still being imported is no traceback either."""
    try:
        from minipar.cli import main as command

        command()
    except KeyboardInterrupt:
        print("minipar: interrupted", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
