"""Random numbers that are a function of a seed and a place alone, the same on every device.

A generator is a sequence: to know its millionth number somebody has to make the others first, in
one place. Here every number is computed by itself, in whole numbers, from a seed of 64 bits. So a
GPU draws what the CPU would have drawn, and nothing is sent from one to the other.

* :func:`permuted`: the j-th of n in random order. Each round maps the b-bit numbers one to one,
  x ← (m·x + a) mod 2ᵇ, then x ← x ⊕ (x >> ⌈b/2⌉), with an odd m and an a of its own; b is the
  smallest with 2ᵇ ≥ n. What falls outside 0..n-1 goes round again ("cycle walking").
* :func:`uniform`: numbers in [0, 1) with 24 bits.

Sources: cycle walking, Black & Rogaway 2002 ("Ciphers with arbitrary finite domains"); the
finisher of MurmurHash3 (Appleby, public domain) makes the constants.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = [
    "FEW_BITS",
    "GOLDEN",
    "ROUNDS",
    "ROUNDS_OF_FEW",
    "permuted",
    "seed_from",
    "uniform",
]

Integers = npt.NDArray[np.integer[Any]]

# Fewer show in how often the subsets of few numbers are drawn (tests/engine/test_draws.py).
ROUNDS, ROUNDS_OF_FEW, FEW_BITS = 8, 16, 10
GOLDEN = 0x9E3779B9  # 2³² over the golden ratio: consecutive multiples are far apart
_WORD = 0xFFFFFFFF
_PART = 1 << 15  # numbers at a time: what is worked on stays in the cache


def seed_from(generator: torch.Generator) -> int:
    """Take a seed of 64 bits from a CPU generator, which moves on.

    Example:
        >>> a, b = (torch.Generator().manual_seed(5) for _ in range(2))
        >>> seed_from(a) == seed_from(b) != seed_from(a)
        True
    """
    drawn = torch.randint(-(2**63), 2**63 - 1, (), generator=generator, device="cpu")
    return int(drawn)


def permuted(index: Integers, n: int, seed: int) -> npt.NDArray[np.int64]:
    """Return what stands at some places of 0..n-1 in random order.

    Args:
        index: places, from 0 to n - 1.
        n: how many there are to be ordered.
        seed: fixes the order.

    Returns:
        As many numbers; different places give different ones.

    Example:
        >>> sorted(permuted(np.arange(5), 5, seed=3).tolist())
        [0, 1, 2, 3, 4]
    """
    out = np.empty(len(index), dtype=np.int64)
    # Domains beyond 32 bits are real (one tensor of more than four thousand million weights), but
    # rare: others need not pay for 64.
    bits = max(n - 1, 1).bit_length()
    dtype = np.dtype(np.uint32 if bits <= 32 else np.uint64)
    constants = _constants(seed, bits)
    for at in range(0, len(index), _PART):
        x = _round_trip(index[at : at + _PART].astype(dtype), bits, constants)
        (outside,) = np.nonzero(x >= n)
        while outside.size:
            x[outside] = _round_trip(x[outside], bits, constants)
            outside = outside[x[outside] >= n]
        out[at : at + _PART] = x
    return out


def uniform(shape: tuple[int, ...], seed: int, device: torch.device | str = "cpu") -> Tensor:
    """Return uniform random numbers in [0, 1), float32 on a grid of 2⁻²⁴.

    Each is a function of the seed and its flat index.

    Example:
        >>> uniform((2,), seed=1).equal(uniform((3,), seed=1)[:2])
        True
    """
    low, high = seed & _WORD, seed >> 32 & _WORD
    n = int(np.prod(shape, dtype=np.int64))
    if torch.device(device).type == "cpu":
        x = np.arange(n, dtype=np.uint32) * np.uint32(GOLDEN)
        x ^= np.uint32(low)
        x = _finish(x) + np.uint32(high)
        x = _finish(x) >> np.uint32(8)
        return torch.from_numpy(x.astype(np.float32) * np.float32(2.0**-24)).reshape(shape)
    # torch has no arithmetic of unsigned words: in 64 bits, and the upper half is cut off.
    place = torch.arange(n, device=device) * GOLDEN & _WORD
    mixed = _finish_long(_finish_long(place ^ low) + high & _WORD)
    return ((mixed >> 8).float() * 2.0**-24).reshape(shape)


def _constants(seed: int, bits: int) -> list[tuple[int, int]]:
    """Return (m, a) of each round, made of the seed's two halves."""
    low, high = seed & _WORD, seed >> 32 & _WORD
    made = []
    for r in range(ROUNDS_OF_FEW if bits <= FEW_BITS else ROUNDS):
        m = _finish_word(low + (2 * r + 1) * GOLDEN ^ high)
        a = _finish_word(high + (2 * r + 2) * GOLDEN ^ low)
        if bits > 32:
            m, a = m << 32 | _finish_word(m ^ GOLDEN), a << 32 | _finish_word(a ^ GOLDEN)
        made.append((m | 1, a))
    return made


def _round_trip(x: Any, bits: int, constants: list[tuple[int, int]]) -> Any:
    """Map numbers of so many bits one to one."""
    word = x.dtype.type
    mask, shift = word((1 << bits) - 1), word((bits + 1) // 2)
    for m, a in constants:
        x *= word(m)
        x += word(a)
        x &= mask
        x ^= x >> shift
    return x


def _finish(x: Any) -> Any:
    """Mix the bits of words, one to one."""
    x ^= x >> np.uint32(16)
    x *= np.uint32(0x85EBCA6B)
    x ^= x >> np.uint32(13)
    x *= np.uint32(0xC2B2AE35)
    x ^= x >> np.uint32(16)
    return x


def _finish_word(x: int) -> int:
    x &= _WORD
    x = (x ^ x >> 16) * 0x85EBCA6B & _WORD
    x = (x ^ x >> 13) * 0xC2B2AE35 & _WORD
    return x ^ x >> 16


def _finish_long(x: Tensor) -> Tensor:
    x = (x ^ x >> 16) * 0x85EBCA6B & _WORD
    x = (x ^ x >> 13) * 0xC2B2AE35 & _WORD
    return x ^ x >> 16
