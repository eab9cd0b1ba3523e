"""A trial's name follows from its content, and from nothing else."""

import dataclasses
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from toy_trials import Walk

import regrow
from regrow.engine.patterns import Block
from regrow.engine.schedules import Cosine
from regrow.lab.trial import Trial, brief, plain, varying


@dataclass(frozen=True, kw_only=True)
class Training(Trial):
    method: regrow.Method
    sizes: tuple[int, ...] = (3, 4)

    def run(self, run):
        return {}


def test_equal_content_is_one_trial_and_any_difference_another():
    base = Walk(seed=1)
    assert base.identity == Walk(seed=1).identity
    changed = {"seed": 2, "name": "b", "steps": 7, "pause": 0.5, "ends": "raises"}
    names = {dataclasses.replace(base, **{key: value}).identity for key, value in changed.items()}
    assert len(names | {base.identity}) == len(changed) + 1


def test_another_version_or_class_is_another_trial(monkeypatch):
    before = Walk(seed=1).identity
    other = dataclass(frozen=True, kw_only=True)(type("Other", (Walk,), {}))
    assert other(seed=1).identity != before
    monkeypatch.setattr(Walk, "version", 2)
    assert Walk(seed=1).identity != before


def test_methods_count_with_everything_inside():
    trials = [
        Training(seed=0, method=method)
        for method in (
            regrow.RigL(density=0.1),
            regrow.RigL(density=0.2),
            regrow.SET(density=0.1),
            regrow.RigL(density=0.1, drop_fraction=Cosine(0.2)),
            regrow.RigL(density=0.1, pattern=Block(2)),
            regrow.RigL(density={"*": 0.1}),
        )
    ]
    assert len({trial.identity for trial in trials}) == len(trials)
    content = trials[0].content
    assert content["method"]["kind"] == "RigL"
    assert content["method"]["drop_fraction"]["kind"] == "Cosine"
    assert content["sizes"] == [3, 4]


def test_the_name_is_the_same_in_a_process_that_hashes_strings_differently():
    code = "from toy_trials import Walk; print(Walk(seed=3, name='ß').identity)"
    # Strings are hashed by chance here, and by one number there.
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment
    )
    assert ran.stdout.strip() == Walk(seed=3, name="ß").identity


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (float("nan"), ValueError),
        (float("inf"), ValueError),
        ({1: 2}, ValueError),
        (object(), TypeError),
    ],
)
def test_what_has_no_plain_form_is_refused(value, error):
    with pytest.raises(error):
        plain({"field": value})


def test_plain_data_stays_and_paths_become_strings():
    assert plain({"a": [1, 2.5, "x", None, True], "b": Path("c/d")}) == {
        "a": [1, 2.5, "x", None, True],
        "b": "c/d",
    }


def test_only_what_differs_is_told():
    """A line of progress ran over three lines of a terminal."""
    trials = [
        Training(seed=seed, method=regrow.SET(density=d)) for seed in (0, 1) for d in (0.1, 0.2)
    ]
    assert varying(trials) == {"seed", "method"}
    assert varying([*trials, Walk(seed=0)]) == {"seed", "method"}
    assert brief(trials[0], varying(trials)) == "Training(seed=0, method=SET(density=0.1))"
    assert brief(Walk(seed=0), {"seed", "pause"}) == "Walk(seed=0, pause=0.0)"
    assert brief(Walk(seed=0), varying([Walk(seed=0)])) == str(Walk(seed=0)) == "Walk(seed=0)"


@dataclass(frozen=True, kw_only=True)
class Grown(Training):
    limit: float | None = dataclasses.field(default=None, metadata={"later": True})


def test_a_field_that_came_later_leaves_identities_as_they_were():
    method = regrow.SET(density=0.1)
    before = Training(seed=1, method=method).content
    assert Grown(seed=1, method=method).content == before | {"trial": "Grown"}
    limited = Grown(seed=1, method=method, limit=2.0)
    assert limited.content == before | {"trial": "Grown", "limit": 2.0}
    assert limited.identity != Grown(seed=1, method=method).identity


def test_settings_that_were_there_before_keep_their_identity():
    from regrow.studies.supervised.classify import Classify

    trial = Classify(
        seed=0, method=regrow.RigL(density=0.1), epochs=2, data="digits", model="mlp-30"
    )
    assert trial.identity == "e23af73c325ee71a"
