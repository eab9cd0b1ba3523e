"""Predicting and judging files: what is wrong is named, nothing is replaced or passed over."""

import contextlib
import json
import os
import re
import shutil
import sys

import numpy as np
import pytest
import torch

import regrow
from regrow.cli import main as command_line
from regrow.lab.run import Run
from regrow.segmentation.normalise import Normalisation
from regrow.segmentation.planning import Preparation
from regrow.studies.segmentation.page import write_evaluation
from regrow.studies.segmentation.predict import judge_folder, predict_cases, unmatched
from regrow.studies.segmentation.segment import Segment
from tests.segmentation.phantoms import full_disk, phantom, save

pytest.importorskip("nibabel")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A Decathlon folder of six cases."""
    folder = tmp_path_factory.mktemp("sets") / "organs"
    listed = []
    for i in range(6):
        files = {"image": f"imagesTr/organ_{i}.nii.gz", "label": f"labelsTr/organ_{i}.nii.gz"}
        for path, array in zip(files.values(), phantom(i), strict=True):
            save(folder / path, array)
        listed.append(files)
    labels = {"0": "background", "1": "front", "2": "back"}
    content = {"labels": labels, "modality": {"0": "MRI"}, "training": listed}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """The record of one step of training."""
    folder = tmp_path_factory.mktemp("run")
    small = {"width": 4, "patch": (8, 8, 8), "batches": 1, "epochs": 1, "seed": 0}
    trial = Segment(data="organs", method=regrow.Dense(), **small)
    options = {"data_dir": str(data.parent), "device": "cpu", "keep_weights": True}
    result = trial.run(Run(folder, options))
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.json").write_text(json.dumps(trial.content))
    return folder


def test_weights_that_a_full_disk_does_not_take_are_named(data, finished, tmp_path):
    """torch told of an unexpected position in a file that it did not name."""
    content = json.loads((finished / "config.json").read_text())
    small = {name: content[name] for name in ("width", "batches", "epochs", "seed")}
    trial = Segment(data="organs", method=regrow.Dense(), patch=(8, 8, 8), **small)
    options = {"data_dir": str(data.parent), "device": "cpu", "keep_weights": True}
    with full_disk(9000), pytest.raises(OSError, match=re.escape(str(tmp_path / "weights.pt"))):
        trial.run(Run(tmp_path, options))


@pytest.fixture
def broken(finished, tmp_path):
    """A copy of the record, to be damaged."""
    return shutil.copytree(finished, tmp_path / "broken")


def change_result(**changes):
    def change(run):
        told = json.loads((run / "result.json").read_text())
        for name, value in changes.items():
            told[name] = told[name] | value if isinstance(value, dict) else value
        (run / "result.json").write_text(json.dumps(told))

    return change


class Planted:
    """A pickle that would run code."""

    def __reduce__(self):
        return os.mkdir, ("planted",)


DAMAGED = {
    "weights cut short": (
        lambda run: (run / "weights.pt").write_bytes((run / "weights.pt").read_bytes()[:999]),
        r"weights\.pt is damaged",
    ),
    "no weights in the file": (
        lambda run: torch.save({}, run / "weights.pt"),
        r"weights\.pt is damaged \('model'\)",
    ),
    "weights of another network": (
        lambda run: torch.save({"model": {"a": torch.zeros(2)}}, run / "weights.pt"),
        r"weights\.pt is damaged \(Error\(s\) in loading",
    ),
    "code in the weights": (
        lambda run: torch.save({"model": Planted()}, run / "weights.pt"),
        r"weights\.pt is damaged \(Weights only load failed",
    ),
    "a result cut short": (lambda run: (run / "result.json").write_text("{"), r"result\.json is"),
    "another command's result": (
        lambda run: (run / "result.json").write_text('{"accuracy": 1.0}'),
        "Give the folder of a finished run of regrow segment train",
    ),
    "an unknown network": (change_result(network={"model": "x"}), r"result\.json is damaged"),
    "a network of letters": (change_result(network={"channels": "abc"}), "whole numbers from 1"),
    "a plan of no axes": (change_result(plan={"axes": [0, 0, 0]}), "0, 1, 2 in some order"),
    "a plan of no spacing": (change_result(plan={"spacing": [0, 1, 1]}), "three numbers above 0"),
    "a plan of an unknown scheme": (
        change_result(plan={"channels": [{"scheme": "x"}]}),
        "scheme='x': must be one of ct, zscore",
    ),
    "a plan of no channel": (change_result(plan={"channels": []}), "of another network"),
    "labels without names": (change_result(meaning={"values": [0]}), "of another network"),
    "a patch of no depth": (change_result(patch=[0, 8, 8]), "whole numbers from 1 on"),
    "no config": (lambda run: (run / "config.json").unlink(), r"config\.json is missing"),
    "axes to mirror that there are not": (
        lambda run: (run / "config.json").write_text('{"mirror": [0, 3]}'),
        r"config\.json is damaged \(mirror=\(0, 3\)",
    ),
    "windows that do not move": (
        lambda run: (run / "config.json").write_text('{"overlap": 1}'),
        r"config\.json is damaged \(overlap=1",
    ),
}


@pytest.mark.parametrize("what", DAMAGED)
def test_a_damaged_run_is_named_before_anything_is_written(data, broken, tmp_path, what):
    change, said = DAMAGED[what]
    change(broken)
    with pytest.raises(ValueError, match=said), contextlib.chdir(tmp_path):
        list(predict_cases(broken, data, tmp_path / "out", device="cpu"))
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "planted").exists()


def images(folder, **arrays):
    """Write images under these names."""
    for name, array in arrays.items():
        save(folder / f"{name}.nii.gz", array)
    return folder


def predicted(run, folder, out):
    return dict(predict_cases(run, folder, out, device="cpu"))


def test_scores_that_are_no_numbers_are_not_background(broken, data, tmp_path):
    saved = torch.load(broken / "weights.pt", weights_only=True)
    next(iter(saved["model"].values())).fill_(float("nan"))
    torch.save(saved, broken / "weights.pt")
    told = dict(predict_cases(broken, data, tmp_path / "out"))
    assert len(told) == 6
    assert all(f"case {name}: " in why and "not finite" in why for name, why in told.items())
    assert not list((tmp_path / "out").iterdir())


def test_labels_do_not_take_the_place_of_images(finished, tmp_path):
    image, _ = phantom(0)
    folder = images(tmp_path / "images", a=image)
    before = (folder / "a.nii.gz").read_bytes()
    (tmp_path / "link").symlink_to(folder)
    for out in (folder, tmp_path / "link"):
        with pytest.raises(ValueError, match=r"labels of a would replace .*a\.nii\.gz, an image"):
            predicted(finished, folder, out)
    assert (folder / "a.nii.gz").read_bytes() == before
    (folder / "a.nii.gz").rename(folder / "a_0000.nii.gz")
    assert predicted(finished, folder, folder) == {"a": ""}
    assert (folder / "a_0000.nii.gz").read_bytes() == before


def test_two_files_of_one_case_are_not_one_case_of_two_channels(finished, tmp_path):
    image, _ = phantom(0)
    folder = images(tmp_path / "images", a=image, a_0000=image)
    with pytest.raises(ValueError, match="case a is there twice"):
        predicted(finished, folder, tmp_path / "out")


def test_images_of_other_channels_are_refused_at_once(finished, data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "other")
    listed = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(listed | {"modality": {"0": "T1", "1": "T2"}}))
    with pytest.raises(ValueError, match="has channels T1, T2, and the network takes 1"):
        predicted(finished, folder, tmp_path / "out")


def test_each_odd_image_is_named_and_the_others_are_segmented(finished, tmp_path):
    image, _ = phantom(0)
    holes = image.copy()
    holes[1, 2, 3] = np.nan
    folder = images(
        tmp_path / "images",
        good_0000=image,
        flat_0000=image[..., 0],
        holes_0000=holes,
        second_0001=image,
        two_0000=np.stack([image, image], -1),
        zero_0000=0 * image,
    )
    save(folder / "far_0000.nii.gz", image, np.diag([1e6, 1e6, 1e6, 1]))
    (folder / "cut_0000.nii.gz").write_bytes((folder / "good_0000.nii.gz").read_bytes()[:500])
    os.mkfifo(folder / "pipe_0000.nii.gz")
    (folder / "loop_0000.nii.gz").symlink_to(folder / "loop_0000.nii.gz")
    (folder / "folder_0000.nii.gz").mkdir()
    told = predicted(finished, folder, tmp_path / "out")
    assert [name for name, error in told.items() if not error] == ["flat", "good"]
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"flat.nii.gz", "good.nii.gz"}
    for name, said in {
        "cut": "is damaged",
        "far": "voxels of 1e+06×1e+06×1e+06 mm: at the set's 1×1×1 mm it would be",
        "folder": "is a folder",
        "holes": "not finite",
        "loop": "symbolic links",
        "pipe": "is a pipe",
        "second": "second_0000.nii.gz: no such file",
        "two": "has 2 channels, not 1",
        "zero": "has only zero voxels",
    }.items():
        assert said in told[name], (name, told[name])


def test_a_name_that_is_not_utf8_is_kept(finished, tmp_path):
    folder = images(tmp_path / "images", **{"\udcff_0000": phantom(0)[0]})
    assert predicted(finished, folder, tmp_path / "out") == {"\udcff": ""}
    assert [os.fsencode(path.name) for path in (tmp_path / "out").iterdir()] == [b"\xff.nii.gz"]


def test_what_is_written_follows_the_umask(finished, tmp_path):
    """A patient's labels were readable by everybody, whatever the user had chosen."""
    folder = images(tmp_path / "images", a_0000=phantom(0)[0])
    before = os.umask(0o077)
    try:
        predicted(finished, folder, tmp_path / "out")
    finally:
        os.umask(before)
    [made] = (tmp_path / "out").iterdir()
    assert made.stat().st_mode & 0o777 == 0o600


