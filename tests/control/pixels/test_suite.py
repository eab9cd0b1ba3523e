"""Agents on tasks of the DeepMind Control Suite: killed and resumed, tested among videos."""

import numpy as np
import pytest

from regrow.control.pixels.setting import PixelSetting
from regrow.control.pixels.tasks import make_task
from regrow.control.pixels.train import train_from_pixels
from regrow.lab.run import Run

SETTING = PixelSetting(
    steps=24, seed_steps=8, size=24, layers=3, filters=4, projection=8, width=16, batch=4, shift=2,
    evaluate_every=12, episodes=1,
)  # fmt: skip


@pytest.fixture
def suite(tmp_path):
    """Make environments of cartpole-swingup, clean and among clips; skip where nothing is drawn."""
    pytest.importorskip("mujoco")
    pytest.importorskip("dm_control")
    image = pytest.importorskip("PIL.Image")
    clip = tmp_path / "clips" / "one"
    clip.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(30):
        frame = random.integers(0, 256, (24, 24, 3), dtype=np.uint8)
        image.fromarray(frame).save(clip / f"{number:03}.png")

    def make(seed, mode="clean"):
        videos = tmp_path / "clips" if mode.startswith("video") else None
        try:
            return make_task(
                "cartpole-swingup", seed, mode, size=24, repeat=100, quality="fast", videos=videos
            )
        except ImportError as error:
            pytest.skip(str(error))

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    "method", ["MaDi", pytest.param("mask-segmentation", marks=pytest.mark.long)]
)
def test_a_killed_training_goes_on_bit_for_bit(suite, tmp_path, monkeypatch, method, equal_states):
    monkeypatch.setattr("regrow.control.pixels.train._LOOK_EVERY", 1)

    class Killed(Exception):
        pass

    class Interrupted(Run):
        saves = 0

        def save(self, state):
            super().save(state)
            self.saves += 1
            if self.saves == self.most:
                raise Killed

    def train(folder, most=-1):
        folder.mkdir(exist_ok=True)
        run = Interrupted(folder, save_every=0.0)
        run.most = most
        tests = {mode: suite(7, mode) for mode in ("clean", "video_hard")}
        return train_from_pixels(suite(0), method=method, setting=SETTING, test=tests, run=run)

    whole = train(tmp_path / "whole")
    for most in (5, 9):
        with pytest.raises(Killed):
            train(tmp_path / "killed", most)
    again = train(tmp_path / "killed")
    equal_states(whole.state_dict(), again.state_dict())
    found = whole.evaluations["video_hard"][-1]
    assert found["returns"] == again.evaluations["video_hard"][-1]["returns"]
    if method == "mask-segmentation":
        assert (found["auc"], found["iou"]) == (1, 1)
        assert found["returns"] == whole.evaluations["clean"][-1]["returns"]  # nothing is behind
    else:
        assert 0 <= found["auc"] <= 1
