"""What was packed comes back; arrays of no dimension and empty ones too."""

import numpy as np

from minipar.parallel.flat import pack, unpack


def test_a_vector_holds_the_arrays_in_order_and_gives_them_back():
    arrays = [np.arange(6.0).reshape(2, 3), np.array(6.0), np.zeros((0, 4)), np.array([7.0, 8.0])]
    vector = pack(arrays)
    assert vector.tolist() == list(range(9))
    unpack(vector + 10, arrays)
    assert arrays[0].tolist() == [[10, 11, 12], [13, 14, 15]]
    assert arrays[1] == 16
    assert arrays[3].tolist() == [17, 18]


def test_a_vector_is_a_copy_and_may_be_empty():
    x = np.ones(2, np.float32)
    pack([x])[...] = 5
    assert x.tolist() == [1, 1]
    assert pack([x]).dtype == np.float32
    assert pack([]).size == 0
