"""What forecasts are worth: against numbers by hand; each table counts every target once."""

from dataclasses import replace

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


def _short(scene, steps, every=1.0):
    """Return a scene of fewer steps to come, each so many times as long."""
    end = scene.now + 1 + steps
    return replace(
        scene,
        times=scene.times[:end] * every,
        states=scene.states[:, :end],
        valid=scene.valid[:, :end],
    )


def test_a_scene_without_lidar_has_no_points_and_its_car_to_measure_from():
    """Nobody's points are missing where no LiDAR was: three words, not two."""
    bare = replace(SCENES[1], points=None)
    scenes = [SCENES[0], bare]
    told = results(_found(scenes), scenes)
    assert told["by_points"]["no LiDAR"]["targets"] == len(bare.targets)
    assert sum(row["targets"] for row in told["by_range"].values()) == told["targets"]
    assert "not known" not in told["by_range"]
    own = results(_found([bare]), [bare])
    assert "by_points" not in own
    assert own["by_range"].get("0 to 15", {"targets": 0})["targets"] == _near(bare)
    lost = replace(bare, ego=None)
    assert (
        list(results(_found([SCENES[0], lost]), [SCENES[0], lost])["by_range"])[-1] == "not known"
    )
    assert "by_range" not in results(_found([lost]), [lost])


def _near(scene):
    away = scene.states[scene.targets, scene.now, :2] - scene.states[scene.ego, scene.now, :2]
    return int((np.linalg.norm(away, axis=1) < 15).sum())


def test_the_outermost_bins_do_not_claim_an_end():
    states = SCENES[0].states.copy()
    states[SCENES[0].targets[0], :, 0] += 400  # metres
    states[SCENES[0].targets[1], SCENES[0].now, 7] = 90  # metres a second
    scene = replace(SCENES[0], states=states)
    told = results(_found([scene]), [scene])
    assert told["by_range"]["over 75"]["targets"] == 1
    assert list(told["by_range"])[-1] == "over 75"
    assert told["by_speed"]["over 40"]["targets"] == 1


def test_each_challenge_has_scenes_of_its_own_lengths():
    """Six seconds are Argoverse's, eight Waymo's; steps of 0.4 s are of neither."""
    six = [_short(scene, 60) for scene in SCENES]
    told = results(_found(six, off=1.5), six)
    assert told["argoverse"]["min_fde"] == pytest.approx(1.5)
    assert told["argoverse"]["min_ade"] == pytest.approx(1.5)
    assert told["argoverse"]["miss"] == 0
    assert told["argoverse"]["brier_min_fde"] == pytest.approx(1.5 + 0.8**2)
    assert "waymo" not in told
    whole = results(_found(SCENES), SCENES)
    assert "waymo" in whole
    assert "argoverse" not in whole
    seven = [_short(scene, 70) for scene in SCENES]
    for some in (seven, [six[0], SCENES[1]]):
        assert not {"waymo", "argoverse"} & set(results(_padded(some), some))
    for steps in (60, 80):
        slow = [_short(scene, steps, every=4.0) for scene in SCENES]
        assert not {"waymo", "argoverse"} & set(results(_found(slow), slow))


def _padded(scenes):
    """Return futures of 80 steps, of which some are not known."""
    parts = []
    for scene in scenes:
        found = _found([scene])
        lack = 80 - found["future"].shape[1]
        for name, axis in (("paths", 2), ("future", 1), ("future_valid", 1)):
            pads = [(0, lack if place == axis else 0) for place in range(found[name].ndim)]
            found[name] = np.pad(found[name], pads)
        parts.append(found)
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_futures_shorter_than_a_challenge_asks_are_not_measured_by_it():
    found = _found(SCENES)
    for name in ("future", "future_valid"):
        found[name] = found[name][:, :40]
    found["paths"] = found["paths"][:, :, :40]
    told = results(found, SCENES)
    assert "waymo" not in told
    assert told["min_ade"] == pytest.approx(0, abs=1e-6)
