"""Folders become tensors, and class scores become files: classes, regions, voxels nobody judged."""

import json
import shutil

import numpy as np
import pytest
import torch

from regrow.segmentation.data import figures_of, fingerprint, open_fold, plan_from
from regrow.segmentation.folders import open_folder
from regrow.segmentation.grids import grid_of
from regrow.segmentation.meaning import Meaning

nibabel = pytest.importorskip("nibabel")

# As BraTS: file values 1 core, 2 oedema, 4 enhancing; 9 is not judged.
LABELS = {"background": 0, "whole": [1, 2, 4], "core": [1, 4], "enhancing": 4, "ignore": 9}


@pytest.fixture(scope="module")
def brats(tmp_path_factory):
    """Make a raw folder of nnU-Net with regions and an unjudged slice."""
    folder = tmp_path_factory.mktemp("sets") / "Dataset001_Tumour"
    draw = np.random.default_rng(0)
    for part in ("imagesTr", "labelsTr"):
        (folder / part).mkdir(parents=True)
    for i in range(5):
        label = draw.choice([0, 1, 2, 4], (6, 7, 8)).astype(np.uint8)
        label[0] = 9
        for name, array in ((f"imagesTr/t{i}_0000", label * 1.5 + 1), (f"labelsTr/t{i}", label)):
            image = nibabel.Nifti1Image(array.astype(np.float32), np.diag([1, 1, 1, 1.0]))
            nibabel.save(image, folder / f"{name}.nii.gz")
    facts = {
        "channel_names": {"0": "FLAIR"},
        "labels": LABELS,
        "regions_class_order": [2, 1, 4],
        "numTraining": 5,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


def test_scores_of_the_truth_come_back_as_the_truth(brats, tmp_path):
    volumes = open_fold(brats, 0)
    assert volumes.outputs == ("whole", "core", "enhancing")
    case = volumes.held_out[0]
    assert (case.label == -1).sum() == 7 * 8
    masks = [torch.isin(case.label, torch.tensor(of)) for of in volumes.regions]
    figures = volumes.judge(case, 2.0 * torch.stack(masks) - 1, tmp_path)
    assert {name: of["dice"] for name, of in figures.items()} == dict.fromkeys(figures, 1.0)
    written = np.asarray(nibabel.load(tmp_path / f"{case.name}.nii.gz").dataobj)
    truth = np.asarray(nibabel.load(brats / "labelsTr" / f"{case.name}.nii.gz").dataobj)
    assert (written[truth != 9] == truth[truth != 9]).all()


@pytest.mark.parametrize("strange", [float("nan"), float("inf"), -float("inf")])
def test_scores_that_are_not_finite_are_no_labels(brats, strange):
    volumes = open_fold(brats, 0)
    case = volumes.held_out[0]
    scores = torch.zeros(3, *case.image.shape[1:])
    scores[1, 2, 3, :2] = strange
    with pytest.raises(FloatingPointError, match=f"case {case.name}: 2 scores of the network"):
        volumes.judge(case, scores, None)


def test_figures_have_their_own_names():
    truth, said = np.zeros((2, 3, 16), int), np.zeros((2, 3, 16), int)
    truth[0, 0, [0, 2, 4]] = 1
    said[0, 0, [0, 8, 10, 12]] = 1
    meaning = Meaning((0, 1), ("background", "cyst"), {})
    figures = figures_of(said, truth, grid_of(truth.shape), meaning)["cyst"]
    assert (figures["found"], figures["missed"], figures["false"]) == (1, 2, 3)
    assert figures["dice"] == 2 / 7 and figures["surface_dice"] == 2 / 7
    assert figures["hausdorff95"] > 4


def test_a_wrong_voxel_lowers_the_regions_that_hold_it_unless_nobody_judged_it(brats):
    volumes = open_fold(brats, 0)
    case = volumes.held_out[0]
    scores = torch.stack(
        [2.0 * torch.isin(case.label, torch.tensor(of)) - 1 for of in volumes.regions]
    )
    unjudged = (case.label == -1).nonzero()[0]
    scores[:, *unjudged] = 1
    assert all(of["dice"] == 1 for of in volumes.judge(case, scores, None).values())
    oedema = (case.label == volumes.regions[0][1]).nonzero()[0]
    scores[1, *oedema] = 1
    dices = {name: of["dice"] for name, of in volumes.judge(case, scores, None).items()}
    assert dices["whole"] == dices["enhancing"] == 1 > dices["core"]


def test_what_a_run_tells_leads_back(brats):
    told = json.loads(json.dumps(open_fold(brats, 0).told))
    how, meaning = plan_from(told)
    assert meaning.judged == {"whole": (1, 2, 4), "core": (1, 4), "enhancing": (4,)}
    assert meaning.written == (2, 1, 4) and meaning.ignore == 9
    assert plan_from(json.loads(json.dumps(told))) == (how, meaning)


def test_values_with_gaps_are_classes_without_and_come_back():
    meaning = Meaning((0, 3, 7), ("background", "a", "b"), {})
    assert meaning.classes(np.array([7, 0, 3])).tolist() == [2, 0, 1]
    assert meaning.judged == {"a": (3,), "b": (7,)} and meaning.region_classes is None


@pytest.mark.parametrize(("fold", "cases", "said"), [(5, None, "fold=5"), (0, 9, "cases=9: fold")])
def test_a_fold_or_a_count_that_is_not_there_is_refused(brats, fold, cases, said):
    with pytest.raises(ValueError, match=said):
        open_fold(brats, fold, cases)


def test_a_set_of_other_files_has_another_fingerprint(brats, tmp_path):
    copy = shutil.copytree(brats, tmp_path / "copy")
    before = fingerprint(open_folder(copy))
    assert before == fingerprint(open_folder(brats))
    file = copy / "labelsTr" / "t3.nii.gz"
    file.write_bytes(file.read_bytes() + b"more")
    assert fingerprint(open_folder(copy)) != before


def test_folds_that_somebody_has_chosen_are_followed(brats, tmp_path):
    """Of patients with several scans; nnU-Net keeps them beside what it has preprocessed."""
    folder = shutil.copytree(brats, tmp_path / "set")
    before = fingerprint(open_folder(folder))
    splits = [{"train": ["t4", "t0", "t1"], "val": ["t2"]}, {"train": ["t2"], "val": ["t0"]}]
    (folder / "splits_final.json").write_text(json.dumps(splits))
    assert fingerprint(open_folder(folder)) != before
    volumes = open_fold(folder, 0)
    assert [case.name for case in volumes.training] == ["t0", "t1", "t4"]
    assert [case.name for case in volumes.held_out] == ["t2"]
    assert [case.name for case in open_fold(folder, 0, 2).training] == ["t0", "t1"]
    with pytest.raises(ValueError, match=r"fold=2: .*splits_final\.json has 2 folds"):
        open_fold(folder, 2)
    # A case that cannot be used is in no fold, and a fold of none is refused.
    (folder / "imagesTr" / "t4_0000.nii.gz").write_bytes(b"cut")
    assert [case.name for case in open_fold(folder, 0).training] == ["t0", "t1"]
    (folder / "imagesTr" / "t2_0000.nii.gz").write_bytes(b"cut")
    with pytest.raises(ValueError, match="no case that is held out can be used"):
        open_fold(folder, 0)
    with pytest.raises(ValueError, match="no case that is to learn from can be used"):
        open_fold(folder, 1)
    (folder / "splits_final.json").write_text(json.dumps([{"train": ["t0"], "val": ["x"]}]))
    with pytest.raises(ValueError, match="names case x in fold 0, which is not there"):
        open_fold(folder, 0)
