import numpy as np
import pytest

from minipar.data import glyphs
from minipar.data.glyphs import (
    CANVAS,
    HEIGHT,
    TRAIN,
    VALIDATION,
    Face,
    _bilinear,
    _digits,
    _noise,
    draw_glyphs,
)
from minipar.errors import UsageError


def family(face):
    """DejaVu, STIX or cm: how the names of the files of a family begin."""
    return next(name for name in ("DejaVu", "STIX", "cm") if face.file.startswith(name))


@pytest.fixture(scope="module")
def digits():
    return {face: _digits(face) for face in (*TRAIN, *VALIDATION)}


def test_training_and_validation_share_no_family():
    assert not {family(face) for face in TRAIN} & {family(face) for face in VALIDATION}


def test_no_face_is_there_twice():
    assert len({*TRAIN, *VALIDATION}) == len(TRAIN) + len(VALIDATION)


def test_the_tallest_digit_of_each_face_has_the_height(digits):
    for face, pictures in digits.items():
        rows = [np.flatnonzero(p.any(axis=1)) for p in pictures]
        assert abs(max(r[-1] - r[0] + 1 for r in rows) - HEIGHT) <= 2, face
        assert pictures.min() >= 0 and pictures.max() <= 1


def test_every_face_has_digits_and_no_symbols(digits):
    """For most, the picture most alike in all other faces is of the same digit."""
    for face, pictures in digits.items():
        others = [p for other, p in digits.items() if other != face]
        assert same_as_most_alike(pictures, others) >= 7, face
    for file in ("cmsy10.ttf", "cmex10.ttf"):
        symbols = _digits(Face(file))
        assert same_as_most_alike(symbols, digits.values()) <= 4, file


def same_as_most_alike(pictures, others):
    """For how many digits the picture most alike in the other faces is of the same digit."""
    theirs = np.stack([[_centred(p) for p in face] for face in others])
    alike = [np.einsum("hw,fdhw->fd", _centred(p), theirs).max(axis=0) for p in pictures]
    return (np.argmax(alike, axis=1) == np.arange(10)).sum()


def _centred(picture):
    """Blurred, mean 0, length 1."""
    small = picture.reshape(16, 4, 16, 4).mean(axis=(1, 3))
    small = small - small.mean()
    return small / np.linalg.norm(small)


def test_an_image_is_a_function_of_seed_split_and_number_alone():
    images, labels = draw_glyphs("train", 300, seed=3)
    fewer, their = draw_glyphs("train", 20, seed=3)
    assert (images[:20] == fewer).all() and (labels[:20] == their).all()
    other, _ = draw_glyphs("train", 20, seed=4)
    assert (other != fewer).any(axis=(1, 2, 3)).all()
    split, _ = draw_glyphs("validation", 20, seed=3)
    assert (split != fewer).any(axis=(1, 2, 3)).all()


def test_noise_is_a_function_of_the_number_of_the_image_and_about_normal():
    noise = _noise("n", seed=0, start=0, n=300)
    assert (_noise("n", seed=0, start=256, n=44) == noise[256:]).all()
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02


def test_all_digits_are_drawn_about_equally_often_and_no_image_is_empty_or_twice_there():
    images, labels = draw_glyphs("train", 1000)
    assert images.shape == (1000, 28, 28, 1) and images.dtype == np.uint8
    assert labels.dtype == np.int64
    assert (abs(np.bincount(labels, minlength=10) - 100) < 40).all()
    assert (images.reshape(1000, -1).max(axis=1) > 100).all()
    assert len({image.tobytes() for image in images}) == 1000


def test_bilinear_is_exact_on_a_plane_and_zero_outside():
    y, x = np.mgrid[:CANVAS, :CANVAS].astype(np.float32)
    plane = (2 * x + 3 * y)[None]
    at = np.array([[0.0, 7.25, 61.5]], np.float32)
    assert np.allclose(_bilinear(plane, np.array([0]), at, at + 1), 2 * at + 3 * (at + 1))
    dot = np.zeros((2, CANVAS, CANVAS), np.float32)
    dot[1, 30, 20] = 1
    far = np.array([[-100.0, 20.0, 1e4, 20.5]], np.float32)
    assert _bilinear(dot, np.array([1]), far, np.full_like(far, 30)).tolist() == [[0, 1, 0, 0.5]]


@pytest.mark.parametrize("file", ["Nowhere.ttf", "STIXSizOneSymReg.ttf"])
def test_a_font_that_matplotlib_lacks_or_that_has_no_digits_gets_a_sentence(monkeypatch, file):
    monkeypatch.setattr(glyphs, "VALIDATION", (Face(file),))
    with pytest.raises(UsageError, match=rf"matplotlib .* has no font {file} with ten digits"):
        draw_glyphs("validation", 1)


@pytest.mark.parametrize(
    ("split", "n", "message"), [("test", 1, "'test'"), ("train", 0, "0 image")]
)
def test_what_cannot_be_drawn_gets_a_sentence(split, n, message):
    with pytest.raises(UsageError, match=message):
        draw_glyphs(split, n)
