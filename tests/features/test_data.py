"""Readers of feature tables, and Madelon."""

from __future__ import annotations

import gzip
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.io import arff, savemat
from sklearn.datasets import load_digits, make_classification
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC

from regrow.features.data import (
    FEATURE_SETS,
    load_features,
    load_openml,
    make_madelon,
    mat,
    read_arff,
    read_csv,
    read_mat,
    read_parquet,
)
from regrow.features.data.feature_set import make_feature_set
from regrow.features.data.openml import of_bunch

SHAPES = {  # of the reference page: rows, features, classes
    "arcene": (200, 10000, 2),
    "BASEHOCK": (1993, 4862, 2),
    "COIL20": (1440, 1024, 20),
    "Isolet": (1560, 617, 26),
    "lymphoma": (96, 4026, 9),
    "madelon": (2600, 500, 2),
    "ORL": (400, 1024, 40),
    "PCMAC": (1943, 3289, 2),
    "Prostate-GE": (102, 5966, 2),
    "RELATHE": (1427, 4322, 2),
    "Yale": (165, 1024, 15),
}
X = np.array([[0, 9, 1], [7, 1, 0], [5, 5, 0], [3, 0, 2]], np.uint8)


# ---------------------------------------------------------------------- MATLAB


@pytest.mark.parametrize("labels", [[1, 2, 2, 1], [-1, 1, 1, -1], [[3], [9], [9], [3]]])
def test_labels_are_coded_whatever_they_were(tmp_path, labels):
    savemat(tmp_path / "a.mat", {"X": X, "Y": np.array(labels, np.int16)})
    found = read_mat(tmp_path / "a.mat")
    assert found.y.tolist() == [0, 1, 1, 0] and found.y.dtype == np.int64
    assert found.labels == tuple(np.unique(labels))
    assert found.X.dtype == np.float32 and (found.X == X).all()


def test_labels_one_of_each_row_are_read(tmp_path):
    savemat(tmp_path / "a.mat", {"X": X, "Y": np.eye(3)[[2, 0, 1, 1]]})
    assert read_mat(tmp_path / "a.mat").y.tolist() == [2, 0, 1, 1]


def test_a_sparse_matrix_stays_sparse_and_other_names_can_be_said(tmp_path):
    savemat(tmp_path / "a.mat", {"fea": sparse.csc_array(X.astype(float)), "gnd": [1, 2, 1, 2]})
    found = read_mat(tmp_path / "a.mat", x="fea", y="gnd", name="text")
    assert isinstance(found.X, sparse.csr_array) and (found.X.toarray() == X).all()
    assert found.name == "text"


def test_images_come_out_row_by_row(tmp_path):
    images = np.arange(2 * 3 * 4).reshape(2, 3, 4)
    columns_first = np.stack([image.reshape(-1, order="F") for image in images])
    savemat(tmp_path / "a.mat", {"X": columns_first, "Y": [1, 2]})
    found = read_mat(tmp_path / "a.mat", shape=(3, 4))
    assert (found.X.reshape(2, 3, 4) == images).all()
    with pytest.raises(ValueError, match=r"a\.mat: X has shape \(2, 12\), not \(rows, 9\)"):
        read_mat(tmp_path / "a.mat", shape=(3, 3))


@settings(max_examples=8)  # each is another process; the fuzzer of readers tries thousands
@given(cut=st.floats(0, 0.97), noise=st.binary(max_size=40))
def test_a_damaged_file_is_named(tmp_path_factory, cut, noise):
    path = tmp_path_factory.mktemp("damaged") / "set.mat"
    savemat(path, {"X": X.repeat(9, 0), "Y": np.arange(36)}, do_compression=True)
    content = path.read_bytes()
    path.write_bytes(content[: int(cut * len(content))] + noise)
    with pytest.raises(ValueError, match=r"set\.mat"):
        read_mat(path)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"b\.mat: no such file"):
        read_mat(tmp_path / "b.mat")
    savemat(tmp_path / "a.mat", {"X": X, "labels": [1, 2, 3, 4]})
    with pytest.raises(ValueError, match=r"a\.mat: no variable 'Y'; it holds X, labels"):
        read_mat(tmp_path / "a.mat")
    savemat(tmp_path / "c.mat", {"X": X, "Y": [1, 2, 3]})
    with pytest.raises(ValueError, match=r"c\.mat: 4 rows, but 3 labels"):
        read_mat(tmp_path / "c.mat")
    savemat(tmp_path / "d.mat", {"X": X, "Y": [1, math.nan, 1, 1]})
    with pytest.raises(ValueError, match="a label is missing"):
        read_mat(tmp_path / "d.mat")


