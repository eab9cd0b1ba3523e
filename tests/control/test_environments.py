"""Environments: equal to dm_control's step by step, and to themselves after a resume."""

import numpy as np
import pytest

from regrow.control.environments import TASKS, PointMass, make
from regrow.control.environments.collect import random_observations

SUITE = [task for task in TASKS if task != "point-mass"]


@pytest.fixture(scope="module")
def suite():
    pytest.importorskip("mujoco")
    pytest.importorskip("dm_env")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUJOCO_GL", "disable")  # else dm_control asks for a display
        from dm_control import suite
    return suite


def flat(step):
    return np.concatenate([np.ravel(value) for value in step.observation.values()])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", SUITE)
def test_every_step_is_dm_controls(suite, task):
    theirs = suite.load(*task.split("-", 1), task_kwargs={"random": 0})
    ours = make(task, [0, 1], repeat=1, workers=2)
    first = theirs.reset()
    ours.reset()
    for run in range(2):
        ours.begin_(run, np.random.RandomState(0))  # their generator: the start is theirs, too
    np.testing.assert_allclose(ours.observe()[0], flat(first), atol=1e-6)
    random = np.random.default_rng(1)
    for _ in range(60):
        action = random.uniform(-1.5, 1.5, ours.actions)  # beyond the limits, it is clipped
        step = ours.step(np.stack([action, action]))
        bounds = theirs.action_spec()  # ±1 but of quadrupeds; ours are ±1 always
        share = (np.clip(action, -1, 1) + 1) / 2
        other = theirs.step(bounds.minimum + share * (bounds.maximum - bounds.minimum))
        np.testing.assert_allclose(step.observations[0], flat(other), atol=2e-6)
        np.testing.assert_allclose(step.rewards, other.reward, atol=1e-9)
        assert np.array_equal(step.observations[0], step.observations[1])
    assert ours.episode == theirs._step_limit


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["cartpole-swingup", "cheetah-run"])
def test_repeated_actions_add_their_rewards(suite, task):
    one, four = make(task, [3], repeat=1), make(task, [3], repeat=4)
    assert four.episode == one.episode / 4
    np.testing.assert_array_equal(one.reset(), four.reset())
    action = np.full((1, one.actions), 0.3)
    together = four.step(action)
    steps = [one.step(action) for _ in range(4)]
    np.testing.assert_array_equal(together.observations, steps[-1].observations)
    np.testing.assert_allclose(together.rewards, sum(step.rewards for step in steps))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", TASKS)
def test_a_resumed_environment_goes_on_bit_for_bit_and_begins_the_same_episodes(task):
    if task != "point-mass":
        pytest.importorskip("mujoco")
    random = np.random.default_rng(0)
    one = make(task, [4, 7])
    one.reset()
    for _ in range(15):
        one.step(random.uniform(-1, 1, (2, one.actions)))
    two = make(task, [4, 7])
    two.load_state_dict(one.state_dict())
    for number in range(25):
        if number == 10:
            which = np.array([False, True])
            np.testing.assert_array_equal(one.reset(which), two.reset(which))
        action = random.uniform(-1, 1, (2, one.actions))
        a, b = one.step(action), two.step(action)
        np.testing.assert_array_equal(a.observations, b.observations)
        np.testing.assert_array_equal(a.rewards, b.rewards)
        np.testing.assert_array_equal(a.truncated, b.truncated)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["point-mass", "cartpole-balance", "walker-walk"])
def test_a_run_alone_is_the_run_among_others(task):
    if task != "point-mass":
        pytest.importorskip("mujoco")
    together, alone = make(task, [1, 2, 3]), make(task, [2])
    np.testing.assert_array_equal(together.reset()[1:2], alone.reset())
    for _ in range(20):
        action = np.random.default_rng(0).uniform(-1, 1, (1, alone.actions))
        a, b = together.step(np.repeat(action, 3, 0)), alone.step(action)
        np.testing.assert_array_equal(a.observations[1:2], b.observations)
        np.testing.assert_array_equal(a.rewards[1:2], b.rewards)


