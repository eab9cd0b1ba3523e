"""The study of pruning criteria: what is run, and how its rules decide."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from markupsafe import escape

import regrow
from regrow.cli.study import study_run
from regrow.lab.design import Labelled, labels_by_identity
from regrow.lab.records import Record, Records
from regrow.lab.run import Run
from regrow.lab.study import Preset
from regrow.lab.sweep import sweep
from regrow.lab.view import View
from regrow.studies.pruning_criteria.criteria import CRITERIA, GROWTH, PAPER
from regrow.studies.pruning_criteria.design import (
    Task,
    criteria_grid,
    few_samples,
    overlaps,
    periods,
)
from regrow.studies.pruning_criteria.overlaps import ASKED, FRACTIONS
from regrow.studies.pruning_criteria.study import CLAIMS, STUDY
from regrow.studies.registry import STUDIES
from regrow.studies.supervised.classify import Classify

TASK = Task(
    Classify(
        seed=0,
        method=regrow.Dense(),
        data="digits",
        model="mlp-30",
        epochs=2,
        batch=64,
        learning_rate=0.05,
    ),
    898,
)
NAMES = (
    *("similar", "low density", "magnitude", "static", "different"),
    *("often", "regularises", "matters", "small dense", "shipped"),
)


def record(trial: Classify, labels: list, accuracy: float) -> Record:
    content = json.loads(json.dumps(trial.content))
    return Record(trial.identity, content, {"accuracy": accuracy}, {}, Path(), labels=labels)


def judged(name: str, gain, trials: list[Labelled]):
    """Judge a claim by records whose gains a function gives, with a little noise by seed."""
    by_identity = labels_by_identity(trials)
    records = []
    for labels, trial in {one.trial.identity: one for one in trials}.values():
        noise = random.Random(trial.identity).uniform(-0.0005, 0.0005) + 0.01 * trial.seed
        accuracy = 0.7 + gain(labels | {"seed": trial.seed}) + noise
        records.append(record(trial, by_identity[trial.identity], accuracy))
    return CLAIMS[NAMES.index(name)].judge(View.of(records))


def full_grid(seeds: int = 5) -> list[Labelled]:
    return list(criteria_grid(TASK, seeds, (0.05, 0.1, 0.2)))


# ---------------------------------------------------------------------- what is run


def test_the_grid_holds_every_cell_and_control_once():
    trials = full_grid(2)
    assert len({one.trial.identity for one in trials}) == len(trials) == 2 * (1 + 3 * (3 + 6 * 2))
    cells = {
        (one.labels["arm"], one.labels.get("growth"), one.labels.get("density")) for one in trials
    }
    for criterion in (*PAPER, "random"):
        for growth in GROWTH:
            assert (criterion, growth, 0.05) in cells
    assert {
        ("static", None, 0.1),
        ("dense", None, None),
        ("SET as shipped", "random", 0.1),
    } <= cells
    assert ("SET as shipped", "gradient", 0.1) not in cells
    assert sum(one.trial.narrow < 1 for one in trials) == 6


def test_labels_say_what_a_trial_does():
    for labels, trial in full_grid(1):
        method = trial.method
        if labels["arm"] in CRITERIA:
            assert method.drop == CRITERIA[labels["arm"]]
            assert method.grow == GROWTH[labels["growth"]]
            assert method.update_every == labels["period"]
        if labels["arm"] == "small dense":
            assert trial.narrow == labels["density"]
        elif "density" in labels:
            assert method.density == labels["density"]


def test_every_run_has_as_many_updates_whatever_its_length():
    for epochs in (20, 200):
        base = replace(TASK.base, data="cifar10", model="resnet20", epochs=epochs, batch=128)
        (one,) = Task(base, 50_000).trials("grid", ["SET"], 1, density=[0.1], growth=["random"])
        method = one.trial.method
        assert 44 <= epochs * (50_000 // 128) // method.update_every <= 46
        assert method.drop_fraction(0.0) == 0.5 and method.drop_fraction(1.0) == 0.005


def test_the_papers_preset_is_its_grid():
    trials = [trial for _, trial in STUDY.trials("paper", "cifar10")]
    here = [t for t in trials if t.model == "resnet56" and t.method.name == "Dynamic"]
    assert {t.method.density for t in here} >= {0.05, 0.06, 0.07, 0.08, 0.09, 0.15, 0.3, 0.4, 0.5}
    assert {t.method.update_every for t in here} >= {25, 50, 100, 200, 400, 1600, 3200, 6400}
    assert {t.seed for t in here} == set(range(5))
    assert here[0].epochs == 200 and here[0].validation == 0.1


@pytest.mark.parametrize("preset", ["smoke", "quick", "paper"])
def test_data_that_a_preset_does_not_know_are_refused(preset):
    with pytest.raises(ValueError, match="data='mnist': this preset knows"):
        STUDY.trials(preset, "mnist")


def test_presets_share_no_task():
    tasks = [
        {one.labels["task"] for data in preset.designs for one in preset.trials(data)}
        for preset in STUDY.presets.values()
    ]
    assert sum(map(len, tasks)) == len(set.union(*tasks))


def test_grid_and_periods_are_told_apart_in_one_folder():
    assert TASK.period == 1
    trials = [*full_grid(3), *periods(TASK, 3, (1, 14), (0.1,))]
    by_identity = labels_by_identity(trials)
    both = [labels for labels in by_identity.values() if len(labels) == 2]
    assert len(both) == 3 * (1 + 3 * 2)  # the static network, and criteria with the grid's period
    view = View.of(
        record(trial, by_identity[trial.identity], trial.seed / 10)
        for trial in {one.trial.identity: one.trial for one in trials}.values()
    )
    assert len(view.axis("task")) == 1
    grid = view.where(part="grid", arm="static")
    assert grid.axis("density") == [0.05, 0.1, 0.2]
    assert grid.where(density=0.1).values(lambda r: r.result["accuracy"]) == {0: 0, 1: 0.1, 2: 0.2}
    assert view.where(part="periods").axis("period") == [1, 14]
    shared = view.where(arm="SNIP", growth="random", density=0.1, period=1)
    assert shared.axis("part") == ["grid", "periods"]
    assert shared.values(lambda r: r.result["accuracy"]) == {0: 0, 1: 0.1, 2: 0.2}


# ---------------------------------------------------------------------- how rules decide


YES, NO, OPEN = "supported", "not supported", "inconclusive"


@pytest.mark.parametrize(
    ("name", "gain", "outcome"),
    [
        ("similar", lambda one: 0.0, YES),
        ("similar", lambda one: -0.03 * (one["arm"] == "SNIP"), YES),
        (
            "similar",
            lambda one: -0.03 * (one["arm"] in ("SNIP", "MEST") and one["density"] == 0.2),
            NO,
        ),
        (
            "low density",
            lambda one: (
                0.01 * PAPER.index(one["arm"]) * (one["density"] == 0.05)
                if one["arm"] in PAPER
                else 0.0
            ),
            YES,
        ),
        ("magnitude", lambda one: 0.02 * (one["arm"] == "magnitude"), YES),
        (
            "magnitude",
            lambda one: 0.02 * (one["arm"] == "magnitude") + 0.04 * (one["arm"] == "SNIP"),
            NO,
        ),
        ("matters", lambda one: 0.02 * (one["arm"] == "magnitude"), YES),
        ("static", lambda one: -0.02 * (one["arm"] == "static"), YES),
        (
            "static",
            lambda one: -0.02 * (one["arm"] == "static") - 0.05 * (one["arm"] == "SNIP"),
            NO,
        ),
        ("shipped", lambda one: -0.1 * (one["arm"] == "SET as shipped"), YES),
        ("small dense", lambda one: -0.1 * (one["arm"] == "small dense"), YES),
    ],
)
def test_rules_of_the_grid(name, gain, outcome):
    assert judged(name, gain, full_grid()).outcome == outcome


def test_two_seeds_decide_nothing():
    verdict = judged("magnitude", lambda one: 0.02 * (one["arm"] == "magnitude"), full_grid(2))
    assert verdict.outcome == OPEN and "fewer than 3 seeds" in verdict.why


def test_three_of_four_must_be_similar():
    verdict = judged("similar", lambda one: -0.03 * (one["arm"] == "SNIP"), full_grid())
    assert verdict.why == "the third closest of four; 3 supported, 1 not supported"
    assert abs(verdict.effect.mean) < 0.1


def test_updates_too_often():
    task = replace(TASK, train=8980)
    assert task.period > 1
    trials = [*criteria_grid(task, 3, (0.1,)), *periods(task, 3, (1, 20), (0.1,))]
    verdict = judged("often", lambda one: -0.05 * (one.get("period") == 1), trials)
    assert verdict.outcome == YES
    assert verdict.effect.mean == pytest.approx(-5, abs=0.1)


@pytest.mark.parametrize(
    ("alike", "outcome"), [(0.4, YES), (0.6, NO)], ids=["different", "the same"]
)
def test_criteria_choose_differently(alike, outcome):
    pairs = {"magnitude | SNIP": alike - 0.1, "magnitude | reciprocal sensitivity": alike + 0.1}
    records = [
        replace(record(trial, [labels], 0.0), result={"first": {"0.25": pairs}})
        for labels, trial in overlaps(TASK, 3, 0.2)
    ]
    verdict = CLAIMS[NAMES.index("different")].judge(View.of(records))
    assert verdict.outcome == outcome and verdict.effect.mean == pytest.approx(alike)


def test_few_samples_against_both_controls():
    trials = [*few_samples(TASK, 3, (0.95, 0.5), (0.2,))]

    def as_static(one):
        up_and_down = 0.005 * (one["seed"] - 1) * (one["arm"] == "magnitude")
        return 0.02 * (one["arm"] in ("static", "magnitude")) + up_and_down

    better = judged("regularises", lambda one: 0.02 * (one["arm"] == "magnitude"), trials)
    assert better.outcome == YES
    same = judged("regularises", as_static, trials)
    assert same.outcome == OPEN and same.why.startswith("as for against static")


def test_without_records_nothing_is_decided():
    for claim in CLAIMS:
        verdict = claim.judge(View([]))
        assert verdict.outcome == "inconclusive" and verdict.why


# ---------------------------------------------------------------------- that it runs


def test_overlaps_compare_one_state(tmp_path):
    task = replace(TASK, base=replace(TASK.base, epochs=6))
    ((_, trial),) = overlaps(task, 1, 0.5, every=10)
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


@pytest.mark.long
def test_ray_finds_what_this_process_finds(tmp_path):
    pytest.importorskip("ray")
    arms = TASK.trials("grid", ["dense", "SNIP"], 1, density=[0.1], growth=["gradient"])
    trials = [one.trial for one in (*arms, *overlaps(TASK, 1, 0.2))]
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


def a_page_with_all_verdicts(folder, said):
    page = (folder / "report.html").read_text("utf-8")
    for claim in CLAIMS:
        assert str(escape(claim.sentence)) in page and claim.sentence in said
    return page.count("<svg") >= 5 and "not run yet" not in page


def short_parts():
    """The cells of the smoke preset, each with a tenth of its training."""
    yield from criteria_grid(TASK, 2, (0.05, 0.2), PAPER)
    yield from periods(TASK, 2, (2, 7, 14), (0.1,), ("magnitude", "SNIP"))
    yield from overlaps(TASK, 2, 0.2, every=8)
    few = replace(TASK, base=replace(TASK.base, samples=256), train=256, more=", 256 samples")
    yield from few_samples(few, 2, (0.95, 0.5), (0.2,))


SHORT = replace(STUDY, presets={"smoke": Preset("seconds", {"digits": short_parts})})


def test_a_study_of_all_parts_ends_with_a_page(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(STUDIES, "pruning-criteria", f"{__name__}:SHORT")
    study_run("pruning-criteria", "smoke", executor="inline", device="cpu", out=tmp_path)
    said = capsys.readouterr().out
    assert "0 failed, 0 were finished before" in said
    assert a_page_with_all_verdicts(tmp_path, said)


@pytest.mark.long
def test_the_smoke_preset_ends_with_a_page(tmp_path):
    command = [sys.executable, "-m", "regrow", "study", "run", "pruning-criteria"]
    command += ["--preset", "smoke", "--device", "cpu", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 failed, 0 were finished before" in done.stdout
    assert a_page_with_all_verdicts(tmp_path, done.stdout)
