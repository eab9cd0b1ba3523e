"""What the kernels of ``regrow.engine.narrowing`` do, step by step in numpy, to compare with.

The same sample, intervals and passes; so what is right here is right there, unless a kernel does
something else, which the tests under Triton's interpreter and on a GPU tell.
"""

from __future__ import annotations

import numpy as np
import torch

from regrow.engine.many import _LISTED, _SPARE

__all__ = ["lowest"]


def places(worth, highest=False, magnitude=False):
    """The places of numbers, and how many bits the largest may have."""
    spare = _SPARE[worth.dtype]
    numbers = worth.float().numpy()
    bits = numbers.view(np.int32).astype(np.int64)
    key = bits & 0x7FFFFFFF
    if not magnitude:
        key = np.where(bits < 0, -key, key)
    key = key + 2**31
    key = 2**32 - key if highest else key
    key = np.where(np.isnan(numbers), 2**32 - 1, key) >> spare
    n_bits = max(worth.numel() - 1, 1).bit_length()
    return key << n_bits | np.arange(worth.numel()), 32 - spare + n_bits


def width(size):
    """How far an interval is shifted so that it has at most 256 parts."""
    return max(int(size - 1).bit_length() - 8, 0)


def lowest(worth, k, allowed, *, sample, few, passes, misled=False, **order):
    """Bool tensor of the k lowest; and how many passes went over what was still to be counted."""
    at, top = places(worth, **order)
    n, there = worth.numel(), allowed.numpy()
    chosen = np.zeros(n, dtype=bool)
    if k == 0:
        return torch.from_numpy(chosen), 0
    stride = max(n // sample, 1)
    j = np.arange(min(sample, n))
    seen = j * stride + (j * 2654435761 >> 7) % stride
    inside = np.sort(at[seen][there[seen]])
    rank = len(inside) * k / there.sum()
    spread = 0 if n <= sample else 3 * rank**0.5 + 4
    first, last = int(np.floor(rank - spread)), int(np.ceil(rank + spread))
    start = int(inside[first - 1]) if first > 0 else 0
    end = int(inside[max(last, 1) - 1]) + 1 if last <= len(inside) else 1 << top
    n_bits = max(n - 1, 1).bit_length()
    if first <= 0 and 0 < last <= len(inside) and inside[0] >> n_bits == end - 1 >> n_bits:
        start = int(inside[0] >> n_bits << n_bits)
    if misled:
        start, end = end, end + 1
    shift, made = width(end - start), 0
    begins, ends = start >> n_bits, -(-(start + (256 << shift)) // (1 << n_bits))
    keys = at >> n_bits
    lower, listed = there & (keys < begins), there & (keys >= begins) & (keys < ends)
    left = k - int(lower.sum())
    if 0 <= left <= listed.sum() <= n // _LISTED:  # the sieve was right: its list alone is counted
        chosen |= lower
        there, k, start, shift = listed, left, begins << n_bits, width((ends - begins) << n_bits)
        if k == 0:
            return torch.from_numpy(chosen), made
        if listed.sum() <= few:
            chosen[np.flatnonzero(listed)[np.argsort(at[listed])][:k]] = True
            return torch.from_numpy(chosen), made
    while True:
        made += 1
        below, within = int((there & (at < start)).sum()), there & (at >= start)
        digits = (at[within] - start) >> shift
        parts = np.bincount(digits[digits < 256], minlength=256)
        left = k - below
        if left <= 0:
            start, shift = 0, width(start)
        elif left > parts.sum():
            start += 256 << shift
            shift = width((1 << top) - start)
        else:
            part = int(np.searchsorted(parts.cumsum(), left))
            left -= int(parts[:part].sum())
            start += part << shift
            if parts[part] <= few:
                break
            shift = max(shift - 8, 0)
    chosen |= there & (at < start)
    near = np.flatnonzero(there & (at >= start) & ((at - start) >> shift == 0))
    chosen[near[np.argsort(at[near])][:left]] = True
    return torch.from_numpy(chosen), made
