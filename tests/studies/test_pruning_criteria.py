"""The study of pruning criteria: what is run, and how its rules decide."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from markupsafe import escape

import regrow
from regrow.lab.records import Record, Records
from regrow.lab.run import Run
from regrow.lab.sweep import sweep
from regrow.studies.pruning_criteria import STUDY
from regrow.studies.pruning_criteria.claims import CLAIMS
from regrow.studies.pruning_criteria.criteria import CRITERIA, GROWTH, PAPER, criterion_of
from regrow.studies.pruning_criteria.overlaps import ASKED, FRACTIONS
from regrow.studies.pruning_criteria.trials import Setup, few_samples, grid, overlaps, periods
from regrow.studies.pruning_criteria.view import tasks
from regrow.studies.vision.classify import Classify

SETUP = Setup.of(898, data="digits", model="mlp-30", epochs=2, batch=64, learning_rate=0.05)
VERDICT = {
    claim: i
    for i, claim in enumerate(
        (
            "similar",
            "low density",
            "magnitude",
            "static",
            "different",
            "often",
            "regularises",
            "matters",
            "small dense",
            "shipped",
        )
    )
}


def record(trial: Classify, accuracy: float, **more: object) -> Record:
    return Record(trial.identity, trial.content, {"accuracy": accuracy, **more}, {}, Path())


def judged(accuracy_of, trials, name: str):
    """Judge a claim by records whose accuracies a function gives, with a little noise by seed."""
    found = [record(trial, accuracy_of(trial) + noise(trial)) for trial in trials]
    return CLAIMS[VERDICT[name]].judge(Records(found))


def noise(trial: Classify) -> float:
    return random.Random(f"{trial.identity}").uniform(-0.0005, 0.0005) + 0.01 * trial.seed


def name_of(trial: Classify) -> str:
    return criterion_of(record(trial, 0.0))


def full_grid(seeds: int = 5) -> list[Classify]:
    return list(grid(SETUP, seeds, (0.05, 0.1, 0.2)))


# ---------------------------------------------------------------------- what is run


def test_the_grid_holds_every_cell_and_control_once():
    trials = full_grid(2)
    assert len({trial.identity for trial in trials}) == len(trials) == 2 * (1 + 3 * (3 + 6 * 2))
    cells = {(name_of(t), getattr(t.method, "grow", None), t.method.density) for t in trials}
    for criterion in (*PAPER, "random"):
        for growth in GROWTH.values():
            assert (criterion, growth, 0.05) in cells
    assert ("static", None, 0.1) in cells
    assert sum(t.narrow < 1 for t in trials) == 6


def test_every_run_has_as_many_updates_whatever_its_length():
    for epochs in (20, 200):
        setup = Setup.of(50_000, data="cifar10", model="resnet20", epochs=epochs)
        method = setup.moving("magnitude", "random", 0.1)
        assert 44 <= setup.steps // method.update_every <= 46
        assert method.drop_fraction(0.0) == 0.5 and method.drop_fraction(1.0) == 0.005


def test_the_papers_preset_is_its_grid():
    trials = STUDY.trials("paper", "cifar10")
    here = [t for t in trials if t.model == "resnet56" and t.method.name == "Dynamic"]
    assert {t.method.density for t in here} >= {0.05, 0.06, 0.07, 0.08, 0.09, 0.15, 0.3, 0.4, 0.5}
    assert {t.method.update_every for t in here} >= {25, 50, 100, 200, 400, 1600, 3200, 6400}
    assert {t.seed for t in here} == set(range(5))
    assert here[0].epochs == 200 and here[0].validation == 0.1


@pytest.mark.parametrize("preset", ["smoke", "quick", "paper"])
def test_data_that_a_preset_does_not_know_are_refused(preset):
    with pytest.raises(ValueError, match="data='mnist': this preset knows"):
        STUDY.trials(preset, "mnist")


def test_grid_and_periods_are_told_apart_in_one_folder():
    trials = [*full_grid(3), *periods(SETUP, 3, (1, 14), (0.1,))]
    (task,) = tasks(Records([record(trial, trial.seed / 10) for trial in trials]))
    assert task.period == max(SETUP.steps // 44, 1) or len(task.periods) == 2
    assert task.densities == [0.05, 0.1, 0.2]
    assert task.accuracy("static", 0.05) == {0: 0.0, 1: 10.0, 2: 20.0}


# ---------------------------------------------------------------------- how rules decide


def test_alike_and_different():
    assert judged(lambda t: 0.7, full_grid(), "similar").outcome == "supported"

    def two_worse(trial):
        return 0.7 - 0.03 * (name_of(trial) in ("SNIP", "MEST") and trial.method.density == 0.2)

    assert judged(two_worse, full_grid(), "similar").outcome == "not supported"

    def one_worse(trial):
        return 0.7 - 0.03 * (name_of(trial) == "SNIP")

    assert judged(one_worse, full_grid(), "similar").outcome == "supported"


def test_differences_that_grow():
    def spread(trial):
        return (
            0.7 + PAPER.index(name_of(trial)) * 0.01 * (trial.method.density == 0.05)
            if (name_of(trial) in PAPER)
            else 0.7
        )

    assert judged(spread, full_grid(), "low density").outcome == "supported"


def test_magnitude_first_and_not_first():
    def best(trial):
        return 0.7 + 0.02 * (name_of(trial) == "magnitude")

    def beaten(trial):
        return best(trial) + 0.04 * (name_of(trial) == "SNIP")

    assert judged(best, full_grid(), "magnitude").outcome == "supported"
    assert judged(beaten, full_grid(), "magnitude").outcome == "not supported"
    assert judged(best, full_grid(), "matters").outcome == "supported"
    assert judged(best, full_grid(2), "magnitude").outcome == "inconclusive"


def test_every_criterion_must_beat_static():
    def all_beat(trial):
        return 0.7 - 0.02 * (name_of(trial) == "static")

    def one_does_not(trial):
        return all_beat(trial) - 0.05 * (name_of(trial) == "SNIP")

    assert judged(all_beat, full_grid(), "static").outcome == "supported"
    assert judged(one_does_not, full_grid(), "static").outcome == "not supported"


def test_the_shipped_rule_and_the_small_network():
    def worse(trial):
        return 0.7 - 0.1 * (name_of(trial) == "SET as shipped") - 0.1 * (trial.narrow < 1)

    assert judged(worse, full_grid(), "shipped").outcome == "supported"
    assert judged(worse, full_grid(), "small dense").outcome == "supported"


def test_updates_too_often():
    setup = Setup.of(8980, data="digits", model="mlp-30", epochs=2, batch=64)
    trials = [*grid(setup, 3, (0.1,)), *periods(setup, 3, (1,), (0.1,))]
    grids = setup.moving("magnitude", "random", 0.1).update_every
    assert grids > 1

    def often(trial):
        return 0.7 - 0.05 * (getattr(trial.method, "update_every", 0) == 1)

    assert judged(often, trials, "often").outcome == "supported"


def test_few_samples_against_both_controls():
    trials = [*few_samples(SETUP, 3, (0.95, 0.5), (0.2,))]

    def better(trial):
        return 0.7 + 0.02 * (trial.method.name == "Dynamic")

    def as_static(trial):
        up_and_down = 0.01 * (trial.seed - 1) * (trial.method.name == "Dynamic")
        return 0.7 + 0.02 * (trial.method.name != "Dense") + up_and_down

    assert judged(better, trials, "regularises").outcome == "supported"
    assert judged(as_static, trials, "regularises").outcome == "inconclusive"


def test_without_records_nothing_is_decided():
    for claim in CLAIMS:
        verdict = claim.judge(Records([]))
        assert verdict.outcome == "inconclusive" and verdict.why


# ---------------------------------------------------------------------- that it runs


def test_overlaps_compare_one_state(tmp_path):
    setup = Setup.of(898, data="digits", model="mlp-30", epochs=6, batch=64, learning_rate=0.05)
    (trial,) = overlaps(setup, 1, 0.5, every=10)
    found = trial.run(Run(tmp_path, {"device": "cpu"}))
    assert list(found["first"]) == [str(share) for share in FRACTIONS]
    for share in FRACTIONS:
        pairs = found["first"][str(share)]
        assert len(pairs) == len(ASKED) * (len(ASKED) - 1) // 2
        by_chance = share / (2 - share)
        assert pairs["magnitude | random"] == pytest.approx(by_chance, abs=0.08)
        assert pairs["magnitude | SET"] > 2 * by_chance
    steps = [moment["step"] for moment in found["during"]]
    assert steps == sorted(set(steps)) and len(steps) > 2


def test_ray_finds_what_this_process_finds(tmp_path):
    pytest.importorskip("ray")
    trials = [
        Classify(seed=1, data="digits", model="mlp-30", method=method, epochs=2, batch=64)
        for method in (regrow.Dense(), SETUP.moving("SNIP", "gradient", 0.1))
    ] + list(overlaps(SETUP, 1, 0.2))
    options = {"device": "cpu"}
    assert not sweep(trials, tmp_path / "here", options=options, executor="inline").failed
    assert not sweep(trials, tmp_path / "ray", options=options, executor="ray", jobs=2).failed
    here, there = (Records.read(tmp_path / name) for name in ("here", "ray"))
    assert len(here) == 3
    for one, other in zip(here, there, strict=True):
        timed = "train_seconds"
        assert {k: v for k, v in one.result.items() if k != timed} == {
            k: v for k, v in other.result.items() if k != timed
        }
        assert one.metrics() == other.metrics()


def test_criteria_have_names_of_their_own():
    assert len({type(score) for score in CRITERIA.values()}) == len(CRITERIA)


@pytest.mark.slow
def test_the_smoke_preset_ends_with_a_page(tmp_path):
    command = [sys.executable, "-m", "regrow", "study", "run", "pruning-criteria"]
    command += ["--preset", "smoke", "--device", "cpu", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 failed, 0 were finished before" in done.stdout
    page = (tmp_path / "report.html").read_text("utf-8")
    for claim in CLAIMS:
        assert str(escape(claim.sentence)) in page and claim.sentence in done.stdout
    assert page.count("<svg") >= 5 and "not run yet" not in page