def test_episodes_end_by_length_and_by_the_wall():
    mass = PointMass([0], episode=5)
    mass.reset()
    ends = [bool(mass.step(np.zeros((1, 2))).truncated[0]) for _ in range(5)]
    assert ends == [False] * 4 + [True]
    walled = PointMass([0], episode=500, wall=0.5)
    walled.reset()
    steps = [walled.step(np.ones((1, 2))) for _ in range(60)]
    assert any(step.terminated[0] for step in steps)
    assert not any(step.terminated[0] and step.truncated[0] for step in steps)


def test_what_random_actions_show_is_many_states():
    seen = random_observations(PointMass([0]), 200)
    assert seen.shape == (200, 4) and (seen.std(0) > 0.01).all()


def test_a_missing_package_names_the_extra(monkeypatch):
    from regrow.control.environments import models

    monkeypatch.setitem(__import__("sys").modules, "mujoco", None)
    with pytest.raises(ImportError, match=r"mujoco cannot be imported.*\[control\]"):
        models.suite_model("cartpole")


@pytest.mark.parametrize("wrong", ["walker", "cartpole_swingup", ""])
def test_unknown_tasks_are_refused(wrong):
    with pytest.raises(ValueError, match="point-mass"):
        make(wrong, [0])


@pytest.mark.parametrize(("seeds", "episode"), [([], 5), ([-1], 5), ([0], 0)])
def test_no_runs_or_no_steps_are_refused(seeds, episode):
    with pytest.raises(ValueError, match=r"seeds=|episode="):
        PointMass(seeds, episode=episode)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", ["cartpole-swingup", "cheetah-run"])
def test_envpools_steps_are_ours(task):
    """From the state that it begins in, as far as that can be seen."""
    pytest.importorskip("envpool", reason="needs envpool")
    theirs, ours = make(task, [5, 6], repeat=4, engine="envpool"), make(task, [0, 1], repeat=4)
    seen = theirs.reset().astype(float)
    ours.reset()
    if task == "cartpole-swingup":
        x, cos, sin, *speeds = seen.T
        ours._states = np.stack([0 * x, x, np.arctan2(sin, cos), *speeds], 1)
    else:
        for run, data in enumerate(ours._datas):
            data.qpos[1:], data.qvel[:] = seen[run, :8], seen[run, 8:]
            ours._mujoco.mj_step1(ours._model, data)
    random = np.random.default_rng(0)
    for _ in range(8):
        action = random.uniform(-1, 1, (2, ours.actions))
        a, b = theirs.step(action), ours.step(action)
        np.testing.assert_allclose(a.observations, b.observations, atol=2e-5)
        np.testing.assert_allclose(a.rewards, b.rewards, atol=2e-5)


@pytest.mark.filterwarnings("ignore")
def test_envpools_runs_are_the_same_alone_and_episodes_have_a_length():
    pytest.importorskip("envpool", reason="needs envpool")
    both, alone = (
        make("walker-walk", seeds, repeat=100, engine="envpool") for seeds in ([3, 4], [4])
    )
    np.testing.assert_array_equal(both.reset()[1:], alone.reset())
    ends = []
    for number in range(25):
        action = np.random.default_rng(number).uniform(-1, 1, (1, 6))
        a, b = both.step(np.repeat(action, 2, 0)), alone.step(action)
        np.testing.assert_array_equal(a.observations[1:], b.observations)
        ends.append(bool(b.truncated[0]))
        if ends[-1]:
            np.testing.assert_array_equal(both.reset()[1:], alone.reset())
    assert [n for n, over in enumerate(ends) if over] == [9, 19]


def test_envpool_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "envpool", None)
    with pytest.raises(ImportError, match=r"envpool cannot be imported.*\[envpool\]"):
        make("walker-walk", [0], engine="envpool")
    with pytest.raises(ValueError, match="engine='gym'"):
        make("walker-walk", [0], engine="gym")
