"""Random numbers of a made-up scene: each road user and each purpose has its own."""

from __future__ import annotations

from enum import IntEnum

import numpy as np

__all__ = ["Purpose", "draws"]


class Purpose(IntEnum):
    """What numbers are drawn for; a change of one leaves those of the others as they are."""

    LAYOUT = 0
    PLACE = 1
    INTENT = 2
    CUE = 3
    BOX = 4
    BODY = 5
    RAYS = 6


def draws(seed: int, number: int, purpose: Purpose) -> np.random.Generator:
    """Return the random numbers of one road user for one purpose.

    Args:
        seed: of the scene.
        number: of the road user.
        purpose: what they are drawn for.
    """
    return np.random.default_rng((seed, number, purpose))
