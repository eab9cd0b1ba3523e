"""Tables as practitioners have them: odd targets, scales, weights, copies, types and parts."""

import numpy as np
import pytest
import torch
from scipy.sparse import coo_matrix, csc_array, csr_array, csr_matrix
from sklearn.datasets import load_diabetes
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split

from regrow.features import Recipe, SparseFeatureSelector, UnsupervisedSparseFeatureSelector
from regrow.features.copies import alike, best_of_copies
from regrow.features.encoding import Encoding, task_of
from regrow.features.inputs import Inputs, scaling
from regrow.features.stream import merged

QUICK = {"max_iter": 60, "n_members": 4, "width": 8, "random_state": 0}
ONE = {
    "method": "SET",
    "recipe": Recipe(hidden=(16,), max_epochs=30, learning_rate=1e-2),
    "random_state": 0,
}


def table(n=300, d=12, seed=0):
    """Columns 0 and 1 decide."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    return X, (X[:, 0] + X[:, 1] > 0).astype(int)


def chosen(X, y, k=2, **options):
    selector = SparseFeatureSelector(k, **{"random_state": 0, "max_iter": 200} | options)
    return set(selector.fit(X, y).get_support(indices=True).tolist())


# -------------------------------------------------------------------------------- targets


@pytest.mark.filterwarnings("ignore:The number of unique classes")
def test_many_whole_numbers_are_asked_about():
    X, y = load_diabetes(return_X_y=True)
    assert len(np.unique(y)) == 214 and (y == y.astype(int)).all()
    for targets in (y, y.astype(int), y.astype(np.float32)):
        with pytest.raises(ValueError, match=r"214 different whole numbers.*task='regression'"):
            SparseFeatureSelector(3, random_state=0).fit(X, targets)
    seen, unseen, known, unknown = train_test_split(X, y, random_state=0)
    scores = {}
    for task in ("classification", "regression"):
        selector = SparseFeatureSelector(3, task=task, random_state=1).fit(seen, known)
        model = LinearRegression().fit(selector.transform(seen), known)
        scores[task] = model.score(selector.transform(unseen), unknown)
        assert hasattr(selector, "classes_") == (task == "classification")
    assert scores["regression"] > scores["classification"]
    halves = SparseFeatureSelector(3, random_state=0).fit(seen, known + 0.5)
    named = SparseFeatureSelector(3, task="regression", random_state=0).fit(seen, known)
    assert (halves.support_ == named.support_).all()


@pytest.mark.parametrize(
    ("y", "wanted"),
    [
        (np.arange(20), "classification"),
        (np.arange(20.0), "classification"),
        (np.arange(20) * 1000 - 7, "classification"),
        (np.arange(40) % 2 == 0, "classification"),
        (np.arange(400).astype(str), "classification"),
        (np.arange(400) + 0.5, "regression"),
        (np.arange(800).reshape(400, 2), "regression"),
        (np.arange(21), None),
        (np.arange(21.0), None),
        (np.arange(21)[:, None], None),
        (np.arange(21).astype("datetime64[s]"), None),
    ],
)
def test_what_the_targets_are_taken_for(y, wanted):
    if wanted is None:
        with pytest.raises(ValueError, match="21 different whole numbers"):
            task_of(y, "auto")
    else:
        assert task_of(y, "auto") == wanted
    assert task_of(y, "regression") == "regression"
    assert task_of(y, "classification") == "classification"


def test_numbers_that_are_all_equal_tell_nothing():
    X, y = table()
    for constant in (0.1, 0.0, 1e9):
        with pytest.raises(ValueError, match="all numbers are equal"):
            SparseFeatureSelector(2, task="regression", **QUICK).fit(X, np.full(len(y), constant))


@pytest.mark.parametrize("scale", [1e-200, 1e-36, 1e36, 1e200, 1e307])
def test_targets_of_any_scale_select_alike(scale):
    X, _ = table()
    assert chosen(X, np.tanh(X[:, 0] + X[:, 1]) * scale, task="regression") == {0, 1}


@pytest.mark.parametrize(("factor", "offset"), [(1, 0), (100, 1.7e9)])
def test_targets_of_any_offset_select_alike(factor, offset):
    X, _ = table()
    assert chosen(X, offset + factor * np.tanh(X[:, 0] + X[:, 1])) == {0, 1}


# -------------------------------------------------------------------------------- scales


@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.parametrize("options", [{}, ONE], ids=["ensemble", "SET"])
def test_a_timestamp_counts(form, options):
    X, _ = table()
    seconds = 1.7e9 + np.random.default_rng(1).uniform(0, 100, len(X))
    y = (seconds > np.median(seconds)).astype(int)
    X[:, 5] = seconds
    assert scaling(form(X), np.ones(len(X)), 3.0).constant.sum() == 0
    assert 5 in chosen(form(X), y, 1, **options)


@pytest.mark.parametrize("form", [np.asarray, csr_array])
def test_a_constant_column_of_any_size_is_constant(form):
    values = [0.0, 0.1, -1 / 3, 1.7e9 + 0.1, 1e-310, 1e300, -1.7e308]
    for n in (3, 1000, 100_003):
        found = scaling(form(np.tile(values, (n, 1))), np.random.default_rng(0).random(n) + 0.1, 3)
        assert found.constant.all()
        assert found.mean.tolist() == values


@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.parametrize("clip", [3.0, None])
def test_columns_of_any_scale_look_alike_to_a_network(form, clip):
    X = np.random.default_rng(0).normal(size=(50, 1)) * np.ones(8)
    scales = np.array([1.0, 1e-300, 1e-200, 1e-36, 1e36, 1e200, 1e307, 3e-310])
    found = scaling(form(X * scales), np.ones(50), clip)
    assert not found.constant.any()
    batch = Inputs(form(X * scales), found, clip).batch(torch.arange(50)).numpy()
    np.testing.assert_allclose(batch, batch[:, :1] * np.ones(8), atol=1e-5)
    assert np.abs(batch).max() > 1


@pytest.mark.parametrize("options", [{}, ONE], ids=["ensemble", "SET"])
@pytest.mark.parametrize("kind", [SparseFeatureSelector, UnsupervisedSparseFeatureSelector])
def test_the_scale_of_weights_does_not_count(kind, options):
    X, y = table()
    weights = np.random.default_rng(0).uniform(0.5, 2, len(y))
    runs = [
        kind(2, **{**QUICK, **options}).fit(X, y, sample_weight=weights * factor).scores_
        for factor in (1.0, 2.0**-120, 1e-300, 1e-36, 1e36, 1e300)
    ]
    assert (runs[0] == runs[1]).all()  # a power of 2 changes no digit
    for run in runs[2:]:
        np.testing.assert_allclose(run, runs[0], rtol=1e-3, atol=1e-3)
        assert len(np.unique(run)) > 6


def test_weights_of_zero_only_are_refused():
    X, y = table()
    for kind in (SparseFeatureSelector, UnsupervisedSparseFeatureSelector):
        with pytest.raises(ValueError, match="at least one non-zero number"):
            kind(2, **QUICK).fit(X, y, sample_weight=np.zeros(len(y)))


# -------------------------------------------------------------------------------- copies


@pytest.mark.parametrize("form", [np.asarray, csr_array])
@pytest.mark.parametrize("options", [{}, ONE], ids=["ensemble", "SET"])
def test_a_hundred_copies_take_one_place(form, options):
    X, y = table(400)
    X = np.c_[X, np.repeat(X[:, :1], 100, axis=1)]
    selector = SparseFeatureSelector(5, **{"random_state": 0, **options}).fit(form(X), y)
    places = selector.get_support(indices=True)
    copies = [place for place in places if place == 0 or place >= 12]
    assert len(copies) == 1 and 1 in places
    assert np.count_nonzero(selector.scores_[12:] == 0) >= 99
    assert sorted(selector.ranking_) == [*range(1, 113)]


def test_copies_take_one_place_without_labels_and_in_parts():
    X, y = table(400)
    X = np.c_[X, np.repeat(X[:, :1], 30, axis=1)]
    without = UnsupervisedSparseFeatureSelector(5, **QUICK).fit(X)
    parts = SparseFeatureSelector(2, random_state=0, batch_size=20)
    for _ in range(20):
        for rows in np.split(np.arange(400), 4):
            parts.partial_fit(X[rows], y[rows], classes=[0, 1])
    assert parts.get_support(indices=True).tolist() == [0, 1]
    for selector in (without, parts):
        assert np.count_nonzero(selector.scores_ == 0) == 30


@pytest.mark.parametrize("form", [np.asarray, csr_array, csr_matrix])
def test_alike_are_columns_that_are_equal_everywhere(form):
    rng = np.random.default_rng(0)
    X = rng.integers(0, 2, (500, 40)).astype(float)
    X = X[:, rng.integers(0, 40, 80)]
    X[499, 7] += 0.25  # one value in one row
    X[:, 8] = -0.0
    X[:, 9] = 0.0
    found = alike(form(X))
    wanted = np.unique(X + 0.0, axis=1, return_inverse=True)[1].reshape(-1)
    assert (found[:, None] == found).tolist() == (wanted[:, None] == wanted).tolist()


def test_a_column_that_is_told_apart_by_a_later_part_is_no_copy():
    X, y = table(100, 4)
    X[:50, 3] = X[:50, 0]
    selector = SparseFeatureSelector(2, random_state=0)
    assert (selector.partial_fit(X[:50], y[:50]).scores_ == 0).sum() == 1
    assert (selector.partial_fit(X[50:], y[50:]).scores_ == 0).sum() == 0


def test_the_best_of_copies_stays():
    assert best_of_copies(np.array([1.0, 2, 2, 5]), np.array([0, 0, 0, 1])).tolist() == [
        *(False, True, False, True)
    ]


# -------------------------------------------------------------------------------- parts


def test_parts_of_one_row_are_learned_from():
    X, y = table(300)
    rows = SparseFeatureSelector(2, random_state=0)
    for i in range(300):
        rows.partial_fit(X[i : i + 1], y[i : i + 1], classes=[0, 1])
    assert rows.n_iter_ == 300
    assert rows.get_support(indices=True).tolist() == [0, 1]


def test_numbers_come_row_by_row_too():
    X, _ = table(300)
    y = 1e6 + 1e3 * (X[:, 0] + X[:, 1])
    rows = SparseFeatureSelector(2, task="regression", random_state=0)
    for i in range(300):
        rows.partial_fit(X[i : i + 1], y[i : i + 1])
    assert rows.get_support(indices=True).tolist() == [0, 1]
    assert np.isfinite(rows.scores_).all()


def test_one_row_of_one_class_asks_for_the_classes():
    X, y = table()
    with pytest.raises(ValueError, match=r"only one class.*all classes="):
        SparseFeatureSelector(2).partial_fit(X[:1], y[:1])


def test_rows_one_by_one_measure_what_the_whole_does():
    X = np.random.default_rng(0).normal(size=(40, 4)) * [1, 1e-3, 1e200, 1e-200]
    X = np.c_[X, 1.7e9 + X[:, 0] * 100, np.full(40, 0.1)]
    whole = scaling(X, np.ones(40), None)
    parts = scaling(X[:1], np.ones(1), None)
    for i in range(1, 40):
        parts = merged(parts, scaling(X[i : i + 1], np.ones(1), None), 1 / (i + 1))
    assert parts.constant.tolist() == whole.constant.tolist() == [False] * 5 + [True]
    np.testing.assert_allclose(parts.mean, whole.mean, rtol=1e-9)
    np.testing.assert_allclose(parts.std, whole.std, rtol=1e-6)


def test_a_label_that_comes_late_is_named():
    X, y = table()
    selector = SparseFeatureSelector(2).partial_fit(X, y)
    with pytest.raises(ValueError, match=r"y holds \[6, 7\].*at the first part"):
        selector.partial_fit(X, y + 6)


# -------------------------------------------------------------------------------- types


def repeated(X):
    """Store every entry as two halves, in an order that is not ascending."""
    rows, columns = X.nonzero()
    halves = X[rows, columns] / 2
    entries = np.r_[halves, halves], (np.r_[rows, rows], np.r_[columns, columns])
    coo = coo_matrix(entries, X.shape)
    found = csr_matrix(X.shape)
    order = np.lexsort((-coo.col, coo.row))
    found.data, found.indices = coo.data[order], coo.col[order].astype(np.int32)
    found.indptr = np.r_[0, np.bincount(coo.row, minlength=len(X)).cumsum()].astype(np.int32)
    found.has_canonical_format = False
    return found


def test_repeated_entries_are_summed_and_the_table_is_not_touched():
    X, y = table()
    X[np.abs(X) < 0.5] = 0
    twice = repeated(X)
    before = twice.data.copy()
    wanted = SparseFeatureSelector(2, **QUICK).fit(csr_matrix(X), y)
    assert (SparseFeatureSelector(2, **QUICK).fit(twice, y).scores_ == wanted.scores_).all()
    assert (twice.data == before).all() and not twice.has_canonical_format
    part = SparseFeatureSelector(2, **QUICK).partial_fit(twice, y)
    once = SparseFeatureSelector(2, **QUICK).partial_fit(csr_matrix(X), y)
    assert (part.scores_ == once.scores_).all()


FORMS = {
    "list": lambda X: X.tolist(),
    "integers": lambda X: X.astype(np.int16),
    "float16": lambda X: X.astype(np.float16),
    "bytes": lambda X: X.astype(np.uint8),
    "objects": lambda X: X.astype(object),
    "columns first": np.asfortranarray,
    "every other": lambda X: np.repeat(X, 2, axis=0)[::2],
    "reversed": lambda X: X[::-1].copy()[::-1],
    "big end first": lambda X: X.astype(">f8"),
    "csc": csc_array,
    "long index": lambda X: csr_array(
        (csr_array(X).data, csr_array(X).indices.astype(np.int64), csr_array(X).indptr)
    ),
}


@pytest.mark.parametrize("kind", [SparseFeatureSelector, UnsupervisedSparseFeatureSelector])
def test_a_table_is_the_same_in_any_form(kind):
    X, y = table()
    X = np.round(X * 3).clip(0, 9)
    wanted = kind(2, **QUICK).fit(X, y).scores_
    for name, form in FORMS.items():
        found = kind(2, **QUICK).fit(form(X), y).scores_
        np.testing.assert_allclose(found, wanted, rtol=1e-4, err_msg=name)


def test_read_only_tables_are_read():
    X, y = table()
    for given in (X.copy(), csr_matrix(X)):
        for array in (given,) if isinstance(given, np.ndarray) else (given.data, given.indices):
            array.flags.writeable = False
        SparseFeatureSelector(2, **QUICK).fit(given, y)
        SparseFeatureSelector(2, **QUICK).partial_fit(given, y)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda y: np.where(y == 1, np.nan, 0.0),
        lambda y: np.where(y == 1, np.inf, 0.0),
        lambda y: np.where(y == 1, None, "a"),
        lambda y: np.array([], dtype=int),
    ],
)
def test_targets_that_are_missing_are_refused(spoil):
    X, y = table()
    with pytest.raises((ValueError, TypeError), match=r"NaN|infinity|of several types|0 sample"):
        SparseFeatureSelector(2, **QUICK).fit(X, spoil(y))


def test_scaling_of_numbers_is_that_of_numpy():
    numbers = np.random.default_rng(0).normal(size=(9, 2))
    mean, std = Encoding.of(numbers, "regression", np.ones(9)).scale
    np.testing.assert_allclose(mean, numbers.mean(0))
    np.testing.assert_allclose(std, numbers.std(0))
