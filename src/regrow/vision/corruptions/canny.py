"""Canny's edges, as OpenCV finds them: exact, for all images of a batch at once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["canny"]

# Slopes are compared as OpenCV does, in fixed point: tan 22.5° and tan 67.5° = tan 22.5° + 2.
_BITS = 15
_TAN = 13573


def canny(planes: Tensor, low: int, high: int) -> Tensor:
    """Return the pixels whose slope is steepest across an edge, and steep enough.

    Slopes are those of Sobel, |∂x| + |∂y|. A pixel is a candidate if its slope is above ``low`` and
    above that of its two neighbours along the gradient; it is on an edge if its slope is above
    ``high``, or if other candidates lead to one that is.

    Args:
        planes: whole numbers of 0..255, shape (n, 1, height, width).
        low: slopes up to this are never edges.
        high: slopes above this are, where they are steepest.

    Returns:
        bool, of the planes' shape.

    Source: Canny 1986, A computational approach to edge detection; rounding and ties as in OpenCV's
    ``cv2.Canny(plane, low, high)``.

    Example:
        >>> plane = torch.tensor([[0.0, 0.0, 200.0, 200.0]]).expand(1, 1, 3, 4)
        >>> canny(plane, 50, 150)[0, 0, 1].tolist()
        [False, True, False, False]
    """
    padded = functional.pad(planes, (1,) * 4, mode="replicate").to(torch.int32)
    down = padded[..., :-2, :] + 2 * padded[..., 1:-1, :] + padded[..., 2:, :]
    right = padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]
    dx, dy = down[..., 2:] - down[..., :-2], right[..., 2:, :] - right[..., :-2, :]
    slope = dx.abs() + dy.abs()
    candidates = _steepest(slope, dx, dy) & (slope > low)
    return _connected(candidates & (slope > high), candidates)


def _steepest(slope: Tensor, dx: Tensor, dy: Tensor) -> Tensor:
    """Return where a slope is above those of its neighbours along the gradient."""
    height, width = slope.shape[2:]
    padded = functional.pad(slope, (1,) * 4)  # there is no slope outside

    def there(below: int, beside: int) -> Tensor:
        return padded[..., 1 + below : 1 + below + height, 1 + beside : 1 + beside + width]

    x, y = dx.abs() * _TAN, dy.abs() << _BITS
    flat, upright = y < x, y > x + (dx.abs() << (_BITS + 1))
    falling = (slope > there(-1, -1)) & (slope > there(1, 1))
    rising = (slope > there(-1, 1)) & (slope > there(1, -1))
    slanted = torch.where((dx < 0) == (dy < 0), falling, rising)
    across = (slope > there(0, -1)) & (slope >= there(0, 1))
    along = (slope > there(-1, 0)) & (slope >= there(1, 0))
    return torch.where(flat, across, torch.where(upright, along, slanted))


def _connected(edges: Tensor, candidates: Tensor) -> Tensor:
    """Add candidates that touch an edge, also by a corner, until there is none left."""
    while True:
        near = functional.max_pool2d(edges.float(), 3, 1, 1) > 0
        grown = near & candidates
        if torch.equal(grown, edges):
            return edges
        edges = grown
