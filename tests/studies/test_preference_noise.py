"""The study of preferences among noise: its trials, its rules, and that it ends with a page."""

import json
import os
import random
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pytest

from regrow.control.setting import METHODS
from regrow.lab.records import Record, Records
from regrow.lab.run import Run
from regrow.lab.study import Preset
from regrow.lab.study_run import run_study
from regrow.lab.view import View
from regrow.studies.control import study, together
from regrow.studies.control.study import CLAIMS, NOISE, NOISE_FREE, NOISY, STUDY
from regrow.studies.control.together import Task, parted, populations, train_together
from regrow.studies.control.trial import LearnFromPreferences
from tests.ranks import FORKS

QUICK = STUDY.trials("quick", "cartpole-swingup")
NAMES = (
    "learns", "rivals", "static", "moving", "both", "oracle", "elimination", "moved",
    "moved beats", "moved closes", "moved is whole", "true", "gap", "keep", "adapts",
)  # fmt: skip


def test_every_arm_runs_at_every_share_with_ten_seeds():
    first = [t for t in QUICK if t.labels["kind"] == study.WHITE]
    assert len(first) == 10 * (len(NOISE_FREE) + len(NOISY) * len(NOISE) + 1)
    (alone,) = {t.labels["arm"] for t in first if t.trial.unsupervised_steps}
    assert alone in study.UNSUPERVISED
    slow = [t for t in QUICK if t.labels["kind"] == study.SLOW and "noise" in t.labels]
    assert {t.trial.noise_kind for t in slow} == {"autoregressive"}
    assert {t.labels["arm"] for t in slow} == set(study._FEW)
    assert {"PEBBLE", "static", "R2N", "elimination", "oracle"} < set(study._FEW)


def test_arms_differ_in_what_they_say_they_differ_in():
    by_arm = {t.labels["arm"]: t.trial for t in QUICK if t.labels.get("noise", 0.95) == 0.95}
    own = {"seed", "method", "noise", "reward", "noise_kind", "unsupervised_steps"}
    fields = {n for n in LearnFromPreferences.__dataclass_fields__ if n not in own}
    base = by_arm["PEBBLE"]
    for arm, trial in by_arm.items():
        assert all(getattr(trial, n) == getattr(base, n) for n in fields), arm
        assert (trial.reward == "true") == ("true reward" in arm), arm
        assert (trial.noise == 0) == arm.startswith("no noise"), arm
    said = {(t.method, t.reward, t.noise, t.unsupervised_steps) for t in by_arm.values()}
    assert len(said) == len(by_arm)


@pytest.mark.parametrize("task", ["cheetah-run", "quadruped-walk"])
def test_the_paper_preset_asks_all_arms_of_every_task(task):
    trials = STUDY.trials("paper", task)
    assert {t.labels["arm"] for t in trials} == {*NOISY, *NOISE_FREE}
    assert {t.trial.task for t in trials} == {task} and {t.trial.width for t in trials} == {1024}


def test_names_of_methods_are_those_of_the_arms():
    for name in METHODS:
        assert LearnFromPreferences(seed=0, task="point-mass", method=name).method == name
    with pytest.raises(ValueError, match="reward='none'"):
        LearnFromPreferences(seed=0, task="point-mass", reward="none")


def judged(name, gain):
    """Judge a claim by records whose returns are 400, or 800 without noise, and gains by arm."""
    records = []
    for labels, trial in QUICK:
        arm = labels["arm"]
        noise = random.Random(trial.identity).uniform(-2, 2)
        free = arm.startswith("no noise")
        late = (800 if free else 400) + gain(arm) + noise + trial.seed
        real = 25.0 * (2 if arm == "R2N" and gain("connections") else 1)
        looks = {
            "critic_real_connections": [[9.0], [real]],
            "critic_noise_connections": [[9.0], [25.0]],
        }
        result = {"late_returns": [late], "real_features": [5.0], "looks": looks}
        content = json.loads(json.dumps(trial.content))
        records.append(Record(trial.identity, content, result, {}, Path(), labels=[labels]))
    return CLAIMS[NAMES.index(name)].judge(View.of(records)).outcome


def only(arm, value):
    return lambda name: value if name == arm else 0.0


