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


class Odd(gymnasium.Env):
    """Refuses actions outside of its space, and remembers them."""

    def __init__(self, actions, told=None, reset_told=None, observations=None):
        self.observation_space = observations or gymnasium.spaces.Box(-1, 1, (2,))
        self.action_space, self.told, self.reset_told = actions, told, reset_told
        self.taken = []

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        shape = self.observation_space.shape
        return (np.zeros(shape), {}) if self.reset_told is None else self.reset_told

    def step(self, action):
        assert self.action_space.contains(action), action
        self.taken.append(action)
        shape = self.observation_space.shape
        return (np.zeros(shape), 1.0, False, False, {}) if self.told is None else self.told


def box(low, high, shape=(2,), dtype=np.float32):
    return gymnasium.spaces.Box(low, high, shape, dtype)


@pytest.mark.parametrize(
    "actions",
    [
        box(-0.1, 0.1),  # 0.1 in float32 lies above 0.1
        box(-0.1, 0.1, dtype=np.float64),
        box(np.array([0.0, -3.0]), np.array([0.7, 0.1]), dtype=np.float64),
        box(0, 5, dtype=np.int64),
        box(0, 255, (2, 2), np.uint8),
        box(-3e38, 3e38, ()),
        box(1.0, 1.0, (1,)),
    ],
)
def test_actions_are_those_of_their_space(actions):
    """Of its type and within its bounds, which both ends of −1..1 reach, and every number of it."""
    runs = Gymnasium(lambda: Odd(actions), [0], episode=50)
    runs.reset()
    for value in (-1.0, 1.0, 0.0, 0.3):
        runs.step(np.full((1, runs.actions), value))
    lowest, highest, middle, _ = runs._environments[0].taken
    assert np.array_equal(lowest, actions.low) and np.array_equal(highest, actions.high)
    assert middle.dtype == actions.dtype and middle.shape == actions.shape
    exact = (actions.low.astype(float) + actions.high) / 2
    spare = 0.5 if np.issubdtype(actions.dtype, np.integer) else 1e-6
    assert np.abs(middle - exact).max() <= spare


def test_runs_that_share_an_environment_are_refused():
    """An episode of one would be stepped by all of them."""
    one = Mass()
    with pytest.raises(ValueError, match="one environment to several runs"):
        Gymnasium(lambda: one, [0, 1], episode=5)
    Gymnasium(lambda: one, [0], episode=5)


def test_runs_whose_actions_differ_are_refused():
    bounds = iter([1.0, 1.0, 2.0])
    with pytest.raises(ValueError, match=r"run 2: action_space=Box\(-1.0, 2.0"):
        Gymnasium(lambda: Odd(box(-1, next(bounds))), [0, 1, 2], episode=5)


@pytest.mark.parametrize(
    ("make", "error", "said"),
    [
        (lambda: None, TypeError, "made None, which has no observation_space"),
        (lambda: gymnasium.make_vec("Pendulum-v1", num_envs=2), ValueError, "let it make a single"),
        (Mass(), TypeError, "lambda: make"),
        (lambda: Odd(gymnasium.spaces.Discrete(3)), ValueError, "choose numbers, not one of"),
        (lambda: Odd(box(-np.inf, np.inf)), ValueError, "TransformAction"),
        (lambda: Odd(box(0, 1, (0,))), ValueError, r"action_space=.*at least one number"),
        (
            lambda: Odd(box(0, 1), observations=box(0, 1, (0,))),
            ValueError,
            "observation_space=.*at least one number",
        ),
        (
            lambda: Odd(box(0, 1), observations=gymnasium.spaces.Dict({"a": box(0, 1)})),
            ValueError,
            "observation_space=Dict.*FlattenObservation",
        ),
    ],
)
def test_what_makes_no_environment_for_a_run_is_told(make, error, said):
    with pytest.raises(error, match=said):
        Gymnasium(make, [0], episode=5)


@pytest.mark.parametrize(
    ("episode", "error"), [(0, ValueError), (-1, ValueError), (2.5, TypeError)]
)
def test_episodes_of_no_length_are_refused(episode, error):
    with pytest.raises(error, match=f"episode={episode}"):
        Gymnasium(Mass, [0], episode=episode)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ((np.zeros(2), 1.0, False, {}), "step returned 4 things"),
        ([np.zeros(2), 1.0, False, False, {}], "step returned list"),
        ((np.zeros(2), np.ones(2), False, False, {}), "reward=array.*one number"),
        ((np.zeros(2), None, False, False, {}), "reward=None"),
        ((np.zeros(2), "1", False, False, {}), "reward='1'"),
    ],
)
def test_steps_that_are_none_of_gymnasiums_are_told(told, said):
    runs = Gymnasium(lambda: Odd(box(-1, 1), told), [0], episode=5)
    runs.reset()
    with pytest.raises(ValueError, match=f"environment of run 0: {said}"):
        runs.step(np.zeros((1, 2)))


@pytest.mark.parametrize("told", [np.zeros(2), np.zeros(3), (np.zeros(2), {}, 1)])
def test_the_reset_of_the_gym_of_before_is_told(told):
    with pytest.raises(ValueError, match=r"run 0: reset returned .*observation, info"):
        Gymnasium(lambda: Odd(box(-1, 1), reset_told=told), [0], episode=5).reset()


def test_a_reward_in_an_array_of_one_is_a_reward():
    told = (np.zeros(2), np.array([2.5]), False, False, {})
    runs = Gymnasium(lambda: Odd(box(-1, 1), told), [0], episode=5)
    runs.reset()
    assert runs.step(np.zeros((1, 2))).rewards.tolist() == [2.5]


def test_actions_may_outnumber_what_is_seen(small):
    """One number is seen, and three are chosen: all of them are read by critics."""
    runs = Population(
        Gymnasium(lambda: Odd(box(-1, 1, (3,)), observations=box(-1, 1, (1,))), [0], episode=20),
        TEACHERS["oracle"], [METHODS["oracle"]], small,
    )  # fmt: skip
    runs.run_to_(60)
    assert (
        runs.agent.critic.input_mask()[0].any(2).tolist() == [[True] + [False] * 6 + [True] * 3] * 2
    )


def test_whole_numbers_are_the_nearest():
    runs = Gymnasium(lambda: Odd(box(0, 5, (1,), np.int64)), [0], episode=50)
    runs.reset()
    for value in (0.5, 0.3, -0.1, 0.99):
        runs.step(np.full((1, 1), value))
    assert [int(action[0]) for action in runs._environments[0].taken] == [4, 3, 2, 5]
