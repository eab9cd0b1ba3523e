"""Designs: every cell once, with labels that tell it from all others."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.lab.design import Labelled, grid, labels_by_identity
from regrow.lab.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Train(Trial):
    density: float = 1.0
    growth: str = ""
    steps: int = 0

    def run(self, run):
        raise AssertionError("not run")


BASE = Train(seed=0)


def dense():
    return {}


ARMS = {
    "dense": dense,
    "static": lambda density: {"density": density},
    "moving": lambda density, growth, steps: {
        "density": density,
        "growth": growth,
        "steps": steps,
    },
}
PLACES = st.lists(st.floats(0.01, 1), min_size=1, max_size=4, unique=True)


@given(PLACES, st.sets(st.sampled_from("abcd"), min_size=1), st.integers(1, 3))
def test_every_cell_is_there_once_and_is_what_its_labels_say(densities, growth, seeds):
    trials = grid(
        BASE, ARMS, seeds=seeds, given={"steps": 7}, density=densities, growth=sorted(growth)
    )
    assert len(trials) == seeds * (1 + len(densities) * (1 + len(growth)))
    assert len({(*sorted(one.labels.items()), one.trial.seed) for one in trials}) == len(trials)
    for labels, trial in trials:
        assert labels.get("density", 1.0) == trial.density
        assert labels.get("growth", "") == trial.growth
        assert trial.steps == (7 if labels["arm"] == "moving" else 0)
        assert "steps" not in labels


def test_labels_that_all_share_are_on_each():
    trials = grid(
        BASE, ARMS, seeds=1, labels={"task": "t"}, given={"steps": 1}, density=[0.1], growth=["a"]
    )
    assert all(one.labels["task"] == "t" for one in trials)


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"density": [0.1], "growth": ["a"]}, "arm 'moving' asks for steps"),
        ({"density": [0.1]}, "arm 'moving' asks for growth, steps"),
        ({"densty": [0.1]}, "densty: no arm of dense, static, moving depends on it"),
    ],
)
def test_an_axis_that_nobody_has_and_a_value_that_nobody_gives_are_named(axes, said):
    with pytest.raises(ValueError, match=said):
        grid(BASE, ARMS, seeds=1, **axes)


def test_one_trial_of_two_questions_has_two_sets_of_labels():
    one = Labelled({"part": "a"}, BASE)
    other = Labelled({"part": "b"}, Train(seed=0))
    labels = labels_by_identity([one, other, one])
    assert labels == {BASE.identity: [{"part": "a"}, {"part": "b"}]}
