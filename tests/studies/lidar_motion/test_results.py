"""What forecasts are worth: against numbers by hand; each table counts every target once."""

import numpy as np
import pytest

from regrow.motion.simulator import Sensor, World, simulate
from regrow.motion.simulator.controls import without_points
from regrow.studies.lidar_motion.results import errors_of, in_scene, results

SCENES = [simulate(seed, World(sensor=Sensor(beams=8, columns=200)))[0] for seed in (1, 2)]


def _found(scenes, off=0.0, seed=0):
    """Return six futures of each target, of which the second is off the truth by so much."""
    rng, rows = np.random.default_rng(seed), {}
    for number, scene in enumerate(scenes):
        state = scene.states[scene.targets].astype(float)
        now = state[:, scene.now]
        future = state[:, scene.now + 1 :]
        cos, sin = np.cos(now[:, 6]), np.sin(now[:, 6])
        turn = np.stack([cos, -sin, sin, cos], -1).reshape(-1, 2, 2)
        own = (future[..., :2] - now[:, None, :2]) @ turn
        paths = own[:, None] + rng.normal(0, 30, (len(own), 6, 1, 2))
        paths[:, 1] = own + np.array([off, 0])
        found = {
            "scene": np.full(len(own), number),
            "kind": scene.kinds[scene.targets],
            "paths": paths,
            "probabilities": np.tile([0.3, 0.2, 0.2, 0.1, 0.1, 0.1], (len(own), 1)),
            "future": np.concatenate([own, 0 * own], -1),
            "future_valid": np.ones(own.shape[:2], bool),
            "origin": now[:, [0, 1, 2, 6]],
        }
        for name, values in found.items():
            rows.setdefault(name, []).append(values)
    return {name: np.concatenate(values) for name, values in rows.items()}


def test_futures_in_the_scene_are_those_in_the_frame_of_the_target():
    found = _found(SCENES)
    there = in_scene(found["paths"], found["origin"])[:, 1]
    truth = np.concatenate([s.states[s.targets, s.now + 1 :, :2] for s in SCENES])
    np.testing.assert_allclose(there, truth, atol=1e-3)


def test_errors_are_those_by_hand():
    found = _found(SCENES, off=0.5)
    errors = errors_of(found)
    np.testing.assert_allclose(errors["min_ade"], 0.5, atol=1e-6)
    np.testing.assert_allclose(errors["min_fde"], 0.5, atol=1e-6)
    first = np.linalg.norm(found["paths"][:, 0] - found["future"][..., :2], axis=-1).mean(1)
    np.testing.assert_allclose(errors["ade_1"], first)


def test_steps_that_are_not_known_do_not_count():
    found = _found(SCENES, off=0.5)
    found["future"][:, 40:] = 1e6
    found["future_valid"][:, 40:] = False
    found["future_valid"][0] = False
    errors = errors_of(found)
    assert np.isnan([errors[name][0] for name in errors]).all()
    np.testing.assert_allclose(errors["min_ade"][1:], 0.5, atol=1e-6)
    np.testing.assert_allclose(errors["min_fde"][1:], 0.5, atol=1e-6)


def test_every_target_is_in_each_table_once():
    found = _found(SCENES)
    count = sum(len(scene.targets) for scene in SCENES)
    told = results(found, SCENES, [f"story {i % 3}" for i in range(count)])
    for group in ("by_kind", "by_range", "by_speed", "by_points", "by_story"):
        rows = told[group].values()
        assert sum(row["targets"] for row in rows) == count
        whole = sum(row["min_ade"] * row["targets"] for row in rows if row["targets"]) / count
        assert whole == pytest.approx(told["min_ade"])
    assert list(told["by_story"]) == ["story 0", "story 1", "story 2"]


def test_true_futures_have_no_errors_by_waymo_either():
    found = _found(SCENES)
    found["probabilities"][:, 1] = 0.9
    told = results(found, SCENES)
    assert told["waymo_min_ade"] < 1e-3
    assert told["waymo_miss_rate"] == 0
    assert told["waymo_map"] == pytest.approx(1)
    assert set(told["waymo"]) == {"vehicle", "pedestrian", "cyclist"}


def test_targets_without_points_are_told_apart():
    scenes = [SCENES[0], without_points(SCENES[1])]
    told = results(_found(scenes), scenes)["by_points"]
    unseen = (SCENES[0].points.counts.sum(1) == 0).sum()
    assert told["none"]["targets"] == len(SCENES[1].targets) + unseen
