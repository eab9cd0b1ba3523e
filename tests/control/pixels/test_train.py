"""Whole trainings: checkpoints, evaluations that change nothing, refusals, and that it learns."""

import numpy as np
import pytest
import torch

from regrow.control.distractions import GymnasiumPixels
from regrow.control.environments import PointMass
from regrow.control.pixels.dot import Dot
from regrow.control.pixels.evaluate import evaluate
from regrow.control.pixels.method import PIXEL_METHODS, PixelMethod
from regrow.control.pixels.setting import PixelSetting
from regrow.control.pixels.train import FRAMES, train_from_pixels
from regrow.lab.run import Run


class Killed(Exception):
    """Stands for the end of the process."""


class Interrupted(Run):
    """A run that saves whenever it may, and is killed after some checkpoints."""

    def __init__(self, folder, saves):
        super().__init__(folder, save_every=0.0)
        self.saves = saves

    def save(self, state):
        super().save(state)
        self.saves -= 1
        if self.saves == 0:
            raise Killed


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch):
    monkeypatch.setattr("regrow.control.pixels.train._LOOK_EVERY", 5)


WRAPPED = ("MaDi", "SODA", "mask-segmentation")  # of rings that wrap: those of other frames


@pytest.mark.parametrize(
    ("method", "replay"), [*((m, None) for m in PIXEL_METHODS), *((m, 20) for m in WRAPPED)]
)
def test_a_killed_training_goes_on_bit_for_bit(tmp_path, method, replay, tiny, dots, equal_states):
    setting = tiny(replay=replay)

    def train(folder, saves=-1):
        folder.mkdir(exist_ok=True)
        environments, tests = dots(method)
        run = Interrupted(folder, saves)
        return train_from_pixels(environments, method=method, setting=setting, test=tests, run=run)

    whole = train(tmp_path / "whole")
    for saves in (1, 2, 3) if method in WRAPPED else (2,):  # killed after so many checkpoints
        with pytest.raises(Killed):
            train(tmp_path / "killed", saves)
    again = train(tmp_path / "killed")
    equal_states(whole.state_dict(), again.state_dict())
    lines = [(tmp_path / n / "metrics.jsonl").read_text() for n in ("whole", "killed")]
    assert lines[0] == lines[1]
    assert not (tmp_path / "killed" / FRAMES).exists()
    assert {n: e.returns for n, e in whole.last.items()} == {
        n: e.returns for n, e in again.last.items()
    }


def test_a_training_killed_at_its_very_end_still_has_films(tmp_path, tiny, dots):
    environments, tests = dots("MaDi")
    train = {"method": "MaDi", "setting": tiny()}
    one = train_from_pixels(environments, test=tests, run=Run(tmp_path), **train)
    environments, tests = dots("MaDi")
    again = train_from_pixels(environments, test=tests, run=Run(tmp_path), **train)
    assert again.step == 40 and again.evaluations == one.evaluations
    assert np.array_equal(again.last["moving"].masks, one.last["moving"].masks)
    assert again.last["moving"].frames.shape == (10, 16, 16, 3)


def test_tests_change_nothing_in_training(tiny, dots, equal_states):
    def trained(**how):
        environments, tests = dots("mask-random")
        return train_from_pixels(
            environments, method="mask-random", setting=tiny(**how), test=tests
        ).agent.state_dict()

    often, seldom = trained(evaluate_every=5), trained(evaluate_every=40)
    for state in (often, seldom):
        state["parts"].pop("draws of masks of tests")
    equal_states(often, seldom)


@pytest.mark.parametrize(
    "method", ["MaDi-half", "MaDi-shared", "mask-segmentation", "SGQN", "SODA"]
)
def test_trainings_run_in_bfloat16(method, tiny, dots):
    environments, tests = dots(method)
    photos = torch.randint(0, 256, (3, 3, 20, 20), dtype=torch.uint8)
    trained = train_from_pixels(
        environments, method=method, setting=tiny(precision="bfloat16"), test=tests, photos=photos
    )
    assert trained.agent.augment.kind == "overlay"
    found = trained.last["moving"]
    if found.masks is not None:
        assert found.masks.dtype == np.float32 and 0 <= found.masks.min() <= found.masks.max() <= 1


