"""What people are shown of a clip: drawings of lines, made from the real features of a task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from regrow.control.environments.base import Floats
from regrow.control.environments.models import suite_model
from regrow.engine.checks import check_choice

__all__ = ["DRAWN", "Clip", "Drawing", "drawing_of"]


@dataclass(frozen=True)
class Clip:
    """A film of lines.

    Args:
        box: what is seen: left, bottom, right, top; y grows upward.
        rate: frames a second.
        frames: each a list of lines, each [style, x, y, x, y, ...]. Styles: 0 the ground, 1 the
            body, 2 a limb in front, 3 a limb behind, 4 a goal.
    """

    box: tuple[float, float, float, float]
    rate: float
    frames: list[list[list[float]]]


Drawing = Callable[[Floats, int], Clip]
"""Draws observations without noise, (segment, d), of steps of so many control steps."""


def drawing_of(task: str) -> Drawing:
    """Return what draws clips of a task.

    Raises:
        ValueError: there is none for it.
        ImportError: mujoco or dm_control is missing, whose models say how long limbs are.

    Example:
        >>> clip = drawing_of("point-mass")(np.zeros((3, 4)), 1)
        >>> len(clip.frames), clip.box
        (3, (-1.5, -1.5, 1.5, 1.5))
    """
    check_choice(task, tuple(DRAWN), "task")
    return DRAWN[task]()


def _point_mass() -> Drawing:
    circle = np.linspace(0, 2 * np.pi, 17)
    ring = 0.06 * np.stack([np.cos(circle), np.sin(circle)], 1)
    square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]])

    def draw(seen: Floats, repeat: int) -> Clip:
        frames = [
            [_line(0, square), _line(4, 1.5 * ring), _line(1, ring + place)]
            for place in seen[:, :2]
        ]
        return Clip((-1.5, -1.5, 1.5, 1.5), 10, frames)

    return draw


def _cartpole() -> Drawing:
    cart = np.array([[-0.2, -0.1], [0.2, -0.1], [0.2, 0.1], [-0.2, 0.1], [-0.2, -0.1]])
    rail = np.array([[-1.8, 0.0], [1.8, 0.0]])

    def draw(seen: Floats, repeat: int) -> Clip:
        frames = []
        for x, cosine, sine in seen[:, :3]:
            pole = np.array([[x, 0.0], [x + sine, cosine]])
            frames.append([_line(0, rail), _line(1, cart + np.array([x, 0.0])), _line(2, pole)])
        return Clip((-2.9, -1.3, 2.9, 1.3), 1 / (0.01 * repeat), frames)

    return draw


class _Planar:
    """Draws the capsules of a planar model from the angles of its bodies.

    Args:
        domain: of the suite's model.
        frame: seconds of a control step.
        behind: the first letter of the limbs that are drawn as lying behind.
    """

    def __init__(self, domain: str, frame: float, behind: str) -> None:
        self.model = suite_model(domain)
        self.domain, self.frame, self.behind = domain, frame, behind

    def __call__(self, seen: Floats, repeat: int) -> Clip:
        seconds = self.frame * repeat
        walker = self.domain == "walker"
        speed = seen[:, 16] if walker else seen[:, 8]
        x = np.concatenate([[0.0], np.cumsum(speed[1:] * seconds)])
        frames = [
            self._frame(row, at, *(_walker(row) if walker else self._cheetah(row)))
            for row, at in zip(seen, x, strict=True)
        ]
        return Clip((-1.6, -0.3, 1.6, 2.1), 1 / seconds, frames)

    def _cheetah(self, row: Floats) -> tuple[float, Floats]:
        """Return the torso's height and the angle of each body."""
        model, angles = self.model, np.zeros(self.model.nbody)
        turns = dict(zip(model.jnt_bodyid[2:], row[1:8] * model.jnt_axis[2:, 1], strict=True))
        for body in range(1, model.nbody):
            angles[body] = angles[model.body_parentid[body]] + turns.get(body, 0.0)
        return row[0] + model.body_pos[1, 2], angles

    def _frame(self, row: Floats, x: float, height: float, angles: Floats) -> list[list[float]]:
        """Draw bodies around x = 0, and a ground whose marks pass by."""
        model = self.model
        places = np.zeros((model.nbody, 2))
        places[1] = 0.0, height
        lines = [_line(0, np.array([[-1.6, 0.0], [1.6, 0.0]]))]
        for mark in np.arange(-2, 3) - x % 1.0:
            lines.append(_line(0, np.array([[mark, 0.0], [mark - 0.1, -0.15]])))
        for body in range(2, model.nbody):
            parent, joint = model.body_parentid[body], model.body_jntadr[body]
            # A body turns about its joint, which need not be its own middle.
            anchor, place = model.jnt_pos[joint, [0, 2]], model.body_pos[body, [0, 2]]
            places[body] = places[parent] + _turned(place + anchor, angles[parent])
            places[body] -= _turned(anchor, angles[body])
        for geom in range(model.ngeom):
            if (body := model.geom_bodyid[geom]) == 0:
                continue
            ends = _ends(model.geom_pos[geom], model.geom_quat[geom], model.geom_size[geom, 1])
            name = model.body(body).name
            style = 1 if body == 1 else 3 if name.startswith(self.behind) else 2
            lines.append(_line(style, places[body] + _turned(ends, angles[body])))
        return lines


def _walker(row: Floats) -> tuple[float, Floats]:
    """Return the torso's height and the angle of each body, the world's first."""
    angles = np.arctan2(row[1:14:2], row[0:14:2])
    return float(row[14]), np.concatenate([[0.0], angles])


def _turned(points: Floats, angle: float) -> Floats:
    """Turn (x, z) about y, as mujoco does."""
    cosine, sine = np.cos(angle), np.sin(angle)
    turned: Floats = np.asarray(points) @ np.array([[cosine, -sine], [sine, cosine]])
    return turned


def _ends(place: Floats, quaternion: Floats, half: float) -> Floats:
    """Return both ends of a capsule, (x, z)."""
    w, x, y, z = quaternion
    axis = np.array([2 * (x * z + w * y), 1 - 2 * (x * x + y * y)])
    middle = place[[0, 2]]
    return np.stack([middle - half * axis, middle + half * axis])


def _line(style: int, points: Floats) -> list[float]:
    # Millimetres suffice, and make equal clips equal text.
    numbers: Sequence[Any] = np.round(np.asarray(points, dtype=float), 3).ravel().tolist()
    return [style, *numbers]


DRAWN: dict[str, Callable[[], Drawing]] = {
    "point-mass": _point_mass,
    "cartpole-swingup": _cartpole,
    "cartpole-balance": _cartpole,
    "walker-walk": lambda: _Planar("walker", 0.025, "left"),
    "cheetah-run": lambda: _Planar("cheetah", 0.01, "f"),
}
"""Makers of drawings by task."""
