"""Small populations the tests share: a function that makes them."""

import pytest
import torch

from regrow.control.environments import PointMass
from regrow.control.noise import NoiseFeatures
from regrow.control.population import Population
from regrow.control.setting import METHODS, Arm, Setting
from regrow.control.teachers import TEACHERS

SMALL = Setting(
    steps=160, seed_steps=40, batch=16, width=8, reward_width=8, reward_batch=8, reward_steps=12,
    segment=5, queries=6, feedbacks=3, feedback_every=40, update_every=10, score_every=10,
    eliminate_every=20, reward_update_every=4, crop=2, guesses=2, pool=2, bilevel_every=15,
    shadows=6,
)  # fmt: skip


@pytest.fixture
def small():
    return SMALL


@pytest.fixture
def arms():
    return [
        METHODS["rune"],
        METHODS["r2n"],
        METHODS["r2n-rigl"],
        METHODS["elimination"],
        METHODS["oracle"],
        Arm(true_reward=True, actor="set"),
        Arm(reward_model="features", actor="features", critic="features", keep=0.4, reset=True,
            score="agreement", window=(0.1, 0.5)),
        METHODS["surf"],
        METHODS["mrn"],
        METHODS["group-lasso"],
        METHODS["elimination-fixed"],
        METHODS["autocorrelation"],
    ]  # fmt: skip


@pytest.fixture
def population():
    def make(arms, seeds, setting=SMALL, noise=0.6, teacher=TEACHERS["oracle"], env=None, **kinds):
        environments = env or PointMass(seeds, episode=20, wall=1.2)
        features = NoiseFeatures(seeds, 4, noise, **kinds)
        return Population(environments, teacher, arms, setting, features)

    return make


def leaves(state, path=""):
    """Yield every tensor and number of a state, by path."""
    if isinstance(state, dict):
        for key, value in state.items():
            yield from leaves(value, f"{path}/{key}")
    elif isinstance(state, list | tuple):
        for place, value in enumerate(state):
            yield from leaves(value, f"{path}/{place}")
    else:
        yield path, state


@pytest.fixture
def equal_states():
    def check(one, two):
        a, b = dict(leaves(one)), dict(leaves(two))
        assert a.keys() == b.keys()
        for path, value in a.items():
            same = (
                torch.equal(value, b[path])
                if isinstance(value, torch.Tensor)
                else (value == b[path])
            )
            assert same, path

    return check
