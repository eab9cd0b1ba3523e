"""``regrow segment`` on bad and odd volumes: a clear word for each, and no run that they end."""

import json
import sys

import numpy as np
import pytest
import torch

from regrow.cli import main
from regrow.lab.files import read_json
from regrow.segmentation.problem import SegmentVolumes
from tests.segmentation.phantoms import affine_of, save

nibabel = pytest.importorskip("nibabel", reason="needs the extra regrow[segmentation]")

TRAIN = ["--device", "cpu", "--threads", "1", "--width", "4", "--epochs", "1", "--batches", "2"]


def ball(seed, sides, labels=2):
    """Return an image and labels of a ball in a shell, the file's axes in order."""
    middle = (np.array(sides) - 1) / 2
    places = np.stack(np.meshgrid(*map(np.arange, sides), indexing="ij"), -1)
    away = np.sqrt((((places - middle) / np.maximum(middle, 1)) ** 2).sum(-1))
    label = np.where(away < 0.4, labels, np.where(away < 0.8, 1, 0)).astype(np.uint8)
    noise = 0.1 * np.random.default_rng(seed).normal(size=sides)
    return (label + 1 + noise).astype(np.float32), label


def make(folder, count=10, sides=(12, 14, 10), spacing=(1.0, 1.0, 1.0), few=()):
    """Write a Decathlon folder; cases that are few have only the first class."""
    names = [f"c_{i}" for i in range(count)]
    for i, name in enumerate(names):
        image, label = ball(i, sides, 1 if name in few else 2)
        save(folder / "imagesTr" / f"{name}.nii.gz", image, affine_of(spacing))
        save(folder / "labelsTr" / f"{name}.nii.gz", label, affine_of(spacing))
    files = [{"image": f"imagesTr/{n}.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in names]
    facts = {"labels": {"0": "background", "1": "shell", "2": "core"}, "modality": {"0": "MRI"}}
    (folder / "dataset.json").write_text(json.dumps({**facts, "training": files, "test": []}))
    return folder


def change(path, how):
    image = nibabel.load(path)
    array, affine = np.asarray(image.dataobj).copy(), image.affine.copy()
    save(path, *how(array, affine))


def put(value):
    def how(array, affine):
        array[1, 2, 3] = value
        return array, affine

    return how


def elsewhere(array, affine):
    affine[0, 3] += 5
    return array, affine


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-300])


BAD = {
    "c_0": ("imagesTr", cut_short, "c_0.nii.gz is damaged"),
    "c_1": ("imagesTr", lambda p: change(p, lambda a, m: (a[:-1], m)), "is of shape"),
    "c_2": ("labelsTr", lambda p: change(p, elsewhere), "5 mm beside"),
    "c_3": ("imagesTr", lambda p: change(p, put(np.nan)), "not finite (1, the first at (3, 2, 1))"),
    "c_4": ("imagesTr", lambda p: change(p, put(np.inf)), "not finite"),
    "c_5": ("labelsTr", lambda p: change(p, put(7)), "labelled 7, which are none of [0, 1, 2]"),
    "c_6": ("labelsTr", lambda p: p.unlink(), "no such file"),
    "c_7": ("imagesTr", lambda p: change(p, lambda a, m: (0 * a, m)), "only zero voxels"),
}


@pytest.fixture
def regrow(monkeypatch):
    """Call the command line in this process."""

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["regrow", *map(str, words)])
        main()

    return call


def record_of(out):
    (record,) = (out / "trials").iterdir()
    return record


def spoil(folder):
    for name, (part, how, _) in BAD.items():
        how(folder / part / f"{name}.nii.gz")


def test_bad_cases_are_named_and_the_others_are_learnt_from(regrow, tmp_path, caplog):
    data = make(tmp_path / "data", count=14)
    spoil(data)
    regrow("segment", "train", data, *TRAIN, "--out", tmp_path / "out")
    record = record_of(tmp_path / "out")
    result = read_json(record / "result.json")
    assert list(result["left_out"]) == list(BAD)
    for name, (_, _, said) in BAD.items():
        assert said in result["left_out"][name]
        assert sum(f"left out: {name}: " in line for line in caplog.messages) == 1
    assert all(f"c_{i}" not in result["by_case"] for i in range(8)) and result["by_case"]
    page = (record / "page.html").read_text()
    assert "Cases left out" in page and "only zero voxels" in page

    # Those whose image can be read are predicted, and those whose labels are sound judged.
    with pytest.raises(SystemExit, match="4 cases could not be segmented"):
        regrow("segment", "predict", record, data, "--out", tmp_path / "said", "--device", "cpu")
    said = {path.name.removesuffix(".nii.gz") for path in (tmp_path / "said").iterdir()}
    assert said == {f"c_{i}" for i in (1, 2, 5, 6, *range(8, 14))}
    with pytest.raises(SystemExit, match="4 cases could not be judged"):
        regrow("segment", "evaluate", tmp_path / "said", data, "--out", tmp_path / "page.html")
    assert "6 cases" in (tmp_path / "page.html").read_text()


