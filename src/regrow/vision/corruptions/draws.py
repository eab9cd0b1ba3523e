"""Random numbers that are a function of a key, the image's index and the place in the image.

A generator that is drawn from one number after another makes an image depend on those before it.
Here every number is a hash of where it goes, in integer arithmetic: any image can be corrupted
alone, on any device, and comes out as it would among ten thousand others.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

from regrow.engine.selection import key_digest
from regrow.vision.corruptions.modes import ordinary_modes

__all__ = ["WORDS", "Draws", "normal_quantiles"]

WORDS = 1 << 16
"""How many values :meth:`Draws.words` may give."""

_BITS = 0xFFFFFFFF


class Draws:
    """What is random in a batch of images.

    Each call draws anew; two objects of the same key give the same numbers, call by call.

    Args:
        key: what the numbers depend on, beside the index: strings, and integers of any type.
        index: integers, shape (n,): one number an image; equal ones draw alike. It counts modulo
            2³².

    Raises:
        TypeError: a part of the key is neither, or the index is of another dtype.

    Example:
        >>> both = Draws(("noise", 3), torch.tensor([0, 1])).uniform(4)
        >>> later = Draws(("noise", 3), torch.tensor([1])).uniform(4)
        >>> torch.equal(both[1:], later)
        True
    """

    def __init__(self, key: tuple[int | str, ...], index: Tensor) -> None:
        digest = key_digest(key)
        self._base, self._salt = (int.from_bytes(digest[i : i + 4], "little") for i in (0, 4))
        if index.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"index of dtype {index.dtype}: must be int64, one number an image")
        index = index.to(torch.int64)
        # Distinct indices keep distinct keys: both steps can be undone.
        self._images = _mixed(_int32((index + self._base) & _BITS)).unsqueeze(1)
        self._calls = 0

    def __len__(self) -> int:
        """Return how many images there are."""
        return len(self._images)

    @property
    def device(self) -> torch.device:
        """Where numbers are drawn: the index's device."""
        return self._images.device

    def words(self, *shape: int) -> Tensor:
        """Draw integers uniform in 0..65535.

        Args:
            *shape: of what is drawn for each image.

        Returns:
            int64, shape (n, ...), the last as asked for.
        """
        count = math.prod(shape)
        halves = self._bits((count + 1) // 2).view(torch.int16)[:, :count]
        return halves.to(torch.int64).bitwise_and_(WORDS - 1).view(-1, *shape)

    def uniform(self, *shape: int) -> Tensor:
        """Draw numbers uniform in (0, 1), of 23 bits.

        Args:
            *shape: of what is drawn for each image.

        Returns:
            float32, shape (n, ...), the last as asked for.
        """
        bits = self._bits(math.prod(shape)) >> 9
        return (bits.bitwise_and_(0x7FFFFF).float() + 0.5).mul_(2.0**-23).view(-1, *shape)

    def normal(self, *shape: int) -> Tensor:
        """Draw standard normal numbers: the 65536 quantiles, which end at ±4.2.

        Args:
            *shape: of what is drawn for each image.

        Returns:
            float32, shape (n, ...), the last as asked for.
        """
        return torch.take(normal_quantiles(self.device), self.words(*shape))

    def integers(self, low: int, high: int, *shape: int) -> Tensor:
        """Draw integers uniform in low..high-1.

        Args:
            low: the least.
            high: one more than the greatest.
            *shape: of what is drawn for each image.

        Returns:
            int64, shape (n, ...), the last as asked for.
        """
        return (self.uniform(*shape) * (high - low)).long() + low

    def _bits(self, count: int) -> Tensor:
        """Hash (key, call, image, place), shape (n, count)."""
        self._calls += 1
        salt = (self._salt + 0x9E3779B9 * self._calls) & _BITS
        places = torch.arange(count, device=self.device)
        return _mixed(_mixed(_int32((places + salt) & _BITS)) ^ self._images)


@lru_cache(maxsize=8)
@ordinary_modes()
def normal_quantiles(device: torch.device) -> Tensor:
    """Return the standard normal quantiles at the middles of 65536 equal steps, with deviation 1.

    Args:
        device: where they are needed.

    Example:
        >>> z = normal_quantiles(torch.device("cpu"))
        >>> len(z), round(float(z.std()), 4)
        (65536, 1.0)
    """
    steps = (torch.arange(WORDS, dtype=torch.float64) + 0.5) / WORDS
    quantiles: Tensor = torch.special.ndtri(steps)
    return (quantiles / quantiles.square().mean().sqrt()).float().to(device)


def _int32(values: Tensor) -> Tensor:
    """Keep the low 32 bits of values in 0..2³²-1, as they are."""
    return torch.where(values > _BITS >> 1, values - (_BITS + 1), values).to(torch.int32)


def _mixed(bits: Tensor) -> Tensor:
    """Mix 32 bits in place: each bit of what comes in decides over half of those that come out.

    Multiply and shift with the constants of lowbias32 (C. Wellons 2018).
    """
    bits ^= (bits >> 16).bitwise_and_(0xFFFF)
    bits *= 0x7FEB352D
    bits ^= (bits >> 15).bitwise_and_(0x1FFFF)
    bits *= 0x846CA68B - (1 << 32)
    bits ^= (bits >> 16).bitwise_and_(0xFFFF)
    return bits
