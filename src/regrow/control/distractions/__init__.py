"""Environments seen in pixels, with what distracts: other colours, videos, a wandering camera."""

from regrow.control.distractions.catalogue import MODES, TASKS, make
from regrow.control.distractions.colours import draw_colours, read_colours, write_colours
from regrow.control.distractions.distracting import INTENSITIES
from regrow.control.distractions.pixels import Pixels, SuitePixels
from regrow.control.distractions.videos import Videos

__all__ = [
    "INTENSITIES",
    "MODES",
    "TASKS",
    "Pixels",
    "SuitePixels",
    "Videos",
    "draw_colours",
    "make",
    "read_colours",
    "write_colours",
]
