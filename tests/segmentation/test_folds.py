"""Folds: every case validated once, nnU-Net's own, and what a fold lacks."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.reading import UnreadableError
from regrow.segmentation.folds import Fold, absent, folds_of, read_folds

pytest.importorskip("sklearn", reason="needs the extra regrow[segmentation]")


@given(st.sets(st.text(min_size=1), min_size=5, max_size=40), st.integers(2, 5), st.integers(0, 9))
def test_every_case_is_validated_once_and_never_where_it_is_trained_on(names, count, seed):
    folds = folds_of(names, count, seed)
    assert len(folds) == count
    assert sorted(name for fold in folds for name in fold.validation) == sorted(names)
    for fold in folds:
        assert {*fold.train, *fold.validation} == names
        assert not set(fold.train) & set(fold.validation)
    sizes = [len(fold.validation) for fold in folds]
    assert max(sizes) - min(sizes) <= 1
    assert folds_of(sorted(names, reverse=True), count, seed) == folds


def test_the_folds_are_those_that_nnunet_draws():
    # As printed by nnunetv2 2.8.1: generate_crossval_split([f"case_{i:02}" for i in range(12)]).
    folds = folds_of(f"case_{i:02}" for i in range(12))
    assert [[int(name[-2:]) for name in fold.validation] for fold in folds] == [
        [0, 3, 8],
        [7, 10, 11],
        [6, 9],
        [1, 4],
        [2, 5],
    ]


def test_too_few_and_doubled_cases_are_errors():
    with pytest.raises(ValueError, match=r"5 folds of 3 cases; give 2 to 3"):
        folds_of("abc")
    with pytest.raises(ValueError, match="there twice"):
        folds_of("aabcde")


def test_a_class_absent_from_a_fold_is_told():
    values = {"a": {0}, "b": {0, 1}, "c": {0, 2}}
    names = {0: "background", 1: "cyst", 2: "tumour"}
    assert absent(Fold(("a", "b"), ("c",)), values, names) == [
        "no training case has tumour (2): it cannot be learnt",
        "no held-out case has cyst (1): nothing is said of it",
    ]
    assert absent(Fold(("b", "c"), ("c", "b")), values, names) == []


def test_folds_of_a_file(tmp_path):
    path = tmp_path / "splits_final.json"
    path.write_text(json.dumps([{"train": ["a"], "val": ["b"]}]))
    assert read_folds(path, ["a", "b"]) == (Fold(("a",), ("b",)),)
    with pytest.raises(UnreadableError, match="names case b in fold 0, which is not there"):
        read_folds(path, ["a"])
    path.write_text(json.dumps([{"train": ["a", "b"], "val": ["b"]}]))
    with pytest.raises(UnreadableError, match="trains and validates b"):
        read_folds(path, ["a", "b"])
    path.write_text("{")
    with pytest.raises(UnreadableError, match="is damaged"):
        read_folds(path, ["a"])