@pytest.mark.parametrize(
    ("does", "said"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "the reader ended with -11"),
        ("bytearray(1 << 40)", "MemoryError.*the reader ended with 1"),
        ("while True: pass", "it is not read after 2 seconds"),
    ],
)
def test_a_file_that_ends_its_reader_ends_nothing_else(tmp_path, monkeypatch, does, said):
    savemat(tmp_path / "a.mat", {"X": X, "Y": [1, 2, 1, 2]})
    (tmp_path / "reader.py").write_text(does)
    monkeypatch.setattr(mat, "_SCRIPT", tmp_path / "reader.py")
    monkeypatch.setattr(mat, "_START", 2.0)
    monkeypatch.setattr(mat, "_SPEED", math.inf)
    with pytest.raises(ValueError, match=rf"a\.mat is damaged.*({said})"):
        read_mat(tmp_path / "a.mat")


def test_a_matlab_file_cannot_flood_the_memory(tmp_path):
    zeros = np.zeros((1 << 16, (1 << 12) + 1), np.uint8)  # 256 MiB and a little
    savemat(tmp_path / "a.mat", {"X": zeros, "Y": [1]}, do_compression=True)
    del zeros
    with pytest.raises(ValueError, match=r"a\.mat takes .*REGROW_MAX_UNPACKED=268501000"):
        read_mat(tmp_path / "a.mat")


@pytest.mark.parametrize("value", ["text", np.array([[1], "a"], object), {"a": 1}, 1j])
def test_variables_that_hold_no_numbers_are_named(tmp_path, value):
    savemat(tmp_path / "a.mat", {"X": value, "Y": [1]})
    with pytest.raises(ValueError, match=r"a\.mat: variable 'X' holds .*, not numbers"):
        read_mat(tmp_path / "a.mat")


def test_numbers_keep_their_values():
    wide = np.array([[2**24 + 1], [1]])
    assert make_feature_set("a", wide, [0, 1], where="a").X[0, 0] == 2**24 + 1
    with pytest.raises(ValueError, match="a: X holds <U1, not numbers"):
        make_feature_set("a", [["b"]], [0], where="a")
    with pytest.raises(ValueError, match="not \\(rows, features\\)"):
        make_feature_set("a", np.empty((3, 0)), [0, 1, 2], where="a")


# ---------------------------------------------------------------------- tables

CSV = "a,b c,class\n1,2.5,x\n,4,y\n-3,1e3,x\n"


def test_csv_keeps_names_and_marks_what_is_missing(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(CSV)
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(CSV.encode()))
    for found in (read_csv(path), read_csv(tmp_path / "t.csv.gz", "class"), read_csv(path, -1)):
        assert found.feature_names == ("a", "b c") and found.labels == ("x", "y")
        np.testing.assert_array_equal(found.X, [[1, 2.5], [math.nan, 4], [-3, 1000]])
        assert found.y.tolist() == [0, 1, 0]


def test_csv_without_names_and_with_numbers_to_predict(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("1;2;0.5\n3;4;-1.5\n")
    found = read_csv(path, -1, header=False, delimiter=";", regression=True)
    assert found.feature_names == ("x0", "x1") and found.labels == ()
    assert found.y.tolist() == [0.5, -1.5]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\n1,2\n", "no column called class, target, label, y; say target=, one of a, b"),
        ("label,y,a\n1,2,3\n", "several columns called"),
        ("a,class\nred,1\nblue,2\n", "feature 'a' holds text"),
        ("a,class\n1,2,3\n", "is damaged"),
        ("a,a,class\n1,2,3\n", "column 'a' is there twice"),
        ("class\n1\n", "its only column"),
        ("", "is damaged"),
    ],
)
def test_csv_errors_say_what_and_where(tmp_path, text, said):
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"t\.csv.*") as error:
        read_csv(path)
    assert said in str(error.value)


