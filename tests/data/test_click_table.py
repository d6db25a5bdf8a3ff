import gzip
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from minipar.data.click_table import (
    AVAZU,
    CRITEO,
    Layout,
    guess_layout,
    parse_lines,
    read_table,
    stable_hash,
)
from minipar.errors import UsageError

LAYOUT = Layout("click", ("price", "age"), ("city",), table=100)
TABLE = 'id,click,city,price,age\na,1,Rome,0,-2\nb,0,,7.5,\nc,1,"Oslo, N",nan,1e2\n'


def write(tmp_path, text, name="table.csv"):
    path = tmp_path / name
    data = text if isinstance(text, bytes) else text.encode()
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path


def squashed(x):
    return math.copysign(math.log(1 + abs(x)), x)


@pytest.mark.parametrize("name", ["table.csv", "table.csv.gz"])
def test_columns_are_found_by_name_and_missing_values_are_kept_apart(tmp_path, name):
    dense, ids, click, layout = read_table(write(tmp_path, TABLE, name), LAYOUT)
    expected = [[0, squashed(-2)], [squashed(7.5), math.nan], [math.nan, squashed(100)]]
    np.testing.assert_allclose(dense, expected, rtol=1e-6)
    cities = [stable_hash("city", text, 100) for text in ("Rome", "", "Oslo, N")]
    assert ids.tolist() == [[city] for city in cities] and len(set(cities)) == 3
    assert click.tolist() == [1, 0, 1] and layout == LAYOUT
    assert (dense.dtype, ids.dtype, click.dtype) == (np.float32, np.int32, np.float32)


def test_a_hash_is_the_same_everywhere():
    """As b2sum says of city\\0Rome; also where Python's own hash() is another one."""
    rome = int.from_bytes(bytes.fromhex("1d0b336cbdf8d265"), "little") % 2**32
    assert stable_hash("city", "Rome", 2**32) == rome
    code = "from minipar.data.click_table import stable_hash as h; print(h('city', 'Rome', 2**32))"
    env = {**os.environ, "PYTHONHASHSEED": "1"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert done.stdout.strip() == str(rome), done.stderr


def test_hashes_spread_over_the_table_and_fields_differ():
    codes = [stable_hash("a", str(n), 50) for n in range(5000)]
    assert set(codes) == set(range(50)) and np.bincount(codes).max() < 150
    assert codes != [stable_hash("b", str(n), 50) for n in range(5000)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "table.csv is empty"),
        ("\n\n", "table.csv is empty"),
        (TABLE.partition("\n")[0], "has 0 rows"),
        (TABLE.replace("click", "klick"), "has no column click; it has id, klick, city"),
        (TABLE.replace("7.5,", "7.5"), "line 3 has 4 fields, expected are 5"),
        (TABLE.replace("c,1", "c,2"), "line 4, column click: the label is '2', not 0 or 1"),
        (TABLE.replace("c,1", "c,"), "line 4, column click: the label is '', not 0 or 1"),
        (TABLE.replace("7.5", "cheap"), "line 3, column price: 'cheap' is no number"),
        (TABLE.replace("7.5", "inf"), "line 3, column price: 'inf' is no number"),
        (TABLE.replace('N"', "N"), "line 4: unexpected end of data"),
        (TABLE.replace("Rome", '"Ro\nme"').replace("7.5", "x"), "line 4, column price"),
        (b"\x80\x03\xff\0" * 9, "no column|NUL"),
    ],
)
def test_an_error_names_file_line_and_column(tmp_path, text, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_table(write(tmp_path, text), LAYOUT)
    assert str(tmp_path / "table.csv") in str(caught.value)


def test_a_gz_that_was_cut_off_gets_a_sentence(tmp_path):
    path = write(tmp_path, TABLE * 50, "table.csv.gz")
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(UsageError, match=r"table.csv.gz is damaged"):
        read_table(path, LAYOUT)


def test_bytes_that_are_no_utf8_are_an_id(tmp_path):
    data = TABLE.encode().replace(b"Rome", b"K\xf6ln")
    _, ids, _, _ = read_table(write(tmp_path, data), LAYOUT)
    assert 0 <= ids[0, 0] < 100


def test_no_more_rows_are_read_than_asked_for(tmp_path):
    path = write(tmp_path, TABLE + "broken\n")
    assert len(read_table(path, LAYOUT, rows=2)[2]) == 2


def test_criteo_is_known_by_its_shape(tmp_path):
    row = "\t".join(["1", *("5" for _ in range(13)), *("68fd1e64" for _ in range(26))])
    path = write(tmp_path, f"{row}\n{row.replace('68fd1e64', '', 3)}\n", "train.txt")
    dense, ids, click, layout = read_table(path)
    assert layout == CRITEO and dense.shape == (2, 13) and ids.shape == (2, 26)
    assert click.tolist() == [1, 1] and (ids[0, :3] != ids[1, :3]).all()
    assert (ids[0, 3:] == ids[1, 3:]).all()


def test_avazu_is_known_by_its_names(tmp_path):
    names = ["id", "click", *AVAZU.categorical]
    path = write(tmp_path, ",".join(names) + "\n" + ",".join("1" for _ in names) + "\n")
    assert guess_layout(path) == AVAZU


def test_others_are_guessed_from_the_first_rows(tmp_path):
    path = write(
        tmp_path, "size;colour;Label\n".replace(";", "\t") + "1\tred\t0\n\t2\t1\n", "t.tsv"
    )
    assert guess_layout(path) == Layout("Label", ("size",), ("colour",), delimiter="\t")
    with pytest.raises(UsageError, match="no column of the first line is called label"):
        guess_layout(write(tmp_path, "a,b\n1,2\n"))


def test_lines_of_a_stream_become_a_batch():
    layout = LAYOUT._replace(names=("id", "click", "city", "price", "age"))
    (dense, ids), y = parse_lines(TABLE.splitlines()[1:], layout)
    np.testing.assert_allclose(dense[1], [squashed(7.5), 0], rtol=1e-6)
    assert ids.dtype == np.int64 and ids[1, 0] == stable_hash("city", "", 100)
    assert y.tolist() == [1, 0, 1] and y.dtype == dense.dtype == np.float32
    with pytest.raises(UsageError, match="row 1 of a batch, column price: 'x' is no number"):
        parse_lines(["a,1,Rome,0,-2", "a,1,Rome,x,-2"], layout)


def test_a_label_alone_is_no_table(tmp_path):
    with pytest.raises(UsageError, match=r"table.csv has no column but label"):
        read_table(write(tmp_path, "label\n1\n0\n"))
