"""The study of image corruption: what is tested, and how its rules decide."""

from __future__ import annotations

import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from markupsafe import escape

import regrow
from regrow.lab.design import Labelled
from regrow.lab.records import Record
from regrow.lab.run import Run
from regrow.lab.view import View
from regrow.studies.corruption_robustness.design import ARMS, MOVING, RADII, Task
from regrow.studies.corruption_robustness.study import CLAIMS, STUDY
from regrow.studies.corruption_robustness.trial import Robust
from regrow.studies.supervised.corrupted import SEED, corrupted_test
from regrow.studies.supervised.source import open_source
from regrow.vision.corruptions import CORRUPTIONS, FAMILIES, corrupt
from regrow.vision.data import load_data

TASK = Task(
    Robust(
        seed=0,
        method=regrow.Dense(),
        data="digits",
        model="conv-net",
        epochs=2,
        batch=64,
        tested=50,
        radii=RADII,
    ),
    898,
)
DENSITIES = (0.9, 0.5, 0.3)
NAMES = (
    "more robust",
    "still is",
    "severity",
    "noise",
    "high frequencies",
    "low frequencies",
    "whole kernels",
    "not paid",
    "more than",
    "moving",
    "smaller number",
)
CPU = torch.device("cpu")


def found(one: Labelled, gain: float = 0.0, **more: object) -> Record:
    """Make a record in which a network is this much better under everything, clean images too."""
    labels, trial = one
    noise = random.Random(trial.identity).uniform(-0.0005, 0.0005) + 0.01 * trial.seed
    value = 0.5 + gain + noise
    curve = {str(radius): value - 0.1 for radius in RADII}
    result = {
        "accuracy": value,
        "robustness": value,
        "corrupted": {name: {str(s): value for s in range(1, 6)} for name in CORRUPTIONS},
        "low_pass": curve,
        "high_pass": curve,
        "remaining_kernels": 0.9 + noise,
        **more,
    }
    return Record(trial.identity, trial.content, result, {}, Path(), labels=[labels])


def grid(seeds: int = 5) -> list[Labelled]:
    return TASK.trials(seeds, DENSITIES, tuple(ARMS))


def moves(one: Labelled) -> bool:
    return one.labels["arm"] in MOVING


def judged(name: str, record_of, trials: list[Labelled] | None = None) -> str:
    records = [record_of(one) for one in trials or grid()]
    return CLAIMS[NAMES.index(name)].judge(View.of(records)).outcome


# ---------------------------------------------------------------------- what is run


def test_every_cell_is_run_once():
    trials = grid(2)
    assert len({one.trial.identity for one in trials}) == len(trials) == 2 * (1 + 3 * (2 + 6))
    cells = {(one.labels["arm"], one.labels.get("density")) for one in trials}
    assert cells == {("dense", None)} | {(n, d) for n in ARMS if n != "dense" for d in DENSITIES}


def test_all_methods_of_the_paper_drop_by_magnitude_and_end_at_their_density():
    for density in (0.9, 0.3):
        for name, make in MOVING.items():
            method = make(density=density, every=10)["method"]
            drop = method.drop
            assert type(drop).__name__ == "Magnitude" or drop.gamma == 0, name
            assert method.density == density
            assert ("gradient" in name or name == "RigL") == (
                type(method.grow).__name__ == "Gradient"
            )


