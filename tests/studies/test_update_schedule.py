"""The study of update schedules: what it runs, how its rules decide, that it ends with a page."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from regrow.lab.records import Record, Records
from regrow.lab.study import Preset
from regrow.lab.study_run import run_study
from regrow.lab.view import View
from regrow.studies.update_schedule import CLAIMS, STUDY, USUAL

NAMES = ("often", "rarely", "share", "decay", "static", "walk", "size")
TRIALS = STUDY.trials("quick", "fashion-mnist")


@pytest.mark.parametrize("preset", ["smoke", "quick"])
def test_every_cell_is_there_once_with_its_controls(preset):
    trials = STUDY.trials(preset)
    assert len({one.trial.identity for one in trials}) == len(trials)
    arms = {one.labels["arm"] for one in trials}
    assert arms == {"dense", "small dense", "static", "random walk", "SET", "RigL"}
    usual = [one for one in trials if one.labels.items() >= USUAL.items()]
    assert {one.labels["arm"] for one in usual} == {"SET", "RigL", "random walk"}


def test_a_run_has_as_many_updates_as_it_says():
    for labels, trial in TRIALS:
        if "updates" in labels:
            steps = trial.epochs * (60_000 // trial.batch)
            assert steps // trial.method.update_every == pytest.approx(labels["updates"], rel=0.1)
            assert trial.method.drop_fraction(0.0) == labels["fraction"]
            end = trial.method.drop_fraction(1.0)
            assert end == (labels["fraction"] if labels["decay"] == "none" else 0)


def judged(name, gain):
    records = []
    for labels, trial in TRIALS:
        noise = random.Random(trial.identity).uniform(-0.0005, 0.0005) + 0.01 * trial.seed
        result = {"accuracy": 0.7 + gain(labels) + noise}
        content = json.loads(json.dumps(trial.content))
        records.append(Record(trial.identity, content, result, {}, Path(), labels=[labels]))
    return CLAIMS[NAMES.index(name)].judge(View.of(records)).outcome


def moving(labels):
    return labels["arm"] in ("SET", "RigL")


YES, NO = "supported", "not supported"


@pytest.mark.parametrize(
    ("name", "gain", "outcome"),
    [
        ("often", lambda at: -0.02 * (at.get("updates") == 500), YES),
        ("often", lambda at: 0.02 * (at.get("updates") == 500), NO),
        ("rarely", lambda at: -0.02 * (at.get("updates") == 5), YES),
        (
            "rarely",
            lambda at: -0.02 * (at.get("updates") == 5) * (at["arm"] == "SET"),
            "inconclusive",
        ),
        ("share", lambda at: 0.0, YES),
        ("share", lambda at: 0.02 * (at.get("fraction") == 0.1), NO),
        ("decay", lambda at: -0.02 * (at.get("decay") == "none"), YES),
        ("decay", lambda at: 0.02 * (at.get("decay") == "none"), NO),
        ("static", lambda at: 0.02 * moving(at), YES),
        ("static", lambda at: 0.02 * moving(at) - 0.04 * (at.get("fraction") == 0.5), NO),
        ("walk", lambda at: -0.03 * (at["arm"] == "random walk"), YES),
        ("walk", lambda at: 0.03 * (at["arm"] == "random walk"), NO),
        ("size", lambda at: 0.02 * moving(at), YES),
        ("size", lambda at: 0.02 * (at["arm"] == "small dense"), NO),
    ],
)
def test_rules(name, gain, outcome):
    assert judged(name, gain) == outcome


@pytest.mark.parametrize("epochs", [1, pytest.param(20, marks=pytest.mark.long)])
def test_the_smoke_preset_ends_with_a_page(tmp_path, epochs):
    options = {"data_dir": None, "device": "cpu"}
    few = [one._replace(trial=replace(one.trial, epochs=epochs)) for one in STUDY.trials("smoke")]
    short = replace(STUDY, presets={"smoke": Preset("seconds", {"digits": lambda: few})})
    ended = run_study(short, "smoke", tmp_path, options=options, jobs=1)
    assert len(ended.finished) == len(few) and not ended.failed
    sections = STUDY.sections(View.of(Records.read(tmp_path)))
    assert not [one for one in sections if one.title.startswith("Not shown")]
    assert sum(one.figure is not None for one in sections) == 3
