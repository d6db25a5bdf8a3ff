import numpy as np
import pytest

from minipar.data.click_model import TABLES, ClickModel, entropy


@pytest.fixture(scope="module")
def rows():
    return ClickModel(1).rows(0, 50_000)


def test_a_row_is_a_function_of_seed_and_number_alone(rows):
    some = ClickModel(1).rows(123, 77)
    for there, all_of_them in zip(some, rows):
        assert (there == all_of_them[123:200]).all()
    assert (ClickModel(2).rows(123, 77).ids != some.ids).any()


def test_the_clicks_follow_the_probabilities(rows):
    """In rows sorted by p and cut into ten, as many click as p says, within 4 deviations."""
    order = np.argsort(rows.p)
    for part in np.split(order, 10):
        p = rows.p[part]
        apart = (rows.click[part] - p).sum() / np.sqrt((p * (1 - p)).sum())
        assert abs(apart) < 4


def test_the_true_model_has_the_best_loss_and_others_a_higher_one(rows):
    def loss(p):
        return -(rows.click * np.log(p) + (1 - rows.click) * np.log1p(-p)).mean()

    deviation = 0.6 / np.sqrt(len(rows.p))  # of a row's loss, about
    assert abs(loss(rows.p) - entropy(rows.p)) < 4 * deviation
    logit = np.log(rows.p / (1 - rows.p))
    for other in (0.5 * logit, logit + 0.5, np.full_like(logit, np.log(1 / 3))):
        assert loss(1 / (1 + np.exp(-other))) > entropy(rows.p) + 4 * deviation


def test_p_is_the_model_that_the_docstring_states(rows):
    model = ClickModel(1)
    for i in range(0, 500, 7):
        a, b = rows.ids[i, :2]
        x = -1.2 + rows.dense[i].astype(float) @ model.numbers + model.pair[a, b]
        x += sum(weights[k] for weights, k in zip(model.fields, rows.ids[i]))
        assert abs(rows.p[i] - 1 / (1 + np.exp(-x))) < 1e-6


def test_the_ids_are_long_tailed(rows):
    """P(id = k) is log((k+2)/(k+1)) / log(size+1)."""
    for field, size in enumerate(TABLES):
        ids = rows.ids[:, field]
        assert ids.min() >= 0 and ids.max() < size
        for k in (0, 1, 5):
            p = np.log((k + 2) / (k + 1)) / np.log(size + 1)
            assert abs((ids == k).mean() - p) < 4 * np.sqrt(p / len(ids))


def test_the_numbers_are_normal(rows):
    assert (
        abs(rows.dense.mean(axis=0)).max() < 0.02 and abs(rows.dense.std(axis=0) - 1).max() < 0.02
    )
    assert abs(np.corrcoef(rows.dense.T) - np.eye(8)).max() < 0.02
