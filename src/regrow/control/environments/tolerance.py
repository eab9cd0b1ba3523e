"""How near a number is to where it should be: the rewards of the DeepMind Control Suite."""

from __future__ import annotations

from typing import Literal

import numpy as np

from regrow.control.environments.base import Floats

__all__ = ["tolerance"]


def tolerance(
    x: Floats,
    low: float = 0.0,
    high: float = 0.0,
    *,
    margin: float,
    at_margin: float = 0.1,
    shape: Literal["gaussian", "linear", "quadratic"] = "gaussian",
) -> Floats:
    """Return 1 inside of low..high, and less the farther outside.

    Args:
        x: numbers.
        low: the least that is right.
        high: the most.
        margin: how far outside the value is ``at_margin``.
        at_margin: that value; below 1, and above 0 if the shape is gaussian.
        shape: exp(−d²), 1 − d or 1 − d² of the scaled distance d.

    Source: Tassa et al. 2018 (arXiv 1801.00690), section 2.

    Example:
        >>> tolerance(np.array([0.0, 1.0]), margin=1.0).round(3).tolist()
        [1.0, 0.1]
    """
    distance = np.maximum(np.maximum(low - x, x - high), 0) / margin
    if shape == "gaussian":
        near: Floats = np.exp(np.log(at_margin) * distance**2)
        return near
    scaled = distance * (1 - at_margin) if shape == "linear" else distance**2 * (1 - at_margin)
    left: Floats = np.maximum(1 - scaled, 0.0)
    return left
