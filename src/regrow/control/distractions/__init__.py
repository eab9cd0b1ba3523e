"""Environments seen in pixels, with what distracts: other colours, videos, a wandering camera."""

from typing import Any

from regrow.control.distractions.catalogue import MODES, TASKS, make
from regrow.control.distractions.colours import draw_colours, read_colours, write_colours
from regrow.control.distractions.distracting import INTENSITIES
from regrow.control.distractions.films import side_by_side, write_film
from regrow.control.distractions.gymnasium_pixels import GymnasiumPixels
from regrow.control.distractions.judge import auc, best_iou
from regrow.control.distractions.pixels import Pixels, SuitePixels
from regrow.control.distractions.videos import Videos

__all__ = [
    "INTENSITIES",
    "MODES",
    "TASKS",
    "GymnasiumPixels",
    "Pixels",
    "SuitePixels",
    "Videos",
    "as_gymnasium",
    "auc",
    "best_iou",
    "draw_colours",
    "make",
    "read_colours",
    "side_by_side",
    "write_colours",
    "write_film",
]


def as_gymnasium(environments: Pixels, render_mode: str | None = None) -> Any:
    """Return environments of one run as ``gymnasium.Env``.

    Args:
        environments: of one run.
        render_mode: "rgb_array", for ``render()``, or None.

    Raises:
        ValueError: there are several runs, or the mode is another.
        ImportError: gymnasium is missing.
    """
    from regrow.control.distractions.pixel_env import PixelEnv  # noqa: PLC0415  an extra

    return PixelEnv(environments, render_mode)
