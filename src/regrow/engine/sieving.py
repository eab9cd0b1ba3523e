"""GPU kernels that sift many tensors by an interval each, in Triton: one reading of all numbers.

Part of the selection in :mod:`regrow.engine.narrowing`, which tells what places and intervals are.
"""

# mypy: ignore-errors
# The language of the kernels has no types; the functions of many.py, which call them, do.

from __future__ import annotations

try:
    import triton.language as tl
except ImportError:  # the module can be read without it
    tl = None

from regrow.engine.narrowing import FIELDS, STATE, TALLIES, _asked, _key, _width, jit, known

__all__ = ["settle", "sieve"]

_WORD = known(0xFFFFFFFF)


@jit
def _keys(start, shift, bits):
    """Return the keys that an interval of places reaches over: the first, and one past the last."""
    end = start + ((start * 0 + 256) << shift)
    return start >> bits, (end + ((start * 0 + 1) << bits) - 1) >> bits


@jit
def _sift(
    numbers, mask, written, marked, at, tally, first, n, bits, begins, ends, sign,
    ALLOWED: tl.constexpr, HIGHEST: tl.constexpr, MAGNITUDE: tl.constexpr, OUTSIDE: tl.constexpr,
    ALSO: tl.constexpr, SIGNED: tl.constexpr, SPARE: tl.constexpr,
    STEP: tl.constexpr, STEPS: tl.constexpr, HELD: tl.constexpr, WHOLE: tl.constexpr,
):  # fmt: skip
    """Sift a tile; WHOLE: it lies within its row from end to end."""
    # In 32 bits: an interval that reaches over all keys leaves out NaN; then all are counted.
    all_lower = begins > _WORD
    low = tl.minimum(begins, _WORD).to(tl.uint32)
    span = tl.minimum(tl.maximum(tl.minimum(ends, _WORD + 1) - begins, 0), _WORD).to(tl.uint32)
    lower_ones = tl.zeros((STEP,), tl.int32)
    all_of_them = tl.zeros((STEP,), tl.int32)
    common = tl.zeros((STEP,), tl.int32)
    for step in range(STEPS):
        i = first + step * STEP + tl.arange(0, STEP)
        # All are loaded, allowed or not: then none waits for another. Several numbers by one
        # instruction were slower: to be listed they change hands between threads.
        inside = None if WHOLE else i < n
        x = tl.load(numbers + i, mask=inside).to(tl.float32)
        there = i >= 0 if WHOLE else i < n
        if ALLOWED is not None:
            active = tl.load(mask + i, mask=inside) != 0
            allowed = (active == 0) if OUTSIDE else active
            if ALSO:
                besides = tl.load(marked + i, mask=inside) != 0
                allowed = allowed | besides
            there = allowed if WHOLE else there & allowed
        if SIGNED:
            there = there & ((x > 0).to(tl.int64) == sign)
        key = _key(x, HIGHEST, MAGNITUDE, SPARE)
        lower = there & ((key < low) | all_lower)
        within = there & (key - low < span)
        # By sign, two rows write to the same place: what they choose, and nothing else.
        tl.store(written + i, lower.to(tl.int8), mask=lower if SIGNED else inside)
        # So few that each takes its own place on the list; their sums would cost more.
        to = tl.atomic_add(tally + i * 0, 1, mask=within, sem="relaxed")
        place = (key.to(tl.int64) << bits) | i
        tl.store(at + to, place, mask=within & (to < HELD))
        lower_ones += lower.to(tl.int32)
        if SIGNED:
            all_of_them += there.to(tl.int32)
        if ALSO:
            common += (lower & besides).to(tl.int32)
    tl.store(tally + 1, tl.sum(lower_ones, 0))
    tl.store(tally + 2, tl.sum(all_of_them, 0))
    tl.store(tally + 3, tl.sum(common, 0))


