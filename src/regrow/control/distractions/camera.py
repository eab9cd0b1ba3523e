"""A camera that wanders on a sphere around the agent, and rolls."""

from __future__ import annotations

import numpy as np

from regrow.control.distractions.scenes import Scene
from regrow.control.environments.base import Floats

__all__ = ["Camera"]

_RADIUS = 4.0  # of most cameras; those nearer move more slowly


class Camera:
    """Where the camera of an episode is at each control step.

    Its place is a point on a sphere, by radius, angle around the upright axis, and angle to it. It
    begins anywhere within ±90°·scale of where it was, 0.5·scale nearer to 1.5·scale farther, above
    the floor and in front, and upright but for its roll; its velocity walks at random. It always
    looks at where it looked. A reacher, which is seen from above, has no floor, front and upright.

    Args:
        scene: of which an episode has just begun.
        scale: how far it goes, 0..1.
        frames: control steps of the episode; 0: it stands still.
        random: draws.

    Source: Stone et al. 2021 (arXiv 2101.02722), section 3, and the constants of its code.
    """

    def __init__(
        self, scene: Scene, scale: float, frames: int, random: np.random.Generator
    ) -> None:
        self._data, self._number = scene.data, scene.camera
        place = scene.data.cam_xpos[self._number].copy()
        view = -scene.data.cam_xmat[self._number].reshape(3, 3)[:, 2]
        agent = scene.data.subtree_com[1]
        self._follows = bool(scene.model.cam_mode[self._number])
        self._target = place + np.linalg.norm(place - agent) * view
        if self._follows:
            self._target, place = self._target - agent, place - agent
        self._upright = scene.domain != "reacher"
        bounds = _bounds(_as_sphere(place), scale, upright=self._upright)
        self._places, self._rolls = _wander(place, bounds, scale, frames, random)

    def place(self, now: int) -> None:
        """Put the camera where it is at a control step of the episode."""
        now = min(now, len(self._places) - 1)
        middle = self._data.subtree_com[1] if self._follows else np.zeros(3)
        place = _on_sphere(self._places[now])
        self._data.cam_xpos[self._number] = middle + place
        look = _looking if self._upright else _turned_least
        turned = look(self._target - place) @ _roll(self._rolls[now])
        self._data.cam_xmat[self._number] = turned.ravel()


def _bounds(start: Floats, scale: float, *, upright: bool) -> tuple[Floats, Floats]:
    """Return the lowest and highest radius and angles."""
    reach = np.pi / 2 * scale
    low = np.array([start[0] * (1 - 0.5 * scale), start[1] - reach, start[2] - reach])
    high = np.array([start[0] * (1 + 1.5 * scale), start[1] + reach, start[2] + reach])
    if upright:
        low, high = np.maximum(low, [0, -np.pi, 0]), np.minimum(high, [np.inf, 0, np.pi / 2])
    return np.minimum(low, high), high


def _wander(
    place: Floats,
    bounds: tuple[Floats, Floats],
    scale: float,
    frames: int,
    random: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Return points on the sphere, (frames + 1, 3), and rolls, (frames + 1,), in radians."""
    low, high = bounds
    reach = np.pi / 2 * scale
    at, roll = random.uniform(low, high), random.uniform(-reach, reach)
    fastest = 0.4 * scale if frames else 0.0
    way = random.standard_normal(3)
    speed = way / np.linalg.norm(way) * random.uniform(0, fastest)
    spin = random.uniform(-1, 1) * np.pi / 50 * scale
    slower = float(np.linalg.norm(place)) / _RADIUS
    places, rolls = np.empty((frames + 1, 3)), np.empty(frames + 1)
    for frame in range(frames + 1):
        if frames:
            speed = speed + random.standard_normal(3) * 0.1 * scale * slower
            speed = speed * min(1.0, fastest * slower / float(np.linalg.norm(speed)))
            before = _on_sphere(at)
            at = np.clip(_as_sphere(before + speed), low, high)
            speed = _on_sphere(at) - before
            spin = np.clip(spin + random.standard_normal() * np.pi / 300 * scale, *_SPIN * scale)
            new = np.clip(roll + spin, -reach, reach)
            spin, roll = new - roll, new
        places[frame], rolls[frame] = at, roll
    return places, rolls


_SPIN = np.array([-np.pi / 50, np.pi / 50])


def _as_sphere(place: Floats) -> Floats:
    x, y, z = place
    return np.array([np.linalg.norm(place), np.arctan2(y, x), np.arctan2(np.hypot(x, y), z)])


def _on_sphere(at: Floats) -> Floats:
    radius, around, down = at
    flat = np.sin(down)
    way = [flat * np.cos(around), flat * np.sin(around), np.cos(down)]
    place: Floats = np.multiply(way, radius)
    return place


def _looking(way: Floats) -> Floats:
    """Return the rotation of an upright camera that looks along a way; it looks along its −z."""
    forward = way / np.linalg.norm(way)
    right = np.array([forward[1], -forward[0], 0.0])
    length = np.linalg.norm(right)
    right = right / length if length > 1e-9 else np.array([1.0, 0.0, 0.0])
    return np.stack([right, np.cross(right, forward), -forward], 1)


def _turned_least(way: Floats) -> Floats:
    """Return the least rotation of a camera that looks down, after which it looks along a way."""
    down, forward = np.array([0.0, 0.0, -1.0]), way / np.linalg.norm(way)
    axis, cosine = np.cross(down, forward), float(down @ forward)
    across = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    turn: Floats = np.eye(3) + across + across @ across / max(1 + cosine, 1e-9)
    return turn


def _roll(angle: float) -> Floats:
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
