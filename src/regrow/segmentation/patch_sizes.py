"""How large patches are, and how often a network halves them: nnU-Net's rule."""

from __future__ import annotations

import math
from collections.abc import Sequence

from regrow.segmentation.segmenter import Sides

__all__ = ["patch_rule", "strides_rule", "three"]

_LARGEST = 128**3  # voxels of a patch
_LEAST = 4  # voxels along an axis at the lowest level


def patch_rule(
    shape: Sequence[int], spacing: Sequence[float] = (1.0, 1.0, 1.0), largest: int = _LARGEST
) -> tuple[Sides, tuple[Sides, ...]]:
    """Return the sides of patches for volumes of a shape, and a network's strides for them.

    A patch begins as a cube in space, of 8 times as many voxels, cut to the volume's sides. An axis
    is halved from level to level as long as it keeps 4 voxels and its spacing is below twice the
    finest; the patch is rounded up to what that divides. While it has too many voxels, the side
    that is longest beside the volume's shrinks.

    Args:
        shape: the median of the volumes' sides, in voxels.
        spacing: between voxels, in mm.
        largest: voxels of a patch at most.

    Returns:
        The patch, and a stride for each step to a lower level.

    Source: nnU-Net v2, ``get_pool_and_conv_props`` and ``ExperimentPlanner``.

    Differs from nnU-Net: the bound is a number of voxels, not an estimate of memory.

    Example:
        >>> patch_rule((36, 50, 35))
        ((40, 56, 40), ((2, 2, 2), (2, 2, 2), (2, 2, 2)))
        >>> patch_rule((60, 512, 512), (5.0, 0.8, 0.8))[0]
        (32, 256, 256)
    """
    edge = (8 * largest * math.prod(spacing)) ** (1 / 3)  # in mm
    sides = [min(round(edge / mm), int(side)) for mm, side in zip(spacing, shape, strict=True)]
    while True:
        strides = strides_rule(sides, spacing)
        divisors = [math.prod(stride[axis] for stride in strides) for axis in range(3)]
        patch = [-(-side // by) * by for side, by in zip(sides, divisors, strict=True)]
        if math.prod(patch) <= largest:
            return three(patch), strides
        ratios = [p / s if p > b else 0.0 for p, s, b in zip(patch, shape, divisors, strict=True)]
        axis = max(range(3), key=lambda a: ratios[a])
        sides = list(patch)
        sides[axis] -= divisors[axis] if patch[axis] > divisors[axis] else 1


def strides_rule(sides: Sequence[int], spacing: Sequence[float]) -> tuple[Sides, ...]:
    """Return a network's strides for patches of given sides; see :func:`patch_rule`.

    Example:
        >>> strides_rule((16, 64, 64), (4.0, 1.0, 1.0))
        ((1, 2, 2), (1, 2, 2), (2, 2, 2), (2, 2, 2))
    """
    sizes, apart = list(sides), list(spacing)
    strides: list[Sides] = []
    while True:
        valid = [axis for axis in range(3) if sizes[axis] >= 2 * _LEAST]
        finest = min((apart[axis] for axis in valid), default=0.0)
        valid = [axis for axis in valid if apart[axis] < 2 * finest]
        if not valid or (len(valid) == 1 and sizes[valid[0]] < 3 * _LEAST):
            return tuple(strides) or ((1, 1, 1),)
        for axis in valid:
            sizes[axis] = -(-sizes[axis] // 2)
            apart[axis] *= 2
        strides.append(three([2 if axis in valid else 1 for axis in range(3)]))


def three(values: Sequence[int]) -> Sides:
    """Return three numbers as a tuple of three."""
    return values[0], values[1], values[2]
