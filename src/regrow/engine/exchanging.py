"""GPU kernel that takes over what an update has dropped and grown, in all layers, in Triton."""

# mypy: ignore-errors
# The language of the kernels has no types; the functions of swift.py, which call them, do.

from __future__ import annotations

try:
    import triton
    import triton.language as tl
except ImportError:  # the module can be read without it
    triton = None

__all__ = ["exchange", "stray"]


def jit(kernel):
    """Compile with Triton, where it is installed."""
    return triton.jit(kernel) if triton else kernel


@jit
def _taken_over(
    table, row, weight, mask, fired, dropped, grown, first, n,
    SLOT: tl.constexpr, SLOTS: tl.constexpr, DROPS: tl.constexpr, GROWS: tl.constexpr,
    FIELDS: tl.constexpr, STEP: tl.constexpr, STEPS: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Take over a tile; WHOLE: it lies within its row from end to end."""
    for step in range(STEPS):
        i = first + step * STEP + tl.arange(0, STEP)
        inside = None if WHOLE else i < n
        was = tl.load(mask + i, mask=inside) != 0
        if not WHOLE:
            was = was & (i < n)
        stays = was
        if DROPS:
            stays = was & (tl.load(dropped + i, mask=inside) == 0)
        if GROWS:
            comes = tl.load(grown + i, mask=inside) != 0
            stays = stays | (comes if WHOLE else comes & (i < n))
        leaves = was & (stays == 0)
        comes = stays & (was == 0)
        # Few are written: those that change.
        nothing = tl.zeros((STEP,), tl.float32)
        either = leaves | comes
        tl.store(mask + i, comes.to(tl.float32).to(mask.dtype.element_ty), mask=either)
        tl.store(fired + i, (nothing + 1).to(tl.int8), mask=comes)
        tl.store(weight + i, nothing.to(weight.dtype.element_ty), mask=leaves)
        for slot in tl.static_range(SLOTS):
            state = tl.load(table + row * FIELDS + 5 + slot).to(tl.pointer_type(SLOT))
            tl.store(state + i, nothing.to(SLOT), mask=comes)


@jit
def exchange(
    table, tiles, dropped, grown,
    WEIGHT: tl.constexpr, SLOT: tl.constexpr, SLOTS: tl.constexpr,
    DROPS: tl.constexpr, GROWS: tl.constexpr, FIELDS: tl.constexpr,
    STEP: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Write masks, weights that go, what was ever active, and the first state of those that come.

    A row of the table: how many weights, where they begin in ``dropped`` and ``grown``, the
    addresses of weight, mask and of who was ever active, then of the optimizer's slots. Run twice
    it leaves the same; grid (tiles,).
    """
    row = tl.load(tiles + tl.program_id(0) * 2)
    first = tl.load(tiles + tl.program_id(0) * 2 + 1).to(tl.int32)
    n = tl.load(table + row * FIELDS).to(tl.int32)
    offset = tl.load(table + row * FIELDS + 1)
    weight = tl.load(table + row * FIELDS + 2).to(tl.pointer_type(WEIGHT))
    mask = tl.load(table + row * FIELDS + 3).to(tl.pointer_type(WEIGHT))
    fired = tl.load(table + row * FIELDS + 4).to(tl.pointer_type(tl.int8))
    dropped += offset
    grown += offset
    if first + STEP * STEPS <= n:
        _taken_over(
            table, row, weight, mask, fired, dropped, grown, first, n,
            SLOT, SLOTS, DROPS, GROWS, FIELDS, STEP, STEPS, True,
        )  # fmt: skip
    else:
        _taken_over(
            table, row, weight, mask, fired, dropped, grown, first, n,
            SLOT, SLOTS, DROPS, GROWS, FIELDS, STEP, STEPS, False,
        )  # fmt: skip


@jit
def stray(
    table, tiles, found,
    WEIGHT: tl.constexpr, FIELDS: tl.constexpr, STEP: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """Count in every row the weights outside its mask that are not zero.

    A row of the table begins as that of :func:`exchange`; grid (tiles,).
    """
    row = tl.load(tiles + tl.program_id(0) * 2)
    first = tl.load(tiles + tl.program_id(0) * 2 + 1).to(tl.int32)
    n = tl.load(table + row * FIELDS).to(tl.int32)
    weight = tl.load(table + row * FIELDS + 2).to(tl.pointer_type(WEIGHT))
    mask = tl.load(table + row * FIELDS + 3).to(tl.pointer_type(WEIGHT))
    outside = 0
    for step in range(STEPS):
        i = first + step * STEP + tl.arange(0, STEP)
        inside = i < n
        w = tl.load(weight + i, mask=inside, other=0.0).to(tl.float32)
        m = tl.load(mask + i, mask=inside, other=0.0).to(tl.float32)
        outside += tl.sum((inside & (m == 0) & (w != 0)).to(tl.int32), 0)
    if outside > 0:
        tl.atomic_add(found + row, outside, sem="relaxed")
