"""The tile sizes of the GPU kernels, measured, and how long sums are split.

The choices are fixed, not searched for at run time: start-up is short and results repeat.
"""

from __future__ import annotations

from typing import NamedTuple

import torch

__all__ = ["TILES", "Tiles", "groups", "parts", "parts_of_groups", "precision", "together"]

KERNEL_BLOCKS = (32, 64, 128)


class Tiles(NamedTuple):
    """The work of one program of a kernel.

    Args:
        tokens: rows of the activations held at a time.
        chunk: how far the sum over a block's side goes at a time, at most b (products only).
        warps: warps of a program.
        stages: loads in flight, each with its own piece of shared memory.
        group: blocks of a row held at a time, at most (weight gradient of neighbours only).

    Example:
        >>> TILES["forward", "half", 128].tokens
        128
    """

    tokens: int
    chunk: int
    warps: int
    stages: int
    group: int = 1


# (pass, arithmetic, b). "half" is bfloat16 and float16; "ieee" runs on the general cores, with
# tiles small enough to compile quickly.
TILES: dict[tuple[str, str, int], Tiles] = {
    ("forward", "half", 128): Tiles(128, 64, 4, 3),
    ("forward", "half", 64): Tiles(128, 64, 4, 4),
    ("forward", "half", 32): Tiles(256, 32, 4, 6),
    ("input", "half", 128): Tiles(128, 64, 4, 3),
    ("input", "half", 64): Tiles(128, 64, 4, 4),
    ("input", "half", 32): Tiles(256, 32, 4, 6),
    ("weight", "half", 128): Tiles(64, 128, 4, 3),
    ("weight", "half", 64): Tiles(64, 64, 4, 4),
    ("weight", "half", 32): Tiles(128, 32, 4, 3),
    ("neighbours", "half", 64): Tiles(64, 64, 8, 3, 4),
    ("neighbours", "half", 32): Tiles(32, 32, 4, 4, 8),
    ("forward", "tf32", 128): Tiles(128, 32, 4, 3),
    ("forward", "tf32", 64): Tiles(128, 32, 4, 3),
    ("forward", "tf32", 32): Tiles(128, 32, 4, 3),
    ("input", "tf32", 128): Tiles(128, 32, 4, 3),
    ("input", "tf32", 64): Tiles(128, 32, 4, 3),
    ("input", "tf32", 32): Tiles(128, 32, 4, 3),
    ("weight", "tf32", 128): Tiles(32, 128, 8, 3),
    ("weight", "tf32", 64): Tiles(32, 64, 4, 3),
    ("weight", "tf32", 32): Tiles(64, 32, 4, 3),
    ("turned", "tf32", 128): Tiles(32, 128, 8, 3),
    ("turned", "tf32", 64): Tiles(64, 64, 4, 3),
    ("turned", "tf32", 32): Tiles(64, 32, 4, 4),
    ("forward", "ieee", 128): Tiles(64, 16, 8, 2),
    ("forward", "ieee", 64): Tiles(64, 16, 4, 2),
    ("forward", "ieee", 32): Tiles(64, 16, 4, 2),
    ("input", "ieee", 128): Tiles(64, 16, 8, 2),
    ("input", "ieee", 64): Tiles(64, 16, 4, 2),
    ("input", "ieee", 32): Tiles(64, 16, 4, 2),
    ("weight", "ieee", 128): Tiles(16, 128, 8, 2),
    ("weight", "ieee", 64): Tiles(16, 64, 4, 2),
    ("weight", "ieee", 32): Tiles(32, 32, 4, 2),
}

SHARED = 227 * 1024  # bytes of shared memory of a multiprocessor of compute capability 9.0

# What one more part costs, in units of one block's gradient over 1024 tokens: estimated from its
# b² floats, written and read again, against 2·1024·b² operations.
PART_COST = 0.5


def precision(dtype: torch.dtype) -> str:
    """Name the arithmetic of a dtype: half, tf32 or ieee, by torch's setting for float32 matmuls.

    Example:
        >>> precision(torch.bfloat16)
        'half'
    """
    if dtype in (torch.bfloat16, torch.float16):
        return "half"
    chosen = getattr(torch.backends.cuda.matmul, "fp32_precision", None)
    if chosen is None:  # torch before 2.9
        chosen = "ieee" if torch.get_float32_matmul_precision() == "highest" else "tf32"
    return "tf32" if chosen == "tf32" else "ieee"


def together(arithmetic: str, block: int, n_blocks: int, n_rows: int) -> int:
    """Say how many neighbouring blocks of a row a program of the weight gradient holds, at most.

    Args:
        arithmetic: half, tf32 or ieee.
        block: the side b of a block.
        n_blocks: n, the active blocks.
        n_rows: block rows.

    Example:
        >>> [together("half", 32, n, 128) for n in (100, 1000, 1600)]
        [1, 1, 8]
    """
    tiles = TILES.get(("neighbours", arithmetic, block))
    return 1 if tiles is None or n_blocks < tiles.group * n_rows else tiles.group


def groups(n_blocks: int, n_rows: int, most: int) -> int:
    """Count the groups of neighbouring blocks of a row, as many as there can be.

    How many blocks each row has is known to the GPU only, which is not waited for.

    Args:
        n_blocks: n, the active blocks.
        n_rows: block rows.
        most: how many blocks a group has, at most.

    Example:
        >>> groups(100, 10, 4), groups(3, 10, 4), groups(7, 10, 1)
        (32, 3, 7)
    """
    return min(n_blocks, (n_blocks + n_rows * (most - 1)) // most)


def parts(n_blocks: int, n_tokens: int, processors: int) -> int:
    """Say over how many programs a block's weight gradient is split, each taking some tokens.

    Few blocks leave processors idle, ⌈n·parts / processors⌉ / parts rounds are the time; every part
    has to be written and summed. The choice depends on these numbers alone, so that a run repeats
    bit for bit.

    Args:
        n_blocks: n, the active blocks.
        n_tokens: rows of the activations.
        processors: the GPU's multiprocessors.

    Example:
        >>> [parts(n, 16384, 132) for n in (1000, 100, 50, 20)]
        [1, 5, 5, 6]
    """

    def cost(k: int) -> float:
        rounds = -(-n_blocks * k // processors) / k
        return rounds * n_tokens / 1024 + (PART_COST * k * n_blocks / processors if k > 1 else 0.0)

    most = max(1, min(8, n_tokens // 512))
    return min(range(1, most + 1), key=cost)


def parts_of_groups(tiles: Tiles, block: int, n_groups: int, n_tokens: int, processors: int) -> int:
    """Say over how many programs a group's weight gradient is split, each taking some tokens.

    Groups are of unequal size: two rounds of programs on every processor even that out.

    Args:
        tiles: of a group.
        block: the side b of a block.
        n_groups: the groups, about.
        n_tokens: rows of the activations.
        processors: the GPU's multiprocessors.

    Example:
        >>> tiles = TILES["neighbours", "half", 32]
        >>> [parts_of_groups(tiles, 32, n, 16384, 132) for n in (261, 1080)]
        [3, 1]
    """
    held = 2 * tiles.tokens * block * (1 + tiles.group) * tiles.stages  # bytes, of halves
    programs = 2 * processors * max(1, SHARED // held)
    return max(1, min(8, n_tokens // 512, round(programs / n_groups)))
