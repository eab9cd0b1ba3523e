"""Rays meet the nearest surface: checked against small steps along each ray."""

import numpy as np
import pytest

from regrow.motion.simulator.bodies import LEFT, NO_ARM, RIGHT, car, cyclist, pedestrian
from regrow.motion.simulator.rays import Body, ground_hits, hits

STEP = 2e-3


def _rays(count, centre, spread, seed):
    ahead = centre / np.linalg.norm(centre) + np.random.default_rng(seed).normal(
        0, spread, (count, 3)
    )
    return ahead / np.linalg.norm(ahead, axis=1, keepdims=True)


def _stepped(directions, origin, body, frame, longest):
    """Walk along each ray until a point is inside of a part."""
    steps = np.arange(0, longest, STEP)
    found = np.full(len(directions), np.inf)
    for ray, direction in enumerate(directions):
        own = origin + steps[:, None] * direction - body.centres[frame][:, None]
        scaled = np.abs(np.einsum("pij,psj->psi", body.scalings[frame], own))
        inside = (scaled**2).sum(-1) <= 1 if body.round else (scaled <= 1).all(-1)
        if (met := inside.any(0)).any():
            found[ray] = steps[met.argmax()]
    return found


def _bodies():
    place, yaw = np.array([[6.0, 1.0, 0.0], [6.2, 1.0, 0.0]]), np.array([0.7, 2.9])
    yield pedestrian(place, yaw, yaw + 0.8, np.array([0.1, 0.3]), 1.05)
    for arm in (LEFT, NO_ARM, RIGHT):
        yield cyclist(place, yaw, yaw, arm)
    yield car(place, yaw, np.array([4.5, 1.9, 1.6]))


@pytest.mark.parametrize("number", range(5))
def test_rays_meet_the_nearest_surface(number):
    body, origin = list(_bodies())[number], np.array([0.3, -0.2, 2.0])
    centre = np.array([6.0, 1.0, 0.9]) - origin
    rays = _rays(150, centre, 0.1 if body.round else 0.3, number)
    for frame in (0, 1):
        found, oracle = hits(rays, origin, body, frame), _stepped(rays, origin, body, frame, 10)
        # A part that is grazed may lie between two steps: then only the oracle misses it.
        both = np.isfinite(oracle)
        assert both.sum() > 20
        assert (~both).sum() > 5
        assert np.isfinite(found[both]).all()
        near = np.abs(found[both] - oracle[both]) <= STEP
        assert near.mean() > 0.97
        assert (found[both] <= oracle[both] + 1e-9).all()
        assert np.isfinite(found[~both]).mean() < 0.1


def test_hits_lie_on_a_surface_of_the_body():
    for body in _bodies():
        rays = _rays(400, np.array([6.0, 1.0, -1.1]), 0.1, 0)
        distances = hits(rays, np.array([0, 0, 2.0]), body, 0)
        met = np.isfinite(distances)
        points = np.array([0, 0, 2.0]) + rays[met] * distances[met, None]
        scaled = np.einsum("pij,rpj->rpi", body.scalings[0], points[:, None] - body.centres[0])
        order = 2 if body.round else np.inf
        sizes = np.linalg.norm(scaled, ord=order, axis=-1)
        np.testing.assert_allclose(sizes.min(1), 1, atol=1e-9)  # on one, inside of none
        assert met.sum() > 50


def test_nothing_behind_the_sensor_is_met():
    ball = Body(np.array([[[-5.0, 0, 0]]]), np.eye(3)[None, None])
    ahead = np.array([[1.0, 0, 0]])
    assert np.isinf(hits(ahead, np.zeros(3), ball, 0))
    assert hits(-ahead, np.zeros(3), ball, 0) == 4
    cube = Body(ball.centres, ball.scalings, round=False)
    assert np.isinf(hits(ahead, np.zeros(3), cube, 0))
    assert hits(-ahead, np.zeros(3), cube, 0) == 4  # along two of its sides


def test_ground_is_met_from_above_only():
    down, level, up = np.array([0.6, 0, -0.8]), np.array([1.0, 0, 0]), np.array([0.6, 0, 0.8])
    assert ground_hits(np.stack([down, level, up]), 2.0).tolist() == [2.5, np.inf, np.inf]
