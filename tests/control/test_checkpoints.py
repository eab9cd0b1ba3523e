"""A buffer that is made again from real features is the buffer that was, bit by bit."""

import subprocess
import sys
import time

import pytest
import torch

from regrow.control.setting import METHODS, Setting

ARMS = [METHODS["elimination"], METHODS["surf"], METHODS["pebble"]]
LARGE = ("inputs", "following")


def bytes_of(state):
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    return sum(map(bytes_of, parts))


@pytest.mark.parametrize("stopped", [0, 1, 39, 40, 41, 90])
@pytest.mark.parametrize(
    "kinds",
    [
        {},
        {"kind": "autoregressive", "permuted": True},
        {"kind": "histogram", "samples": torch.arange(28.0).view(7, 4)},
        {"stored": False},
    ],
)
def test_noise_shadows_and_segments_are_made_again_bit_by_bit(population, kinds, stopped):
    one, two = (population(ARMS, [3, 4, 5], **kinds) for _ in range(2))
    one.run_to_(stopped)
    two.run_to_(7)  # what it did before does not matter
    state = one.state_dict()
    assert not set(LARGE) & set(state["parts"]["replay"])
    assert "wide" not in state["parts"]["models"]
    two.load_state_dict(state)
    for name in LARGE:
        kept = slice(0, stopped)
        a, b = (getattr(runs.replay, name)[:, kept] for runs in (one, two))
        assert torch.equal(a, b), name
    compared = slice(0, int(one.models.count.max()))
    assert torch.equal(one.models.wide[:, compared], two.models.wide[:, compared])
    for runs in (one, two):
        runs.run_to_(stopped + 1)
    assert torch.equal(one.replay.inputs[:, : stopped + 1], two.replay.inputs[:, : stopped + 1])


def test_a_buffer_that_has_wrapped_is_kept_whole(population, small):
    setting = Setting(**{**vars(small), "replay": 45})
    one, two = (population(ARMS, [3, 4, 5], setting) for _ in range(2))
    for step in (45, 46, 130):
        one.run_to_(step)
        state = one.state_dict()
        assert ("inputs" in state["parts"]["replay"]) == (step > 45)
        two.load_state_dict(state)
        assert torch.equal(one.replay.inputs, two.replay.inputs)
        assert torch.equal(one.models.wide, two.models.wide)


def test_checkpoints_grow_with_real_features_and_not_with_noise(population, small):
    setting = Setting(**{**vars(small), "shadows": 0})
    sizes, buffers = [], []
    for noise in (0.5, 0.98):
        runs = population([METHODS["pebble"]], [0], setting, noise)
        runs.run_to_(120)
        parts = runs.state_dict()["parts"]
        sizes.append(bytes_of(parts["replay"]))
        buffers.append(bytes_of(runs.replay.state_dict()))
    assert sizes[0] == sizes[1] and buffers[1] > 10 * buffers[0] > 10 * sizes[0]


SCRIPT = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
sys.path[:0] = sys.argv[3:]
from regrow.control import PointMass, train_from_preferences
from regrow.lab.run import Run
from tests.control.conftest import SMALL
sys.modules["regrow.control.train"]._LOOK_EVERY = 10
run = Run(Path(sys.argv[1]), save_every=0.0)
trained = train_from_preferences(
    PointMass([0, 1], episode=20, wall=1.2), method=["elimination", "surf"], setting=SMALL,
    noise=0.6, run=run,
)
torch.save(trained.state_dict(), sys.argv[2])
"""


@pytest.mark.long
def test_a_training_that_is_killed_again_and_again_ends_as_one_that_is_not(tmp_path, equal_states):
    """SIGKILL at any moment, also while a checkpoint is written."""
    folder, end = tmp_path / "run", tmp_path / "end.pt"
    folder.mkdir()
    command = [sys.executable, "-c", SCRIPT, str(folder), str(end), *sys.path]
    for wanted in (3, 6):
        before = (folder / "checkpoint.pt").stat().st_mtime_ns if any(folder.iterdir()) else 0
        process, saves = subprocess.Popen(command), 0
        found = folder / "checkpoint.pt"
        while process.poll() is None and saves < wanted:
            if found.exists() and (now := found.stat().st_mtime_ns) > before:
                before, saves = now, saves + 1
            time.sleep(0.0005)
        process.kill()
        process.wait()
    assert not end.exists()
    subprocess.run(command, check=True)
    whole = tmp_path / "whole"
    whole.mkdir()
    again = [*command[:3], str(whole), str(tmp_path / "other.pt"), *sys.path]
    subprocess.run(again, check=True)
    equal_states(*(torch.load(tmp_path / name) for name in ("end.pt", "other.pt")))
