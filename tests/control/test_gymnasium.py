"""Gymnasium's environments in a population; and SAC beside Stable-Baselines3's on one of ours."""

import warnings

import numpy as np
import pytest
import torch

from regrow.control.environments import Gymnasium, PointMass
from regrow.control.population import Population
from regrow.control.setting import METHODS, Arm, Setting
from regrow.control.teachers import TEACHERS

gymnasium = pytest.importorskip("gymnasium", reason="needs gymnasium")


class Mass(gymnasium.Env):
    """The point mass as Gymnasium has it, with actions in 0..2."""

    def __init__(self, episode=50, high=2.0):
        self.mass = PointMass([0], episode=10**6)
        self.episode, self.steps = episode, 0
        shape = {"shape": (2, 2), "dtype": np.float32}
        self.observation_space = gymnasium.spaces.Box(-np.inf, np.inf, **shape)
        self.action_space = gymnasium.spaces.Box(high - 2, high, (2,), np.float32)
        self._middle = high - 1

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        self.mass.begin_(0, self.np_random)
        return self.mass.observe()[0].reshape(2, 2), {}

    def step(self, action):
        self.steps += 1
        step = self.mass.step(np.asarray(action)[None] - self._middle)
        seen = step.observations[0].reshape(2, 2)
        return seen, float(step.rewards[0]), False, self.steps >= self.episode, {}


def test_actions_are_stretched_and_both_lengths_end_an_episode():
    ours, theirs = PointMass([0]), Gymnasium(Mass, [0, 1], episode=70)
    assert (theirs.observations, theirs.actions, theirs.episode) == (4, 2, 70)
    theirs.reset()
    ours.reset()
    ours._places[0] = theirs._environments[0].mass._places[0]
    for number in range(50):
        action = np.full((2, 2), 0.5)
        a, b = theirs.step(action), ours.step(action[:1])
        np.testing.assert_allclose(a.observations[0], b.observations[0], atol=1e-6)
        np.testing.assert_allclose(a.rewards[:1], b.rewards)
        assert a.truncated.tolist() == [number == 49] * 2


def test_episodes_follow_from_seed_and_number():
    one, two = Gymnasium(Mass, [3, 4], episode=5), Gymnasium(Mass, [4], episode=5)
    first = one.reset()
    np.testing.assert_array_equal(first[1:], two.reset())
    again = one.reset(np.array([True, False]))
    assert not np.array_equal(again[0], first[0]) and np.array_equal(again[1], first[1])


def test_a_population_learns_in_it_and_resumes_with_new_episodes(small):
    def make():
        environments = Gymnasium(Mass, [0, 1], episode=20)
        arms = [METHODS["r2n"], METHODS["elimination"]]
        return Population(environments, TEACHERS["oracle"], arms, small)

    runs = make()
    runs.run_to_(70)
    again = make()
    again.load_state_dict(runs.state_dict())
    assert again.environments._numbers.tolist() == [5, 5]
    again.run_to_(90)
    assert again.agent.critic.rows.isfinite().all()
    # No transition leads from the episode that was cut off into the one that was begun, and what
    # is saved after that gives the same buffer.
    d = again.replay.observations
    joined = (again.replay.following[:, :89] == again.replay.inputs[:, 1:90, :d]).all(2)
    same = again.replay.episode[:, :89] == again.replay.episode[:, 1:90]
    torch.testing.assert_close(joined, same)
    assert not joined[:, 69].any() and joined[:, 70].all()
    third = make()
    third.load_state_dict(again.state_dict())
    for name in ("inputs", "following", "episode"):
        torch.testing.assert_close(getattr(third.replay, name), getattr(again.replay, name))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"action_space": gymnasium.spaces.Discrete(3)}, "action_space=Discrete"),
        ({"observation_space": gymnasium.spaces.Discrete(3)}, "observation_space=Discrete"),
        ({"action_space": gymnasium.spaces.Box(-np.inf, np.inf, (2,))}, "finite bounds"),
    ],
)
def test_spaces_that_do_not_fit_are_refused(change, said):
    def make():
        mass = Mass()
        for name, space in change.items():
            setattr(mass, name, space)
        return mass

    with pytest.raises(ValueError, match=said):
        Gymnasium(make, [0], episode=5)
    with pytest.raises(ValueError, match="episode=None"):
        Gymnasium(Mass, [0])


@pytest.mark.parametrize("shown", [1, 3, 5])
def test_more_or_fewer_numbers_than_the_space_has_are_refused(shown):
    class Other(Mass):
        def reset(self, **options):
            return np.zeros(shown), {}

    runs = Gymnasium(Other, [0], episode=5)
    with pytest.raises(
        ValueError, match=f"run 0: shows {shown} numbers, its observation_space has 4"
    ):
        runs.reset()


@pytest.mark.long
def test_sac_gets_the_return_of_stable_baselines():
    """The same sizes, rates and steps, on the same task: within the spread of seeds."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sb3 = pytest.importorskip("stable_baselines3", reason="needs stable-baselines3")
    steps, seeds = 1500, [0, 1, 2]
    setting = Setting(steps=steps, seed_steps=300, hold=1, batch=64, width=32, target_rate=0.01,
                      temperature=0.1, temperature_rate=1e-3)  # fmt: skip
    ours = Population(PointMass(seeds), None, [Arm(true_reward=True)] * 3, setting)
    ours.run_to_(steps)
    others = PointMass([50 + seed for seed in seeds])
    found = np.array(ours.evaluate(others, 5))
    theirs = []
    for seed in seeds:
        torch.manual_seed(seed)
        model = sb3.SAC(
            "MlpPolicy", gymnasium.wrappers.FlattenObservation(Mass(high=1.0)), seed=seed,
            learning_starts=300, batch_size=64, tau=0.01, learning_rate=1e-3, ent_coef="auto_0.1",
            policy_kwargs={"net_arch": [32, 32]}, device="cpu",
        )  # fmt: skip
        model.learn(steps)
        mass = PointMass([50 + seed])
        seen, total = mass.reset(), 0.0
        for _ in range(5 * 50):
            step = mass.step(model.predict(seen, deterministic=True)[0])
            total += float(step.rewards[0])
            seen = mass.reset() if step.truncated[0] else step.observations
        theirs.append(total / 5)
    untrained = Population(PointMass(seeds), None, [Arm(true_reward=True)] * 3, setting)
    start = np.array(untrained.evaluate(PointMass([50, 51, 52]), 5))
    print("ours", found, "Stable-Baselines3", theirs, "untrained", start)
    assert found.mean() > start.mean() + 10 and np.mean(theirs) > start.mean() + 10
    spread = max(np.std(found), np.std(theirs), 1.0)
    assert abs(found.mean() - np.mean(theirs)) < 3 * spread
