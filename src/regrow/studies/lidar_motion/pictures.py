"""Pictures and films of a scene: from above, with the LiDAR points on its target beside it."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regrow.data.video import encoded
from regrow.lab.figures import figure_style
from regrow.lab.files import write_bytes
from regrow.machine import needed
from regrow.motion.scene import KINDS, Scene
from regrow.studies.lidar_motion.birds_eye import Forecast, draw_from_above, window_around
from regrow.studies.lidar_motion.crop_views import draw_crop
from regrow.studies.lidar_motion.looks import LIGHT, Palette

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["FILMS", "draw_scene", "write_film", "write_picture"]

_SIZE = (7.6, 5.2)  # inches
_ALONE = (4.5, 5.3)  # inches of one without points beside it
_TALL = (3.6, 4.9)  # inches of one that is read on a phone, too
_TALL_ALONE = (3.6, 4.3)
_EVERY = 2  # steps between the pictures of a film
# One scene is one file: nothing in it tells when it was drawn.
_DATES: dict[str, dict[str, Any]] = {
    ".png": {},
    ".svg": {"Date": None},
    ".pdf": {"CreationDate": None},
}


def draw_scene(
    scene: Scene,
    target: int,
    forecast: Forecast | None = None,
    *,
    look: Palette = LIGHT,
    step: int | None = None,
    title: str = "",
    window: Any = None,
    tall: bool = False,
) -> Figure:
    """Draw a scene from above and, if it has LiDAR, the points on its target.

    Args:
        scene: what is drawn.
        target: the row of ``scene.targets`` that it is about.
        forecast: where the target may go; None: not told.
        look: colours.
        step: where everyone is; None: now.
        title: above it; else the scene's name, and who is predicted.
        window: of ``window_around``; None: found here.
        tall: for a page: narrow, the points below the scene and not beside it.

    Returns:
        A figure of matplotlib.

    Raises:
        ValueError: there is no such target, or the forecast is shorter than the future drawn.
        ImportError: matplotlib is missing; the message says how to install it.
    """
    with needed("matplotlib", "report"):
        from matplotlib.figure import Figure  # noqa: PLC0415 (an extra, and slow to import)
    if not 0 <= target < len(scene.targets):
        raise ValueError(
            f"target={target}: scene {scene.name} has {len(scene.targets)} targets, from 0 on"
        )
    with figure_style():
        points = scene.points is not None
        wide, narrow = (_SIZE, _TALL) if points else (_ALONE, _TALL_ALONE)
        figure = Figure(figsize=narrow if tall else wide, facecolor=look.paper, dpi=120)
        places, ratios = _mosaic(points, tall)
        parts: dict[str, Any] = figure.subplot_mosaic(places, **ratios)
        draw_from_above(parts["above"], scene, target, forecast, look, step=step, window=window)
        said = title or f"{scene.name}: {KINDS[scene.kinds[scene.targets[target]]]}"
        if points:
            frame = None if step is None else min(step, scene.now)
            words = draw_crop(parts["front"], parts["side"], scene, target, look, frame)
            parts["side"].set_xlabel(words, fontsize=9, color=look.ink)
        figure.suptitle(said, fontsize=11, color=look.ink, x=0.02, ha="left", parse_math=False)
        figure.legend(
            *parts["above"].get_legend_handles_labels(),
            loc="outside lower left",
            ncols=6 if points and not tall else 3,
            fontsize=8,
            labelcolor=look.ink,
            handlelength=1.6,
            columnspacing=1.0,
        )
    return figure


def _mosaic(points: bool, tall: bool) -> tuple[Any, dict[str, Any]]:
    """Return what stands where, and how wide or high its parts are."""
    if not points:
        return [["above"]], {}
    if tall:
        return [["above", "above"], ["front", "side"]], {"height_ratios": [3.2, 1]}
    return [["above", "front"], ["above", "side"]], {"width_ratios": [3.2, 1]}


def write_picture(figure: Figure, path: Path) -> Path:
    """Write a picture as the ending of its name says: .png, .svg or .pdf.

    Args:
        figure: of matplotlib.
        path: the file.

    Raises:
        ValueError: the ending is another.
    """
    if path.suffix not in _DATES:
        raise ValueError(f"out={path}: must end in .png, .svg or .pdf; a film in .gif or .mp4")
    out = io.BytesIO()
    with figure_style():
        # On its paper: the style of pages, whose paper is their own, leaves it out.
        paper, kind = figure.get_facecolor(), path.suffix[1:]
        figure.savefig(out, format=kind, facecolor=paper, metadata=_DATES[path.suffix])
    write_bytes(path, out.getvalue())
    return path


def write_film(
    scene: Scene,
    target: int,
    path: Path,
    forecast: Forecast | None = None,
    *,
    look: Palette = LIGHT,
    title: str = "",
) -> Path:
    """Write a film of a scene, past and future, at the speed of life, with a rest at now.

    Args:
        scene: what is drawn.
        target: the row of ``scene.targets`` that it is about.
        path: the file, .gif or .mp4.
        forecast: where the target may go, drawn whole from now on; None: not told.
        look: colours.
        title: above it.

    Raises:
        ValueError: the ending is another, or there is no such target.
        ImportError: matplotlib is missing, Pillow for .gif, or PyAV for .mp4; the message says how
            to install it.
    """
    if path.suffix not in FILMS:
        raise ValueError(f"out={path}: a film is written, which must be called .gif or .mp4")
    if not 0 <= target < len(scene.targets):
        raise ValueError(
            f"target={target}: scene {scene.name} has {len(scene.targets)} targets, from 0 on"
        )
    window = window_around(scene, target, forecast)
    steps = list(range(scene.now % _EVERY, len(scene.times), _EVERY))
    pictures = [
        _pixels(
            draw_scene(scene, target, forecast, look=look, step=step, title=title, window=window)
        )
        for step in steps
    ]
    seconds = float(scene.times[1] - scene.times[0]) * _EVERY if len(scene.times) > 1 else 0.2
    lasts = [round(1000 * seconds)] * len(pictures)
    lasts[steps.index(scene.now)], lasts[-1] = 1200, 1600  # a rest to look at it
    write_bytes(path, FILMS[path.suffix](pictures, lasts))
    return path


def _pixels(figure: Figure) -> Any:
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _gif(pictures: Sequence[Any], lasts: Sequence[int]) -> bytes:
    with needed("pillow", "vision"):
        from PIL import Image  # noqa: PLC0415 (an extra)
    # One palette for all: colours do not flicker.
    palette = Image.fromarray(np.concatenate(pictures[:: max(len(pictures) // 4, 1)])).quantize(128)
    images = [
        Image.fromarray(picture).quantize(palette=palette, dither=Image.Dither.NONE)
        for picture in pictures
    ]
    out = io.BytesIO()
    images[0].save(
        out, "GIF", save_all=True, append_images=images[1:], duration=list(lasts), loop=0
    )
    return out.getvalue()


def _mp4(pictures: Sequence[Any], lasts: Sequence[int]) -> bytes:
    """Return a film of one frame rate, in which a picture that rests is there several times."""
    shortest = min(lasts)
    shown = [
        picture
        for picture, last in zip(pictures, lasts, strict=True)
        for _ in range(round(last / shortest))
    ]
    return encoded(shown, Fraction(1000, shortest), extra="video")


FILMS: Mapping[str, Callable[[Sequence[Any], Sequence[int]], bytes]] = {".gif": _gif, ".mp4": _mp4}
"""What makes a film, by how its file's name ends."""
