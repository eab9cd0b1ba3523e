"""Selects in many tensors at once on a GPU: a few launches for all, and no wait for the device.

The same rules hold as in :mod:`regrow.engine.selection`: counts are exact, and of equal numbers the
lower flat index comes first, so that every device chooses the same.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from regrow.engine import draws

__all__ = [
    "LARGEST",
    "LAUNCH",
    "TILE",
    "Chosen",
    "available",
    "choose",
    "draw",
    "fits",
    "language",
    "on_device",
    "tiles_of",
]

# An index and a number of 32 bits are compared as one number of 63 bits.
LARGEST = 1 << 30
_SAMPLE = 4096
_FEW = 4096  # so many a single program looks through in registers
LAUNCH = {"STEP": 512, "STEPS": 32, "num_warps": 4}
TILE = LAUNCH["STEP"] * LAUNCH["STEPS"]  # so many numbers a program looks at
_PASSES = 4  # in one the interval has narrowed enough; where many numbers are equal, in up to four
_LISTED = 8  # for each so many numbers, a place is kept on the lists of what lies in an interval
_WORD = 0xFFFFFFFF

# How many low bits no number of this type has, when it is written as a float32.
_SPARE = {torch.float32: 0, torch.bfloat16: 16, torch.float16: 13}
_MASKS = (torch.float32, torch.bfloat16, torch.float16, torch.bool)


@dataclass(frozen=True)
class Chosen:
    """What was chosen in many tensors.

    Args:
        flat: of all tensors one behind the other; bool.
        shapes: of the tensors.
        shared: how many of each were among ``also``; int32 tensor on the device, None without.
        kept_alive: what the kernels read, should they be captured in a graph.
    """

    flat: Tensor
    shapes: tuple[tuple[int, ...], ...]
    shared: Tensor | None
    kept_alive: tuple[Any, ...]

    @property
    def parts(self) -> list[Tensor]:
        """What was chosen of each tensor: views in its shape."""
        split = self.flat.split([math.prod(shape) for shape in self.shapes])
        return [part.view(shape) for part, shape in zip(split, self.shapes, strict=True)]


def available(device: torch.device) -> bool:
    """Tell whether many tensors are looked at at once on a device: on a GPU, where Triton is.

    ``REGROW_KERNELS=torch`` in the environment leaves these kernels out, too.

    Example:
        >>> available(torch.device("cpu"))
        False
    """
    if device.type != "cuda" or os.environ.get("REGROW_KERNELS") == "torch":
        return False
    from regrow.engine import narrowing  # noqa: PLC0415 (imports Triton)

    return bool(narrowing.available)


def fits(worths: Sequence[Tensor], masks: Sequence[Tensor] = ()) -> bool:
    """Tell whether :func:`choose` can be asked: one type and device each, contiguous, not too long.

    Example:
        >>> fits([torch.ones(3), torch.ones(2)], [torch.ones(3)])
        True
        >>> fits([torch.ones(3), torch.ones(2).half()])
        False
    """
    if not _alike(worths, tuple(_SPARE)):
        return False
    return not masks or (_alike(masks, _MASKS) and masks[0].device == worths[0].device)


def _alike(tensors: Sequence[Tensor], dtypes: tuple[torch.dtype, ...]) -> bool:
    if not tensors:
        return False
    dtype, device = tensors[0].dtype, tensors[0].device
    return dtype in dtypes and all(
        t.dtype is dtype and t.device == device and t.is_contiguous() and 0 < t.numel() < LARGEST
        for t in tensors
    )


def choose(
    worths: Sequence[Tensor],
    ks: Sequence[int],
    among: Sequence[int],
    allowed: Sequence[Tensor] | None = None,
    *,
    highest: bool = False,
    magnitude: bool = False,
    outside: bool = False,
    also: Tensor | None = None,
    by_sign: bool = False,
) -> Chosen:
    """Choose in every tensor the k lowest, or highest, of the numbers allowed.

    Args:
        worths: contiguous, of one floating type of at most 32 bits, on one device. NaN comes last.
        ks: how many to choose in each.
        among: how many are allowed in each, at least k: the caller's to guarantee; -1 where he does
            not know, and then nothing is chosen by sign.
        allowed: one a tensor, of one type, nonzero = allowed; None allows all.
        highest: whether the highest are chosen, and not the lowest.
        magnitude: whether numbers are compared without their sign.
        outside: whether those are allowed that ``allowed`` does not mark.
        also: bool, those of all tensors one behind the other: these are allowed as well.
        by_sign: of the k, ⌊k·n₊/n + ½⌋ are positive, where n₊ of the n allowed are positive, and
            the others are not (:class:`regrow.engine.scores.SignedMagnitude`).

    Returns:
        Bool tensors with exactly k True each.
    """
    from regrow.engine import narrowing, sieving  # noqa: PLC0415 (import Triton)

    sizes = tuple(w.numel() for w in worths)
    device = worths[0].device
    offsets = _offsets(sizes)
    signs = (1, 0) if by_sign else (0,)
    masks = [0] * len(sizes) if allowed is None else [m.data_ptr() for m in allowed]
    rows, n_tiles, n_groups = [], 0, 0
    for i, n in enumerate(sizes):
        one = worths[i].data_ptr(), masks[i], n, ks[i], among[i], _bits(n), offsets[i]
        for sign in signs:
            rows.append((*one, sign, n_tiles, n_groups))
            n_tiles += -(-n // TILE)
            n_groups += -(-n // (TILE * narrowing.TILES.value))
    table = on_device(tuple(rows), device)
    tiles = tiles_of(tuple(n for n in sizes for _ in signs), TILE, device)
    n_rows, held = len(rows), TILE // _LISTED
    listed, shared = torch.zeros(2, n_rows, dtype=torch.int32, device=device)
    state = torch.empty(n_rows, narrowing.STATE.value, dtype=torch.int64, device=device)
    tallies = torch.zeros(n_tiles, narrowing.TALLIES.value, dtype=torch.int32, device=device)
    counted = _PASSES, n_groups, narrowing.COUNTS.value
    counts = torch.zeros(counted, dtype=torch.int32, device=device)
    lists = torch.empty(n_tiles, held, dtype=torch.int64, device=device)
    near = torch.empty(n_rows, _FEW, dtype=torch.int64, device=device)
    made = torch.zeros if by_sign else torch.empty  # by sign, a place may be written by nobody
    flat = made(offsets[-1], dtype=torch.bool, device=device)
    out, marked = flat.view(torch.int8), flat if also is None else also
    marked = marked.view(torch.int8)
    how = {
        "WORTH": language(worths[0].dtype),
        "ALLOWED": None if allowed is None else language(allowed[0].dtype),
        "HIGHEST": highest,
        "MAGNITUDE": magnitude or by_sign,
        "OUTSIDE": outside,
        "ALSO": also is not None,
        "SIGNED": by_sign,
        "SPARE": _SPARE[worths[0].dtype],
    }
    launcher(narrowing.bound, n_rows, device)(
        table, state, marked, **how, SAMPLE=_SAMPLE, num_warps=8
    )
    launcher(sieving.sieve, n_tiles, device)(
        table, tiles, state, tallies, lists, out, marked, **how, **LAUNCH, HELD=held
    )
    launcher(sieving.settle, n_rows, device)(
        table, state, tallies, shared, SIGNED=by_sign, **LAUNCH, HELD=held, FEW=_FEW
    )
    for i in range(_PASSES):
        launcher(narrowing.count, n_tiles, device)(
            table, tiles, state, counts[i], tallies, lists, marked, **how, **LAUNCH, HELD=held
        )
        last = i == _PASSES - 1
        launcher(narrowing.narrow, n_rows, device)(
            table, state, counts[i], marked, **how, **LAUNCH, FEW=_FEW, LAST=last
        )
    launcher(narrowing.mark, n_tiles, device)(
        table, tiles, state, tallies, lists, out, near, listed, marked, shared, **how, **LAUNCH,
        HELD=held, FEW=_FEW,
    )  # fmt: skip
    launcher(narrowing.finish, n_rows, device)(
        table, state, out, near, listed, marked, shared, ALSO=also is not None, FEW=_FEW,
        num_warps=8,
    )  # fmt: skip
    shapes = tuple([w.shape for w in worths])
    return Chosen(flat, shapes, None if also is None else shared, (table, tiles))


def draw(
    sizes: Sequence[int],
    ks: Sequence[int],
    among: Sequence[int],
    seeds: Sequence[int],
    device: torch.device,
    allowed: Sequence[Tensor] | None = None,
    *,
    outside: bool = False,
    also: Tensor | None = None,
) -> Chosen:
    """Draw k of the allowed at random in every tensor, as :func:`regrow.engine.selection.random_k`.

    Args:
        sizes: how many numbers each has.
        ks: how many to draw in each.
        among: how many are allowed in each, exactly: the caller's to guarantee.
        seeds: 64 bits each.
        device: of all of them.
        allowed: as for :func:`choose`, like all other arguments.
        outside: see there.
        also: see there.
    """
    from regrow.engine import drawing  # noqa: PLC0415 (imports Triton)

    sizes = tuple(sizes)
    offsets = _offsets(sizes)
    masks = [0] * len(sizes) if allowed is None else [m.data_ptr() for m in allowed]
    tiles = tiles_of(sizes, TILE, device)
    firsts = _offsets(tuple(-(-n // TILE) for n in sizes))
    rows = tuple(
        (m, n, k, a, max(a - 1, 1).bit_length(), offset, seed & _WORD, seed >> 32 & _WORD, first)
        for m, n, k, a, seed, offset, first in zip(
            masks, sizes, ks, among, seeds, offsets[:-1], firsts[:-1], strict=True
        )
    )
    table = on_device(rows, device)
    flat, drawn = torch.zeros(2, offsets[-1], dtype=torch.bool, device=device)
    marked = (flat if also is None else also).view(torch.int8)
    shared = torch.zeros(len(rows), dtype=torch.int32, device=device)
    tallies = torch.empty(len(tiles), dtype=torch.int32, device=device)
    how = {
        "ALLOWED": None if allowed is None else language(allowed[0].dtype),
        "OUTSIDE": outside,
        "ALSO": also is not None,
    }
    launcher(drawing.draw, len(tiles), device)(
        table,
        tiles,
        drawn.view(torch.int8),
        ROUNDS=draws.ROUNDS,
        FEW_ROUNDS=draws.ROUNDS_OF_FEW,
        FEW_BITS=draws.FEW_BITS,
        GOLDEN=draws.GOLDEN,
        **LAUNCH,
    )
    launcher(drawing.tally, len(tiles), device)(table, tiles, tallies, marked, **how, **LAUNCH)
    sums = tallies.cumsum(0, dtype=torch.int32)
    out, drawn_ranks = flat.view(torch.int8), drawn.view(torch.int8)
    launcher(drawing.pick, len(tiles), device)(
        table, tiles, sums, drawn_ranks, out, marked, shared, **how, **LAUNCH
    )
    shapes = tuple([(n,) for n in sizes])
    return Chosen(flat, shapes, None if also is None else shared, (table, tiles))


def launcher(kernel: Any, programs: int, device: torch.device) -> Callable[..., object]:
    """Return a function that launches so many programs of a kernel, on a device's own."""
    launch: Callable[..., object] = kernel[(programs,)]
    if device.type != "cuda" or device.index in (None, torch.cuda.current_device()):
        return launch

    # Triton launches on the device that is the current one, wherever its arguments are.
    def elsewhere(*args: Any, **how: Any) -> object:
        with torch.cuda.device(device):
            return launch(*args, **how)

    return elsewhere


