"""Random numbers of a population: a hash of run, purpose, count and place.

A generator that is drawn from in turn makes a run depend on those beside it. Here every number is a
hash, in integer arithmetic, of where it goes: a run draws the same alone and among a hundred
others, on any device, and inside a CUDA graph; and what a resumed run needs is one count.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from regrow.control.steady import steady
from regrow.engine.selection import key_digest

__all__ = ["RunDraws"]

_BITS = 0xFFFFFFFF


class RunDraws:
    """What is random for one purpose in all runs; each call draws anew.

    Args:
        seeds: of the runs; equal ones draw alike.
        purpose: distinct ones draw independently.
        device: where numbers are drawn.

    Attributes:
        count: calls so far, a tensor on the device, so that CUDA graphs count them too.

    Example:
        >>> both = RunDraws([3, 5], "noise").uniform(4)
        >>> torch.equal(both[1:], RunDraws([5], "noise").uniform(4))
        True
    """

    def __init__(
        self, seeds: Sequence[int], purpose: str, device: torch.device | str = "cpu"
    ) -> None:
        keys = [int.from_bytes(key_digest((purpose, s))[:4], "little") for s in seeds]
        self._runs = _int32(torch.tensor(keys, dtype=torch.int64))[:, None].to(device)
        self.count = torch.zeros((), dtype=torch.int32, device=device)
        self._places: dict[int, Tensor] = {}

    def uniform(self, *shape: int) -> Tensor:
        """Draw numbers uniform in (0, 1), of 23 bits; float32, shape (runs, *shape)."""
        n = math.prod(shape)
        if n not in self._places:
            self._places[n] = _mixed(torch.arange(n, dtype=torch.int32, device=self.count.device))
        self.count += 1
        call = _mixed(self.count * 0x1E3779B1)
        bits = _mixed(self._places[n] ^ _mixed(self._runs ^ call))
        bits = (bits >> 9).bitwise_and_(0x7FFFFF)
        return (bits.float() + 0.5).mul_(2.0**-23).view(len(self._runs), *shape)

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers, within ±5.3; float32, shape (runs, *shape)."""
        return steady(torch.special.ndtri, self.uniform(*shape))

    def state_dict(self) -> dict[str, Tensor]:
        """Return the count."""
        return {"count": self.count.clone()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a count."""
        self.count.copy_(state["count"])


def _int32(values: Tensor) -> Tensor:
    """Keep the low 32 bits of values in 0..2³²-1, as they are."""
    return torch.where(values > _BITS >> 1, values - (_BITS + 1), values).to(torch.int32)


def _mixed(bits: Tensor) -> Tensor:
    """Mix 32 bits: each bit of what comes in decides over half of those that come out.

    Multiply and shift with the constants of lowbias32 (C. Wellons 2018).
    """
    bits = bits ^ (bits >> 16).bitwise_and_(0xFFFF)
    bits = bits.mul_(0x7FEB352D)
    bits ^= (bits >> 15).bitwise_and_(0x1FFFF)
    bits *= 0x846CA68B - (1 << 32)
    bits ^= (bits >> 16).bitwise_and_(0xFFFF)
    return bits