def test_a_preprocessed_set_is_learnt_judged_and_shown(tmp_path, monkeypatch):
    """The run ended in an error when it was done: its images are no NIfTI files."""
    pytest.importorskip("matplotlib")
    folder = tmp_path / "made"
    (folder / "nnUNetPlans_3d_fullres").mkdir(parents=True)
    labels = {"background": 0, "front": 1, "back": 2}
    content = {"labels": labels, "channel_names": {"0": "MRI"}}
    (folder / "dataset.json").write_text(json.dumps(content))
    plans = {"configurations": {"3d_fullres": {"spacing": [2.0, 1.0, 1.0]}}}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
    for i in range(5):
        image, label = (a[None] for a in phantom(i))
        path = folder / "nnUNetPlans_3d_fullres" / f"c{i}.npz"
        np.savez(path, data=image, seg=label.astype(np.int16))
    small = ["--width", "4", "--patch", "8", "8", "8", "--batches", "1", "--epochs", "1"]
    words = ["segment", "train", str(folder), *small, "--device", "cpu", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["regrow", *words, "--out", str(tmp_path / "out")])
    command_line()
    [record] = (tmp_path / "out" / "trials").iterdir()
    assert "Slices" in (record / "page.html").read_text()
    found, problems = judge_folder(record / "predictions", folder)
    assert not problems
    wanted = json.loads((record / "result.json").read_text())["by_case"]
    assert {case: figures["front"]["dice"] for case, figures in found.items()} == {
        case: figures["front"]["dice"] for case, figures in wanted.items()
    }
    # Files were predicted without any normalisation, and nobody was told.
    raw = save(tmp_path / "raw.nii.gz", phantom(0)[0])
    with pytest.raises(ValueError, match=r"run=.*had normalised.*train on the raw folder"):
        list(predict_cases(record, raw, tmp_path / "labels"))
    assert not (tmp_path / "labels").exists()