def test_topologies_move_fifty_times():
    task = replace(TASK, train=50_000)
    for one in task.trials(1, (0.5,), ("SET", "GraNet, random growth")):
        assert 50 <= 2 * (50_000 // 64) // one.trial.method.update_every <= 52


@pytest.mark.parametrize("preset", ["smoke", "quick", "paper"])
def test_data_that_a_preset_does_not_know_are_refused(preset):
    with pytest.raises(ValueError, match="data='mnist': this preset knows"):
        STUDY.trials(preset, "mnist")


def test_the_papers_preset_is_on_the_published_sets():
    trials = [trial for _, trial in STUDY.trials("paper", "cifar100")]
    assert {t.model for t in trials} == {"resnet34"} and all(t.published for t in trials)
    assert {len(t.corruptions) for t in trials} == {19}
    data = {trial.data for _, trial in STUDY.trials("paper")}
    assert data >= {"imagenet", "ucf101", "tiny-imagenet"}


def test_presets_share_no_task():
    tasks = [
        {one.labels["task"] for data in preset.designs for one in preset.trials(data)}
        for preset in STUDY.presets.values()
    ]
    assert sum(map(len, tasks)) == len(set.union(*tasks))


# ---------------------------------------------------------------------- what is tested


def test_a_trial_reports_what_plain_loops_find(tmp_path):
    trial = replace(TASK.base, epochs=1, radii=(1.5,), corruptions=("fog", "shot_noise"))
    training = trial.start(Run(tmp_path, {"device": "cpu"}))
    training.run_epoch()
    result = trial.test(training, Run(tmp_path, {"device": "cpu"}))
    data = load_data("digits")
    mean, deviation = data.moments()
    labels = data.test_labels[:50]
    accuracies = []
    for name in ("fog", "shot_noise"):
        for severity in range(1, 6):
            images = corrupt(data.test_inputs[:50], name, severity, seed=SEED).float()
            with torch.no_grad():
                said = training.model.eval()((images - mean) / deviation).argmax(1)
            accuracies.append(float((said == labels).float().mean()))
            assert result["corrupted"][name][str(severity)] == pytest.approx(accuracies[-1])
    assert result["robustness"] == pytest.approx(np.mean(accuracies))
    clean = float(
        (training.outputs((data.test_inputs[:50].float() - mean) / deviation).argmax(1) == labels)
        .float()
        .mean()
    )
    assert result["low_pass"]["1.5"] == pytest.approx(clean)  # all frequencies are kept
    assert result["remaining_kernels"] == 1.0


def test_published_sets_are_read_in_place_of_those_made(tmp_path):
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    rng = np.random.default_rng(0)
    pixels = rng.integers(256, size=(20, 32, 32, 3), dtype=np.uint8)
    np.save(folder / "fog.npy", pixels)
    np.save(folder / "labels.npy", np.tile(np.arange(4, dtype=np.uint8), 5))
    source = replace(
        open_source("digits", data_dir=None, device=CPU, batch=64, seed=0, augment=False),
        moments=(torch.zeros(1, 3, 1, 1), torch.full((1, 3, 1, 1), 2.0)),
    )
    pairs = list(
        corrupted_test(source, "cifar10", "fog", 2, published=True, data_dir=str(tmp_path))
    )
    assert torch.equal(2 * pairs[0][0], torch.tensor(pixels[4:8]).permute(0, 3, 1, 2).float())
    assert pairs[0][1].tolist() == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="data='digits' has no published set"):
        list(corrupted_test(source, "digits", "fog", 2, published=True))


def test_what_is_read_on_the_way_is_corrupted_like_what_lies_in_memory():
    source = open_source("digits", data_dir=None, device=CPU, batch=64, seed=0, augment=False)
    data = load_data("digits")
    parts = zip(data.test_inputs.split(100), data.test_labels.split(100), strict=True)
    folder = replace(source, moments=None, test=lambda: parts)
    whole = torch.cat([x for x, _ in corrupted_test(source, "digits", "snow", 4)])
    mean, deviation = source.moments
    parts_seen = torch.cat([x for x, _ in corrupted_test(folder, "digits", "snow", 4)])
    assert torch.equal(whole, (parts_seen.float() - mean) / deviation)


def test_only_images_can_be_corrupted():
    source = open_source("digits", data_dir=None, device=CPU, batch=64, seed=0, augment=False)
    with pytest.raises(ValueError, match="count=900: data='digits' has 899"):
        list(corrupted_test(source, "digits", "fog", 1, count=900))


# ---------------------------------------------------------------------- how rules decide


def test_nothing_is_gained_where_nothing_is():
    outcomes = {name: judged(name, found) for name in NAMES}
    assert outcomes.pop("not paid") == outcomes.pop("low frequencies") == "supported"
    assert "supported" not in outcomes.values()


def test_a_method_that_is_worse_decides():
    def record_of(one):
        gain = {"SET": 0.05, "RigL": 0.05, "GraNet, random growth": -0.05}
        return found(one, gain.get(one.labels["arm"], 0.05 * moves(one)))

    assert judged("more robust", record_of) == "not supported"
    assert judged("moving", record_of) == "supported"


def test_a_method_that_is_not_run_at_all_densities_does_not_decide():
    trials = TASK.trials(5, DENSITIES, ("dense", "SET", "RigL"))
    trials += TASK.trials(5, DENSITIES[:1], ("GraNet, random growth",), "others")

    def record_of(one):
        return found(one, 0.05 if one.labels["arm"] in ("SET", "RigL") else 0.0)

    assert judged("more robust", record_of, trials) == "supported"


