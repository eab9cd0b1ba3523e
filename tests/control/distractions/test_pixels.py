"""Environments in pixels: dm_control's own pictures and rewards, the same after a resume."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from regrow.control.distractions import MODES, TASKS
from regrow.control.distractions.modes import check_textures
from regrow.control.distractions.scenes import background_geoms

# In a process of its own, where dm_control may draw.
BESIDE_DM_CONTROL = """
import sys
from pathlib import Path
import numpy as np
from regrow.control.distractions import make
from regrow.control.distractions.painter import gl_library
import os
os.environ["MUJOCO_GL"] = gl_library()
from dm_control import suite

for number, task in enumerate(sys.argv[1:]):
    ours = make(task, [5, 7], size=48, repeat=4 if number else 1)
    domain, name = task.split("-")
    theirs = suite.load(domain, name, task_kwargs={"random": 0})
    seed = np.random.default_rng([7, 0]).integers(2**32, size=4, dtype=np.uint32)
    theirs.task.random.seed(seed)
    theirs.reset()
    random = np.random.default_rng(0)
    frames = ours.reset()
    for place in range(7):
        picture = theirs.physics.render(48, 48, camera_id=0)
        np.testing.assert_array_equal(frames[1], picture, err_msg=f"{task}, step {place}")
        action = random.uniform(-1, 1, (2, ours.actions))
        reward = sum(theirs.step(action[1]).reward for _ in range(ours.repeat))
        step = ours.step(action)
        frames = step.observations
        assert step.rewards[1] == reward, (task, step.rewards, reward)
        assert not step.terminated.any() and not step.truncated.any()
    assert ours.episode * ours.repeat == theirs._step_limit == 1000
