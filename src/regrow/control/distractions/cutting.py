"""Puts another picture behind what is seen: cut out by geoms, or by the colour of the key."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from regrow.control.distractions.videos import Frames

__all__ = ["has_key_colour", "put_behind"]


def has_key_colour(frames: Frames) -> npt.NDArray[np.bool_]:
    """Tell where frames have the green that the published benchmark replaces.

    A pixel has it if its hue is in 100°..185°, its saturation at least 80/255 and its value at
    least 70/255.

    Args:
        frames: uint8, (..., h, w, 3).

    Returns:
        bool, (..., h, w).

    Source: Hansen & Wang 2021 (arXiv 2011.13389), and its code.

    Example:
        >>> has_key_colour(np.array([[[51, 204, 51], [200, 60, 60]]], dtype=np.uint8)).tolist()
        [[True, False]]
    """
    # In floating point and in this order of operations, so that hues on a bound are the same.
    rgb = frames / 255.0
    value, least = rgb.max(-1), rgb.min(-1)
    chroma = value - least
    with np.errstate(divide="ignore", invalid="ignore"):  # of greys, which have no hue
        red, green, blue = np.moveaxis((value[..., None] - rgb) / chroma[..., None], -1, 0)
        saturation = chroma / value
    by_green = rgb[..., 1] == value
    hue = np.where(by_green, 2.0 + red - blue, 4.0 + green - red) / 6.0 % 1.0 * 360
    hued = (
        (rgb[..., 0] != value) & (hue >= 100) & (hue <= 185)
    )  # by red it is beyond 300°, or to 60°
    key: npt.NDArray[np.bool_] = hued & (saturation * 255 >= 80) & (value * 255 >= 70)
    return key


def put_behind(frames: Frames, kept: npt.NDArray[np.bool_], behind: Frames) -> Frames:
    """Return frames with another picture wherever they are not kept.

    Args:
        frames: uint8, (..., h, w, 3).
        kept: bool, (..., h, w).
        behind: of the shape of ``frames``.
    """
    return np.where(kept[..., None], frames, behind)