def test_names_are_no_formulas(data, tmp_path):
    """Signs that matplotlib takes for a formula, which it cannot draw, cost the page."""
    pytest.importorskip("matplotlib")
    folder = shutil.copytree(data, tmp_path / "named")
    listed = json.loads((folder / "dataset.json").read_text())
    listed["labels"] = {"0": "background", "1": r"$\frac{$", "2": "<b>&"}
    for part in ("imagesTr", "labelsTr"):
        (folder / part / "organ_0.nii.gz").rename(folder / part / r"$\frac{$.nii.gz")
    files = {k: v.replace("organ_0", r"$\frac{$") for k, v in listed["training"][0].items()}
    listed["training"][0] = files
    (folder / "dataset.json").write_text(json.dumps(listed))
    found, problems = judge_folder(folder / "labelsTr", folder)
    assert not problems
    write_evaluation(found, folder / "labelsTr", folder, tmp_path / "e.html")
    html = (tmp_path / "e.html").read_text()
    assert r"$\frac{$" in html and "<b>&" not in html


def test_cases_without_prediction_and_files_of_no_case_are_told(data, tmp_path):
    shutil.copy(data / "labelsTr" / "organ_0.nii.gz", tmp_path)
    assert [figures["front"]["dice"] for figures in judge_folder(tmp_path, data)[0].values()] == [1]
    (tmp_path / "organ_0.nii.gz").rename(tmp_path / "other.nii.gz")
    shutil.copy(data / "labelsTr" / "organ_1.nii.gz", tmp_path)
    assert unmatched(tmp_path, data) == [
        "without prediction: 5 of 6 cases, such as organ_0, organ_2, organ_3, organ_4, organ_5",
        "of no labelled case: 1 file, such as other.nii.gz",
    ]
    assert unmatched(data / "labelsTr", data) == []
    with pytest.raises(FileNotFoundError, match=r"predictions=.*gone: there is no such folder"):
        judge_folder(tmp_path / "gone", data)


