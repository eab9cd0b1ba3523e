"""Sheets of ice for frost: made by a rule, once, and the same everywhere."""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from regrow.vision.corruptions.draws import Draws

__all__ = ["SIDE", "sheets"]

SIDE = 512
"""Of a sheet, in pixels; it goes on beyond its edges."""

# Mean colour, contrast at each octave, how many needles a pixel has, how long they are in pixels.
_SHEETS = (
    ((0.305, 0.585, 0.65), 0.022, 0.0005, 60),
    ((0.787, 0.805, 0.841), 0.031, 0.002, 50),
    ((0.787, 0.805, 0.841), 0.031, 0.002, 35),
    ((0.54, 0.599, 0.648), 0.042, 0.004, 15),
    ((0.441, 0.484, 0.528), 0.056, 0.002, 30),
)
_DIRECTIONS = 12


def sheets(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return five sheets of ice.

    A sheet is the brightest of needles that lie in several directions, filtered so that each
    octave of frequencies has the same contrast, as in photographs of frost.

    Args:
        device: where they are needed.

    Returns:
        What is added to the colour, shape (5, SIDE, SIDE), and colours, shape (5, 3).

    Example:
        >>> texture, colours = sheets(torch.device("cpu"))
        >>> tuple(texture.shape), tuple(colours.shape)
        ((5, 512, 512), (5, 3))
    """
    return _sheets(device)


@lru_cache(maxsize=4)
def _sheets(device: torch.device) -> tuple[Tensor, Tensor]:
    textures = [
        _levelled(_needles(number, often, length)) * contrast
        for number, (_, contrast, often, length) in enumerate(_SHEETS)
    ]
    colours = torch.tensor([colour for colour, *_ in _SHEETS])
    return torch.stack(textures).to(device), colours.to(device)


def _needles(number: int, often: float, length: int) -> Tensor:
    """Draw needles of random places, directions and brightness; where they cross, the brighter."""
    draws = Draws(("ice", number), torch.zeros(1, dtype=torch.int64))
    sheet = torch.zeros(SIDE, SIDE)
    for turn in range(_DIRECTIONS):
        angle = math.pi * (turn + float(draws.uniform(1))) / _DIRECTIONS
        drawn, bright = draws.uniform(2, SIDE, SIDE)[0]
        seeds = torch.where(drawn < often, bright, 0)
        needle = torch.zeros(SIDE, SIDE)
        along = torch.arange(length * 4) / 4
        places = (along * math.sin(angle)).round().long(), (along * math.cos(angle)).round().long()
        needle[places] = 1 - along / length
        spread = torch.fft.irfft2(torch.fft.rfft2(seeds) * torch.fft.rfft2(needle), s=(SIDE, SIDE))
        sheet = torch.maximum(sheet, spread)
    return sheet


def _levelled(sheet: Tensor) -> Tensor:
    """Give each octave deviation 1, from waves as long as the sheet to those of two pixels."""
    waves = torch.fft.rfft2(sheet)
    down, right = torch.fft.fftfreq(SIDE), torch.fft.rfftfreq(SIDE)
    octave = (torch.hypot(down[:, None], right) * SIDE).clamp(0.5, SIDE / 2 - 1).log2().floor()
    levelled = torch.zeros_like(sheet)
    for level in range(int(math.log2(SIDE)) - 1):
        band = torch.fft.irfft2(torch.where(octave == level, waves, 0), s=(SIDE, SIDE))
        levelled += band / band.std()
    return levelled
