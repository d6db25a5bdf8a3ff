import numpy as np
import pytest

from minipar.data.click_model import TABLES, ClickModel, entropy
from minipar.data.click_table import Layout
from minipar.data.clicks import load_clicks
from minipar.errors import UsageError


def test_the_known_model_is_the_default():
    train, val = load_clicks(rows=1100, seed=2)
    assert (len(train), len(val), train.tables, train.numbers) == (1000, 100, TABLES, 8)
    rows = ClickModel(2).rows(1000, 100)
    (dense, ids), y = val.batch(np.array([7, 3]))
    assert (dense == rows.dense[[7, 3]]).all() and (ids == rows.ids[[7, 3]]).all()
    assert (y == rows.click[[7, 3]]).all()
    assert (dense.dtype, ids.dtype, y.dtype) == (np.float32, np.int64, np.float32)
    assert val.best_loss == entropy(rows.p)
    assert load_clicks(rows=2)[1].batch(np.array([0]))[0][0].shape == (1, 8)


def table(tmp_path, rows):
    path = tmp_path / "t.csv"
    path.write_text("label,x,empty,city\n" + "".join(f"{y},{x},,{c}\n" for y, x, c in rows))
    return path


def test_a_table_is_standardised_by_its_training_rows(tmp_path):
    rows = [(n % 2, "" if n == 3 else n * n, "ab"[n % 2]) for n in range(22)]
    layout = Layout("label", ("x", "empty"), ("city",), table=1000)
    train, val = load_clicks(table(tmp_path, rows), layout)
    assert (len(train), len(val), val.tables, val.best_loss) == (20, 2, (1000,), None)
    (dense, ids), y = train.batch(np.arange(20))
    x = np.log1p([n * n for n in range(20) if n != 3])
    assert abs(dense[:, 0].mean()) < 1e-6 and dense[3, 0] == 0 and not dense[:, 1].any()
    assert np.allclose(np.delete(dense[:, 0], 3), (x - x.mean()) / x.std(), atol=1e-5)
    (last, _), _ = val.batch(np.array([1]))
    assert np.allclose(last[0, 0], (np.log1p(21 * 21) - x.mean()) / x.std(), atol=1e-5)
    assert y.tolist() == [n % 2 for n in range(20)]
    assert len(set(ids[::2, 0])) == len(set(ids[1::2, 0])) == 1 and ids[0, 0] != ids[1, 0]


def test_what_is_no_table_gets_a_sentence(tmp_path):
    with pytest.raises(UsageError, match="is no file"):
        load_clicks(tmp_path)
    with pytest.raises(UsageError, match="does not exist"):
        load_clicks(tmp_path / "t.csv")
    with pytest.raises(UsageError, match="1 rows cannot be divided"):
        load_clicks(rows=1)
    with pytest.raises(UsageError, match="has 1 rows of data"):
        load_clicks(table(tmp_path, [(1, 2, "a")]))
