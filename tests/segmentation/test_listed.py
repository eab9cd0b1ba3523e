"""dataset.json: what it cannot mean is refused by name, and nothing is guessed."""

import json
import os

import pytest

from regrow.reading import UnreadableError
from regrow.segmentation.folders import cases_of, open_folder

# Each file that is listed, once more, would be a second case of the same name.
ENTRY = {"image": "./imagesTr/organ_000.nii.gz", "label": "./labelsTr/organ_000.nii.gz"}
REGIONS = {"background": 0, "whole": [1, 2], "core": [2]}

WRONG = {
    "a list of labels": ({"labels": ["background"]}, "labels must be a mapping"),
    "a label in between": ({"labels": {"background": 0, "a": 1.5}}, "not 1.5"),
    "a label that is true": ({"labels": {"background": 0, "a": True}}, "not True"),
    "a negative label": ({"labels": {"background": 0, "a": -1}}, "not -1"),
    "a huge label": ({"labels": {"background": 0, "a": 10**30}}, "whole number from 0 to"),
    "a digit of another script": ({"labels": {"0": "background", "١": "a"}}, "not '١'"),
    "two labels of one value": (
        {"labels": {"background": 0, "a": 1, "b": 1}},
        "'1' is there twice",
    ),
    "one value written twice": ({"labels": {"0": "b", "1": "a", "01": "c"}}, "'1' is there twice"),
    "two labels of one name": ({"labels": {"0": "b", "1": "a", "2": "a"}}, "'a' is there twice"),
    "no background": ({"labels": {"1": "a"}}, "must name 0"),
    "a label to be ignored": (
        {"labels": {"background": 0, "a": 1, "ignore": 1}},
        "1 is to be ignored, and a label as well",
    ),
    "the background to be ignored": ({"labels": {"background": 0, "ignore": 0}}, "0 is to be"),
    "a region of nothing": ({"labels": REGIONS | {"c": []}}, "region 'c' is of no label"),
    "a region of background": ({"labels": REGIONS | {"c": [0, 1]}}, "must not hold 0"),
    "an order of regions as text": (
        {"labels": REGIONS, "regions_class_order": "12"},
        "must list 2 different labels",
    ),
    "an order with one label twice": (
        {"labels": REGIONS, "regions_class_order": [1, 1]},
        "must list 2 different labels",
    ),
    "an order of other labels": (
        {"labels": REGIONS, "regions_class_order": [1, 5]},
        "must list 2 different labels",
    ),
    "a list of channels": ({"modality": ["CT"]}, "must be a mapping"),
    "channels from 1": ({"modality": {"1": "CT"}}, "numbered from 0"),
    "a channel in between": ({"modality": {"0.0": "CT"}}, "numbered from 0"),
    "training as text": ({"training": "imagesTr"}, "training must be a list"),
    "training as one entry": ({"training": ENTRY}, "training must be a list"),
    "training of names": ({"training": [ENTRY["image"]]}, "entry of training must be a mapping"),
    "no label": ({"training": [{"image": ENTRY["image"]}]}, "lists None as a file"),
    "no cases": ({"training": []}, "has no cases"),
    "a case twice": ({"training": [ENTRY, ENTRY]}, "organ_000 twice"),
    "an empty name": ({"training": [{"image": "", "label": ""}]}, "lists '' as a file"),
    "the folder itself": ({"training": [{"image": ".", "label": "."}]}, "lists '.' as a file"),
    "a name with an end": (
        {"training": [{"image": "a\0.nii", "label": "b.nii"}]},
        "as a file",
    ),
    "half a sign": ({"training": [{"image": "a\ud800.nii", "label": "b.nii"}]}, "as a file"),
    "a name without a name": (
        {"training": [{"image": "imagesTr/.nii.gz", "label": "b.nii"}]},
        "no case can be called ''",
    ),
    "outside": ({"training": [{"image": "../x.nii", "label": "b.nii"}]}, "outside the folder"),
    "far outside": ({"training": [{"image": "/x.nii", "label": "b.nii"}]}, "outside the folder"),
    "numbers as tests": ({"test": [1, 2]}, "lists 1 as a file"),
    "a number of tests": ({"test": 5}, "test must be a list"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_cannot_be_is_refused(decathlon, what):
    change, said = WRONG[what]
    listed = json.loads((decathlon / "dataset.json").read_text()) | change
    (decathlon / "dataset.json").write_text(json.dumps(listed))
    with pytest.raises(UnreadableError, match=said) as raised:
        open_folder(decathlon)
    assert str(decathlon) in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Expecting value"),
        (b"null", "must be a mapping"),
        (b"{", "Expecting property name"),
        (b"[" * 100_000, "recursion"),
        (b'{"labels": {"0": "\xff"}}', "can't decode"),
        (b'{"labels": {"0": "a"}, "labels": {"0": "b"}}', "key 'labels' is there twice"),
        (b'{"labels": {"0": "a", "1": "b", "1": "c"}}', "key '1' is there twice"),
    ],
)
def test_what_is_no_list_is_damaged(tmp_path, content, said):
    (tmp_path / "dataset.json").write_bytes(content)
    with pytest.raises(UnreadableError, match=said):
        open_folder(tmp_path)


