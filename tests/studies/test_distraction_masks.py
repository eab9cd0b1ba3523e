"""The study of masks against distractions: its trials, its rules, and that it ends with a page."""

import json
import random
from functools import partial
from pathlib import Path

import pytest

from regrow.control.pixels.method import PIXEL_METHODS
from regrow.lab.records import Record, Records
from regrow.lab.study import Preset
from regrow.lab.study_run import run_study
from regrow.lab.view import View
from regrow.studies.distraction_masks import study
from regrow.studies.distraction_masks.study import ARMS, CLAIMS, FEW, STUDY, TASKS
from regrow.studies.distraction_masks.trial import LearnFromPixels

ALL = STUDY.trials("quick", "walker-walk-100k-all")
NAMES = ("learns", "two", "others", "easy", "covered", "parameters", "needed", "random", "bound",
         "lean", "third")  # fmt: skip


def test_arms_differ_in_their_method_alone():
    by_arm = {t.labels["arm"]: t.trial for t in ALL if t.trial.seed == 0}
    assert list(by_arm) == list(ARMS) and len({t.method for t in by_arm.values()}) == len(ARMS)
    for trial in by_arm.values():
        others = {**vars(trial), "method": "MaDi"}
        assert others == {**vars(by_arm["MaDi"]), "method": "MaDi"}
    assert all(LearnFromPixels(seed=0, task="dot", method=name) for name in PIXEL_METHODS)


def test_presets_have_seeds_tasks_and_steps_to_choose_from():
    few = STUDY.trials("quick", "cartpole-swingup-25k")
    assert len(few) == 3 * len(FEW) and {t.trial.steps for t in few} == {25_000}
    assert {t.trial.test for t in few} == {("video_easy", "video_hard")}
    paper = STUDY.trials("paper")
    assert len(paper) == 5 * len(ARMS) * len(TASKS)
    assert {(t.trial.steps, t.trial.batch, t.trial.size) for t in paper} == {(500_000, 128, 84)}
    identities = [t.trial.identity for p in ("quick", "paper") for t in STUDY.trials(p)]
    assert len(set(identities)) == len(identities)


def judged(name, **how):
    """Judge a claim by records of made-up returns, masks and counts."""
    return CLAIMS[NAMES.index(name)].judge(made_up(**how)).outcome


def made_up(gain=lambda arm: 0.0, auc=0.95, masker=12_000, lean=0.27, trials=ALL):
    full = 127_000_000
    records = []
    for labels, trial in trials:
        arm, noise = labels["arm"], random.Random(trial.identity).uniform(-2, 2)
        tests = {mode: {"return": 800 + noise + gain(arm)} for mode in ("clean", "video_easy")}
        tests["video_hard"] = {"return": 500 + noise + gain(arm)}
        learned = PIXEL_METHODS[trial.method].mask == "learned"
        parameters = {"critic": 6_000_000}
        if learned:
            parameters["masker"] = masker
            for test in tests.values():
                test["auc"] = auc + noise / 1000
        count = round(full * (lean if arm == study.OURS else 1)) if learned else 0
        result = {"tests": tests, "parameters": parameters, "mask_multiply_adds": count}
        content = json.loads(json.dumps(trial.content))
        records.append(Record(trial.identity, content, result, {}, Path(), labels=[labels]))
    return View.of(records)


def only(arm, value):
    return lambda name: value if name == arm else 0.0


@pytest.mark.parametrize(
    ("name", "how", "outcome"),
    [
        ("learns", {}, "supported"),
        ("learns", {"gain": only("SAC", -200)}, "not supported"),
        ("two", {}, "supported"),
        ("two", {"gain": only("SVEA", 90)}, "not supported"),
        ("others", {"gain": only("MaDi", 100)}, "supported"),
        ("others", {"gain": only("SGQN", 200)}, "not supported"),
        ("easy", {"gain": only("MaDi", -100)}, "not supported"),
        ("covered", {}, "supported"),
        ("covered", {"auc": 0.8}, "not supported"),
        ("parameters", {}, "supported"),
        ("parameters", {"masker": 30_000}, "not supported"),
        ("needed", {"gain": only("MaDi", 50)}, "supported"),
        ("needed", {"gain": only("SVEA", 50)}, "not supported"),
        ("random", {"gain": only(study.RANDOM, 40)}, "not supported"),
        ("random", {"gain": only("MaDi", 40)}, "supported"),
        ("bound", {"gain": only(study.TRUE, 300)}, "not supported"),
        ("bound", {"gain": only(study.TRUE, 10)}, "supported"),
        ("lean", {"gain": only(study.OURS, -200)}, "not supported"),
        ("lean", {}, "supported"),
        ("third", {}, "supported"),
        ("third", {"lean": 0.9}, "not supported"),
    ],
)
def test_claims_say_what_records_say(name, how, outcome):
    assert judged(name, **how) == outcome


def test_all_tasks_together_are_told_by_interquartile_means_and_how_often_svea_is_beaten():
    other = STUDY.trials("quick", "cartpole-swingup-25k")  # has few of the arms
    trials = [*ALL, *other]
    (section,) = study.pooled(made_up(only("MaDi", 100), trials=trials))
    rows = {
        row[0]: dict(zip(section.table.columns, row, strict=True)) for row in section.table.rows
    }
    assert set(rows) == set(FEW)  # of others a task is missing
    assert rows["MaDi"]["video_hard: P(above SVEA)"] == "1.00 [1.00, 1.00]"
    assert rows["SVEA"]["video_hard: P(above SVEA)"] == "–"
    middle = float(rows["MaDi"]["video_hard: IQM"].partition(" [")[0])
    assert abs(middle - 600) <= 2 and abs(float(rows["SAC"]["clean: IQM"].split()[0]) - 800) <= 2
    (dots, _) = study.dots(made_up(trials=trials))
    assert "; drawn without shadows" in dots.text and "steps of the agent" in dots.text


def test_nothing_is_judged_where_sac_learns_nothing():
    for name in NAMES[1:]:
        assert judged(name, gain=only("SAC", -400)) == "not judged"


@pytest.mark.long
@pytest.mark.slow
def test_a_study_ends_with_a_page(tmp_path, monkeypatch):
    tiny = {**study._SMOKE, "steps": 24, "seed_steps": 8, "size": 16, "evaluate_every": 12}
    small = Preset("seconds", {"dot": partial(study._trials, FEW, ("dot",), 2, **tiny)})
    monkeypatch.setitem(study.PRESETS, "smoke", small)
    found = run_study(
        STUDY, "smoke", tmp_path, options={"device": "cpu"}, executor="inline", jobs=1
    )
    records = Records.read(tmp_path).all
    assert not found.failed and len(records) == 12
    sections = [s for part in STUDY.page for s in part(View.of(records))]
    titles = [s.title.partition(":")[0] for s in sections]
    told = {"Every seed", "Over all tasks", "What each arm is worth", "All returns"}
    assert told <= set(titles)
    table = next(s.table for s in sections if s.title.startswith("All returns"))
    rows = {row[0]: row for row in table.rows}
    assert list(rows) == list(FEW) and rows["SVEA"][-1] == "–" and rows["MaDi"][-1] != "–"
