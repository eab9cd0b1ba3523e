"""What a selector says of columns and draws of features."""

import datetime

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_selection import SelectFromModel

from regrow.features import (
    SparseFeatureSelector,
    UnsupervisedSparseFeatureSelector,
    plot_importances,
    quick_selection,
)
from regrow.features.columns import naming_columns

QUICK = {"max_iter": 20, "n_members": 2, "random_state": 0}


@pytest.fixture(scope="module")
def table():
    generator = np.random.default_rng(0)
    X = generator.normal(size=(60, 6))
    return X, (X[:, 2] > 0).astype(int)


class Column(list):
    def __init__(self, values, dtype):
        super().__init__(values)
        self.dtype = dtype


class Frame:
    """As pandas and polars have it: columns, each of a type."""

    def __init__(self, **columns):
        self.held, self.columns = columns, [*columns]
        self.shape = 2, len(columns)

    def __getitem__(self, name):
        return self.held[name]

    def __len__(self):
        return self.shape[0]

    def __array__(self, dtype=None, copy=None):
        return np.array([*self.held.values()], dtype=object).T.astype(dtype or object)


DAY = datetime.datetime(2020, 1, 1)
FRAMES = {
    "text": Frame(a=Column([1.0, 2.0], "float64"), kind=Column(["x", "y"], "object")),
    "dates": Frame(a=Column([1.0, 2.0], "float64"), when=Column([DAY] * 2, "datetime64[ns]")),
    "of polars": Frame(a=Column([1.0, 2.0], "Float64"), kind=Column(["x", "y"], "String")),
}


def real_frames():
    for package in ("pandas", "polars"):
        made = pytest.importorskip(package).DataFrame
        yield made({"a": [1.0, 2.0], "kind": ["x", "y"]}), "'kind' (text)"
        yield made({"a": [1.0, 2.0], "when": [DAY] * 2}), "'when' (dates or times)"


@pytest.mark.parametrize("name", FRAMES)
def test_columns_that_are_no_numbers_are_named(name):
    said = r"'when' \(dates or times\)" if name == "dates" else r"'kind' \(text\)"
    with pytest.raises(ValueError, match=rf"X has columns that are no numbers: {said}; encode"):
        SparseFeatureSelector(1, **QUICK).fit(FRAMES[name], [0, 1])


def test_columns_of_real_data_frames_are_named_too():
    for frame, said in real_frames():
        for selector in (SparseFeatureSelector, UnsupervisedSparseFeatureSelector):
            with pytest.raises(ValueError) as raised:
                selector(1, **QUICK).fit(frame, [0, 1])
            assert said in str(raised.value)


def test_numbers_that_are_written_as_objects_are_numbers():
    frame = Frame(a=Column([1.0, 2.0], "object"), b=Column(["x", "1"], "object"))
    with pytest.raises(ValueError, match=r"numbers: 'b' \(text\);"), naming_columns(frame):
        raise TypeError("something else")
    with pytest.raises(ZeroDivisionError), naming_columns(frame):
        raise ZeroDivisionError  # is no matter of columns


@pytest.mark.parametrize(
    "selector",
    [
        SparseFeatureSelector(2, **QUICK),
        SparseFeatureSelector(2, importance="strength", **QUICK),
        quick_selection(2, max_iter=20, random_state=0),
        UnsupervisedSparseFeatureSelector(2, **QUICK),
    ],
    ids=lambda one: str(one)[:40],
)
def test_importances_of_every_method_are_shares_in_the_order_of_scores(table, selector):
    fitted = selector.fit(*table)
    importances = fitted.feature_importances_
    assert importances.sum() == pytest.approx(1.0) and (importances >= 0).all()
    order = np.argsort(-fitted.scores_, kind="stable")
    assert (np.diff(importances[order]) <= 0).all()
    by_scikit_learn = SelectFromModel(fitted, prefit=True, max_features=2, threshold=-np.inf)
    assert (by_scikit_learn.get_support() == fitted.support_).all()


def test_whole_numbers_are_amounts_where_one_says_so(table):
    """Ages, counts and prices are whole numbers."""
    X, _ = table
    ages = np.round(40 + 10 * X[:, 4] + 0.1 * X[:, 1]).astype(np.int64)
    with pytest.raises(ValueError, match="say task='classification' or task='regression'"):
        SparseFeatureSelector(1, **QUICK).fit(X, ages)
    selector = SparseFeatureSelector(1, task="regression", max_iter=100, random_state=0)
    as_amounts = selector.fit(X, ages)
    assert as_amounts.get_support().tolist() == [False] * 4 + [True, False]
    scores = as_amounts.scores_.copy()
    assert np.array_equal(selector.fit(X, ages.astype(float)).scores_, scores)
    for kind in (np.int32, np.uint8):
        assert np.array_equal(selector.fit(X, ages.astype(kind)).scores_, scores)


def test_the_best_are_drawn_and_those_selected_stand_out(table):
    pytest.importorskip("matplotlib", reason="needs the extra regrow[report]")
    fitted = SparseFeatureSelector(2, **QUICK).fit(*table)
    axes = plot_importances(fitted, k=4, names=list("abcdef"))
    best = np.argsort(-fitted.scores_, kind="stable")[:4]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["abcdef"[i] for i in best]
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx(fitted.feature_importances_[best].tolist())
    colours = [bar.get_facecolor() for bar in axes.patches]
    assert colours[0] == colours[1] != colours[2] == colours[3]
    forest = RandomForestClassifier(5, random_state=0).fit(*table)
    assert len(plot_importances(forest).patches) == 6
    drawn = plot_importances(fitted, shape=(2, 3))
    assert np.allclose(drawn.images[0].get_array().ravel(), fitted.feature_importances_)
    assert len(drawn.patches) == 2
    for wrong in ({"k": 0}, {"names": ["a"]}, {"shape": (2, 2)}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            plot_importances(fitted, **wrong)
