"""Bodies of road users: articulated pedestrians and cyclists of ellipsoids, cars of boxes."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.simulator.rays import Body

__all__ = ["LEFT", "NO_ARM", "RIGHT", "car", "cyclist", "pedestrian"]

Array = npt.NDArray[Any]

LEFT, NO_ARM, RIGHT = 0, 1, 2
"""What a cyclist's arms say."""

_SIDES = np.array([1.0, -1.0])  # left, right
_HIP, _THIGH, _SHANK = 0.93, 0.45, 0.43  # metres, as all below
_STRIDE = np.radians(24)  # how far a thigh swings forward
_STEP = 1.4  # walked in a whole cycle of both legs
_ELBOWS = 0.25  # radians: arms hang a little forward, for elbows are bent


def pedestrian(place: Array, yaw: Array, head: Array, walked: Array, scale: float = 1.0) -> Body:
    """Return a person on foot: torso, head with a face, legs of two segments, feet, arms.

    Args:
        place: float, (frames, 3): on the ground, under the middle of the body.
        yaw: float, (frames,): where the body faces, radians in the scene.
        head: float, (frames,): where the head faces, radians in the scene.
        walked: float, (frames,): metres walked, which move the limbs; none in all frames: stands.
        scale: of the whole body; 1 is 1.73 m tall.
    """
    turned, still = head - yaw, np.ptp(walked) == 0
    swing = np.zeros_like(yaw) if still else _STRIDE * np.sin(2 * np.pi * walked / _STEP)
    hips = _points(len(yaw), np.zeros(2), _SIDES * 0.1, np.full(2, _HIP))
    knees, ankles = _legs(hips, swing)
    shoulders = _points(len(yaw), np.zeros(2), _SIDES * 0.27, np.full(2, 1.40))
    hands = shoulders + _swung(0.58, _ELBOWS - 0.8 * swing[:, None] * _SIDES)
    blobs = [
        _blob(_at(yaw, 0, 0, 1.15), (0.13, 0.22, 0.33), np.zeros_like(yaw)),
        *_head(_at(yaw, 0, 0, 1.60), turned),
        *(_blob(ankles[:, i] + (0.06, 0, 0), (0.14, 0.05, 0.05), 0 * yaw) for i in (0, 1)),
    ]
    limbs = [
        *_pair(hips, knees, 0.085),
        *_pair(knees, ankles, 0.06),
        *_pair(shoulders, hands, 0.055),
    ]
    return _placed([*blobs, *limbs], place, yaw, scale)


def cyclist(place: Array, yaw: Array, pedalled: Array, arm: int, scale: float = 1.0) -> Body:
    """Return a person on a bicycle, who may hold an arm out to a side.

    Args:
        place: float, (frames, 3): on the ground, under the middle of the bicycle.
        yaw: float, (frames,): where it heads, radians in the scene.
        pedalled: float, (frames,): turns of the pedals, in radians.
        arm: ``LEFT``, ``RIGHT`` or ``NO_ARM``.
        scale: of the whole body; 1 is 1.73 m tall.
    """
    frames, none = len(yaw), np.zeros_like(yaw)
    hips = _points(frames, np.full(2, -0.18), _SIDES * 0.1, np.full(2, 0.98))
    turn = pedalled[:, None] + np.array([0, np.pi])
    feet = np.stack(
        [0.02 + 0.17 * np.cos(turn), _SIDES * 0.12 + 0 * turn, 0.30 + 0.17 * np.sin(turn)], -1
    )
    knees = _bent(hips, feet)
    shoulders = _points(frames, np.full(2, 0.14), _SIDES * 0.21, np.full(2, 1.36))
    grips = _points(frames, np.full(2, 0.48), _SIDES * 0.24, np.full(2, 1.02))
    held = [side for side in (0, 1) if arm != (LEFT, RIGHT)[side]]
    blobs = [
        _blob(_at(yaw, -0.01, 0, 1.18), (0.13, 0.21, 0.33), none, tilt=0.45),
        *_head(_at(yaw, 0.20, 0, 1.60), none),
        *(_blob(_at(yaw, x, 0, 0.34), (0.34, 0.03, 0.34), none) for x in (-0.52, 0.52)),
        _blob(_at(yaw, 0, 0, 0.62), (0.42, 0.03, 0.13), none),
        _blob(_at(yaw, 0.48, 0, 1.0), (0.03, 0.27, 0.03), none),
        *(_blob(feet[:, i] + (0.05, 0, -0.03), (0.13, 0.05, 0.05), none) for i in (0, 1)),
        *(
            _blob(_at(yaw, 0.10, 0.5 * _SIDES[i], 1.35), (0.05, 0.30, 0.05), none)
            for i in (0, 1)
            if i not in held
        ),
    ]
    arms = [_limb(shoulders[:, i], grips[:, i], 0.05) for i in held]
    legs = [*_pair(hips, knees, 0.08), *_pair(knees, feet, 0.055)]
    return _placed([*blobs, *arms, *legs], place, yaw, scale)


