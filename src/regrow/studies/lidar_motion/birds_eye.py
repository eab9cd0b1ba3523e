"""A scene from above: map, road users, the target's past, where it went and where it may go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from regrow.motion.scene import KINDS, LINES, Scene
from regrow.studies.lidar_motion.looks import Palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Forecast", "draw_from_above", "window_around"]

Array = npt.NDArray[Any]

_AREAS = (LINES["crosswalk"], LINES["speed bump"], LINES["driveway"])
_TOLD = 0.05  # a future less likely is drawn without its number, unless it is the likeliest
_LEAST = 14.0  # metres from the middle of a picture to its side, at least


@dataclass(frozen=True)
class Forecast:
    """Where a target may go.

    Args:
        paths: float, (futures, steps, 2): x and y in the scene, metres.
        probabilities: float, (futures,): from 0 to 1.

    Raises:
        ValueError: shapes do not fit, or a number is not finite.
    """

    paths: Array
    probabilities: Array

    def __post_init__(self) -> None:
        if self.paths.ndim != 3 or self.paths.shape[2] != 2:
            raise ValueError(f"paths: shape {self.paths.shape}; must be (futures, steps, 2)")
        if self.probabilities.shape != self.paths.shape[:1]:
            raise ValueError(
                f"probabilities: shape {self.probabilities.shape}; must be ({len(self.paths)},), "
                "one a future"
            )
        if not (np.isfinite(self.paths).all() and np.isfinite(self.probabilities).all()):
            raise ValueError("paths, probabilities: a number is not finite")


def window_around(scene: Scene, target: int, forecast: Forecast | None) -> tuple[Array, float]:
    """Return the middle of a picture, (2,), and half of its side, in metres.

    Args:
        scene: what is drawn.
        target: the row of ``scene.targets`` that it is about.
        forecast: what must be in it, too.
    """
    agent = scene.targets[target]
    places = [scene.states[agent, scene.valid[agent], :2]]
    if forecast is not None:
        likely = forecast.probabilities >= min(_TOLD, forecast.probabilities.max(initial=0))
        places.append(forecast.paths[likely].reshape(-1, 2))
    low, high = np.concatenate(places).min(0), np.concatenate(places).max(0)
    return (low + high) / 2, max(_LEAST, float((high - low).max()) * 0.62)


def draw_from_above(
    axes: Axes,
    scene: Scene,
    target: int,
    forecast: Forecast | None,
    look: Palette,
    *,
    step: int | None = None,
    window: tuple[Array, float] | None = None,
) -> None:
    """Draw a scene from above.

    Args:
        axes: of matplotlib.
        scene: what is drawn.
        target: the row of ``scene.targets`` that it is about.
        forecast: where the target may go; None: not told.
        look: colours.
        step: where everyone is; what happened is drawn up to it. None: now, and all is drawn.
        window: of :func:`window_around`; None: found here.
    """
    middle, half = window or window_around(scene, target, forecast)
    at, agent = scene.now if step is None else step, int(scene.targets[target])
    _draw_map(axes, scene, look)
    _draw_users(axes, scene, agent, at, look, (middle, half))
    if forecast is not None and at >= scene.now:
        _draw_futures(axes, forecast, look, half)
    happened = slice(scene.now, None if step is None else at + 1)
    truth = scene.states[agent, happened, :2][scene.valid[agent, happened]]
    _draw_path(axes, truth, look.truth, look, "what happened", dashed=True, ends=step is None)
    past = slice(0, min(at, scene.now) + 1)
    history = scene.states[agent, past, :2][scene.valid[agent, past]]
    _draw_path(axes, history, look.ink, look, "the past")
    axes.set(xlim=middle[0] + half * np.array([-1, 1]), ylim=middle[1] + half * np.array([-1, 1]))
    axes.set_aspect("equal")
    axes.set_axis_off()
    _draw_scale(axes, middle, half, look)


def _draw_map(axes: Axes, scene: Scene, look: Palette) -> None:
    for kind, points in scene.lines():
        if kind in _AREAS:
            axes.fill(*points[:, :2].T, color=look.crossing, ec=look.lane, lw=0.8, zorder=0.5)
        elif len(points) == 1:  # a stop sign
            axes.plot(*points[:, :2].T, "8", color=look.marking, ms=5, zorder=1)
        else:
            colour, width, dashed = look.line(kind)
            style: Any = (0, (5, 4)) if dashed else "-"
            axes.plot(*points[:, :2].T, color=colour, lw=width, ls=style, zorder=1)


def _draw_users(
    axes: Axes, scene: Scene, target: int, at: int, look: Palette, window: tuple[Array, float]
) -> None:
    """Draw those in the picture, and name each sort of them once."""
    from matplotlib.patches import Polygon  # noqa: PLC0415 (an extra, and slow to import)

    names = set()
    away = np.abs(scene.states[:, at, :2] - window[0]).max(-1)
    for agent in np.flatnonzero(scene.valid[:, at] & (away < window[1] + 2)):
        own, ego = agent == target, agent == scene.ego
        kind = KINDS[scene.kinds[agent]]
        name = f"the {kind}" if own else "car with sensors" if ego else "others"
        axes.add_patch(
            Polygon(
                _corners(scene.states[agent, at]),
                facecolor=look.target if own else look.paper if ego else look.others,
                edgecolor=look.target if own else look.ink if ego else look.paper,
                lw=0.8,
                zorder=4 if own else 3,
                label="" if name in names else name,
            )
        )
        names.add(name)


def _corners(state: Array) -> Array:
    """Return the corners of a box with an edge to show where it heads, at least visible in size."""
    x, y, _, length, width, _, heading = state[:7]
    length, width = max(length, 0.8), max(width, 0.8)
    shape = np.array([(0.5, 0), (0.3, 0.5), (-0.5, 0.5), (-0.5, -0.5), (0.3, -0.5)])
    own = shape * (length, width)
    cos, sin = np.cos(heading), np.sin(heading)
    return np.asarray((x, y) + own @ np.array([(cos, sin), (-sin, cos)]))


def _draw_futures(axes: Axes, forecast: Forecast, look: Palette, half: float) -> None:
    """Draw the likeliest last, so that it lies on top, as wide as it is likely."""
    order = np.argsort(forecast.probabilities)
    written: list[Array] = []
    for rank in order:
        path, share = forecast.paths[rank], float(forecast.probabilities[rank])
        if not len(path):
            continue
        alpha = 0.35 + 0.65 * min(share * 1.5, 1.0)
        axes.plot(
            *path.T,
            color=look.predicted,
            lw=1.2 + 3.2 * share,
            alpha=alpha,
            solid_capstyle="round",
            zorder=5,
            label="predicted" if rank == order[-1] else "",
        )
        axes.plot(*path[-1], "o", color=look.predicted, ms=3.5 + 3 * share, alpha=alpha, zorder=5)
    for rank in order[::-1]:
        path, share = forecast.paths[rank], float(forecast.probabilities[rank])
        if (share < _TOLD and rank != order[-1]) or not len(path):
            continue
        place = _beside(path, half)
        if all(np.linalg.norm(place - other) > half * 0.13 for other in written):
            written.append(place)
            axes.annotate(
                f"{share:.0%}",
                (float(place[0]), float(place[1])),
                color=look.predicted,
                fontsize=9,
                fontweight="bold",
                ha="center",
                va="center",
                zorder=8,
                path_effects=_halo(look),
                clip_on=True,
            )


def _beside(path: Array, half: float) -> Array:
    """Return a place a little beyond the end of a path."""
    way = path[-1] - path[max(len(path) - 8, 0)]
    length = float(np.linalg.norm(way))
    ahead = way / length if length > 1e-6 else np.array([0.0, 1.0])
    return np.asarray(path[-1] + ahead * half * 0.09)


def _draw_path(
    axes: Axes,
    path: Array,
    colour: str,
    look: Palette,
    label: str,
    dashed: bool = False,
    ends: bool = False,
) -> None:
    if len(path) < 2:
        return
    style: Any = (0, (2.2, 1.2)) if dashed else "-"
    axes.plot(*path.T, color=colour, lw=2.2, ls=style, zorder=6, label=label)
    if ends:
        axes.plot(*path[-1], "o", ms=6, mfc=look.paper, mec=colour, mew=1.8, zorder=7)


def _draw_scale(axes: Axes, middle: Array, half: float, look: Palette) -> None:
    length = next(size for size in (50, 20, 10, 5) if size < half * 0.7)
    x, y = middle - half * np.array([0.94, 0.93])
    axes.plot([x, x + length], [y, y], color=look.ink, lw=2, zorder=9, solid_capstyle="butt")
    axes.text(
        x + length / 2,
        y + half * 0.03,
        f"{length} m",
        color=look.ink,
        fontsize=8,
        ha="center",
        va="bottom",
        zorder=9,
        path_effects=_halo(look),
    )


def _halo(look: Palette) -> Any:
    from matplotlib.patheffects import withStroke  # noqa: PLC0415

    return [withStroke(linewidth=2.5, foreground=look.paper)]