@pytest.mark.parametrize("kind", ["a pipe", "a folder", "symbolic links"])
def test_a_list_that_is_no_file_is_told_and_not_waited_for(tmp_path, kind):
    path = tmp_path / "dataset.json"
    make = {"a pipe": os.mkfifo, "a folder": os.mkdir, "symbolic links": lambda p: p.symlink_to(p)}
    make[kind](path)
    with pytest.raises(UnreadableError, match=kind):
        open_folder(tmp_path)


@pytest.mark.parametrize("name", ["../../out", "/out", "", ".", "a/b", "a\0b", "a\ud800"])
def test_a_case_is_not_called_by_the_way_to_another_folder(tmp_path, name):
    """Predictions are written under the names of cases."""
    listed = {
        "labels": {"background": 0, "a": 1},
        "channel_names": {"0": "CT"},
        "dataset": {name: {"images": ["imagesTr/x_0000.nii.gz"], "label": "labelsTr/x.nii.gz"}},
    }
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    with pytest.raises(UnreadableError, match="no case can be called"):
        open_folder(tmp_path)


def test_a_channel_that_is_missing_does_not_give_its_place_to_the_next(tmp_path):
    """Channels 0 and 2 of a set of two channels would have been taken for 0 and 1."""
    for folder, name in (("imagesTr", "a_0000"), ("imagesTr", "a_0002"), ("labelsTr", "a")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.nii.gz").touch()
    listed = {"labels": {"background": 0, "a": 1}, "channel_names": {"0": "T1", "1": "T2"}}
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    [case] = open_folder(tmp_path).cases
    assert [file.name for file in case.images] == [f"a_000{i}.nii.gz" for i in range(3)]


def test_labels_whose_images_are_called_otherwise_are_not_passed_over(tmp_path):
    """nnU-Net's images have the number of their channel: without it, a case was gone in silence."""
    for name in ("imagesTr/a_0000", "imagesTr/b", "labelsTr/a", "labelsTr/b"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.nii.gz").touch()
    listed = {"labels": {"background": 0, "a": 1}, "channel_names": {"0": "T1"}}
    (tmp_path / "dataset.json").write_text(json.dumps(listed))
    one, other = open_folder(tmp_path).cases
    assert (one.name, other.name) == ("a", "b")
    assert [file.name for file in other.images] == ["b_0000.nii.gz"]


def test_a_channel_that_is_there_twice_is_refused(tmp_path):
    files = [tmp_path / "a_0000.nii", tmp_path / "a_0000.nii.gz"]
    with pytest.raises(UnreadableError, match="is channel 0000 of case a again: keep one of them"):
        cases_of(files)
    assert [case.name for case in cases_of([tmp_path / "a.nii", files[0]])] == ["a", "a"]


@pytest.mark.parametrize("spacing", [[0, 1, 1], [-1, 1, 1], [1, 1], [1e400, 1, 1], ["x", 1, 1]])
def test_a_plan_of_no_spacing_is_refused(tmp_path, spacing):
    write(tmp_path, {"spacing": spacing})
    with pytest.raises(UnreadableError, match=r"nnUNetPlans\.json"):
        open_folder(tmp_path)


def test_a_plan_does_not_lead_out_of_the_folder(tmp_path):
    write(tmp_path, {"spacing": [1, 1, 1], "data_identifier": "../elsewhere"})
    with pytest.raises(UnreadableError, match="outside the folder"):
        open_folder(tmp_path)


def write(folder, plan):
    """Write what nnU-Net leaves beside preprocessed volumes."""
    listed = {"labels": {"background": 0, "a": 1}, "channel_names": {"0": "CT"}}
    (folder / "dataset.json").write_text(json.dumps(listed))
    plans = {"configurations": {"3d_fullres": plan}}
    (folder / "nnUNetPlans.json").write_text(json.dumps(plans))