def test_a_gain_on_clean_images_too_is_no_robustness():
    def record_of(one):
        return found(one, 0.05 * moves(one))

    for name in ("more robust", "still is", "moving", "smaller number", "not paid"):
        assert judged(name, record_of) == "supported"
    for name in ("more than", "severity", "noise"):
        assert judged(name, record_of) != "supported"


def test_where_the_gain_is():
    def under_noise(one):
        plain = found(one)
        corrupted = {
            name: {
                s: v + 0.02 * int(s) * (name in FAMILIES["noise"]) * moves(one)
                for s, v in each.items()
            }
            for name, each in plain.result["corrupted"].items()
        }
        robust = float(np.mean([v for each in corrupted.values() for v in each.values()]))
        return replace(plain, result={**plain.result, "corrupted": corrupted, "robustness": robust})

    for name in ("noise", "severity", "more than", "more robust"):
        assert judged(name, under_noise) == "supported"


def test_frequencies_are_taken_away():
    def record_of(one):
        value = found(one).result["accuracy"]
        curve = {str(radius): value - 0.2 + 0.05 * moves(one) for radius in RADII}
        return found(one, low_pass=curve, high_pass=curve)

    assert judged("high frequencies", record_of) == "supported"
    assert judged("low frequencies", record_of) == "not supported"


def test_kernels_are_counted_against_the_static_topology():
    def record_of(one):
        return found(one, remaining_kernels=0.9 - 0.1 * moves(one))

    assert judged("whole kernels", record_of) == "supported"


def test_a_page_is_made_of_any_part_of_the_records():
    trials = grid(3)
    titles = [one.title for one in STUDY.sections(View.of([found(one) for one in trials]))]
    assert len(titles) >= 7 and not [t for t in titles if t.startswith("Not shown")]
    bare = [found(one, low_pass={}, remaining_kernels=None) for one in trials[:1]]
    assert STUDY.sections(View.of(bare))
    assert not STUDY.sections(View([]))


@pytest.mark.long
def test_the_smoke_preset_ends_with_a_page(tmp_path):
    command = [sys.executable, "-m", "regrow", "study", "run", "corruption-robustness"]
    command += ["--preset", "smoke", "--device", "cpu", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "report.html").read_text("utf-8")
    for claim in CLAIMS:
        assert str(escape(claim.sentence)) in page
    assert page.count("<svg") >= 4 and "not run yet" not in page


def test_dense_controls_are_dense():
    small = {labels["density"]: t for labels, t in grid(1) if labels["arm"] == "small dense"}
    assert all(isinstance(t.method, regrow.Dense) for t in small.values())
    assert [t.narrow for t in small.values()] == list(small) == list(DENSITIES)


@pytest.fixture
def ucf101(tmp_path):
    """Two videos to train on and two to test on, as folders of frames, in the published layout."""
    image = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    root = tmp_path / "ucf101"
    lists = root / "ucfTrainTestlist"
    lists.mkdir(parents=True)
    (lists / "classInd.txt").write_text("1 Archery\n2 YoYo\n")
    for part in ("train", "test"):
        lines = []
        for number, action in enumerate(("Archery", "YoYo"), 1):
            video = f"v_{action}_g0{len(part)}_c01"
            folder = root / "UCF-101" / action / video
            folder.mkdir(parents=True)
            for frame in range(3):
                pixels = rng.integers(256, size=(30, 40, 3), dtype=np.uint8)
                image.fromarray(pixels).save(folder / f"{frame}.jpg")
            lines.append(f"{action}/{video}.avi" + (f" {number}" if part == "train" else ""))
        (lists / f"{part}list01.txt").write_text("\n".join(lines))
    return tmp_path


def test_videos_that_are_read_on_the_way_are_trained_on_and_corrupted(ucf101, tmp_path):
    trial = Robust(
        seed=0,
        data="ucf101",
        model="small-conv3d",
        method=regrow.SET(density=0.5, update_every=1),
        epochs=2,
        batch=2,
        learning_rate=0.01,
        corruptions=("fog",),
        severities=(1, 5),
        radii=(0.5,),
    )
    result = trial.run(Run(tmp_path, {"device": "cpu", "data_dir": str(ucf101)}))
    assert 0 <= result["robustness"] <= 1 and set(result["low_pass"]) == {"0.5"}
    assert result["density"] == pytest.approx(0.5, abs=0.01)
    with pytest.raises(ValueError, match="count=1: data='ucf101' is tested whole"):
        replace(trial, tested=1).run(Run(tmp_path, {"device": "cpu", "data_dir": str(ucf101)}))