@pytest.mark.parametrize(
    ("name", "gain", "outcome"),
    [
        ("learns", only("", 0), "supported"),
        ("learns", only("no noise", -200), "not supported"),
        ("rivals", only("R2N", 50), "supported"),
        ("rivals", lambda arm: 50.0 * (arm in ("R2N", "RUNE")), "inconclusive"),
        ("rivals", lambda arm: 50.0 * (arm in ("R2N", "SURF")), "inconclusive"),
        ("rivals", lambda arm: 50.0 * (arm == "R2N") + 90 * (arm == "RUNE"), "not supported"),
        ("static", only("static", 50), "supported"),
        ("static", only("PEBBLE", 50), "not supported"),
        ("moving", only("R2N", 50), "supported"),
        ("moving", only("static", 50), "not supported"),
        ("both", only("R2N", 50), "supported"),
        ("both", only("R2N, actor and critic only", 50), "not supported"),
        ("oracle", only("oracle", 10), "supported"),
        ("oracle", only("oracle", 100), "not supported"),
        ("elimination", only("elimination", 50), "supported"),
        ("elimination", only("R2N", 50), "not supported"),
        ("moved", only("moved features", 50), "supported"),
        ("moved", only("R2N", 50), "not supported"),
        ("moved beats", only("moved features", 50), "supported"),
        ("moved beats", only("elimination", 50), "not supported"),
        ("moved closes", only("moved features", 320), "supported"),
        ("moved closes", only("moved features", 280), "not supported"),
        ("moved is whole", only("moved features", 400), "supported"),
        ("moved is whole", only("moved features", 300), "not supported"),
        ("true", only("elimination, true reward", 400), "supported"),
        ("true", only("elimination, true reward", 380), "supported"),
        ("true", only("elimination, true reward", 340), "not supported"),
        ("gap", only("elimination", 320), "supported"),
        ("gap", only("elimination", 280), "not supported"),
        ("keep", only("elimination", 0), "supported"),
        ("keep", only("elimination, fixed keep", 50), "not supported"),
        ("adapts", only("connections", 1), "supported"),
        ("adapts", only("", 0), "inconclusive"),
        # Where PEBBLE does not learn without noise, nothing is judged.
        ("elimination", lambda arm: 50 * (arm == "elimination") - 200 * (arm == "no noise"),
         "not judged"),
    ],
)  # fmt: skip
def test_rules_decide_as_they_say(name, gain, outcome):
    assert judged(name, gain) == outcome


def test_the_study_ends_with_a_page(tmp_path, monkeypatch):
    """Every kind of arm trains for real, for a few steps."""
    few = {**study._SMALL, "steps": 260, "feedbacks": 1, "reward_steps": 5}
    arms = {n: a for n, a in NOISY.items() if n in study._FEW or n.startswith("R2N,")}
    made = partial(study._trials, arms, (0.9,), 1, task="point-mass", **few)
    short = replace(STUDY, presets={"smoke": Preset("seconds", {"point-mass": made})})
    found = run_study(short, "smoke", tmp_path, options={"device": "cpu"}, jobs=1)
    assert not found.failed and not found.skipped
    sections = list(short.sections(View.of(Records.read(tmp_path))))
    tables = {section.title: section.table for section in sections if section.table}
    rows = tables["All returns: point mass, white noise"].rows
    assert {row[0] for row in rows} == {*arms, *NOISE_FREE}
    titles = {section.title for section in sections}
    assert {"Learning among the most noise", "What critics attend to", "Learned rewards"} <= titles
    assert not [title for title in titles if title.startswith("Not shown")]
    assert all(row[4] for row in rows) and "All returns: point mass, slow noise" in tables


def test_tenths_and_looks_are_read_where_they_are():
    from regrow.studies.control.measures import looked_at, tenth

    result = {
        "training_returns": [list(range(25))],
        "looks": {"x": [[float(n)] for n in range(50)]},
    }
    record = Record("", {"seed": 0}, result, {}, Path())
    assert tenth(1)(record) == 0.5 and tenth(10)(record) == 23.0
    assert looked_at("x", 10)(record) == 49.0 and looked_at("x", 1)(record) == 4.0
    with pytest.raises(ValueError, match="no y"):
        looked_at("y", 3)(record)
    few = Record("", {"seed": 0}, {"training_returns": [[1.0]]}, {}, Path())
    with pytest.raises(ValueError, match="fewer than ten"):
        tenth(1)(few)


def short(**more):
    few = {**study._SMALL, "steps": 230, "feedbacks": 1, "reward_steps": 5, **more}
    return [
        one.trial
        for one in study._trials(study._FEW, (0.9,), 1, task="point-mass", **few)
        if "noise" in one.labels or one.labels["kind"] == study.WHITE
    ]