def test_every_test_is_on_the_same_episodes(tiny, dots):
    environments, tests = dots("SAC")
    trained = train_from_pixels(environments, method="SAC", setting=tiny(), test=tests)
    first, second = (evaluate(trained.agent, tests["moving"], 3) for _ in range(2))
    assert first.returns == second.returns and len(set(first.returns)) == 3


class Ending(Dot):
    """A dot whose episodes are over for good once it is near enough."""

    def advance_(self, actions):
        rewards, _ = super().advance_(actions)
        return rewards, rewards > 0.5


@pytest.mark.parametrize("kind", [Dot, Ending])
@pytest.mark.parametrize("runs", [2, 5, 7])
def test_episodes_played_at_once_are_those_played_one_after_another(tiny, dots, runs, kind):
    environments, _ = dots("MaDi")
    trained = train_from_pixels(environments, method="MaDi", setting=tiny())
    told = []
    how = {"size": 16, "mode": "moving", "episode": 30}
    one = evaluate(trained.agent, kind([3], **how), 5, film=True)
    found = evaluate(trained.agent, kind([3] * runs, **how), 5, film=True, tell=told.append)
    np.testing.assert_allclose(found.returns, one.returns, rtol=1e-4)
    assert len(set(one.returns)) == 5 and found.auc == pytest.approx(one.auc, abs=1e-4)
    assert np.array_equal(found.frames, one.frames)
    np.testing.assert_allclose(found.masks, one.masks, atol=1e-5)
    assert told[0] == 0 and told == sorted(told) and told[-1] < 5


def test_what_takes_long_is_told_of(tiny, dots, tmp_path):
    said = []

    class Telling(Run):
        def tell(self, done, words=""):
            said.append((done, words))

    environments, tests = dots("SAC")
    train_from_pixels(environments, method="SAC", setting=tiny(), test=tests, run=Telling(tmp_path))
    words = [words for _, words in said]
    assert "step 12, update 11 of the 12 that follow the seed steps" in words
    assert "step 40, test in moving: 0 of 1 episodes" in words
    assert [done for done, _ in said] == sorted(done for done, _ in said)


def test_catch_up_updates_come_once_and_then_one_a_step(tiny, dots):
    environments, _ = dots("SAC")
    trained = train_from_pixels(environments, method="SAC", setting=tiny(steps=20))
    assert trained.agent.updates == 12 + (20 - 12 - 1)
    assert trained.returns and len(trained.returns) == 2


def test_masks_are_judged_against_the_truth(tiny, dots):
    environments, tests = dots("mask-segmentation")
    trained = train_from_pixels(
        environments, method="mask-segmentation", setting=tiny(), test=tests
    )
    for mode in ("clean", "moving"):
        found = trained.evaluations[mode][-1]
        assert (found["auc"], found["iou"], found["inside"], found["outside"]) == (1, 1, 1, 0)
    clean, moving = (trained.evaluations[mode][-1] for mode in ("clean", "moving"))
    assert clean["returns"] == moving["returns"]  # what is behind is not seen


def test_a_mask_that_hides_the_background_makes_tests_alike_and_others_differ(tiny, dots):
    environments, tests = dots("SVEA")
    trained = train_from_pixels(environments, method="SVEA", setting=tiny(), test=tests)
    clean, moving = (trained.evaluations[mode][-1] for mode in ("clean", "moving"))
    assert "auc" not in clean and clean["returns"] != moving["returns"]


def test_what_does_not_fit_is_refused(tiny):
    with pytest.raises(ValueError, match="environments: 2 runs"):
        train_from_pixels(Dot([0, 1], size=16), method="SAC", setting=tiny())
    with pytest.raises(ValueError, match=r"clean: runs of seeds \[0, 1\]"):
        train_from_pixels(
            Dot([0], size=16), method="SAC", setting=tiny(), test={"clean": Dot([0, 1], size=16)}
        )
    with pytest.raises(ValueError, match=r"environments: frames of \(16, 16, 3\).*19, 19"):
        train_from_pixels(Dot([0], size=16), method="RAD", setting=tiny())
    with pytest.raises(ValueError, match=r"environments: frames of \(\)"):
        train_from_pixels(PointMass([0]), method="SAC", setting=tiny())
    with pytest.raises(ValueError, match="clean: frames of"):
        train_from_pixels(
            Dot([0], size=16), method="SAC", setting=tiny(), test={"clean": Dot([0], size=24)}
        )
    with pytest.raises(ValueError, match="method='TD3'"):
        train_from_pixels(Dot([0]), method="TD3")
    with pytest.raises(ValueError, match="setting='big'"):
        train_from_pixels(Dot([0]), setting="big")
    with pytest.raises(ValueError, match="replay=1000000000"):
        train_from_pixels(Dot([0], size=16), method="SAC", setting=tiny(replay=10**9))