print("equal")
"""


@pytest.mark.slow
def test_pictures_and_rewards_are_dm_controls(gl):
    command = [sys.executable, "-c", BESIDE_DM_CONTROL, *TASKS]
    said = ("MUJOCO_GL", "PYOPENGL_PLATFORM")
    free = {name: value for name, value in os.environ.items() if name not in said}
    done = subprocess.run(command, capture_output=True, text=True, env=free, check=False)
    assert done.stdout.endswith("equal\n"), done.stderr


def played(environments, steps=4, seed=0):
    random = np.random.default_rng(seed)
    frames, rewards = [environments.reset()], []
    for _ in range(steps):
        step = environments.step(random.uniform(-1, 1, (environments.runs, environments.actions)))
        frames.append(step.observations)
        rewards.append(step.rewards)
    return np.stack(frames), np.stack(rewards)


@pytest.mark.parametrize("mode", MODES)
def test_a_seed_gives_the_same_episode_alone_and_among_others(pixels, mode):
    alone, among = pixels(seeds=[3], mode=mode), pixels(seeds=[8, 3], mode=mode)
    random = np.random.default_rng(0)
    assert np.array_equal(alone.reset()[0], among.reset()[1])
    for number in range(4):
        if number == 2:  # the next episode
            one, two = alone.reset(), among.reset(np.array([False, True]))
            assert np.array_equal(one[0], two[1])
        action = random.uniform(-1, 1, (2, 1))
        one, two = alone.step(action[1:]), among.step(action)
        assert np.array_equal(one.observations[0], two.observations[1])
        assert one.rewards[0] == two.rewards[1]
        assert not np.array_equal(two.observations[0], two.observations[1])


@pytest.mark.parametrize("mode", MODES)
def test_what_distracts_changes_pictures_and_nothing_else(pixels, mode):
    clean, clean_rewards = played(pixels("ball_in_cup-catch"))
    frames, rewards = played(pixels("ball_in_cup-catch", mode=mode))
    assert np.array_equal(rewards, clean_rewards)
    assert frames.dtype == np.uint8 and frames.shape == (5, 1, 48, 48, 3)
    assert (mode == "clean") == np.array_equal(frames, clean)


SAVED = [("finger-spin", "clean"), ("walker-walk", "video_hard")]
SAVED += [("cartpole-balance", mode) for mode in MODES]


@pytest.mark.parametrize("task, mode", SAVED)
def test_a_resumed_environment_goes_on_bit_for_bit(pixels, task, mode):
    random = np.random.default_rng(1)
    one = pixels(task, seeds=[4, 7], mode=mode)
    one.reset()
    one.step(random.uniform(-1, 1, (2, one.actions)))
    one.reset(np.array([True, False]))
    for _ in range(3):
        one.step(random.uniform(-1, 1, (2, one.actions)))
    two = pixels(task, seeds=[4, 7], mode=mode)
    two.load_state_dict(one.state_dict())
    assert np.array_equal(one.observe(), two.observe())
    for number in range(4):
        if number == 2:
            which = np.array([False, True])
            assert np.array_equal(one.reset(which), two.reset(which))
        action = random.uniform(-1, 1, (2, one.actions))
        a, b = one.step(action), two.step(action)
        assert np.array_equal(a.observations, b.observations)
        assert np.array_equal(a.rewards, b.rewards)
        assert np.array_equal(one.foreground(), two.foreground())


@pytest.mark.parametrize(
    "mode", [pytest.param("video_hard", marks=pytest.mark.long), "distracting"]
)
def test_environments_in_processes_are_those_of_one_and_resumed_in_either(pixels, mode):
    """Bit for bit: observations, rewards, foregrounds, and what comes after a state."""
    random, seeds = np.random.default_rng(1), [4, 7, 7]
    one, two = (pixels(seeds=seeds, mode=mode, workers=n) for n in (1, 2))
    assert (two.shape, two.observations, two.actions) == (one.shape, one.observations, one.actions)
    for environments in (one, two):
        environments.rewind_(np.array([0, 0, 3]))
    assert np.array_equal(one.reset(), two.reset())
    for number in range(6):
        if number == 3:
            which = np.array([True, False, True])
            assert np.array_equal(one.reset(which), two.reset(which))
        if number == 4:  # each goes on from what the other had saved
            states = one.state_dict(), two.state_dict()
            for environments, state in zip((two, one), states, strict=True):
                environments.load_state_dict(state)
        action = random.uniform(-1, 1, (3, 1))
        a, b = one.step(action), two.step(action)
        assert np.array_equal(a.observations, b.observations)
        assert np.array_equal(a.rewards, b.rewards)
    assert np.array_equal(one.foreground(), two.foreground())
    with pytest.raises(ValueError, match="an action of run 2 is not finite"):
        two.step(np.array([[0.0], [0.0], [np.nan]]))
    action = random.uniform(-1, 1, (3, 1))  # and nothing has moved
    assert np.array_equal(one.step(action).observations, two.step(action).observations)


def test_what_goes_wrong_in_a_process_is_told_as_in_one(pixels, stills, tmp_path):
    shutil.copytree(stills, tmp_path / "clips")
    environments = pixels(seeds=[0, 0], mode="video_hard", videos=tmp_path / "clips", workers=2)
    (tmp_path / "clips" / "clip9" / "3.png").write_bytes(b"no picture")  # after it was looked at
    with pytest.raises(ValueError, match=r"3\.png"):
        environments.reset()


def test_an_episode_is_cut_after_a_thousand_control_steps(pixels):
    environments = pixels(repeat=200)
    environments.reset()
    cut = [bool(environments.step(np.zeros((1, 1))).truncated[0]) for _ in range(5)]
    assert cut == [False] * 4 + [True]
    environments.reset()
    assert not environments.step(np.zeros((1, 1))).truncated[0]


def test_tasks_that_end_for_good_say_so(pixels):
    environments = pixels("cartpole-balance")
    scene = environments._scenes[0]
    environments.reset()
    scene._task.get_termination = lambda physics: 0.0 if physics.data.time > 0.025 else None
    step = environments.step(np.zeros((1, 1)))
    assert step.terminated[0] and not step.truncated[0]
    assert scene.data.time == pytest.approx(0.03)  # the fourth control step was not made


@pytest.mark.parametrize(
    "actions, said",
    [
        (np.zeros((1, 1)), r"actions of shape \(1, 1\): \(2, 1\)"),
        (np.array([[0.0], [np.nan]]), r"an action of run 1 is not finite: \[nan\]"),
    ],
)
def test_wrong_actions_move_nothing(pixels, actions, said):
    environments = pixels(seeds=[0, 1])
    before = environments.reset()
    with pytest.raises(ValueError, match=said):
        environments.step(actions)
    assert np.array_equal(environments.observe(), before) and not environments._steps.any()


def test_states_of_others_are_refused(pixels):
    cartpole, walker = pixels(), pixels("walker-walk")
    walker.reset()
    cartpole.reset()
    before = cartpole.observe()
    with pytest.raises(ValueError, match="of another task, or of other runs"):
        cartpole.load_state_dict(walker.state_dict())
    assert np.array_equal(cartpole.observe(), before)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"task": "walker-fly"}, "task='walker-fly': the DeepMind Control Suite has .*walker-walk"),
        ({"mode": "video"}, "mode='video': must be one of 'clean'"),
        ({"mode": "video_hard", "videos": None}, "needs videos: name a folder"),
        ({"videos": "/tmp"}, "mode='clean' uses no videos"),
        ({"colours": [{"self_rgb": (0, 0, 0)}]}, "colours are for modes"),
        ({"mode": "color_hard", "colours": [{"sky": (0, 0, 0)}]}, "set 0 has 'sky'; known are"),
        ({"mode": "color_hard", "colours": [{"self_rgb": (0, 0, 9)}]}, "colours are in 0..1"),
        ({"mode": "distracting", "intensity": 0.12}, "intensity=0.12: must be one of 'easy'"),
        ({"task": "acrobot-swingup", "mode": "distracting"}, "knows walker, cheetah"),
        ({"size": 4}, "size=4: must be at least 8"),
        ({"repeat": 0}, "repeat=0"),
        ({"workers": 0}, "workers=0"),
        ({"seeds": []}, "at least one"),
        ({"seeds": [-1]}, "each 0 or above"),
        ({"quality": "low"}, "quality='low'"),
        ({"cut": "scissors"}, "cut='scissors'"),
        ({"background": ["wall"]}, "'wall'.*cartpole has the geoms floor, rail1"),
    ],
)
def test_what_is_wrong_is_told(pixels, arguments, said):
    with pytest.raises(ValueError, match=said):
        pixels(**arguments)


def test_a_task_without_the_named_background_is_told(gl):
    import mujoco

    bare = '<mujoco><worldbody><geom name="plate" type="plane" size="1 1 1"/></worldbody></mujoco>'
    scene = SimpleNamespace(domain="bare", model=mujoco.MjModel.from_xml_string(bare))
    with pytest.raises(ValueError, match=r"no geom of the material 'grid'.*among plate"):
        background_geoms(scene, None)
    with pytest.raises(ValueError, match=r"bare has no texture 'skybox'.*has none.*mode='clean'"):
        check_textures(scene, ("skybox",))
    assert background_geoms(scene, ["plate"]) == [0]
    with pytest.raises(TypeError, match="background='plate': list or tuple is needed"):
        background_geoms(scene, "plate")


@pytest.mark.parametrize("task", ["reacher-easy", "lqr-lqr_2_1"])  # the latter has no length
def test_any_other_task_of_the_suite_is_made(pixels, task):
    environments = pixels(task, mode="video_hard")
    assert environments.reset().shape == (1, 48, 48, 3)
    assert 0 < environments.foreground().mean() < 0.5
    assert environments.episode == 250


def test_the_example_of_the_page_runs(gl, stills, tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs" / "control.md").read_text("utf-8")
    example = page.split("```{code-block} python\n")[1].split("```")[0]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clips").symlink_to(stills)
    exec(compile(example, "control.md", "exec"), {})
    assert (tmp_path / "seen.gif").stat().st_size > 1000