def test_trials_of_a_population_have_the_results_that_they_have_alone(tmp_path):
    trials = short()
    alone = [t for t in trials if t.method in ("r2n", "elimination", "static")][:4]
    alone += [t for t in trials if t.reward == "true"]
    together = {}
    for part, options in train_together(trials, tmp_path, {"device": "cpu"}):
        together |= options["results"]
        assert len({(t.noise, t.noise_kind, t.shadows_for(t.arms)) for t in part}) == 1
    assert set(together) == {trial.identity for trial in trials}
    assert max(one["population"] for one in together.values()) == 7
    for number, trial in enumerate(alone):
        folder = tmp_path / str(number)
        folder.mkdir()
        found = trial.run(Run(folder, {"device": "cpu"}))
        wanted = together[trial.identity]
        assert {**found, "population": 0} == {**wanted, "population": 0}, trial
        assert found["population"] == 1 <= wanted["population"]
        assert trial.run(Run(folder, {"results": together})) is wanted
    assert not list((tmp_path / "populations").iterdir())


@dataclass(frozen=True)
class Dying(Task):
    """A population whose process dies."""

    def train(self, device=None):
        os._exit(3)


def test_devices_side_by_side_give_the_results_of_one(tmp_path, monkeypatch, caplog):
    """A population is halved for a device that would have none; a process that dies is told."""
    monkeypatch.setattr(together, "get_context", lambda _: FORKS)
    white = [t for t in short() if t.noise and t.noise_kind == "gaussian"]
    trials = [t for t in white if t.method in ("r2n", "static") and t.reward != "true"]
    (options,) = [more for _, more in train_together(trials, tmp_path, {"device": "cpu"})]
    monkeypatch.setattr(together, "_devices", lambda _: ["cpu", "cpu"])
    apart = list(train_together(trials, tmp_path, {}))
    assert sorted(len(part) for part, _ in apart) == [1, 1]
    found = {name: one for _, more in apart for name, one in more["results"].items()}
    assert found.keys() == options["results"].keys()
    for name, one in options["results"].items():
        assert {**one, "population": 1} == found[name]
    assert not list((tmp_path / "populations").iterdir())
    monkeypatch.setattr(together, "Task", Dying)
    assert not list(train_together(trials, tmp_path, {}))
    assert caplog.text.count("its process died with exit code 3): its runs are trained one") == 2


def test_populations_are_halved_until_each_device_has_one():
    trials = short()
    for parts, number, sizes in (
        ([5], 4, [1, 1, 1, 2]),
        ([4, 3], 2, [4, 3]),
        ([4, 3], 3, [2, 2, 3]),
        ([1], 8, [1]),
        ([], 2, []),
    ):
        made, rest = [], iter(trials)
        for size in parts:
            made.append([next(rest) for _ in range(size)])
        found = parted(made, number)
        assert [len(part) for part in found] == sizes
        assert [t for part in found for t in part] == [t for part in made for t in part]


def test_what_may_not_share_a_population_is_left_out():
    trials = short()
    assert sum(map(len, populations(trials))) == len(trials)
    for change in ({"noise_kind": "histogram"}, {"teacher": "people"}, {"runs": 2}):
        assert not populations([replace(trials[0], **change)]), change
    apart = [replace(trials[0], method=m) for m in ("r2n", "elimination", "static")]
    assert sorted(len(part) for part in populations(apart)) == [1, 2]
    for change, parts in (({}, 1), ({"unsupervised_steps": 10}, 2), ({"reset_critic": True}, 2)):
        both = [replace(trials[0], reward=reward, **change) for reward in ("learned", "true")]
        assert len(populations(both)) == parts, change
    large = [replace(trials[0], seed=n, noise=0.99, steps=2_000_000) for n in range(12)]
    # 2·400 + 2 + 6 numbers a step: 6.5 GB a run
    assert [len(part) for part in populations(large)] == [4, 4, 4]


def test_a_population_that_fails_leaves_its_trials_to_be_run_alone(tmp_path, monkeypatch, caplog):
    from regrow.studies.control import together

    def fail(trials, run):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(together, "results_of", fail)
    made = partial(study._trials, {"PEBBLE": NOISY["PEBBLE"]}, (0.9,), 1, task="point-mass",
                   **{**study._SMALL, "steps": 230, "feedbacks": 1})  # fmt: skip
    one = replace(STUDY, presets={"smoke": Preset("seconds", {"point-mass": made})})
    found = run_study(one, "smoke", tmp_path, options={"device": "cpu"}, jobs=1)
    assert len(found.finished) == 4 and not found.failed and not found.skipped
    assert "out of memory): its runs are trained one by one" in caplog.text
    again = run_study(one, "smoke", tmp_path, options={"device": "cpu"}, jobs=1)
    assert len(again.skipped) == 4 and not again.finished