def test_a_target_that_is_not_there(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(CSV)
    with pytest.raises(ValueError, match="target='d' is none of its columns: a, b c, class"):
        read_csv(path, "d")
    with pytest.raises(ValueError, match="target=3, but it has 3 columns"):
        read_csv(path, 3)
    with pytest.raises(ValueError, match="a regression needs numbers"):
        read_csv(path, "class", regression=True)


def test_parquet_is_read_as_csv_is(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = pyarrow.table({"a": [1, None, -3], "b c": [2.5, 4.0, 1e3], "class": ["x", "y", "x"]})
    parquet.write_table(table, tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text(CSV)
    one, other = read_parquet(tmp_path / "t.parquet"), read_csv(tmp_path / "t.csv")
    np.testing.assert_array_equal(one.X, other.X)
    assert one.feature_names == other.feature_names and (one.y == other.y).all()
    (tmp_path / "t.parquet").write_bytes(b"PAR1" + bytes(20))
    with pytest.raises(ValueError, match=r"t\.parquet is damaged"):
        read_parquet(tmp_path / "t.parquet")


ARFF = """% a comment
@RELATION tea

@ATTRIBUTE 'the heat' NUMERIC
@attribute steep real
@attribute hot {0,1}
@attribute class {green, 'dark tea', \"it's\"}
@DATA
80, 2.5, 0, green
?,4,1,'dark tea'
95,-1e-2,1,green
"""


def test_arff_agrees_with_scipys_reader(tmp_path):
    path = tmp_path / "tea.arff"
    path.write_text(ARFF.replace(', "it\'s"', "").replace("'dark tea'", "dark"))
    found = read_arff(path)
    oracle, meta = arff.loadarff(path)
    assert found.feature_names == ("the heat", "steep", "hot") == tuple(meta.names()[:3])
    expected = np.column_stack([oracle[name].astype(float) for name in meta.names()[:3]])
    np.testing.assert_array_equal(found.X, expected)
    assert [found.labels[code].encode() for code in found.y] == oracle["class"].tolist()


def test_a_sparse_arff_row_leaves_out_zeros_and_first_values(tmp_path):
    path = tmp_path / "tea.arff"
    head = ARFF.partition("80,")[0]
    path.write_text(head + "{0 80, 1 2.5}\n{1 4, 2 1, 3 'dark tea'}\n{}\n")
    found = read_arff(path)
    np.testing.assert_array_equal(found.X, [[80, 2.5, 0], [0, 4, 1], [0, 0, 0]])
    assert [found.labels[code] for code in found.y] == ["green", "dark tea", "green"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1,2", "line 12: 2 values for 4 attributes"),
        ("1,two,0,green", "line 12: could not convert"),
        ("1,2,0,red", "line 12: 'red' is no value of 'class'"),
        ("{9 1}", "line 12: index 9 of 4 attributes"),
        ("{0 1", "line 12: a sparse row without its end"),
    ],
)
def test_arff_errors_name_the_line(tmp_path, line, said):
    path = tmp_path / "tea.arff"
    path.write_text(ARFF + line + "\n")
    with pytest.raises(ValueError, match=r"tea\.arff is damaged") as error:
        read_arff(path)
    assert said in str(error.value)


def test_what_openml_sends_becomes_a_feature_set():
    sent = {
        "data": X.astype(float),
        "target": np.array(["b", "a", "b", "a"]),
        "feature_names": ["p", "q", "r"],
        "categories": {},
        "details": {"name": "tea"},
    }
    found = of_bunch(SimpleNamespace(**sent), "OpenML 1")
    assert (found.name, found.y.tolist(), found.labels) == ("tea", [1, 0, 1, 0], ("a", "b"))
    with pytest.raises(ValueError, match="OpenML 1: feature 'q' is nominal"):
        of_bunch(SimpleNamespace(**sent | {"categories": {"q": ["x", "y"]}}), "OpenML 1")
    with pytest.raises(ValueError, match="no target"):
        of_bunch(SimpleNamespace(**sent | {"target": None}), "OpenML 1")
    with pytest.raises(ValueError, match="say version="):
        load_openml("tea")


# ---------------------------------------------------------------------- by name


def test_names():
    digits = load_features("digits")
    assert (load_digits().data == digits.X).all() and len(digits.labels) == 10
    with pytest.raises(ValueError, match="data set 'mnist': there is none; known are lymphoma"):
        load_features("mnist")
    with pytest.raises(ValueError, match=r"did you mean Prostate-GE\?"):
        load_features("prostate_ge")


def test_a_file_that_is_nowhere_is_said_with_the_way_to_it(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("REGROW_DATA", raising=False)
    with pytest.raises(FileNotFoundError, match=r"Yale\.mat not found; looked in .*scikit-feature"):
        load_features("Yale", tmp_path)


@pytest.mark.parametrize("name", FEATURE_SETS)
def test_the_published_sets(real_data, name):
    found = load_features(name, real_data)
    assert (*found.X.shape, len(found.labels)) == SHAPES[name]
    assert np.isfinite(found.X).all() and set(found.y) == set(range(SHAPES[name][2]))


def test_fashion_mnist_is_read_and_its_damage_named(tmp_path):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    images = np.arange(3 * 28 * 28, dtype=np.uint8).reshape(3, 28, 28)
    head = b"\0\0\x08\x03" + np.array([3, 28, 28], ">u4").tobytes()
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(head + images.tobytes()))
    labels = b"\0\0\x08\x01" + np.array([3], ">u4").tobytes() + bytes([9, 0, 9])
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(labels))
    found = load_features("fashion-mnist", tmp_path)
    assert (found.X.reshape(3, 28, 28) == images).all() and found.y.tolist() == [1, 0, 1]
    path.write_bytes(gzip.compress(head + images.tobytes()[:-1]))
    with pytest.raises(ValueError, match=r"images-idx3-ubyte\.gz is damaged"):
        load_features("fashion-mnist", tmp_path)


# ---------------------------------------------------------------------- Madelon


def scores(found, columns):
    """Return test accuracy of a linear and a radial classifier on some columns."""
    half = len(found.y) * 2 // 3
    chosen = found.X[:, list(columns)]
    return [
        model.fit(chosen[:half], found.y[:half]).score(chosen[half:], found.y[half:])
        for model in (LogisticRegression(max_iter=500), SVC())
    ]


def test_no_plane_tells_the_classes_of_madelon_but_its_features_do():
    for seed in range(3):
        found = make_madelon(1800, 40, seed=seed)
        linear, radial = scores(found, found.relevant)
        assert radial > 0.85 and radial - linear > 0.1
        noise = sorted(set(range(40)) - set(found.relevant))
        assert abs(scores(found, noise)[1] - 0.5) < 0.08


def test_scikit_learns_own_is_told_by_a_plane():
    X, y = make_classification(
        1800, 40, n_informative=5, n_redundant=15, n_clusters_per_class=16, class_sep=2.0,
        flip_y=0.01, shuffle=False, random_state=0,
    )  # fmt: skip
    half = 1200
    linear = LogisticRegression(max_iter=500).fit(X[:half], y[:half]).score(X[half:], y[half:])
    assert linear > 0.9  # or the docstring of make_madelon is out of date


def test_redundant_columns_are_combinations_and_noise_is_not():
    found = make_madelon(500, 30, n_informative=4, n_redundant=6, shuffle=False, seed=3)
    assert found.relevant == tuple(range(10))
    informative = found.X[:, :4]
    _, residual, *_ = np.linalg.lstsq(informative, found.X[:, 4:], rcond=None)
    assert (residual[:6] < 1e-6).all() and (residual[6:] > 100).all()


def test_each_corner_has_one_class_and_each_class_as_many_corners():
    found = make_madelon(
        4000, 5, n_informative=5, n_redundant=0, separation=8, flip=0, shuffle=False, seed=1
    )
    corner = (found.X > 0) @ (2 ** np.arange(5))
    classes = [set(found.y[corner == c]) for c in range(32)]
    assert all(len(one) == 1 for one in classes) and sum(1 in one for one in classes) == 16


def test_shuffling_moves_columns_only_and_seeds_are_kept():
    plain, mixed = (make_madelon(50, 25, shuffle=s, seed=4) for s in (False, True))
    assert (plain.y == mixed.y).all() and mixed.relevant != plain.relevant
    assert sorted(map(tuple, plain.X.T)) == sorted(map(tuple, mixed.X.T))
    assert (make_madelon(50, 25, seed=4).X == mixed.X).all()
    assert not (make_madelon(50, 25, seed=5).X == mixed.X).all()


def test_all_labels_can_be_drawn_anew():
    found = make_madelon(3000, 20, flip=1.0)
    assert abs(scores(found, range(20))[1] - 0.5) < 0.06


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"n_samples": 0}, "n_samples=0"),
        ({"n_features": 19}, "n_features=19: 5 informative and 15 redundant ones need 20"),
        ({"n_informative": 1}, "n_informative=1"),
        ({"n_redundant": -1}, "must not be negative"),
        ({"separation": 0}, "separation=0"),
        ({"flip": 1.5}, "flip=1.5"),
    ],
)
def test_madelon_refuses_what_cannot_be(wrong, said):
    with pytest.raises(ValueError, match=said):
        make_madelon(**wrong)
