"""Images without a download: the digits of matplotlib's own fonts, each drawn a little wrongly.

    font file -> 64x64 picture, once a face and digit -> turned, slanted, bent, moved -> 28x28
                 (FreeType, in three degrees of blur)    (bilinear, many at a time)     plus noise

The fonts lie inside matplotlib, so every machine has the same; the system's are never looked at.
Training and validation share no family: what is learnt must hold for typefaces never seen.

Image i is a pure function of (seed, split, i). What else it depends on is the version of
matplotlib: its font files (the same for years) and its FreeType, which decides on the grey of an
edge. On another kind of processor sin and exp are rounded differently, so a pixel may differ by 1.

Letters: n images, f faces, s the side of a font's picture.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from minipar.errors import UsageError
from minipar.random import uniform, words

SIDE = 28
CANVAS, HEIGHT = 64, 44  # of a font's picture, and of the tallest digit in it
FINE = (
    4  # a font is drawn so much finer first: versions of FreeType move edges by a part of a pixel
)
BLURS = (1.0, 1.6, 2.4)  # standard deviations, in pixels of the canvas
AT_ONCE = 256  # images: what is worked on stays in the cache


class Face(NamedTuple):
    """A font file of matplotlib and the code of its digit 0; 1 to 9 follow it."""

    file: str
    zero: int = ord("0")


DOUBLE_STRUCK, SANS, SANS_BOLD, MONO = 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6  # digits of Unicode

DEJAVU = (
    *(Face(f"DejaVuSans{style}.ttf") for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(Face(f"DejaVuSansMono{style}.ttf") for style in ("", "-Bold", "-Oblique", "-BoldOblique")),
    *(Face(f"DejaVuSerif{style}.ttf") for style in ("", "-Bold", "-Italic", "-BoldItalic")),
    *(Face("DejaVuSans.ttf", DOUBLE_STRUCK), Face("DejaVuSerif.ttf", DOUBLE_STRUCK)),
)
COMPUTER_MODERN = tuple(Face(f"cm{name}10.ttf") for name in ("r", "b", "ss", "tt", "mi"))
STIX = (
    *(Face(f"STIXGeneral{style}.ttf") for style in ("", "Bol", "Italic", "BolIta")),
    *(Face("STIXGeneral.ttf", zero) for zero in (DOUBLE_STRUCK, SANS, SANS_BOLD, MONO)),
)
TRAIN, VALIDATION = (*DEJAVU, *COMPUTER_MODERN), STIX


def draw_glyphs(split: str, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """n images of digits, uint8 [n, 28, 28, 1], and which digits they are, int64 [n].

    split: "train" or "validation".  Cost: 0.05 ms an image, and 0.15 s for the fonts.
    """
    if split not in ("train", "validation"):
        raise UsageError(f"There are glyphs for train and validation, not for {split!r}.")
    if n < 1:
        raise UsageError(f"{n} images cannot be drawn; ask for 1 or more.")
    pictures = _pictures(TRAIN if split == "train" else VALIDATION)
    chance = uniform(seed, f"glyphs.{split}", (n, 16)).astype(np.float32)
    images = np.empty((n, SIDE, SIDE, 1), np.uint8)
    for start in range(0, n, AT_ONCE):
        some = chance[start : start + AT_ONCE].T
        ink = _ink(pictures, some)
        ink += some[5][:, None] * 0.16 * _noise(f"glyphs.{split}.noise", seed, start, len(ink))
        images[start : start + AT_ONCE, ..., 0] = (np.clip(ink, 0, 1) * 255).reshape(-1, SIDE, SIDE)
    return images, (chance[:, 0] * 10).astype(np.int64)


def _ink(pictures: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Images without noise, float32 [n, 784].  pictures: [f, 10, blurs, s, s].  chance: [16, n]."""
    faces, _, blurs = pictures.shape[:3]
    digit, face, blur = (
        (chance[row] * count).astype(np.int64) for row, count in ((0, 10), (1, faces), (2, blurs))
    )
    x, y = _places(chance[6:])
    ink = _bilinear(pictures, (face * 10 + digit) * blurs + blur, x, y)
    ink *= (1 + 0.8 * chance[3])[:, None]  # above 1 a blurred stroke becomes a thick one
    return np.minimum(ink, 1) * (0.55 + 0.45 * chance[4])[:, None]


