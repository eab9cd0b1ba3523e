"""Gymnasium both ways: its checker passes ours, and ours takes what it has."""

import numpy as np
import pytest

from regrow.control.distractions import GymnasiumPixels, as_gymnasium

gymnasium = pytest.importorskip("gymnasium")


@pytest.mark.parametrize("mode", ["clean", "video_hard"])
def test_its_checker_passes(pixels, mode):
    from gymnasium.utils.env_checker import check_env

    check_env(as_gymnasium(pixels(mode=mode), "rgb_array"), skip_render_check=True)


def test_it_is_the_same_environment(pixels):
    ours, theirs = pixels(seeds=[5], repeat=200), as_gymnasium(pixels(seeds=[1], repeat=200))
    frame, _ = theirs.reset(seed=5)
    assert np.array_equal(ours.reset()[0], frame)
    for number in range(5):
        step = ours.step(np.full((1, 1), 0.2))
        frame, reward, terminated, truncated, _ = theirs.step(np.array([0.2]))
        assert np.array_equal(step.observations[0], frame) and step.rewards[0] == reward
        assert (terminated, truncated) == (False, number == 4)
    assert np.array_equal(ours.reset()[0], theirs.reset()[0])  # the next episode of the seed
    assert theirs.render() is None


def test_its_wrappers_stack_frames(pixels):
    stacked = gymnasium.wrappers.FrameStackObservation(as_gymnasium(pixels()), 3)
    frames, _ = stacked.reset(seed=0)
    assert frames.shape == (3, 48, 48, 3)


def test_several_runs_and_other_modes_are_refused(pixels):
    with pytest.raises(ValueError, match="2 runs: one is needed"):
        as_gymnasium(pixels(seeds=[0, 1]))
    with pytest.raises(ValueError, match="render_mode='human'"):
        as_gymnasium(pixels(), "human")


class Painted(gymnasium.Env):
    """A picture whose grey is how often it was stepped; actions are in 0..4."""

    def __init__(self, seen="observation", side=20, render_mode=None, kind=np.uint8):
        box = gymnasium.spaces.Box
        shape = (side, side, 3)
        self.observation_space = box(0, 255, shape, kind) if seen == "observation" else box(0, 1)
        self.action_space = box(0, 4, (2,))
        self.seen, self.side, self.render_mode, self.kind = seen, side, render_mode, kind
        self.actions = []

    def picture(self):
        return np.full((self.side, self.side, 3), 10 * self.steps, dtype=self.kind)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = int(self.np_random.integers(5))
        return self.look(), {}

    def look(self):
        return self.picture() if self.seen == "observation" else np.zeros(1, np.float32)

    def step(self, action):
        self.steps += 1
        self.actions.append(action)
        return self.look(), 1.0, self.steps >= 8, self.steps == 7, {}

    def render(self):
        return self.picture()


@pytest.mark.parametrize("options", [{}, {"seen": "render", "render_mode": "rgb_array"}])
def test_pictures_of_any_environment_are_seen(options):
    environments = GymnasiumPixels(lambda: Painted(**options), [0, 1, 2], size=32, episode=50)
    first = environments.reset()
    assert first.shape == (3, 32, 32, 3) and first.dtype == np.uint8
    step = environments.step(np.array([[-1.0, 1.0]] * 3))
    assert np.array_equal(step.observations, first + 10)
    made = environments._environments[0]
    assert made.actions[0].tolist() == [0.0, 4.0]
    for _ in range(7):
        step = environments.step(np.zeros((3, 2)))
        counts = np.array([one.steps for one in environments._environments])
        assert step.terminated.tolist() == (counts >= 8).tolist()
        assert step.truncated.tolist() == (counts == 7).tolist()
    again = GymnasiumPixels(lambda: Painted(**options), [2, 1], size=32, episode=50)
    assert np.array_equal(again.reset()[::-1], first[1:])
    again.step(np.zeros((2, 2)))
    again.load_state_dict(again.state_dict())
    assert np.array_equal(again.observe() // 10, again.observe() / 10)
    with pytest.raises(NotImplementedError, match="cannot tell what is foreground"):
        again.foreground()


@pytest.mark.parametrize("side", [64, 16])
def test_pictures_are_resized_without_a_shift(side):
    environments = GymnasiumPixels(lambda: Painted(side=side), [0], size=32, episode=5)
    half = np.zeros((side, side, 3), np.uint8)
    half[:, side // 2 :] = 240
    environments.see_(0, half)
    seen = environments.observe()[0]
    assert (seen[:, :14] == 0).all() and (seen[:, 18:] == 240).all()
    assert np.array_equal(seen, 240 - seen[:, ::-1])


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: Painted("render"), "make it with render_mode='rgb_array'"),
        (lambda: Painted(kind=np.float32), "pictures are needed"),
        (lambda: Painted("none", render_mode="rgb_array", kind=np.float64), "float64 of shape"),
    ],
)
def test_what_gives_no_pictures_is_told(make, said):
    with pytest.raises(ValueError, match=said):
        GymnasiumPixels(make, [0], episode=5).reset()


def test_lengths_and_seeds_are_needed():
    with pytest.raises(ValueError, match="does not say how long episodes are"):
        GymnasiumPixels(Painted, [0])
    with pytest.raises(ValueError, match="at least one is needed"):
        GymnasiumPixels(Painted, [], episode=5)