def test_a_case_that_was_predicted_twice_is_not_judged_by_either(data, tmp_path):
    for ending in (".nii.gz", ".nii"):
        save(tmp_path / f"organ_0{ending}", phantom(0)[1])
    save(tmp_path / "organ_1.nii", phantom(1)[1])
    found, problems = judge_folder(tmp_path, data)
    assert list(found) == ["organ_1"]
    assert "is both" in problems["organ_0"] and "keep one of them" in problems["organ_0"]


def test_predictions_of_tests_are_judged_by_their_labels(finished, data, tmp_path):
    """Those of a set with tests had nothing to be judged by: only training cases were looked up."""
    folder = shutil.copytree(data, tmp_path / "set")
    for i, part in enumerate(("images", "labels")):
        save(folder / f"{part}Ts" / "t.nii.gz", phantom(7)[i])
    content = json.loads((folder / "dataset.json").read_text())
    (folder / "dataset.json").write_text(json.dumps(content | {"test": ["./imagesTs/t.nii.gz"]}))
    out = tmp_path / "out"
    assert list(predict_cases(finished, folder, out)) == [("t", "")]
    found, problems = judge_folder(out, folder)
    assert list(found) == ["t"] and not problems
    assert unmatched(out, folder) == []
    write_evaluation(found, out, folder, tmp_path / "e.html")
    assert "t, axial, Dice" in (tmp_path / "e.html").read_text()
    shutil.copy(data / "labelsTr" / "organ_1.nii.gz", out)
    [said] = unmatched(out, folder)
    assert said.startswith("without prediction: 5 of 7 cases, such as organ_0")


def test_what_a_mac_hides_among_images_and_predictions_is_passed_over(finished, data, tmp_path):
    shutil.copy(data / "imagesTr" / "organ_0.nii.gz", tmp_path)
    (tmp_path / "._organ_0.nii.gz").write_bytes(b"\0\5\x16\7")
    assert list(predict_cases(finished, tmp_path, tmp_path / "out")) == [("organ_0", "")]
    (tmp_path / "out" / "._organ_0.nii.gz").write_bytes(b"\0\5\x16\7")
    [said] = unmatched(tmp_path / "out", data)
    assert said.startswith("without prediction: 5 of 6")


def test_a_prediction_that_cannot_be_judged_shows_in_the_exit_status(
    data, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("matplotlib")
    pytest.importorskip("tyro")
    for i in range(2):
        shutil.copy(data / "labelsTr" / f"organ_{i}.nii.gz", tmp_path)
    page = tmp_path / "e.html"
    words = ["regrow", "segment", "evaluate", str(tmp_path), str(data), "--out", str(page)]
    monkeypatch.setattr(sys, "argv", words)
    command_line()
    (tmp_path / "organ_1.nii.gz").write_bytes(b"cut")
    with pytest.raises(SystemExit, match="1 case could not be judged; see above"):
        command_line()
    assert "organ_1: " in capsys.readouterr().out and page.exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"axes": (0, 1, 1)}, "axes=(0, 1, 1)"),
        ({"spacing": (1.0, -1.0, 1.0)}, "spacing=(1.0, -1.0, 1.0)"),
        ({"spacing": (1.0, float("nan"), 1.0)}, "spacing=(1.0, nan, 1.0)"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(changes, said):
    right = {"axes": (0, 1, 2), "spacing": (1.0, 1.0, 1.0), "channels": (Normalisation("ct"),)}
    with pytest.raises(ValueError) as raised:
        Preparation(**right | changes)
    assert said in str(raised.value)