def test_where_too_few_cases_are_left_the_reasons_are_told(regrow, tmp_path):
    data = make(tmp_path / "data", count=12)
    spoil(data)
    with pytest.raises(SystemExit, match=r"4 of 12 cases can be used, and 5 folds.*c_0: .*damaged"):
        regrow("segment", "train", data, *TRAIN, "--out", tmp_path / "out")


@pytest.mark.parametrize(
    ("sides", "spacing"),
    [
        ((12, 14, 1), (1.0, 1.0, 3.0)),
        ((24, 28), (1.0, 1.0, 1.0)),
        ((5, 6, 4), (1.0, 1.0, 1.0)),
        ((24, 26, 5), (1.0, 1.0, 10.0)),
        ((5, 24, 26), (10.0, 1.0, 1.0)),
    ],
    ids=["one slice", "two dimensions", "smaller than a patch", "1 to 10", "1 to 10, sideways"],
)
def test_odd_volumes_are_learnt_and_predicted_in_their_own_geometry(
    sides, spacing, regrow, tmp_path
):
    data = make(tmp_path / "data", count=5, sides=sides, spacing=spacing)
    patch = ["--patch", "8", "16", "16"] if max(sides) < 14 else []
    regrow("segment", "train", data, *TRAIN, *patch, "--out", tmp_path / "out")
    record = record_of(tmp_path / "out")
    result = read_json(record / "result.json")
    assert np.isfinite(result["dice"]) and (record / "page.html").exists()
    axis = int(np.argmax([*spacing[: len(sides)], 0]))
    if max(spacing) > 1:  # the coarsest axis comes first, along which E2ENet shifts
        assert result["plan"]["axes"][0] == 2 - axis
    regrow("segment", "predict", record, data, "--out", tmp_path / "said", "--device", "cpu")
    for path in (data / "imagesTr").iterdir():
        image, found = nibabel.load(path), nibabel.load(tmp_path / "said" / path.name)
        assert found.shape == image.shape and (found.affine == image.affine).all()
        assert set(np.unique(found.dataobj)) <= {0, 1, 2}


@pytest.mark.parametrize(
    ("few", "said"),
    [
        (range(1, 5), "no training case has core (2): it cannot be learnt"),
        (range(1), "no held-out case has core (2): nothing is said of it"),
    ],
)
def test_a_class_that_a_part_of_the_fold_lacks_is_told(few, said, regrow, tmp_path, caplog):
    # Of five cases c_1 is held out in the first of nnU-Net's folds; c_0 is learnt from.
    data = make(tmp_path / "data", count=5, few=[f"c_{i}" for i in few])
    regrow("segment", "train", data, *TRAIN, "--out", tmp_path / "out")
    record = record_of(tmp_path / "out")
    assert said in read_json(record / "result.json")["absent"], caplog.messages
    assert f"fold 0: {said}" in caplog.messages
    assert said.split(":")[0][1:] in (record / "page.html").read_text()


def test_without_any_class_there_is_nothing_to_measure(regrow, tmp_path, monkeypatch, capsys):
    """A mean Dice of nothing ended in a traceback."""
    data = make(tmp_path / "data", count=5)
    for path in (data / "labelsTr").iterdir():
        change(path, lambda array, affine: (0 * array, affine))
    # What is predicted after two steps is anything; here it is nothing, which is right.
    monkeypatch.setattr(SegmentVolumes, "scores", lambda _, __, case, *___: _background(case))
    regrow("segment", "train", data, *TRAIN, "--out", tmp_path / "out")
    assert "test dice        nothing to measure" in capsys.readouterr().out
    page = (record_of(tmp_path / "out") / "page.html").read_text()
    assert "No class is in any case." in page and "nan" not in page


def _background(case):
    scores = torch.zeros(3, *case.image.shape[1:])
    scores[0] = 1
    return scores
