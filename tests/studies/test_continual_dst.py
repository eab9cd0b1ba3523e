"""The study of continual learning: what is run, how it resumes, and how its rules decide."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from regrow.continual.baselines import Training
from regrow.lab.records import Record, Records
from regrow.lab.run import Run
from regrow.lab.sweep import sweep
from regrow.studies.continual_dst import STUDY
from regrow.studies.continual_dst.claims import CLAIMS
from regrow.studies.continual_dst.data import open_stream
from regrow.studies.continual_dst.learners import (
    Consolidated,
    FineTuned,
    Joined,
    Packed,
    Rehearsed,
    Separate,
    SpaceReserved,
    Stabilised,
    Subnetworks,
)
from regrow.studies.continual_dst.trial import LearnStream
from regrow.studies.continual_dst.trials import Setting, controls, grid
from regrow.studies.continual_dst.view import CELLS, CONTROLS, courses, density_of, learner_of
from regrow.studies.registry import load_study

SETTING = Setting("split-digits", "mlp-20", Training(epochs=1, batch=32), updates=2, buffer=10)
DENSITIES = (0.05, 0.1, 0.2)
LEARNERS = (
    Subnetworks(0.2, "ERK", "gradient", 2),
    FineTuned(),
    Joined(),
    Separate(),
    Separate(same_total=True),
    Separate(0.2, updates=2),
    Packed(0.2),
    SpaceReserved(0.2, 2),
    Stabilised(0.2, 2),
    Consolidated(10.0),
    Rehearsed(10),
)
VERDICT = {
    name: i
    for i, name in enumerate(
        ("ERK", "uniform", "growth", "moving", "BWT", "naive", "same size", "PackNet", "sharing")
    )
}


def everything(seeds: int = 4) -> list[LearnStream]:
    return [*grid(SETTING, seeds, DENSITIES), *controls(SETTING, seeds, DENSITIES)]


def record(trial: LearnStream, accuracy: float, bwt: float = 0.0) -> Record:
    rows = [[accuracy], [accuracy, accuracy]]
    result = {"ACC": accuracy, "BWT": bwt, "accuracies": rows, "weights": 10}
    result["weights_used"] = [4, 5]
    if isinstance(trial.learner, Subnetworks | Packed | SpaceReserved | Stabilised):
        masks = {"capacity": [0.1, 0.2], "reused": [0.0, 0.1], "overlap": [[1, 0.1], [0.1, 1]]}
        result |= masks
    return Record(trial.identity, trial.content, result, {}, Path())


def name_of(trial: LearnStream) -> str:
    return learner_of(record(trial, 0.5))


def judged(accuracy_of: Callable[[LearnStream], float], claim: str, seeds: int = 4):
    """Judge a claim by records whose accuracies a function gives, with a little noise."""
    found = []
    for trial in everything(seeds):
        noise = random.Random(trial.identity).uniform(-0.0005, 0.0005)
        found.append(record(trial, accuracy_of(trial) + noise + 0.01 * trial.seed))
    return CLAIMS[VERDICT[claim]].judge(Records(found))


# ---------------------------------------------------------------------- what is run


def test_the_study_is_known_by_name():
    assert load_study("continual-dst") is STUDY
    assert len(CLAIMS) == len(VERDICT)


def test_every_cell_and_control_is_there_once():
    trials = everything(2)
    assert len({trial.identity for trial in trials}) == len(trials) == 2 * (3 * 2 * 5 + 6 + 3 * 4)
    seen = {(name_of(t), density_of(record(t, 0.5))) for t in trials}
    for density in DENSITIES:
        for name in (*CELLS, "independent, sparse", "PackNet", "SpaceNet-like", "NISPA-like"):
            assert (name, density) in seen
    assert {name for name, density in seen if density is None} == set(CONTROLS[:6])


@pytest.mark.parametrize(
    ("preset", "data", "streams"),
    [
        ("smoke", None, {"split-digits"}),
        ("quick", None, {"permuted-fashion-mnist"}),
        ("quick", "fashion-mnist", {"permuted-fashion-mnist"}),
        ("quick", "cifar10", {"split-cifar10"}),
        ("paper", "cifar100", {f"split-cifar100-{n}" for n in (5, 10, 20)}),
        ("paper", "mini-imagenet", {f"split-mini-imagenet-{n}" for n in (5, 10, 20)}),
    ],
)
def test_presets(preset, data, streams):
    trials = STUDY.trials(preset, data)
    assert {trial.stream for trial in trials} == streams
    for seed in range(3):
        here = Records([record(t, 0.5) for t in trials if t.seed == seed])
        for course in courses(here):
            assert set(course.densities) >= {0.05, 0.2}
            assert {learner_of(one) for one in course.records} == {*CELLS, *CONTROLS}


def test_the_papers_updates_fall_every_so_many_steps():
    for trial in STUDY.trials("paper", "cifar100"):
        if isinstance(trial.learner, Subnetworks) and trial.learner.growth != "static":
            samples = 50_000 // int(trial.stream.rsplit("-", 1)[1])
            method = trial.learner.method(trial.training.steps(samples))
            wanted = {5: 100, 10: 400, 20: 100}[int(trial.stream.rsplit("-", 1)[1])]
            assert method.update_every == pytest.approx(wanted, rel=0.1)


def test_data_and_choices_that_are_not_known_are_refused():
    with pytest.raises(ValueError, match="data='mnist': this preset knows"):
        STUDY.trials("quick", "mnist")
    with pytest.raises(ValueError, match="growth='rigl': must be one of random"):
        Subnetworks(0.1, growth="rigl")
    import torch

    where = {"data_dir": None, "seed": 0, "device": torch.device("cpu")}
    with pytest.raises(ValueError, match="stream='x': must be one of"):
        open_stream("x", **where)
    with pytest.raises(ValueError, match="train images: 5000 are wanted, and digits has 898"):
        open_stream("split-digits", samples=5000, **where)


def test_mini_imagenet_that_is_nowhere_says_where_it_was_looked_for(tmp_path, monkeypatch):
    import torch

    monkeypatch.delenv("REGROW_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    where = {"data_dir": str(tmp_path / "mine"), "seed": 0, "device": torch.device("cpu")}
    with pytest.raises(FileNotFoundError, match=r"mine.mini-imagenet"):
        open_stream("split-mini-imagenet-5", **where)


# ---------------------------------------------------------------------- a trial


@pytest.mark.parametrize("learner", LEARNERS, ids=lambda one: type(one).__name__)
def test_a_trial_cut_off_between_tasks_finds_what_the_whole_one_finds(tmp_path, learner):
    trial = SETTING.trial(3, learner)
    (tmp_path / "whole").mkdir()
    whole = trial.run(Run(tmp_path / "whole", {"device": "cpu"}))

    class Cut(RuntimeError):
        pass

    lines: list[object] = []

    def cut(line: object) -> None:
        lines.append(line)
        if len(lines) == 3:
            raise Cut

    (tmp_path / "cut").mkdir()
    with pytest.raises(Cut):
        trial.run(Run(tmp_path / "cut", {"device": "cpu"}, save_every=0.0, show=cut))
    resumed = Run(tmp_path / "cut", {"device": "cpu"})
    found = trial.run(resumed)
    for field in whole.keys() - {"train_seconds"}:
        assert found[field] == whole[field], field
    metrics = (tmp_path / "cut" / "metrics.jsonl").read_text().splitlines()
    assert len(metrics) == 5


def test_what_a_trial_finds_fits_together(tmp_path):
    trial = SETTING.trial(0, Subnetworks(0.2, updates=2))
    found = trial.run(Run(tmp_path, {"device": "cpu"}))
    assert [len(row) for row in found["accuracies"]] == [1, 2, 3, 4, 5]
    assert found["BWT"] == 0.0
    assert found["ACC"] == pytest.approx(sum(found["accuracies"][-1]) / 5)
    assert found["weights"] == 64 * 20
    assert found["capacity"][-1] == found["weights_used"][-1] / found["weights"]
    assert found["capacity"][0] == pytest.approx(0.2, abs=0.01) and found["reused"][0] == 0.0


def test_seeds_draw_other_samples_and_learners_with_one_seed_the_same():
    import torch

    def labels(seed: int) -> list[list[int]]:
        stream = open_stream(
            "split-digits",
            data_dir=None,
            seed=seed,
            device=torch.device("cpu"),
            samples=300,
            tests=200,
        )
        assert sum(len(task.train) for task in stream) == 300
        assert sum(len(task.test) for task in stream) == 200
        return [task.train.targets.tolist() for task in stream]

    assert labels(0) == labels(0) != labels(1)


def test_trials_run_in_other_processes_and_their_page_is_made(tmp_path):
    trials = [SETTING.trial(0, learner) for learner in LEARNERS[:2]]
    found = sweep(trials, tmp_path, options={"device": "cpu"}, executor="inline")
    assert not found.failed
    sections = STUDY.sections(Records.read(tmp_path))
    assert any("Accuracy on each task" in section.title for section in sections)


# ---------------------------------------------------------------------- how rules decide


def better(name: str, by: float = 0.03, density: float | None = None):
    """Give learners whose name begins so a better accuracy."""

    def of(trial: LearnStream) -> float:
        fits = name_of(trial).startswith(name)
        here = density is None or getattr(trial.learner, "density", None) == density
        return 0.7 + by * (fits and here)

    return of


def test_allocation_by_density():
    assert judged(better("ERK", density=0.2), "ERK").outcome == "supported"
    assert judged(better("ERK", -0.03, 0.2), "ERK").outcome == "not supported"
    assert judged(better("ERK", density=0.05), "ERK").outcome == "inconclusive"
    assert judged(better("uniform", density=0.05), "uniform").outcome == "supported"
    assert judged(better("ERK", density=0.05), "uniform").outcome == "not supported"
    assert judged(better("ERK", density=0.2), "ERK", seeds=2).outcome == "inconclusive"


def test_growth_that_depends_on_density_and_allocation():
    def both(trial):
        gradient = name_of(trial) == "ERK, gradient"
        return 0.7 + 0.04 * gradient * (getattr(trial.learner, "density", 0) == 0.05)

    assert judged(both, "growth").outcome == "supported"
    everywhere = judged(lambda t: 0.7 + 0.04 * ("gradient" in name_of(t)), "growth")
    assert everywhere.outcome == "not supported"


def test_moving_and_static():
    static = judged(lambda t: 0.7 - 0.03 * ("static" in name_of(t)), "moving")
    assert static.outcome == "supported" and static.effect.mean == pytest.approx(3, abs=0.1)
    assert judged(lambda t: 0.7 + 0.03 * ("static" in name_of(t)), "moving").outcome == (
        "not supported"
    )


@pytest.mark.parametrize(
    ("claim", "name"),
    [
        ("naive", "naive"),
        ("same size", "independent, same size"),
        ("PackNet", "PackNet"),
        ("sharing", "independent, sparse"),
    ],
)
def test_against_each_control(claim, name):
    assert judged(better(name, -0.03), claim).outcome == "supported"
    assert judged(better(name), claim).outcome == "not supported"
    assert abs(judged(better("replay"), claim).effect.mean) < 0.1


def test_a_single_run_that_forgets_in_the_last_bit_decides():
    trials = everything(3)
    still = [record(trial, 0.5) for trial in trials]
    verdict = CLAIMS[VERDICT["BWT"]].judge(Records(still))
    assert verdict.outcome == "supported" and verdict.effect.mean == 0.0
    forgets = [
        record(t, 0.5, -1e-16 if t.learner == Packed(0.1) and t.seed == 1 else 0.0) for t in trials
    ]
    assert CLAIMS[VERDICT["BWT"]].judge(Records(forgets)).outcome == "not supported"
    naive = [record(t, 0.5, -0.3 if t.learner == FineTuned() else 0.0) for t in trials]
    assert CLAIMS[VERDICT["BWT"]].judge(Records(naive)).outcome == "supported"
    few = [one for one in still if one.config["seed"] < 2]
    assert CLAIMS[VERDICT["BWT"]].judge(Records(few)).outcome == "inconclusive"


def test_without_records_every_claim_says_what_is_missing():
    for claim in CLAIMS:
        verdict = claim.judge(Records([]))
        assert verdict.outcome == "inconclusive" and verdict.why


# ---------------------------------------------------------------------- what is seen


def test_the_page_shows_every_learner_and_stays_whole_with_holes():
    trials = everything(3)
    found = [record(trial, 0.5 + 0.01 * trial.seed) for trial in trials]
    sections = list(STUDY.sections(Records(found)))
    titles = " ".join(section.title for section in sections)
    for words in ("after the last task", "All learners", "What each choice", "each task after"):
        assert words in titles
    assert "Capacity" in titles and "Overlap" in titles
    matrices = next(one for one in sections if "each task after" in one.title)
    table = next(one for one in sections if one.title.startswith("All numbers")).table
    for name in (*CELLS, *CONTROLS):
        assert f">{name}<" in matrices.figure or name in matrices.figure
        assert any(row[0] == name for row in table.rows)
    for kept in (found[:1], [r for r in found if learner_of(r) == "naive"], found[::5]):
        assert list(STUDY.sections(Records(kept)))


def test_forward_transfer_is_against_the_dense_network_alone():
    trials = [SETTING.trial(s, k) for s in range(3) for k in (Separate(), Packed(0.2))]
    found = [record(t, 0.8 if isinstance(t.learner, Separate) else 0.7) for t in trials]
    (course,) = courses(Records(found))
    assert course.values("PackNet", 0.2, "FWT") == pytest.approx({0: -10, 1: -10, 2: -10})
    assert course.values("independent", None, "FWT") == {0: 0.0, 1: 0.0, 2: 0.0}


def test_settings_are_told_apart():
    other = replace(SETTING, training=Training(epochs=2, batch=32))
    trials = [s.trial(0, FineTuned()) for s in (SETTING, other)]
    assert len(courses(Records([record(t, 0.5) for t in trials]))) == 2
