"""Bodies: where they face, how they move, what they tell."""

import numpy as np
import pytest

from regrow.motion.simulator.bodies import LEFT, NO_ARM, RIGHT, car, cyclist, pedestrian

YAW = np.array([0.0, 1.2, -2.0])
PLACE = np.array([[3.0, 1.0, 0.0], [5.0, -2.0, 0.0], [0.0, 0.0, 0.0]])


def _corners(body):
    """Return extreme points of all parts along the axes of the scene, (frames, parts, 3) each."""
    spread = np.linalg.inv(body.scalings)
    reach = np.linalg.norm(spread, axis=-1) if body.round else np.abs(spread).sum(-1)
    return body.centres - reach, body.centres + reach


def _own(body, frame):
    """Return the centres of parts as the body itself has them: x forward."""
    cos, sin = np.cos(YAW[frame]), np.sin(YAW[frame])
    away = body.centres[frame] - PLACE[frame]
    return np.stack(
        [away[:, 0] * cos + away[:, 1] * sin, away[:, 1] * cos - away[:, 0] * sin, away[:, 2]], -1
    )


def _each():
    walked = np.array([0.0, 0.35, 1.05])
    return [
        pedestrian(PLACE, YAW, YAW + 0.5, walked),
        cyclist(PLACE, YAW, walked, LEFT),
        car(PLACE, YAW, np.array([4.6, 1.9, 1.6])),
    ]


@pytest.mark.parametrize("number", range(3))
def test_bodies_stand_on_the_ground_and_are_as_tall_as_told(number):
    low, high = _corners(_each()[number])
    assert (low[..., 2].min(1) > -0.02).all()
    assert (low[..., 2].min(1) < 0.12).all()  # a leg that swings is off the ground
    assert (np.abs(high[..., 2].max(1) - (1.73, 1.73, 1.6)[number]) < 0.05).all()


def test_a_larger_person_is_larger_all_over():
    none = np.zeros(3)
    small, large = (pedestrian(PLACE, YAW, YAW, none, scale) for scale in (1.0, 1.1))
    np.testing.assert_allclose(
        large.centres - PLACE[:, None], 1.1 * (small.centres - PLACE[:, None])
    )
    np.testing.assert_allclose(large.scalings * 1.1, small.scalings)


def test_only_the_head_moves_with_the_head():
    one, other = (pedestrian(PLACE, YAW, YAW + turn, np.zeros(3)) for turn in (-1.0, 1.0))
    moved = np.abs(one.centres - other.centres).max((0, 2)) > 0
    turned = np.abs(one.scalings - other.scalings).max((0, 2, 3)) > 1e-9
    assert moved.sum() == 1  # the bump of the face
    assert turned.sum() == 2  # and the head that it is on


def test_limbs_stand_still_until_one_walks():
    still = pedestrian(PLACE, YAW * 0, YAW * 0, np.full(3, 0.7))
    walking = pedestrian(PLACE, YAW * 0, YAW * 0, np.array([0.0, 0.35, 1.05]))
    away = still.centres - PLACE[:, None]
    np.testing.assert_allclose(away - away[:1], 0, atol=1e-12)
    moving = np.ptp(walking.centres - PLACE[:, None], axis=0).max(-1) > 0.01
    assert moving.sum() == 8  # thighs, shanks, feet, arms


@pytest.mark.parametrize(("arm", "side"), [(LEFT, 1), (RIGHT, -1)])
def test_the_arm_that_signals_is_held_out_to_its_side(arm, side):
    signal, none = (cyclist(PLACE, YAW, np.zeros(3), a) for a in (arm, NO_ARM))
    for frame in range(3):
        assert np.abs(_own(none, frame)[:, 1]).max() < 0.35
        assert (_own(signal, frame)[:, 1] * side).max() == pytest.approx(0.5)
        assert (_own(signal, frame)[:, 1] * -side).max() < 0.35
    assert signal.centres.shape == none.centres.shape  # two arms, either way


def test_left_and_right_signals_are_mirror_images():
    pedals = np.zeros(3)
    left, right = (cyclist(PLACE, YAW, pedals, arm) for arm in (LEFT, RIGHT))
    mirror = np.array([1.0, -1.0, 1.0])
    out = [max(_own(body, 0).tolist(), key=lambda c: abs(c[1])) for body in (left, right)]
    np.testing.assert_allclose(np.array(out[0]) * mirror, out[1])
