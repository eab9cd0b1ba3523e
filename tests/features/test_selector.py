"""What a user relies on: the right features, the same answer twice, errors at once."""

import pickle

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from sklearn import config_context
from sklearn.base import clone
from sklearn.feature_selection import RFE, SelectFromModel
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from regrow import METHODS, SET
from regrow.features import Recipe, SparseFeatureSelector, UnsupervisedSparseFeatureSelector
from regrow.features import inputs as inputs_module
from regrow.features.encoding import Encoding, smoothing_for

QUICK = {"max_iter": 60, "n_members": 4, "width": 8, "random_state": 0}


def table(n=200, d=12, seed=0):
    """Columns 0 to 2 decide, by a rule that is not linear; column 3 never changes."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d))
    y = (X[:, 0] + X[:, 1] * np.sign(X[:, 2]) * 1.5 > 0).astype(int)
    X[:, 3] = 2.0
    return X, y


def test_the_features_that_decide_are_found():
    X, y = table(600, 40)
    selector = SparseFeatureSelector(3, random_state=0).fit(X, y)
    assert selector.get_support(indices=True).tolist() == [0, 1, 2]
    assert sorted(selector.ranking_) == [*range(1, 41)]
    assert selector.ranking_[3] == 40
    assert selector.scores_[3] == 0
    assert selector.n_iter_ == 300


def test_features_that_decide_a_number_are_found():
    X, _ = table(400, 20)
    y = np.c_[X[:, 5] + 0.1 * X[:, 0], X[:, 7] ** 2]
    selector = SparseFeatureSelector(2, random_state=0).fit(X, y)
    assert selector.get_support(indices=True).tolist() == [5, 7]
    assert not hasattr(selector, "classes_")


def test_features_that_tell_the_others_are_found_without_labels():
    rng = np.random.default_rng(0)
    causes = rng.normal(size=(300, 2))
    X = np.c_[causes, causes @ rng.normal(size=(2, 10)) + 0.1 * rng.normal(size=(300, 10))]
    X = np.c_[X, rng.normal(size=(300, 6))]
    selector = UnsupervisedSparseFeatureSelector(4, max_iter=200, random_state=0).fit(X)
    assert (selector.get_support(indices=True) < 12).all()


@pytest.mark.parametrize("kind", [SparseFeatureSelector, UnsupervisedSparseFeatureSelector])
@pytest.mark.parametrize("seed", [3, np.random.RandomState(3)])
def test_one_seed_gives_one_answer_and_no_generator_is_moved(kind, seed):
    X, y = table()
    np.random.seed(1)  # noqa: NPY002 the generator that must not be moved
    torch.manual_seed(1)
    states = np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    runs = [
        kind(2, **QUICK | {"random_state": state}).fit(X, y).scores_
        for state in (pickle.loads(pickle.dumps(seed)), pickle.loads(pickle.dumps(seed)))
    ]
    kind(2, **QUICK | {"random_state": None}).fit(X, y)
    assert (runs[0] == runs[1]).all()
    assert (np.random.get_state()[1] == states[0]).all()  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[1])


def test_another_seed_gives_another_run():
    X, y = table()
    runs = [SparseFeatureSelector(2, **QUICK | {"random_state": s}).fit(X, y) for s in (0, 1)]
    assert (runs[0].scores_ != runs[1].scores_).any()


@pytest.mark.parametrize("method", ["ensemble", "SET"])
def test_csr_gives_what_the_array_gives(method):
    X, y = table()
    X[X < 0.5] = 0
    chosen = {"method": method, "recipe": Recipe(hidden=(8,), max_epochs=5)}
    runs = [
        SparseFeatureSelector(3, **QUICK, **chosen).fit(form(X), y)
        for form in (np.array, csr_matrix)
    ]
    np.testing.assert_allclose(runs[0].scores_, runs[1].scores_, rtol=1e-4)


def test_csr_is_never_made_dense_as_a_whole(monkeypatch):
    X, y = table(100, 50)
    shapes = []
    dense = inputs_module._dense
    monkeypatch.setattr(
        inputs_module, "_dense", lambda rows: shapes.append(rows.shape) or dense(rows)
    )
    selector = SparseFeatureSelector(5, **QUICK | {"batch_size": 10}).fit(csr_matrix(X), y)
    assert selector.n_features_ == 5
    assert max(rows * columns for rows, columns in shapes) < 100 * 49


def test_a_memory_mapped_table_is_read_where_it_lies(tmp_path, monkeypatch):
    X, y = table(300, 20)
    np.save(tmp_path / "X.npy", X.astype(np.float32))
    monkeypatch.setattr(inputs_module, "_PREPARED", 0)
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    selector = SparseFeatureSelector(3, **QUICK).fit(mapped, y)
    monkeypatch.undo()
    assert (
        selector.scores_ == SparseFeatureSelector(3, **QUICK).fit(X.astype(np.float32), y).scores_
    ).all()


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"n_features_to_select": 0}, "n_features_to_select.*must be"),
        ({"n_features_to_select": 1.5}, "n_features_to_select.*must be"),
        ({"density": 0.0}, "density.*must be"),
        ({"method": "RIGL"}, "method.*must be"),
        ({"importance": "wast"}, "importance='wast' is of one perceptron"),
        ({"random_state": "a"}, "random_state.*must be"),
    ],
)
def test_a_bad_parameter_fails_at_once(changes, match):
    X, y = table()
    with pytest.raises(ValueError, match=match):
        SparseFeatureSelector(**QUICK | changes).fit(X, y)


@pytest.mark.parametrize(
    ("spoil", "match"),
    [
        (lambda X, y: (np.where(X > 2, np.nan, X), y), "contains NaN"),
        (lambda X, y: (np.where(X > 2, np.inf, X), y), "contains infinity"),
        (lambda X, y: (X.astype(str) + "a", y), "could not convert string"),
        (lambda X, y: (X, np.zeros_like(y)), "only one class"),
        (lambda X, y: (X[:, 3:4], y), "No feature in X"),
        (lambda X, y: (X, y[:-1]), "inconsistent numbers of samples"),
        (lambda X, y: (X, None), "requires y to be passed"),
    ],
)
def test_bad_data_fails_as_in_scikit_learn(spoil, match):
    X, y = spoil(*table())
    with pytest.raises(ValueError, match=match):
        SparseFeatureSelector(1, **QUICK).fit(X, y)


@pytest.mark.parametrize("kind", [SparseFeatureSelector, UnsupervisedSparseFeatureSelector])
def test_more_than_there_are_is_all_and_a_warning_as_in_scikit_learn(kind):
    X, y = table()
    with pytest.warns(UserWarning, match="n_features_to_select=13 > n_features=12. There will be"):
        selector = kind(13, **QUICK).fit(X, y)
    with pytest.warns(UserWarning, match="n_features_to_select=13 > n_features=12. There will be"):
        RFE(LogisticRegression(), n_features_to_select=13).fit(X, y)
    assert selector.transform(X).shape == (200, 12)


@pytest.mark.parametrize("wanted", [1, 0.5, 1.0, 12])
def test_as_many_are_selected_as_are_wanted(wanted):
    X, y = table()
    selector = SparseFeatureSelector(wanted, **QUICK).fit(X, y)
    count = wanted if isinstance(wanted, int) else int(wanted * 12)
    assert selector.transform(X).shape == (200, count)
    assert selector.n_features_ == selector.support_.sum() == count


@pytest.mark.parametrize(("method", "surely"), [("ensemble", {0, 1, 2}), ("RigL", {0})])
def test_the_number_of_features_is_chosen_on_rows_held_out(method, surely):
    X, y = table(800, 30)
    recipe = Recipe(hidden=(16,), max_epochs=30, learning_rate=1e-2)
    selector = SparseFeatureSelector(method=method, recipe=recipe, random_state=0).fit(X, y)
    assert len(surely) <= selector.n_features_ <= 8
    assert set(selector.get_support(indices=True)) >= surely
    curve = [record for record in selector.history_ if "n_features" in record]
    assert curve[-1]["n_features"] == 1


def test_rows_of_weight_zero_do_not_count():
    X, y = table()
    wrong = np.r_[np.zeros(200), np.ones(200)]
    X2, y2 = np.r_[X, 1e3 * X], np.r_[y, 2 * np.ones(200, int)]
    selector = SparseFeatureSelector(3, **QUICK).fit(X2, y2, sample_weight=1 - wrong)
    assert selector.classes_.tolist() == [0, 1]
    assert np.isfinite(selector.scores_).all()


@pytest.mark.parametrize("method", ["ensemble", "SET"])
def test_early_stopping_stops_early(method):
    X, y = table()
    y = np.random.default_rng(0).integers(0, 2, 200)  # nothing can be learned
    recipe = Recipe(hidden=(32,), max_epochs=200, learning_rate=1e-2)
    selector = SparseFeatureSelector(
        3,
        method=method,
        recipe=recipe,
        max_iter=600,
        early_stopping=True,
        n_iter_no_change=2,
        random_state=0,
    ).fit(X, y)
    assert selector.n_iter_ < (600 if method == "ensemble" else 200)
    assert selector.n_features_ == 3


def test_labels_are_of_any_kind_and_names_go_through():
    X, y = table()
    words = np.array(["no", "yes"])[y]
    assert (
        SparseFeatureSelector(2, **QUICK).fit(X, words).scores_
        == SparseFeatureSelector(2, **QUICK).fit(X, y).scores_
    ).all()


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_data_frames_give_what_their_numbers_give_with_names(library):
    frames = pytest.importorskip(library)
    X, y = table()
    frame = frames.DataFrame({f"c{i}": X[:, i] for i in range(12)})
    labels = frames.Series([("no", "yes")[one] for one in y])
    plain = SparseFeatureSelector(2, **QUICK).fit(X, np.array(["no", "yes"])[y])
    selector = SparseFeatureSelector(2, **QUICK).set_output(transform=library).fit(frame, labels)
    assert (selector.scores_ == plain.scores_).all()
    assert list(selector.feature_names_in_) == list(frame.columns)
    chosen = selector.transform(frame)
    assert isinstance(chosen, frames.DataFrame)
    assert list(chosen.columns) == list(selector.get_feature_names_out())
    assert (chosen.to_numpy() == plain.transform(X)).all()


def test_it_works_in_a_pipeline_under_a_search_and_after_a_pickle():
    X, _ = table()
    y = (X[:, 0] + X[:, 1] > 0).astype(int)
    pipeline = make_pipeline(SparseFeatureSelector(**QUICK), LogisticRegression())
    grid = {"sparsefeatureselector__n_features_to_select": [1, 2]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    assert search.best_params_["sparsefeatureselector__n_features_to_select"] == 2
    assert (pickle.loads(pickle.dumps(search)).predict(X) == search.predict(X)).all()


def test_a_clone_keeps_every_parameter():
    changed = SparseFeatureSelector(
        7, method=SET(density=0.3), recipe=Recipe(hidden=(5,)), label_smoothing=0.1, noise=0.0
    )
    assert clone(changed).get_params() == changed.get_params()


def test_weights_are_routed_through_a_pipeline():
    X, y = table()
    with config_context(enable_metadata_routing=True):
        selector = SparseFeatureSelector(2, **QUICK).set_fit_request(sample_weight=True)
        pipeline = make_pipeline(
            selector, LogisticRegression().set_fit_request(sample_weight=False)
        )
        weights = np.r_[np.ones(100), np.zeros(100)]
        pipeline.fit(X, y, sample_weight=weights)
    alone = SparseFeatureSelector(2, **QUICK).fit(X, y, sample_weight=weights)
    assert (pipeline[0].scores_ == alone.scores_).all()


def test_scores_serve_other_numbers_of_features():
    X, y = table()
    selector = SparseFeatureSelector(2, **QUICK).fit(X, y)
    fewer = SelectFromModel(selector, max_features=1, threshold=-np.inf, prefit=True)
    assert fewer.transform(X).shape == (200, 1)


@pytest.mark.parametrize("form", [np.array, csr_matrix])
def test_parts_of_a_table_are_learned_one_after_another(form):
    X, _ = table(1200, 20)
    y = (X[:, :3].sum(1) > 0).astype(int)
    selector = SparseFeatureSelector(3, random_state=0, batch_size=32)
    for part in np.array_split(np.arange(1200), 4):
        selector.partial_fit(form(X[part]), y[part], classes=[0, 1])
        selector = pickle.loads(pickle.dumps(selector))
    assert selector.get_support(indices=True).tolist() == [0, 1, 2]
    assert selector.n_iter_ == 4 * (300 // 32)
    assert selector.scores_[3] == 0
    with pytest.raises(ValueError, match="not among classes"):
        selector.partial_fit(X[:10], y[:10] + 5)
    with pytest.raises(ValueError, match="is expecting 20 features"):
        selector.partial_fit(X[:10, :5], y[:10])


def test_only_an_ensemble_learns_in_parts():
    assert hasattr(SparseFeatureSelector(), "partial_fit")
    assert not hasattr(SparseFeatureSelector(method="SET"), "partial_fit")


def test_progress_is_printed_when_wanted(capsys):
    X, y = table()
    SparseFeatureSelector(3, **QUICK | {"n_rounds": 4}, verbose=True, early_stopping=True).fit(X, y)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert "n_features 3" in lines[-1]
    assert "loss " in lines[-1]


def test_threads_are_given_back():
    before = torch.get_num_threads()
    X, y = table()
    SparseFeatureSelector(3, **QUICK | {"max_iter": 2}, n_jobs=2).fit(X, y)
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("name", ["Dense", "Static", "RandomWalk", "SET", "RigL", "SNFS", "GraNet"])
def test_any_method_ranks(name):
    assert name in METHODS
    X, y = table()
    recipe = Recipe(hidden=(16,), max_epochs=60, learning_rate=1e-2)
    chosen = {"method": name, "recipe": recipe, "density": 0.5}
    selector = SparseFeatureSelector(3, **chosen, random_state=0).fit(X, y)
    assert np.isfinite(selector.scores_).all()
    assert selector.support_[0]


def test_labels_are_smoothed_the_less_the_fewer_rows_a_class_has():
    amounts = [smoothing_for(rows) for rows in (1, 5, 10, 100, 10_000)]
    assert amounts == sorted(amounts)
    assert amounts[2] == 0.15
    assert amounts[-1] < 0.3
    values = Encoding.of(np.arange(20) % 2, "auto", np.ones(20))
    assert values.values(np.arange(20) % 2, np.ones(20), "auto").smoothing == 0.15
