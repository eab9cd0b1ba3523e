"""Real tracks with made-up bodies: what they show, what they must not know."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from regrow.motion.formats.pedestrians import read_pedestrians
from regrow.motion.scene import KINDS, Scene
from regrow.motion.simulator.embody import embody


def _scene(kinds=(2, 2, 3, 1), steps=20, now=7):
    states = np.zeros((len(kinds), steps, 9))
    size = {2: (0.6, 0.6, 1.75), 3: (1.8, 0.7, 1.75), 1: (4.5, 1.9, 1.6)}
    for agent, kind in enumerate(kinds):
        heading = 0.7 * agent
        way = np.array([np.cos(heading), np.sin(heading)])
        states[agent, :, :2] = 5 * agent * np.array([0, 1]) + 0.5 * np.arange(steps)[:, None] * way
        states[agent, :, 2:7] = (size[kind][2] / 2, *size[kind], heading)
        states[agent, :, 7:] = way * 1.25
    valid = np.ones((len(kinds), steps), bool)
    targets = np.arange(len(kinds))
    times = np.arange(steps) * 0.4
    return Scene("made", times, now, targets + 7, np.array(kinds), states, valid, targets)


def test_every_kind_is_seen_in_every_frame():
    seen = embody(_scene())
    assert seen.points.counts.shape == (4, 8)
    assert seen.points.counts.min() > 10
    assert np.array_equal(seen.states, _scene().states)


def test_one_seed_gives_the_same_points_and_another_does_not():
    one, again, other = (embody(_scene(), seed=seed).points for seed in (3, 3, 4))
    assert np.array_equal(one.values, again.values)
    assert not np.array_equal(one.sensor, other.sensor)


def test_points_know_nothing_of_what_comes():
    scene = _scene()
    states = scene.states.copy()
    states[:, scene.now + 1 :] = states[:, scene.now + 1 :, ::-1]
    changed = replace(scene, states=states)
    assert np.array_equal(embody(scene).points.values, embody(changed).points.values)


def test_who_is_not_there_in_a_frame_has_no_points_in_it():
    scene = _scene()
    valid = scene.valid.copy()
    valid[1, :3] = False
    states = np.where(valid[..., None], scene.states, 0)
    counts = embody(replace(scene, valid=valid, states=states)).points.counts
    assert counts[1, :3].tolist() == [0, 0, 0]
    assert counts[1, 3:].min() > 0


def test_a_scene_on_a_hill_has_the_points_of_one_on_the_plain():
    scene = _scene()
    states = scene.states.copy()
    states[..., 2] += 40
    high, low = embody(replace(scene, states=states)).points, embody(scene).points
    np.testing.assert_allclose(high.values, low.values, atol=1e-9)
    np.testing.assert_allclose(high.sensor, low.sensor + np.array([0, 0, 40]))


def test_the_sensor_is_as_far_as_told():
    scene = _scene((2,))
    for seed in range(5):
        points = embody(scene, seed=seed, near=10, far=12).points
        away = points.sensor[-1, :2] - scene.states[0, scene.now, :2]
        assert 10 <= np.linalg.norm(away) <= 12


def test_the_sensors_own_car_is_not_in_its_way():
    scene = replace(_scene(), ego=3, targets=np.arange(3))
    assert embody(scene, near=8, far=9).points.counts.min() > 0


@pytest.mark.parametrize(
    ("options", "said"), [({"seed": -1}, "seed=-1"), ({"near": 40.0}, "near=40.0")]
)
def test_arguments_out_of_bounds_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        embody(_scene(), **options)


def test_a_scene_without_targets_is_refused():
    with pytest.raises(ValueError, match="made: has no target"):
        embody(replace(_scene(), targets=np.zeros(0, int)))


DATA = Path(os.environ.get("REGROW_DATA", "none"))
REAL = [DATA / "eth-ucy" / "crowds_zara01.txt", DATA / "ucy" / "zara01" / "obsmat.txt"]


@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_a_real_crowd_is_seen(path):
    if not path.is_file():
        pytest.skip(f"{path} is not there: set REGROW_DATA to a folder with eth-ucy and ucy")
    scenes = list(read_pedestrians(path, every=100))
    for scene in scenes[:4]:
        seen = embody(scene)
        assert set(scene.kinds.tolist()) == {KINDS.index("pedestrian")}
        assert (seen.points.counts[:, -1] > 5).mean() > 0.5  # others may be in the way