def language(dtype: torch.dtype) -> Any:
    """Return a type as Triton calls it; a bool is a byte."""
    names = {torch.float32: "float32", torch.bfloat16: "bfloat16", torch.float16: "float16"}
    return getattr(import_module("triton.language"), names.get(dtype, "int8"))


def _bits(n: int) -> int:
    """Return how many bits the indices below n take, at least one.

    Example:
        >>> _bits(5)
        3
    """
    return max(n - 1, 1).bit_length()


def _offsets(sizes: tuple[int, ...]) -> list[int]:
    """Return where each tensor begins among all, and the end.

    Example:
        >>> _offsets((3, 2))
        [0, 3, 5]
    """
    offsets = [0]
    for n in sizes:
        offsets.append(offsets[-1] + n)
    return offsets


@lru_cache(maxsize=32)
def on_device(rows: tuple[tuple[int, ...], ...], device: torch.device) -> Tensor:
    """Return whole numbers as an int64 tensor on a device, kept for when they are asked again.

    Example:
        >>> on_device(((1, 2),), torch.device("cpu")).tolist()
        [[1, 2]]
    """
    return _sent(torch.tensor(rows, dtype=torch.int64, device="cpu"), device)


@lru_cache(maxsize=32)
def tiles_of(sizes: tuple[int, ...], tile: int, device: torch.device) -> Tensor:
    """Return the row and the first index of every tile of all rows, row by row; int64.

    Example:
        >>> tiles_of((3, 2), 2, torch.device("cpu")).tolist()
        [[0, 0], [0, 2], [1, 0]]
    """
    tiles = [-(-n // tile) for n in sizes]
    rows = np.repeat(np.arange(len(sizes)), tiles)
    first = np.arange(sum(tiles)) - np.repeat(np.cumsum(tiles) - tiles, tiles)
    return _sent(torch.from_numpy(np.stack([rows, first * tile], axis=1)), device)


def _sent(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a copy on a device, without waiting for it."""
    if device.type != "cuda":
        return tensor.to(device)
    if torch.cuda.is_current_stream_capturing():
        # Kept for later, it would hold what no replay has written yet.
        raise RuntimeError(
            "capture: what the kernels of an update read is not on the device yet: make the same "
            "update once, of the same tensors, before it is captured in a CUDA graph"
        )
    return tensor.pin_memory().to(device, non_blocking=True)