def car(place: Array, yaw: Array, size: Array) -> Body:
    """Return a car: a box as long and wide as it is, and a cabin on top.

    Args:
        place: float, (frames, 3): on the ground, under its middle.
        yaw: float, (frames,): where it heads, radians.
        size: float, (3,): length, width, height in metres.
    """
    length, width, height = size
    halves = np.array(
        [(length / 2, width / 2, height * 0.3), (length * 0.28, width * 0.44, height * 0.2)]
    )
    centres = np.array([(0, 0, height * 0.3), (-0.05 * length, 0, height * 0.8)])
    parts = [
        (np.tile(centre, (len(yaw), 1)), np.tile(np.diag(1 / half), (len(yaw), 1, 1)))
        for centre, half in zip(centres, halves, strict=True)
    ]
    body = _placed(parts, place, yaw, 1.0)
    return Body(body.centres, body.scalings, round=False)


# ---------------------------------------------------------------------- parts

Part = tuple[Array, Array]
"""A part's centre, (frames, 3), and scaling, (frames, 3, 3), in the body's frame: x forward."""


def _placed(parts: list[Part], place: Array, yaw: Array, scale: float) -> Body:
    turn = _about_z(yaw)
    centres = np.stack([centre for centre, _ in parts], 1) * scale
    scalings = np.stack([scaling for _, scaling in parts], 1) / scale
    return Body(
        np.einsum("fij,fpj->fpi", turn, centres) + place[:, None],
        np.einsum("fpij,fkj->fpik", scalings, turn),
    )


def _blob(
    centre: Array, halves: tuple[float, float, float], turned: Array, tilt: float = 0
) -> Part:
    """Return an ellipsoid turned about z after it was tilted forward."""
    lean = np.array([(np.cos(tilt), 0, np.sin(tilt)), (0, 1, 0), (-np.sin(tilt), 0, np.cos(tilt))])
    turns = _about_z(turned) @ lean
    return centre, np.swapaxes(turns, 1, 2) / np.array(halves)[:, None]


def _limb(start: Array, end: Array, radius: float) -> Part:
    """Return an ellipsoid of revolution from one joint to another, a little beyond both."""
    length = np.linalg.norm(end - start, axis=-1)
    axis = (end - start) / length[:, None]
    half = length / 2 + radius * 0.6
    outer = axis[:, :, None] * axis[:, None, :]
    return (start + end) / 2, np.eye(3) / radius + outer * (1 / half - 1 / radius)[:, None, None]


def _pair(starts: Array, ends: Array, radius: float) -> list[Part]:
    return [_limb(starts[:, i], ends[:, i], radius) for i in (0, 1)]


def _head(centre: Array, turned: Array) -> list[Part]:
    """Return a head, deeper than wide, and the bump of its face."""
    face = np.stack([np.cos(turned) * 0.10, np.sin(turned) * 0.10, 0 * turned - 0.03], -1)
    return [
        _blob(centre, (0.11, 0.085, 0.125), turned),
        _blob(centre + face, (0.04, 0.035, 0.05), turned),
    ]


def _legs(hips: Array, swing: Array) -> tuple[Array, Array]:
    """Return knees and ankles; the leg that swings forward is bent."""
    thigh = swing[:, None] * _SIDES
    bend = np.abs(swing)[:, None] * (0.5 - 0.5 * _SIDES * np.sign(swing)[:, None]) * 0.8
    knees = hips + _swung(_THIGH, thigh)
    return knees, knees + _swung(_SHANK, thigh - bend)


def _swung(length: float, angle: Array) -> Array:
    """Return a limb of a length that hangs down, swung forward by an angle, (frames, 2, 3)."""
    return np.asarray(length * np.stack([np.sin(angle), 0 * angle, -np.cos(angle)], -1))


def _bent(hips: Array, feet: Array) -> Array:
    """Return knees: in front of the middle between hip and foot, as far as the leg is long."""
    between = feet - hips
    reach = np.linalg.norm(between, axis=-1, keepdims=True)
    out = np.sqrt(np.maximum(0.44**2 - (reach / 2) ** 2, 0.01))
    ahead = np.stack([-between[..., 2], 0 * between[..., 0], between[..., 0]], -1)
    ahead *= out / np.linalg.norm(ahead, axis=-1, keepdims=True)
    return np.asarray((hips + feet) / 2 + ahead)


def _points(frames: int, x: Array, y: Array, z: Array) -> Array:
    return np.tile(np.stack([x, y, z], -1), (frames, 1, 1))


def _at(yaw: Array, x: float, y: float, z: float) -> Array:
    return np.tile(np.array([x, y, z]), (len(yaw), 1))


def _about_z(angle: Array) -> Array:
    cos, sin, none = np.cos(angle), np.sin(angle), np.zeros_like(angle)
    rows = [cos, -sin, none, sin, cos, none, none, none, none + 1]
    return np.stack(rows, -1).reshape(*angle.shape, 3, 3)
