"""Text as bytes, without a download: the source code of Python's own standard library.

A token is a byte, so the vocabulary is 256 and there is no tokenizer to train.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

import numpy as np

from minipar.errors import UsageError


def stdlib_sources() -> list[Path]:
    """The top-level .py files of the standard library, sorted by name."""
    return sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))


def load_text(path: str | Path | None = None) -> tuple[np.ndarray, np.ndarray]:
    """(train, validation), uint8 arrays.

    path:  None is the standard library. Of many files (a folder's, sorted, those that are text)
           every tenth is for validation; of one file, or fewer than ten, the last tenth is.
    """
    if path is None:
        return _split([p.read_bytes() for p in stdlib_sources()])
    path = Path(path)
    if path.is_dir():
        texts = [p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()]
        texts = [t for t in texts if _is_text(t)]
        if not any(texts):
            raise UsageError(f"{path} holds no text files; pass a folder with some, or a file.")
        return _split(texts)
    if not path.is_file():
        what = "is neither a file nor a folder" if path.exists() else "does not exist"
        raise UsageError(f"{path} {what}; pass a text file or a folder of text files.")
    text = path.read_bytes()
    if not text:
        raise UsageError(f"{path} is empty; pass a file with some text.")
    if not _is_text(text):
        raise UsageError(f"{path} is not text (UTF-8); convert it, or pass another file.")
    return _split([text])


def _is_text(text: bytes) -> bool:
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return b"\0" not in text


def _split(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    if len(texts) >= 10:
        train = b"".join(t for n, t in enumerate(texts) if n % 10 != 9)
        val = b"".join(texts[9::10])
    else:
        whole = b"".join(texts)
        cut = len(whole) - len(whole) // 10
        train, val = whole[:cut], whole[cut:]
    return np.frombuffer(train, np.uint8), np.frombuffer(val, np.uint8)


class TextWindows:
    """A text cut into windows of `block` bytes that do not overlap; y is x, one byte later."""

    def __init__(self, text: np.ndarray, block: int) -> None:
        if len(text) < block + 1:
            raise UsageError(
                f"The text has {len(text)} bytes, a window needs {block + 1} (block + 1); "
                "pass a longer text or a smaller block."
            )
        self.text, self.block = text, block

    def __len__(self) -> int:
        return (len(self.text) - 1) // self.block

    def batch(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x and y of these windows, each int64 [len(indices), block]."""
        at = np.asarray(indices)[:, None] * self.block + np.arange(self.block)
        return self.text[at].astype(np.int64), self.text[at + 1].astype(np.int64)