def test_masks_of_cropped_frames_are_judged_and_shown_where_they_are(tiny, tmp_path):
    """What masks are of is the middle of larger frames."""
    method = PixelMethod(crop=True, mask="segmentation")
    size = method.rendered(16)
    trained = train_from_pixels(
        Dot([0], size=size), method=method, setting=tiny(), test={"clean": Dot([1], size=size)}
    )
    found = trained.last["clean"]
    assert (found.auc, found.iou, found.inside, found.outside) == (1, 1, 1, 0)
    assert found.frames.shape == (50, 16, 16, 3) and found.masks.shape == (50, 16, 16)
    assert np.array_equal(found.masks > 0, (found.frames != 70).any(-1))  # of grey is the rest


def test_an_environment_that_cannot_be_saved_leaves_no_false_transition(tmp_path, tiny):
    """A resumed run is in another episode than the latest frame of its replay."""
    gymnasium = pytest.importorskip("gymnasium")

    class Counting(gymnasium.Env):
        """A picture whose grey is the number of its step."""

        observation_space = gymnasium.spaces.Box(0, 255, (16, 16, 3), np.uint8)
        action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

        def seen(self):
            return np.full((16, 16, 3), self.steps, np.uint8)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            self.steps = 0
            return self.seen(), {}

        def step(self, action):
            self.steps += 1
            return self.seen(), 1.0, False, False, {}

    def train(saves=-1):
        environments = GymnasiumPixels(Counting, [0], size=16, episode=17)
        return train_from_pixels(
            environments, method="SAC", setting=tiny(), run=Interrupted(tmp_path, saves)
        )

    with pytest.raises(Killed):
        train(2)  # at step 10, within an episode
    trained = train()
    ring = trained.ring
    now, then = (ring.frames[n][:, -1, 0, 0, 0].int() for n in ring.numbers(torch.arange(40)))
    assert len(ring) == 40 and torch.equal(then, now + 1)
    assert trained.returns == [17.0]  # of the episode that was cut off nothing is said


def test_a_foreground_that_nobody_knows_is_told(tiny):
    class Blind(Dot):
        def foreground(self):
            raise NotImplementedError

    with pytest.raises(ValueError, match="mask='segmentation': Blind does not know"):
        train_from_pixels(Blind([0], size=16), method="mask-segmentation", setting=tiny())
    trained = train_from_pixels(
        Blind([0], size=16), method="MaDi", setting=tiny(), test={"clean": Blind([1], size=16)}
    )
    assert "auc" not in trained.evaluations["clean"][-1]


def test_a_reward_that_is_no_number_is_told(tiny):
    class Broken(Dot):
        def advance_(self, actions):
            rewards, ended = super().advance_(actions)
            return rewards * (np.nan if self._steps[0] == 3 else 1), ended

    with pytest.raises(FloatingPointError, match="the reward at step 3 is nan"):
        train_from_pixels(Broken([0], size=16), method="SAC", setting=tiny())


@pytest.mark.long
@pytest.mark.slow
def test_it_learns_to_move_the_dot():
    setting = PixelSetting(
        steps=900, seed_steps=300, size=24, layers=4, filters=8, projection=32, width=64, batch=32,
        shift=2, evaluate_every=900, episodes=3,
    )  # fmt: skip
    torch.manual_seed(0)
    trained = train_from_pixels(
        Dot([0], size=24), method="SAC", setting=setting, test={"clean": Dot([7], size=24)}
    )
    assert np.mean(trained.returns[:5]) < 20
    assert trained.evaluations["clean"][-1]["return"] > 35
