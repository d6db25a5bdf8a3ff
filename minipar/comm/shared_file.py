"""A file that has no name: processes share it by inheriting its descriptor."""

from __future__ import annotations

import os
import sys
import tempfile


def anonymous_file() -> int:
    """A descriptor of an empty file, in memory where the system can (memfd), else unlinked."""
    if sys.platform == "linux":
        return os.memfd_create("minipar")
    descriptor, path = tempfile.mkstemp(prefix="minipar")
    os.unlink(path)
    return descriptor