@jit
def sieve(
    table, tiles, state, tallies, lists, out, also,
    WORTH: tl.constexpr, ALLOWED: tl.constexpr, HIGHEST: tl.constexpr, MAGNITUDE: tl.constexpr,
    OUTSIDE: tl.constexpr, ALSO: tl.constexpr, SIGNED: tl.constexpr, SPARE: tl.constexpr,
    STEP: tl.constexpr, STEPS: tl.constexpr, HELD: tl.constexpr,
):  # fmt: skip
    """Choose what lies below a row's interval, list what lies in it; grid (tiles,)."""
    tile = tl.program_id(0)
    row = tl.load(tiles + tile * 2)
    first = tl.load(tiles + tile * 2 + 1).to(tl.int32)
    n = tl.load(table + row * FIELDS + 2).to(tl.int32)
    bits = tl.load(table + row * FIELDS + 5)
    sign = tl.load(table + row * FIELDS + 7)
    begins, ends = _keys(tl.load(state + row * STATE), tl.load(state + row * STATE + 1), bits)
    numbers = tl.load(table + row * FIELDS).to(tl.pointer_type(WORTH))
    offset = tl.load(table + row * FIELDS + 6)
    written = out + offset
    marked = also + offset
    mask = numbers
    if ALLOWED is not None:
        mask = tl.load(table + row * FIELDS + 1).to(tl.pointer_type(ALLOWED))
    at = lists + tile.to(tl.int64) * HELD
    tally = tallies + tile * TALLIES
    if first + STEP * STEPS <= n:
        _sift(
            numbers, mask, written, marked, at, tally, first, n, bits, begins, ends, sign,
            ALLOWED, HIGHEST, MAGNITUDE, OUTSIDE, ALSO, SIGNED, SPARE, STEP, STEPS, HELD, True,
        )  # fmt: skip
    else:
        _sift(
            numbers, mask, written, marked, at, tally, first, n, bits, begins, ends, sign,
            ALLOWED, HIGHEST, MAGNITUDE, OUTSIDE, ALSO, SIGNED, SPARE, STEP, STEPS, HELD, False,
        )  # fmt: skip


@jit
def settle(
    table, state, tallies, shared,
    SIGNED: tl.constexpr, STEP: tl.constexpr, STEPS: tl.constexpr, HELD: tl.constexpr,
    FEW: tl.constexpr,
):  # fmt: skip
    """Tell of every row whether the k-th is on the lists, and how many are to be chosen there."""
    row = tl.program_id(0)
    n = tl.load(table + row * FIELDS + 2)
    bits = tl.load(table + row * FIELDS + 5)
    held = n * 0
    lower = n * 0
    total = n * 0
    common = n * 0
    longest = n * 0
    tile = tl.load(table + row * FIELDS + 8)
    end = tile + (n + STEP * STEPS - 1) // (STEP * STEPS)
    while tile < end:
        some = tile + tl.arange(0, 256)
        at = tallies + some * TALLIES
        of_tiles = tl.load(at, mask=some < end, other=0)
        held += tl.sum(of_tiles, 0)
        longest = tl.maximum(longest, tl.max(of_tiles, 0))
        lower += tl.sum(tl.load(at + 1, mask=some < end, other=0), 0)
        total += tl.sum(tl.load(at + 2, mask=some < end, other=0), 0)
        common += tl.sum(tl.load(at + 3, mask=some < end, other=0), 0)
        tile += 256
    done = tl.load(state + row * STATE + 3)
    sifted = done
    if done == 0:
        left = _asked(table, row, total, SIGNED) - lower
        if (left >= 0) & (left <= held) & (longest <= HELD):
            sifted = n * 0 + 1
            begins, ends = _keys(
                tl.load(state + row * STATE), tl.load(state + row * STATE + 1), bits
            )
            shift = _width((ends - begins) << bits)
            if (held <= FEW) | (left == 0):
                done = n * 0 + 1
                shift = shift + 8
            tl.store(state + row * STATE, begins << bits)
            tl.store(state + row * STATE + 1, shift)
            tl.store(state + row * STATE + 2, left)
            tl.store(state + row * STATE + 3, done)
            tl.store(state + row * STATE + 5, left)
    tl.store(state + row * STATE + 4, sifted)
    if sifted == 1:
        tl.store(shared + row, common.to(tl.int32))