def _places(chance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where in the canvas each pixel of an image lies: x and y, each [n, 784].  chance: [10, n]."""
    spread = 2 * chance - 1  # in -1 .. 1
    angle, shear = 0.28 * spread[0], 0.3 * spread[1]
    wide, high = (1.0 + 0.2 * spread[2]), (1.0 + 0.2 * spread[3])  # the digit's size
    grid = np.arange(SIDE, dtype=np.float32) - (SIDE - 1) / 2
    v, u = (axis.reshape(1, -1) for axis in np.meshgrid(grid, grid, indexing="ij"))
    u, v = u - (3 * spread[4])[:, None], v - (3 * spread[5])[:, None]  # moved
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    u, v = cos * u + sin * v, cos * v - sin * u  # turned
    u = u + shear[:, None] * v  # slanted
    u, v = (  # bent like a wave
        u + (1.2 * chance[6])[:, None] * np.sin(0.35 * v + (6.28 * chance[7])[:, None]),
        v + (1.2 * chance[8])[:, None] * np.sin(0.35 * u + (6.28 * chance[9])[:, None]),
    )
    scale = np.float32(HEIGHT / 20)  # pixels of the canvas to one of the image
    centre = np.float32((CANVAS - 1) / 2)
    return centre + u * (scale / wide)[:, None], centre + v * (scale / high)[:, None]


def _bilinear(pictures: np.ndarray, which: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Picture `which` at (x, y), between its pixels; its border, which is 0, goes on forever."""
    x, y = (np.clip(axis, 0, CANVAS - 1.001) for axis in (x, y))
    left, top = x.astype(np.int32), y.astype(np.int32)
    x -= left
    y -= top
    flat = pictures.reshape(-1)
    at = (which * CANVAS**2).astype(np.int32)[:, None] + top * CANVAS + left
    upper = flat[at] * (1 - x) + flat[at + 1] * x
    at += CANVAS
    lower = flat[at] * (1 - x) + flat[at + 1] * x
    return upper * (1 - y) + lower * y


def _noise(name: str, seed: int, start: int, n: int) -> np.ndarray:
    """Nearly normal, [n, 784]: the sum of four bytes has mean 510, deviation 147.8."""
    pixels = SIDE * SIDE
    drawn = words(seed, name, 0, start * pixels // 2, n * pixels // 2).astype("<u8", copy=False)
    total = drawn.view(np.uint8).reshape(n, pixels, 4).sum(axis=2, dtype=np.int16)
    return (total.astype(np.float32) - 510) / 147.8


def _pictures(faces: tuple[Face, ...]) -> np.ndarray:
    """Every digit of these faces in every blur, float32 [f, 10, blurs, s, s] in 0 .. 1."""
    sharp = np.stack([_digits(face) for face in faces])
    at = np.arange(CANVAS, dtype=np.float32)
    blurred = []
    for sigma in BLURS:
        kernel = np.exp(-((at[:, None] - at) ** 2) / (2 * sigma**2))
        kernel /= np.float32(np.sqrt(2 * np.pi) * sigma)
        blurred.append(kernel @ sharp @ kernel)
    return np.stack(blurred, axis=2)


def _digits(face: Face) -> np.ndarray:
    """The ten digits in the middle of canvases, float32 [10, s, s]; the tallest is HEIGHT high."""
    import matplotlib
    from matplotlib.ft2font import FT2Font

    codes = range(face.zero, face.zero + 10)
    path = Path(matplotlib.get_data_path(), "fonts", "ttf", face.file)
    font = FT2Font(str(path)) if path.is_file() else None
    if font is None or not all(font.get_char_index(code) for code in codes):
        raise UsageError(
            f"matplotlib {matplotlib.__version__} has no font {face.file} with ten digits from "
            f"U+{face.zero:04X} on; the glyph images need it. Install another version (3.8 to 3.11 "
            "have it), or pass images of your own."
        )
    tall, side = FINE * HEIGHT, FINE * CANVAS
    size = float(tall)
    for _ in range(2):  # measured first
        font.set_size(size, 72)
        bitmaps = [_bitmap(font, chr(code)) for code in codes]
        size *= tall / max(len(bitmap) for bitmap in bitmaps)
    canvas = np.zeros((10, side, side), np.float32)
    for picture, bitmap in zip(canvas, bitmaps):
        top, left = ((side - n) // 2 for n in bitmap.shape)
        picture[top : top + bitmap.shape[0], left : left + bitmap.shape[1]] = bitmap / 255
    return canvas.reshape(10, CANVAS, FINE, CANVAS, FINE).mean(axis=(2, 4))


def _bitmap(font: Any, character: str) -> np.ndarray:
    """A character as FreeType draws it, without empty rows and columns around it."""
    font.set_text(character, 0.0)
    font.draw_glyphs_to_bitmap(antialiased=True)
    image = np.array(font.get_image(), np.float32)
    rows, columns = np.flatnonzero(image.any(1)), np.flatnonzero(image.any(0))
    return image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
