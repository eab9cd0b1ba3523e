"""The trial: which scenes it takes, what a control changes, that it goes on and repeats itself."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest

import regrow
from regrow.lab.run import Run
from regrow.motion.datasets import CachedScenes
from regrow.motion.shards import SUFFIX, write_shard
from regrow.motion.simulator import simulate, stored
from regrow.motion.simulator.stored import truths_of
from regrow.studies.lidar_motion import predict
from regrow.studies.lidar_motion.predict import Predict, keep_all
from regrow.studies.lidar_motion.scenes import CROWDS, cached_scenes

TRIAL = Predict(
    seed=0,
    method=regrow.Dense(),
    size="tiny",
    epochs=1,
    batch=4,
    scenes_learnt=6,
    scenes_tested=4,
    polylines=32,
    lidar="temporal",
    lidar_frames=2,
    lidar_points=16,
)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


def _run(trial, folder, data):
    folder.mkdir(parents=True)
    return trial.run(Run(folder, {"data_dir": str(data), "device": "cpu"}))


def _scenes(data, **fields):
    trial = dataclasses.replace(TRIAL, **fields)
    return trial.scenes(Run(Path(), {"data_dir": str(data)}, writes=False))


def test_tests_are_on_other_scenes_and_all_trials_have_the_same(data):
    found = _scenes(data)
    learnt, tested = ({scene.name for scene in part} for part in (found.training, found.test))
    assert len(learnt) == 6
    assert len(tested) == 4
    assert not learnt & tested
    fewer = _scenes(data, scenes_learnt=2, lidar="none", seed=5)
    assert {scene.name for scene in fewer.test} == tested


@pytest.mark.parametrize("control", ["zeroed", "shuffled"])
def test_a_control_changes_points_in_training_and_test_alone(data, control):
    plain, changed = _scenes(data), _scenes(data, control=control)
    for part in ("training", "test"):
        for one, other in zip(getattr(plain, part), getattr(changed, part), strict=True):
            assert np.array_equal(one.states, other.states)
            assert np.array_equal(one.line_points, other.line_points)
            assert not np.array_equal(one.points.counts, other.points.counts)
            assert (control == "shuffled") == bool(other.points.counts.sum())


def test_one_trial_is_one_result(data, tmp_path):
    one, again = (_run(TRIAL, tmp_path / name, data) for name in "ab")
    assert one["min_ade"] == again["min_ade"]
    assert one["waymo_map"] == again["waymo_map"]
    other = _run(dataclasses.replace(TRIAL, seed=1), tmp_path / "c", data)
    assert other["min_ade"] != one["min_ade"]


def test_a_sparse_encoder_keeps_a_tenth_of_its_weights(data, tmp_path):
    method = regrow.RigL(density=0.1, update_every=1)
    trial = dataclasses.replace(
        TRIAL,
        lidar="pointnet-linear",
        lidar_layers=1,
        method=method,
        include=("lidar.encoder.*",),
    )
    result = _run(trial, tmp_path / "a", data)
    assert result["density"] == pytest.approx(0.1, abs=0.001)
    assert result["nonzeros"] < 0.2 * result["parameters"]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"data": "waymo"}, "data='waymo'"),
        ({"control": "none of it"}, "control='none of it'"),
        ({"scenes_learnt": 1}, "scenes_learnt=1"),
        ({"far": 10.0}, "far=10.0"),
        ({"reliability": 2.0}, "reliability=2.0"),
        ({"lidar": "camera"}, "lidar='camera'"),
    ],
)
def test_a_trial_that_cannot_be_is_refused(fields, said):
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(TRIAL, **fields)


def test_crowds_are_learnt_from_with_bodies_that_follow_them(tmp_path):
    root = Path(os.environ.get("REGROW_DATA", "none"))
    names = [name for part in CROWDS.values() for name in part]
    if not all((root / "eth-ucy" / f"{name}.txt").is_file() for name in names):
        pytest.skip("needs $REGROW_DATA with eth-ucy")
    trial = dataclasses.replace(TRIAL, data="crowds", past=8, future=12)
    result = _run(trial, tmp_path / "a", root)
    assert result["targets"] > 4
    assert result["min_ade"] < 20
    assert "waymo_map" not in result  # which asks for eight seconds at 10 Hz
    assert result["by_points"]["some"]["targets"] > 0


def test_scenes_of_all_trials_are_made_before_the_first(tmp_path, monkeypatch):
    """Each lot once, whatever trials share it; then no trial makes any."""
    options, said = {"data_dir": str(tmp_path), "device": "cpu"}, []
    monkeypatch.setattr(predict, "_TOLD", 3)
    other = dataclasses.replace(TRIAL, reliability=0.0)
    trials = [TRIAL, dataclasses.replace(TRIAL, seed=1), other]
    keep_all(trials, options, said.append)
    assert said == ["20 scenes are made, as far as they lack", "3 files of scenes are made"]
    lots = {lot for trial in trials for lot in trial.lots(str(tmp_path))}
    assert len(lots) == 4
    monkeypatch.setattr(stored, "_make", None)  # nothing can be made any more
    for trial in trials:
        found = trial.scenes(Run(tmp_path, options, writes=False))
        assert (len(found.training), len(found.test)) == (6, 4)
    cue = [[t.cue for truths in truths_of(CachedScenes(one.lots(str(tmp_path))[0].folder))
            for t in truths] for one in (TRIAL, other)]  # fmt: skip
    assert cue[0] != cue[1]


@pytest.mark.parametrize("control", ["zeroed", "shuffled"])
def test_a_control_leaves_scenes_without_lidar_as_they_are(control, tmp_path):
    """As in Argoverse's logs, of which some have sweeps."""
    seen = [simulate(seed)[0] for seed in range(4)]
    scenes = [seen[0], dataclasses.replace(seen[1], points=None), seen[2], seen[3]]
    write_shard(tmp_path / f"some{SUFFIX}", scenes, {"prepared": {"lidar": 3}})
    changed = cached_scenes(tmp_path, 4, control)
    assert changed[1].points is None
    totals = [changed[place].points.counts.sum() for place in (0, 2, 3)]
    donors = [seen[2], seen[0], None]  # half of the way round; the third's has no LiDAR
    for total, donor in zip(totals, donors, strict=True):
        assert (total > 0) == (control == "shuffled" and donor is not None)
