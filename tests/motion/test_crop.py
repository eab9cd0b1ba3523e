"""Points cut out by boxes against points that were put into them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.motion.crop import MARGIN, Sweep, crop
from tests.motion.curves import scene_of
from tests.motion.lasers import pose_of, turn_of

SENSOR = np.array([1.4, 0.0, 2.1])


def sweep_of(world, pose, features=None):
    """Return a sweep that sees points of the scene from a vehicle."""
    own = (world - pose[:3, 3]) @ pose[:3, :3]
    distance = np.linalg.norm(own - SENSOR, axis=1)
    rest = np.zeros((len(own), 2)) if features is None else features
    return Sweep(np.concatenate([own, distance[:, None], rest], axis=1), pose, SENSOR)


def flat_pose(step):
    return pose_of((0, 0, 0.3 + 0.1 * step), (5.0 + step, -4.0, 0.1))


def corners(state, share):
    """Return points in a box at a share of its half sizes, LiMTR's margin included."""
    signs = np.stack(np.meshgrid(*[[-1, 1]] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    local = signs * (state[3:6] / 2 + 0.15) * share
    return local @ turn_of(0, 0, state[6]).T + state[:3]


def sweeps_at(scene, share):
    return [
        sweep_of(
            np.concatenate([corners(scene.states[agent, step], share) for agent in scene.targets]),
            flat_pose(step),
        )
        for step in range(scene.now + 1)
    ]


def spread(seed=0, targets=2):
    """Return a scene whose agents are far from one another."""
    scene = scene_of(seed, kinds=(1, 2, 3), targets=targets)
    states = scene.states + np.arange(3)[:, None, None] * np.eye(9)[0] * 500
    return replace(scene, states=np.where(scene.valid[..., None], states, 0.0))


@pytest.mark.parametrize(("share", "there"), [(0.999, 8), (1.001, 0)])
def test_the_box_ends_at_its_sides_and_the_margin(share, there):
    scene = spread()
    points = crop(sweeps_at(scene, share), scene)
    wanted = np.where(scene.valid[scene.targets, : scene.now + 1], there, 0)
    np.testing.assert_array_equal(points.counts, wanted)


def test_offsets_are_from_the_centre_along_the_axes_of_the_scene():
    scene = spread()
    points = crop(sweeps_at(scene, 0.9), scene)
    for target, agent in enumerate(scene.targets):
        for step in np.flatnonzero(scene.valid[agent, : scene.now + 1]):
            state = scene.states[agent, step]
            wanted = corners(state, 0.9) - state[:3]
            np.testing.assert_allclose(points.of(target, step)[:, :3], wanted, atol=1e-4)
    poses = [flat_pose(step) for step in range(scene.now + 1)]
    wanted = [pose[:3, :3] @ SENSOR + pose[:3, 3] for pose in poses]
    np.testing.assert_allclose(points.sensor, wanted)


@given(st.integers(0, 99), st.floats(-3, 3), st.floats(-0.1, 0.1))
def test_a_crop_is_what_a_loop_over_points_finds(seed, yaw, pitch):
    """Boxes are upright in the vehicle, which may lean."""
    rng = np.random.default_rng(seed)
    scene = spread(seed, targets=1)
    pose = pose_of((0.0, pitch, yaw), rng.random(3) * 20)
    features = rng.random((300, 2)).astype(np.float32).astype(float)
    sweeps = []
    for step in range(scene.now + 1):
        world = scene.states[0, step, :3] + (rng.random((300, 3)) - 0.5) * 8
        sweeps.append(sweep_of(world, pose, features))
    points = crop(sweeps, scene)
    for step, sweep in enumerate(sweeps):
        state = scene.states[0, step]
        centre = np.linalg.inv(pose) @ [*state[:3], 1]
        heading = state[6] - np.arctan2(pose[1, 0], pose[0, 0])
        turn = turn_of(0, 0, -heading)
        kept = [
            place
            for place, point in enumerate(sweep.points)
            if scene.valid[0, step]
            and (np.abs(turn @ (point[:3] - centre[:3])) <= state[3:6] / 2 + MARGIN).all()
        ]
        np.testing.assert_allclose(points.of(0, step)[:, 3:], sweep.points[kept, 3:], rtol=1e-6)


def test_a_frame_without_a_sweep_has_no_points_and_a_known_sensor():
    scene = spread()
    whole = sweeps_at(scene, 0.9)
    absent = [None if step in (0, 4) else sweep for step, sweep in enumerate(whole)]
    points, all_points = crop(absent, scene), crop(whole, scene)
    assert (points.counts[:, [0, 4]] == 0).all()
    kept = [step for step in range(scene.now + 1) if step not in (0, 4)]
    np.testing.assert_array_equal(points.counts[:, kept], all_points.counts[:, kept])
    np.testing.assert_array_equal(points.sensor[[0, 4]], all_points.sensor[[1, 3]])
    assert crop([None] * (scene.now + 1), scene) is None


@pytest.mark.parametrize("count", [0, 1, 20_000])
def test_no_points_and_very_many(count):
    scene = spread()
    sweeps = [
        sweep_of(np.repeat(scene.states[0, [step], :3], count, axis=0), flat_pose(step))
        for step in range(scene.now + 1)
    ]
    points = crop(sweeps, scene)
    assert points.counts[0].tolist() == (scene.valid[0, : scene.now + 1] * count).tolist()
    few = crop(sweeps, scene, most=50)
    assert few.counts[0].tolist() == (scene.valid[0, : scene.now + 1] * min(count, 50)).tolist()


def test_a_choice_of_points_is_the_same_for_the_same_seed_and_not_by_place():
    scene = spread()
    rng = np.random.default_rng(0)
    states = scene.states[0]
    sweeps = [
        sweep_of(states[step, :3] + (rng.random((500, 3)) - 0.5) * 0.5, flat_pose(step))
        for step in range(scene.now + 1)
    ]
    one, same, other = (crop(sweeps, scene, most=50, seed=seed).values for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)


def test_a_scene_without_targets_and_one_with_too_few_frames():
    scene = spread()
    none = replace(scene, targets=np.zeros(0, np.int64))
    assert crop(sweeps_at(scene, 0.9), none).counts.shape == (0, scene.now + 1)
    with pytest.raises(ValueError, match="has 3 LiDAR frames; must be 11"):
        crop(sweeps_at(scene, 0.9)[:3], scene)
