"""GPU kernels that draw k of the allowed at random in many tensors at once, in Triton.

What is drawn are ranks among the allowed, by :func:`regrow.engine.draws.permuted`, so that the
choice depends on how many are allowed and not on where they are: ``draw`` marks the ranks,
``tally`` counts the allowed of every tile, and ``pick`` looks up each one's rank. Of the larger
half the complement is drawn.
"""

# mypy: ignore-errors
# The language of the kernels has no types; the functions of many.py, which call them, do.

from __future__ import annotations

try:
    import triton
    import triton.language as tl
except ImportError:  # the module can be read without it
    triton = None

__all__ = ["draw", "pick", "tally"]

# One row of the table: the address of who is allowed (0: all), how many there are, how many are to
# be drawn, how many are allowed, the bits of a rank, where the row begins in what is written, the
# seed's two halves, and the row's first tile.


def jit(kernel):
    """Compile with Triton, where it is installed."""
    return triton.jit(kernel) if triton else kernel


@jit
def _finish(x):
    """Mix the bits of a word, one to one (MurmurHash3)."""
    x ^= x >> 16
    x *= tl.cast(0x85EBCA6B, tl.uint32)
    x ^= x >> 13
    x *= tl.cast(0xC2B2AE35, tl.uint32)
    x ^= x >> 16
    return x


@jit
def _round_trip(x, bits, low, high, ROUNDS: tl.constexpr, GOLDEN: tl.constexpr):
    """Map numbers of so many bits one to one, as ``draws.permuted`` does."""
    mask = (tl.cast(0xFFFFFFFF, tl.uint32) >> (32 - bits).to(tl.uint32)).to(tl.uint32)
    shift = ((bits + 1) // 2).to(tl.uint32)
    golden = tl.cast(GOLDEN, tl.uint32)
    for r in tl.static_range(ROUNDS):
        m = _finish((low + golden * tl.cast(2 * r + 1, tl.uint32)) ^ high) | 1
        a = _finish((high + golden * tl.cast(2 * r + 2, tl.uint32)) ^ low)
        x = (x * m.to(tl.uint32) + a) & mask
        x = x ^ (x >> shift)
    return x


@jit
def _allowed(
    table, row, i, inside, also, ALLOWED: tl.constexpr, OUTSIDE: tl.constexpr, ALSO: tl.constexpr
):
    """Return which of some numbers are allowed."""
    there = inside
    if ALLOWED is not None:
        mask = tl.load(table + row * 9).to(tl.pointer_type(ALLOWED))
        held = tl.load(mask + i, mask=inside, other=0)
        allowed = held == 0 if OUTSIDE else held != 0
        if ALSO:
            offset = tl.load(table + row * 9 + 5)
            allowed = allowed | (tl.load(also + offset + i, mask=inside, other=0) != 0)
        there = there & allowed
    return there


@jit
def draw(
    table, tiles, drawn,
    ROUNDS: tl.constexpr, FEW_ROUNDS: tl.constexpr, FEW_BITS: tl.constexpr, GOLDEN: tl.constexpr,
    STEP: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Mark the ranks that are drawn, or left out if they are fewer; grid (tiles,)."""
    row = tl.load(tiles + tl.program_id(0) * 2)
    first = tl.load(tiles + tl.program_id(0) * 2 + 1)
    k = tl.load(table + row * 9 + 2)
    n = tl.load(table + row * 9 + 3)
    count = tl.minimum(k, n - k)
    if first < count:
        bits = tl.load(table + row * 9 + 4)
        offset = tl.load(table + row * 9 + 5)
        low = tl.load(table + row * 9 + 6).to(tl.uint32)
        high = tl.load(table + row * 9 + 7).to(tl.uint32)
        size = n.to(tl.uint32)
        for step in range(STEPS):
            j = first + step * STEP + tl.arange(0, STEP)
            # Who takes no part starts anywhere and goes round as others do: he writes nothing.
            x = tl.minimum(j, n - 1).to(tl.uint32)
            if bits <= FEW_BITS:
                x = _round_trip(x, bits, low, high, FEW_ROUNDS, GOLDEN)
            else:
                x = _round_trip(x, bits, low, high, ROUNDS, GOLDEN)
            outside = tl.sum((x >= size).to(tl.int32), 0)
            while outside > 0:
                if bits <= FEW_BITS:
                    again = _round_trip(x, bits, low, high, FEW_ROUNDS, GOLDEN)
                else:
                    again = _round_trip(x, bits, low, high, ROUNDS, GOLDEN)
                x = tl.where(x >= size, again, x)
                outside = tl.sum((x >= size).to(tl.int32), 0)
            one = tl.full((STEP,), 1, tl.int8)
            tl.store(drawn + offset + x.to(tl.int64), one, mask=j < count)


@jit
def tally(
    table, tiles, tallies, also,
    ALLOWED: tl.constexpr, OUTSIDE: tl.constexpr, ALSO: tl.constexpr,
    STEP: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Count the allowed of every tile; grid (tiles,)."""
    row = tl.load(tiles + tl.program_id(0) * 2)
    first = tl.load(tiles + tl.program_id(0) * 2 + 1)
    n = tl.load(table + row * 9 + 1)
    found = 0
    for step in range(STEPS):
        i = first + step * STEP + tl.arange(0, STEP).to(tl.int64)
        there = _allowed(table, row, i, i < n, also, ALLOWED, OUTSIDE, ALSO)
        found += tl.sum(there.to(tl.int32), 0)
    tl.store(tallies + tl.program_id(0), found)


@jit
def pick(
    table, tiles, tallies, drawn, out, also, shared,
    ALLOWED: tl.constexpr, OUTSIDE: tl.constexpr, ALSO: tl.constexpr,
    STEP: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Choose those whose rank was drawn; ``tallies`` are sums up to each tile; grid (tiles,)."""
    row = tl.load(tiles + tl.program_id(0) * 2)
    first = tl.load(tiles + tl.program_id(0) * 2 + 1)
    n = tl.load(table + row * 9 + 1)
    k = tl.load(table + row * 9 + 2)
    size = tl.load(table + row * 9 + 3)
    offset = tl.load(table + row * 9 + 5)
    chosen_are_marked = (k <= size - k).to(tl.int32)
    before = 0
    if tl.program_id(0) > 0:
        before += tl.load(tallies + tl.program_id(0) - 1)
    own = tl.load(table + row * 9 + 8)
    if own > 0:
        before -= tl.load(tallies + own - 1)
    common = 0
    for step in range(STEPS):
        i = first + step * STEP + tl.arange(0, STEP).to(tl.int64)
        there = _allowed(table, row, i, i < n, also, ALLOWED, OUTSIDE, ALSO)
        rank = before + tl.cumsum(there.to(tl.int32), 0) - 1
        marked = tl.load(drawn + offset + rank, mask=there, other=0).to(tl.int32)
        chosen = there & (marked == chosen_are_marked)
        tl.store(out + offset + i, chosen.to(tl.int8), mask=chosen)
        if ALSO:
            both = tl.load(also + offset + i, mask=chosen, other=0) != 0
            common += tl.sum((chosen & both).to(tl.int32), 0)
        before += tl.sum(there.to(tl.int32), 0)
    if ALSO:
        tl.atomic_add(shared + row, common, sem="relaxed")
