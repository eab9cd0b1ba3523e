"""A run on volumes in files: resumed bit for bit, written in the files' geometry, read again."""

import json
import math
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

import regrow
from regrow.lab.files import read_json, read_lines
from regrow.lab.run import Run
from regrow.segmentation import feature_fusion
from regrow.segmentation.folders import open_folder
from regrow.studies.segmentation import page, slices
from regrow.studies.segmentation import segment as room
from regrow.studies.segmentation.page import write_evaluation, write_page
from regrow.studies.segmentation.predict import judge_folder, predict_cases
from regrow.studies.segmentation.segment import Segment, fitting_patch

nibabel = pytest.importorskip("nibabel")

AFFINE = np.array([[-1.2, 0.1, 0, 5], [0.1, 1.1, 0, -7], [0, 0, 1.5, 3], [0, 0, 0, 1.0]])
FUSION = feature_fusion(0.3, update_every=2)
SETTING = {
    "data": "balls",
    "method": FUSION["method"],
    "include": FUSION["include"],
    "epochs": 3,
    "batches": 2,
    "width": 6,
    "patch": (8, 8, 8),
    "seed": 0,
}


def write(path, array, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(array, affine), path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Make a Decathlon folder of bright balls of two sizes; one file is cut short."""
    folder = tmp_path_factory.mktemp("sets") / "balls"
    draw = np.random.default_rng(0)
    listed = []
    for i in range(11):
        sides = (12, 14, 9 + i % 3)
        places = np.stack(np.meshgrid(*map(np.arange, sides), indexing="ij"))
        far = np.sqrt(((places - np.array(sides).reshape(3, 1, 1, 1) / 2) ** 2).sum(0))
        label = np.where(far < 2, 2, np.where(far < 4, 1, 0)).astype(np.uint8)
        image = (label + 0.1 * draw.normal(size=sides)).astype(np.float32)
        write(folder / "imagesTr" / f"ball_{i}.nii.gz", image)
        write(folder / "labelsTr" / f"ball_{i}.nii.gz", label)
        files = {"image": f"./imagesTr/ball_{i}.nii.gz", "label": f"./labelsTr/ball_{i}.nii.gz"}
        listed.append(files)
    broken = folder / "imagesTr" / "ball_10.nii.gz"
    broken.write_bytes(broken.read_bytes()[:500])
    facts = {
        "labels": {"0": "background", "1": "shell", "2": "core"},
        "modality": {"0": "MRI"},
        "training": listed,
        "test": [],
    }
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


def run_of(folder, data, **kind):
    folder.mkdir(exist_ok=True)
    options = {"data_dir": str(data.parent), "device": "cpu", "keep_weights": True}
    return Run(folder, options, save_every=0, **kind)


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """Run a trial to its end, as its record."""
    folder = tmp_path_factory.mktemp("run")
    trial = Segment(**SETTING)
    result = trial.run(run_of(folder, data))
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "config.json").write_text(json.dumps(trial.content))
    return folder


def test_a_run_that_was_cut_off_goes_on_bit_for_bit(data, finished, tmp_path):
    class Cut(Exception):
        pass

    def stop(values):
        if values["epoch"] == 2:
            raise Cut

    trial = Segment(**SETTING)
    with pytest.raises(Cut):
        trial.run(run_of(tmp_path, data, show=stop))
    torch.rand(7)  # the global generator is elsewhere by then
    result = trial.run(run_of(tmp_path, data))
    before = read_json(finished / "result.json")
    for name in ("loss", "train_dice", "by_case", "updates", "moved"):
        assert result[name] == before[name]
    weights = [torch.load(f / "weights.pt") for f in (finished, tmp_path)]
    for name, weight in weights[0]["model"].items():
        assert weight.equal(weights[1]["model"][name])


def test_predictions_lie_where_the_files_do_and_hold_labels_of_the_set(data, finished):
    result = read_json(finished / "result.json")
    assert len(result["by_case"]) == 2  # a fifth of the ten that can be read
    for name in result["by_case"]:
        image = nibabel.load(data / "imagesTr" / f"{name}.nii.gz")
        found = nibabel.load(finished / "predictions" / f"{name}.nii.gz")
        assert found.shape == image.shape
        np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)
        assert set(np.unique(found.dataobj)) <= {0, 1, 2}


def test_masks_hold_only_in_fusion_layers(finished):
    result = read_json(finished / "result.json")
    assert set(result["densities"]) and all(n.startswith("nodes.") for n in result["densities"])
    assert result["density"] == pytest.approx(0.3, abs=0.02)
    assert result["updates"] >= 2


def test_a_loaded_network_predicts_what_the_run_did(data, finished, tmp_path):
    told = dict(predict_cases(finished, data, tmp_path / "out", device="cpu"))
    assert "ball_10" in told.pop("ball_10")  # the error names the file
    assert not any(told.values()) and len(told) == 10
    for file in (finished / "predictions").iterdir():
        again = nibabel.load(tmp_path / "out" / file.name)
        assert (np.asarray(again.dataobj) == np.asarray(nibabel.load(file).dataobj)).all()


def test_judging_files_finds_the_runs_own_figures(data, finished):
    found, problems = judge_folder(finished / "predictions", data)
    assert not problems
    wanted = read_json(finished / "result.json")["by_case"]
    for name, figures in wanted.items():
        for label, of in figures.items():
            assert found[name][label]["dice"] == pytest.approx(of["dice"])


def test_one_bad_prediction_does_not_end_the_judging(data, finished, tmp_path):
    first, second = sorted((finished / "predictions").iterdir())
    (tmp_path / first.name).write_bytes(first.read_bytes())
    other = np.zeros((3, 3, 3), np.uint8)
    write(tmp_path / second.name, other)
    found, problems = judge_folder(tmp_path, data)
    assert list(found) == [first.name.removesuffix(".nii.gz")]
    assert "shape" in problems[second.name.removesuffix(".nii.gz")]
    with pytest.raises(FileNotFoundError, match="no file of a labelled case"):
        judge_folder(data, data)


def test_large_volumes_are_watched_around_their_labels_and_tested_whole(
    data, tmp_path, monkeypatch
):
    """Whole scans took longer to watch, after every epoch, than the epoch to train."""
    seen, own = [], Segment.scores

    def scores(trial, trainer, case, mirror=()):
        seen.append(tuple(case.image.shape[1:]))
        return own(trial, trainer, case, mirror)

    monkeypatch.setattr(Segment, "scores", scores)
    trial = Segment(**SETTING | {"patch": (4, 4, 4), "epochs": 1, "width": 3})
    trial.run(run_of(tmp_path, data))
    watched, tested = seen[: len(seen) // 2], seen[len(seen) // 2 :]
    assert watched == [(8, 8, 8)] * len(watched)
    assert len(watched) == len(tested) and all(min(sides) > 8 for sides in tested)


def test_what_is_watched_is_the_dice_of_the_volumes(data, tmp_path):
    trial = Segment(**SETTING | {"epochs": 1, "tested": 1, "mirror": ()})
    result = trial.run(run_of(tmp_path, data))
    [line] = read_lines(tmp_path / "metrics.jsonl")
    assert line["held_out_dice"] == pytest.approx(result["dice"])


def test_the_page_shows_slices_curves_and_cases_worst_first(data, finished, tmp_path):
    pytest.importorskip("matplotlib")
    html = write_page(finished, data).read_text()
    assert html.count("<image") >= 8  # two cases of four pictures
    assert not re.findall(r'(?:src|href)="(?!#|data:)', html)  # nothing is fetched
    cases = read_json(finished / "result.json")["by_case"]
    by_dice = sorted(cases, key=lambda name: np.mean([f["dice"] for f in cases[name].values()]))
    table = html[html.index("the worst first") :]
    assert table.index(by_dice[0]) < table.index(by_dice[1])
    found, _ = judge_folder(finished / "predictions", data)
    said = write_evaluation(found, finished / "predictions", data, tmp_path / "e.html")
    assert "Mean Dice" in said and "Slices" in (tmp_path / "e.html").read_text()
    # The colours of labels and of errors are named; so are lesions.
    for name in ("shell", "core", "error: missed", "error: wrong or too much"):
        assert f"</svg>{name}</li>" in html
    assert "predicted where there is none" in table


def test_the_slice_that_is_shown_is_one_of_the_truth(data, tmp_path):
    """A bad prediction filled a slice in which there is nothing, and that one was shown."""
    image = nibabel.load(data / "labelsTr" / "ball_0.nii.gz")
    predicted = np.zeros(image.shape, np.uint8)
    predicted[0] = predicted[:, 0] = predicted[:, :, 0] = 1
    write(tmp_path / "ball_0.nii.gz", predicted)
    cut = slices._slice("ball_0", tmp_path, open_folder(data))
    counts = [(np.asarray(image.dataobj) > 0).sum(axes).max() for axes in ((0, 1), (1, 2), (0, 2))]
    assert (cut.truth > 0).sum() in counts
    assert (cut.predicted != cut.truth).any()


def one_case(folder, labels, affine=None, channel="MRI"):
    """Write a set of one case, whose image is 100 times its labels."""
    affine = np.eye(4) if affine is None else affine
    for part, array in (("imagesTr", 100.0 * labels), ("labelsTr", labels.astype(np.uint8))):
        write(folder / part / "a.nii.gz", array, affine)
    facts = {
        "labels": {"0": "background", "1": "rest", "2": "mark", "3": "none"},
        "modality": {"0": channel},
        "training": [{"image": "imagesTr/a.nii.gz", "label": "labelsTr/a.nii.gz"}],
    }
    (folder / "dataset.json").write_text(json.dumps(facts))
    return folder


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, -1, 1), (-1, 1, -1)])
@pytest.mark.parametrize("plane", ["axial", "coronal", "sagittal"])
def test_a_slice_lies_in_the_plane_that_was_scanned_and_is_drawn_upright(tmp_path, plane, signs):
    """Across the widest voxels; what is highest, foremost, rightmost is at the top right."""
    across = {"axial": 2, "coronal": 1, "sagittal": 0}[plane]
    spacing = np.where(np.arange(3) == across, 4.0, 1.0)
    labels = np.zeros((4, 5, 6))
    # One voxel of every slice, in whatever direction the file counts.
    corner = [-1 if sign > 0 else 0 for sign in signs]
    labels[tuple(np.s_[:] if a == across else corner[a] for a in range(3))] = 2
    folder = one_case(tmp_path, labels, np.diag([*(signs * spacing), 1.0]))
    cut = slices._slice("a", folder / "labelsTr", open_folder(folder))
    assert slices._PLANES[cut.axis] == plane
    rows, columns = {"axial": (5, 4), "coronal": (6, 4), "sagittal": (6, 5)}[plane]
    assert cut.truth.shape == cut.image.shape == cut.predicted.shape == (rows, columns)
    assert cut.tall == rows / columns
    assert cut.truth[0, -1] == cut.predicted[0, -1] == 2 and (cut.truth > 0).sum() == 1
    assert cut.image[0, -1] == 200


def test_the_only_slice_is_the_one_that_is_shown(tmp_path):
    folder = one_case(tmp_path, np.ones((1, 5, 6)), np.diag([1.0, 1, 3, 1]))
    assert slices._slice("a", folder / "labelsTr", open_folder(folder)).truth.shape == (6, 5)


def test_only_colours_that_are_shown_are_named_and_no_class_has_that_of_an_error(tmp_path):
    pytest.importorskip("matplotlib")
    folder = one_case(tmp_path, np.ones((4, 5, 6)))
    [section] = slices.slices({"a": {"rest": {"dice": 1.0}}}, folder / "labelsTr", folder)
    assert "</svg>rest</li>" in section.figure and "</svg>none</li>" not in section.figure
    assert "case 1: a, axial, Dice 1.000" in section.figure and "Axial: " in section.caption
    colours = {str(slices._colour(number)[:3]) for number in range(21)}
    assert len(colours) == 21
    wrong = [
        [int(text[i : i + 2], 16) / 255 for i in (1, 3, 5)] for text in slices._ERRORS.values()
    ]
    assert not {str(tuple(colour)) for colour in wrong} & colours


@pytest.mark.parametrize(("channel", "window"), [("CT", (-100, 300)), ("MRI", (0, 100))])
def test_ct_is_shown_about_what_is_labelled(tmp_path, channel, window):
    """Between air and metal all soft tissue was of one grey."""
    labels = np.zeros((4, 6, 6))
    labels[:, :3] = 1
    folder = one_case(tmp_path, labels, channel=channel)
    cut = slices._slice("a", folder / "labelsTr", open_folder(folder))
    assert cut.window == pytest.approx(window, abs=1e-5)


def made_up(classes, dice=0.5):
    of = {"dice": dice, "surface_dice": 1.0, "hausdorff95": math.inf, "found": 2, "missed": 1}
    return {"a": {f"organ {c}": of | {"false": 0} for c in range(classes)}}


def test_no_table_is_folded_away_whole():
    """A page folds tables of more than 12 rows: of 20 cases one saw none, not even the worst."""
    case = made_up(14)["a"]
    by_case = {f"case {i}": case for i in range(13)}
    for part, count in ((page._means, 14), (page._tables, 13)):
        section = next(part(by_case))
        assert len(section.table.rows) == 12
        others = section.details[0]
        assert others.summary.startswith(f"The other {count - 12}")
        assert len({row[0] for row in (*section.table.rows, *others.table.rows)}) == count


@pytest.mark.parametrize("classes", [2, 9])
def test_of_many_classes_the_table_has_dice_and_the_rest_is_folded_away(classes):
    means, tables = (next(part(made_up(classes))) for part in (page._means, page._tables))
    assert means.table.rows[0] == ("organ 0", "0.500", "1.000", "∞")
    assert len(means.table.rows) == classes
    kinds = 3 if classes == 2 else 1
    assert len(tables.table.columns) == len(tables.table.rows[0]) == 2 + kinds * classes
    folded = [details.summary for details in tables.details]
    assert folded[:-1] == ([] if classes == 2 else ["surface Dice, 1 mm", "HD95, mm"])
    assert tables.details[-1].table.rows[0][1] == "2 / 1 / 0"


def test_a_gpu_without_memory_is_told_which_patch_would_fit(data, tmp_path, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError

    trial = Segment(**SETTING | {"patch": (16, 24, 16)})
    monkeypatch.setattr(room, "train", full)
    room_for = lambda trainer, model, patch: np.prod(patch) <= 16 * 16 * 16  # noqa: E731
    monkeypatch.setattr(room, "_has_room", room_for)
    with pytest.raises(MemoryError, match=r"16×24×16, 2 a batch.*--patch 16 16 16 would"):
        trial.run(run_of(tmp_path, data))
    monkeypatch.setattr(room, "_has_room", lambda *_: False)
    with pytest.raises(MemoryError, match="nor do smaller ones: lower batch or width"):
        trial.run(run_of(tmp_path, data))


def test_a_step_is_really_tried_with_a_smaller_patch(data, tmp_path):
    trial = Segment(**SETTING | {"patch": (16, 16, 16)})
    trainer = room.start(trial, trial, run_of(tmp_path, data))
    before = {n: p.clone() for n, p in trainer.model.named_parameters()}
    assert fitting_patch(trainer) == (12, 16, 16)
    for name, p in trainer.model.named_parameters():
        assert p.equal(before[name]) and p.grad is None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("fold", 5),
        ("model", "vnet"),
        ("width", 0),
        ("foreground", 2.0),
        ("overlap", 1.0),
        ("mirror", (3,)),
        ("patch", (8, 8)),
        ("clip", 0.0),
    ],
)
def test_what_is_out_of_range_is_refused_by_name(field, value):
    with pytest.raises(ValueError, match=field):
        Segment(**SETTING | {field: value})


@pytest.mark.parametrize("model", ["nnunet", "nnunet-residual"])
def test_rivals_are_trained_by_the_same_trial(model, data, tmp_path):
    trial = Segment(**SETTING | {"model": model, "method": regrow.Dense(), "include": ()})
    result = replace(trial, epochs=1, cases=3).run(run_of(tmp_path, data))
    assert result["density"] == 1 and np.isfinite(result["loss"])


@pytest.mark.long
@pytest.mark.slow
def test_two_ranks_learn_what_one_learns_and_share_the_test(data, tmp_path):
    train = ["-m", "regrow", "segment", "train", str(data), "--device", "cpu", "--patch", "8", "8"]
    train += ["8", "--width", "6", "--batches", "2", "--epochs", "2", "--threads", "1", "--out"]
    ranks = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    found = []
    for name, launch in (("one", []), ("two", ranks)):
        command = [sys.executable, *launch, *train, str(tmp_path / name)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
        assert done.returncode == 0, done.stderr
        (record,) = (tmp_path / name / "trials").iterdir()
        found.append(read_json(record / "result.json"))
        assert (record / "page.html").exists()
    one, two = found
    # Dice sums go over the ranks: the loss is that of the whole batch.
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-3)
    assert list(two["by_case"]) == list(one["by_case"])
