"""The LiDAR points on a road user, seen from the sensor and from the side, coloured by height."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from regrow.motion.scene import Scene
from regrow.studies.lidar_motion.looks import Palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_crop"]

Array = npt.NDArray[Any]

_FADED = 4  # frames before this one that are drawn, fainter


def draw_crop(
    front: Axes, side: Axes, scene: Scene, target: int, look: Palette, frame: int | None = None
) -> str:
    """Draw the points on a target.

    Args:
        front: axes for the view along the line of sight.
        side: axes for the view across it, with the sensor on the left.
        scene: with points.
        target: the row of ``scene.targets``.
        look: colours.
        frame: of the past; None: now.

    Returns:
        How many points there are in the frame, and how far away, in words.
    """
    points, at = scene.points, scene.now if frame is None else frame
    state = scene.states[scene.targets[target], at]
    height = float(state[5]) if state[5] > 0 else 1.7
    for axes, title in ((front, "from the LiDAR"), (side, "from the side")):
        _frame(axes, title, height, float(max(*state[3:5], 0.9)), look)
    if points is None:
        return "no LiDAR"
    sight = state[:2] - points.sensor[at, :2]
    metres = float(np.linalg.norm(sight))
    along = sight / max(metres, 1e-9)
    across = np.array([along[1], -along[0]])  # to the right of who looks along
    for back in range(min(_FADED, at), -1, -1):
        cloud = points.of(target, at - back)
        up = cloud[:, 2] + height / 2
        for axes, way in ((front, across), (side, along)):
            axes.scatter(
                cloud[:, :2] @ way,
                up,
                c=up,
                cmap="viridis" if look.paper < "#8" else "viridis_r",
                vmin=-0.1 * height,
                vmax=1.1 * height,
                s=7 if back == 0 else 3,
                alpha=1 if back == 0 else 0.25,
                linewidths=0,
            )
    count = int(points.counts[target, at])
    return f"{count:,} point{'' if count == 1 else 's'} at {metres:.0f} m"


def _frame(axes: Axes, title: str, height: float, width: float, look: Palette) -> None:
    axes.set_aspect("equal")
    half = width / 2 + 0.35
    axes.set(xlim=(-half, half), ylim=(-0.15, height + 0.25))
    axes.set_facecolor(look.paper)
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([0, 1], ["0", "1 m"])
    axes.tick_params(colors=look.quiet, labelsize=7, length=2)
    axes.axhline(0, color=look.quiet, lw=0.8, zorder=0)
    for name, spine in axes.spines.items():
        spine.set_visible(name == "left")
        spine.set_color(look.quiet)
    axes.set_title(title, fontsize=9, color=look.ink)
