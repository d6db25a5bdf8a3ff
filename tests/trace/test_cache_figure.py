from itertools import chain

from minipar.trace.cache_figure import EMPTY, KEPT, NOW, RANKS, draw_filling, draw_holders, readings


def test_readings_are_what_write_asks_for():
    found = readings(b"ab", b"cdefg", block=4)
    assert [r.letters for r in found] == ["ab", "abc", "abcd", "cde", "cdef"]
    assert [r.new for r in found] == [2, 1, 1, 3, 1]


def colours(axes):
    from matplotlib.colors import to_hex

    return [to_hex(patch.get_facecolor()).upper() for patch in axes.patches]


def test_without_a_cache_all_is_computed_and_with_one_what_is_new():
    without, cached = draw_filling(b"ab", b"cdefg", block=4).axes
    lengths, new = [2, 3, 4, 3, 4], [2, 1, 1, 3, 1]
    lines = ([NOW] * n + [EMPTY] * (4 - n) for n in lengths)
    assert colours(without) == [*chain(*lines)]
    lines = ([KEPT] * (n - k) + [NOW] * k + [EMPTY] * (4 - n) for n, k in zip(lengths, new))
    assert colours(cached) == [*chain(*lines)]
    words = [text.get_text() for text in cached.texts]
    assert [word for word in words if word.startswith("→")] == [f"→ {c}" for c in "cdefg"]


def test_a_head_has_the_colour_of_its_rank():
    (axes,) = draw_holders({(0, 0): 0, (0, 1): 1, (1, 0): 2, (1, 1): 3}, 2, 2).axes
    assert colours(axes) == [RANKS[r] for r in (0, 0, 1, 1, 2, 2, 3, 3)]  # keys, values
    assert {text.get_text() for text in axes.texts} >= {"k0", "v1", "block 1"}
