"""GPU kernels that find the k lowest of many tensors at once, exactly, in Triton.

What is compared is a *place*: the bits of a number in an order of whole numbers, followed by the
flat index. No two places are equal, so that ties go to the lower index by themselves. For every
tensor (*row* of the table) the k-th lowest place is closed in on:

1. ``bound``: a sample gives an interval that holds it, most likely.
2. ``sieve`` (:mod:`regrow.engine.sieving`): what lies below the interval is chosen, what lies in it
   is put on the list of its tile; ``settle`` tells whether that was right.
3. ``count``: how many places fall below the interval, and into each of its 256 parts;
   ``narrow``: the part that holds the k-th becomes the interval. Counted is what is on the lists;
   where the sample misled or a list was too short, all numbers are, and the interval goes where the
   place is: nothing is lost but time. Repeated; rows whose interval holds few enough (``FEW``) have
   done, and read nothing more.
4. ``mark``: what lies below the interval is chosen, what lies in it is put on one list a row;
   ``finish``: of each list as many as are missing are chosen.

Numbers are read once where the sample is right. All is decided on the device.

Source: the sampled bracket is that of Floyd & Rivest 1975 ("Expected time bounds for selection"),
the parts are digits of a radix selection (Alabi et al. 2012, "Fast k-selection algorithms for
graphics processing units").
"""

# mypy: ignore-errors
# The language of the kernels has no types; the functions of many.py, which call them, do.

from __future__ import annotations

from typing import Any

try:
    import triton
    import triton.language as tl
except ImportError:  # the module can be read without it
    triton = None

__all__ = ["available", "bound", "count", "finish", "mark", "narrow"]

available = triton is not None


def known(number: int) -> Any:
    """Return a number as the kernels know it when they are compiled."""
    return tl.constexpr(number) if triton else number


# One row of the table: addresses of the numbers and of who is allowed (0: all), how many numbers,
# how many are to be chosen, how many are allowed (-1: not known), bits of an index, where the row
# begins in what is written, whether it is of the positive numbers alone (1) or of all others (0),
# where signs have shares, its first tile, and its first group of tiles.
FIELDS = known(10)
# Of a row's state: where the interval starts, how far a place is shifted to give its part, how many
# are missing there, whether it is narrow enough, whether what lies in it is on the lists of the
# row's tiles, and how many of those on the lists are to be chosen.
STATE = known(6)
# Of a tile's tallies: how many are on its list, how many lie below the interval, how many are
# allowed, and how many were chosen of those that are allowed besides. The rest fills a line of
# memory: where two tiles add to one line, they wait for each other.
TALLIES = known(32)
# So many of a list are looked at together.
SOME = known(512)
# So many tiles of a row add up what they count in one place: all of a long row would wait there for
# each other, and one by one they are long to sum. 256 parts, how many lie below, and how many are
# counted at all.
TILES = known(16)
COUNTS = known(288)


def jit(kernel):
    """Compile with Triton, where it is installed."""
    return triton.jit(kernel) if triton else kernel


@jit
def _key(x, HIGHEST: tl.constexpr, MAGNITUDE: tl.constexpr, SPARE: tl.constexpr):
    """Return the bits of numbers in an order of whole numbers, in 32 bits: a GPU is slow at 64."""
    bits = x.to(tl.uint32, bitcast=True)
    size = bits & 0x7FFFFFFF
    key = size ^ 0x80000000
    if not MAGNITUDE:
        # Numbers below zero count downwards; both zeros are one.
        key = tl.where(bits > 0x80000000, 0x80000000 - size, key)
    if HIGHEST:
        key = (key ^ 0xFFFFFFFF) + 1  # 2³² less it; it is never 0
    # The bits that a number of 16 bits never has are left out; NaN comes last in either order.
    return tl.where(size > 0x7F800000, 0xFFFFFFFF, key) >> SPARE


@jit
def _places(
    table, row, i, inside, also,
    WORTH: tl.constexpr, ALLOWED: tl.constexpr, HIGHEST: tl.constexpr, MAGNITUDE: tl.constexpr,
    OUTSIDE: tl.constexpr, ALSO: tl.constexpr, SIGNED: tl.constexpr, SPARE: tl.constexpr,
):  # fmt: skip
    """Return the places of some numbers, and which of them may be chosen; i is of 32 bits."""
    there = inside
    if ALLOWED is not None:
        mask = tl.load(table + row * FIELDS + 1).to(tl.pointer_type(ALLOWED))
        held = tl.load(mask + i, mask=inside, other=0)
        allowed = held == 0 if OUTSIDE else held != 0
        if ALSO:
            offset = tl.load(table + row * FIELDS + 6)
            allowed = allowed | (tl.load(also + offset + i, mask=inside, other=0) != 0)
        there = there & allowed
    numbers = tl.load(table + row * FIELDS).to(tl.pointer_type(WORTH))
    x = tl.load(numbers + i, mask=there, other=0.0).to(tl.float32)
    if SIGNED:
        there = there & ((x > 0).to(tl.int64) == tl.load(table + row * FIELDS + 7))
    key = _key(x, HIGHEST, MAGNITUDE, SPARE)
    return (key.to(tl.int64) << tl.load(table + row * FIELDS + 5)) | i, there


@jit
def _histogram(digit, within):
    """Count digits of 0 to 255."""
    return tl.histogram(tl.where(within, digit, 0).to(tl.int32), 256, mask=within)


@jit
def _width(size):
    """Return how far an interval is to be shifted so that it has at most 256 parts."""
    shift = size * 0
    while (size - 1) >> shift >= 256:
        shift += 1
    return shift


@jit
def _kth(places, there, k, shift, SIZE: tl.constexpr):
    """Return the interval, of which all below its end are k; as its start and its width's bits."""
    start = k * 0
    left = k
    going = (k * 0 + 1) * (shift > 0)
    while going > 0:
        shift = tl.maximum(shift - 8, 0)
        digit = (places - start) >> shift
        within = there & (places >= start) & (digit < 256)
        counts = _histogram(digit, within)
        part = tl.sum((tl.cumsum(counts, 0) < left).to(tl.int64), 0)
        bins = tl.arange(0, 256)
        left -= tl.sum(tl.where(bins < part, counts, 0).to(tl.int64), 0)
        here = tl.sum(tl.where(bins == part, counts, 0).to(tl.int64), 0)
        start += part << shift
        going = going * (shift > 0) * (here != left)
    return start, shift


@jit
def bound(
    table, state, also,
    WORTH: tl.constexpr, ALLOWED: tl.constexpr, HIGHEST: tl.constexpr, MAGNITUDE: tl.constexpr,
    OUTSIDE: tl.constexpr, ALSO: tl.constexpr, SIGNED: tl.constexpr, SPARE: tl.constexpr,
    SAMPLE: tl.constexpr,
):  # fmt: skip
    """Write the interval that a sample suggests; grid (rows,)."""
    row = tl.program_id(0)
    n = tl.load(table + row * FIELDS + 2)
    k = tl.load(table + row * FIELDS + 3)
    among = tl.load(table + row * FIELDS + 4)
    top = 32 - SPARE + tl.load(table + row * FIELDS + 5)
    # One number of each stride, at a place of its own: weights have periods, which a regular sample
    # could fall in with.
    j = tl.arange(0, SAMPLE).to(tl.int64)
    stride = tl.maximum(n // SAMPLE, 1)
    i = j * stride + (j * 2654435761 >> 7) % stride
    places, there = _places(
        table, row, i.to(tl.int32), i < n, also,
        WORTH, ALLOWED, HIGHEST, MAGNITUDE, OUTSIDE, ALSO, SIGNED, SPARE,
    )  # fmt: skip
    seen = tl.sum(there.to(tl.int64), 0)
    if among < 0:
        rank = k.to(tl.float32) / stride.to(tl.float32)
    else:
        rank = seen.to(tl.float32) * k.to(tl.float32) / tl.maximum(among, 1).to(tl.float32)
    spread = 3 * tl.sqrt(rank) + 4
    if (n <= SAMPLE) & (among >= 0):
        spread = spread * 0
    first = tl.floor(rank - spread).to(tl.int64)
    last = tl.ceil(rank + spread).to(tl.int64)
    start = n * 0
    end = (start + 1) << top
    if first > 0:
        low, _ = _kth(places, there, first, top, SAMPLE)
        start = low
    if last <= seen:
        high, width = _kth(places, there, tl.maximum(last, 1), top, SAMPLE)
        end = high + ((width * 0 + 1) << width)
        if (first <= 0) & (seen > 0):
            # Where the lowest seen and the end are one number, many are equal: it begins there.
            bits = tl.load(table + row * FIELDS + 5)
            lowest = tl.min(tl.where(there, places, end), 0) >> bits
            if lowest == (end - 1) >> bits:
                start = lowest << bits
    shift = _width(end - start)
    done = n * 0
    if not SIGNED:  # noqa: SIM102  SIGNED is known when it is compiled
        if (among >= 0) & (k >= among):  # all
            start = (start * 0 + 1) << top
            shift = shift * 0
            done = done + 1
    if k <= 0:
        start = start * 0
        shift = shift * 0
        done = done + 1
    tl.store(state + row * STATE, start)
    tl.store(state + row * STATE + 1, shift)
    tl.store(state + row * STATE + 2, n * 0)
    tl.store(state + row * STATE + 3, done)


@jit
def _listed(tile, j, held, lists, start, shift, HELD: tl.constexpr):
    """Return some of a tile's list, and each place's part of an interval: below zero, below it."""
    there = j < held
    places = tl.load(lists + tile.to(tl.int64) * HELD + j, mask=there, other=0)
    return places, (places - start) >> shift, there


@jit
def _counted(
    table, row, first, n, start, shift, also,
    WORTH: tl.constexpr, ALLOWED: tl.constexpr, HIGHEST: tl.constexpr, MAGNITUDE: tl.constexpr,
    OUTSIDE: tl.constexpr, ALSO: tl.constexpr, SIGNED: tl.constexpr, SPARE: tl.constexpr,
    STEP: tl.constexpr,
):  # fmt: skip
    """Return one step's parts of an interval, and which lie within it, below it, and anywhere."""
    i = first.to(tl.int32) + tl.arange(0, STEP)
    places, there = _places(
        table, row, i, i < n, also,
        WORTH, ALLOWED, HIGHEST, MAGNITUDE, OUTSIDE, ALSO, SIGNED, SPARE,
    )  # fmt: skip
    digit = (places - start) >> shift
    below = there & (digit < 0)
    within = there & (digit >= 0) & (digit < 256)
    return digit.to(tl.int32), within, below, there


@jit
def count(
    table, tiles, state, counts, tallies, lists, also,
    WORTH: tl.constexpr, ALLOWED: tl.constexpr, HIGHEST: tl.constexpr, MAGNITUDE: tl.constexpr,
    OUTSIDE: tl.constexpr, ALSO: tl.constexpr, SIGNED: tl.constexpr, SPARE: tl.constexpr,
    STEP: tl.constexpr, STEPS: tl.constexpr, HELD: tl.constexpr,
):  # fmt: skip
    """Count a tile's places, unless its row has done; grid (tiles,)."""
    tile = tl.program_id(0)
    row = tl.load(tiles + tile * 2)
    if tl.load(state + row * STATE + 3) == 0:
        start = tl.load(state + row * STATE)
        shift = tl.load(state + row * STATE + 1)
        found = tl.zeros((256,), tl.int32)
        below = 0
        total = 0
        if tl.load(state + row * STATE + 4) == 1:
            total += tl.load(tallies + tile * TALLIES)
            some = total * 0
            while some < total:
                j = some + tl.arange(0, SOME)
                _, digit, there = _listed(tile, j, total, lists, start, shift, HELD)
                found += _histogram(digit, there & (digit >= 0) & (digit < 256))
                below += tl.sum((there & (digit < 0)).to(tl.int32), 0)
                some += SOME
        else:
            first = tl.load(tiles + tile * 2 + 1)
            n = tl.load(table + row * FIELDS + 2)
            for step in range(STEPS):
                digit, within, b, a = _counted(
                    table, row, first + step * STEP, n, start, shift, also,
                    WORTH, ALLOWED, HIGHEST, MAGNITUDE, OUTSIDE, ALSO, SIGNED, SPARE, STEP,
                )  # fmt: skip
                found += _histogram(digit, within)
                below += tl.sum(b.to(tl.int32), 0)
                total += tl.sum(a.to(tl.int32), 0)
        of_row = (tile - tl.load(table + row * FIELDS + 8)) // TILES
        at = counts + (tl.load(table + row * FIELDS + 9) + of_row) * COUNTS
        tl.atomic_add(at + tl.arange(0, 256), found, mask=found > 0, sem="relaxed")
        tl.atomic_add(at + 256, below, sem="relaxed")
        tl.atomic_add(at + 257, total, sem="relaxed")


@jit
def _asked(table, row, total, SIGNED: tl.constexpr):
    """Return how many are to be chosen of a row; by sign, only now it is known of how many."""
    k = tl.load(table + row * FIELDS + 3)
    if SIGNED:
        n = tl.maximum(tl.load(table + row * FIELDS + 4), 1)
        # ⌊k·n₊/n + ½⌋ of the positive ones; the others make up the number.
        if tl.load(table + row * FIELDS + 7) == 1:
            k = (2 * k * total + n) // (2 * n)
        else:
            k = k - (2 * k * (n - total) + n) // (2 * n)
    return k


@jit
def _narrowed(start, shift, parts, below, total, k, top, FEW: tl.constexpr):
    """Return the part of an interval that holds the k-th, what is missing there, and if done."""
    left = k - below
    bins = tl.arange(0, 256)
    within = tl.sum(parts.to(tl.int64), 0)
    part = tl.sum((tl.cumsum(parts, 0) < left).to(tl.int64), 0)
    before = tl.sum(tl.where(bins < part, parts, 0).to(tl.int64), 0)
    here = tl.sum(tl.where(bins == part, parts, 0).to(tl.int64), 0)
    missing = left - before
    done = (here <= FEW).to(tl.int64)
    one = start * 0 + 1
    if (left > 0) & (left <= within):
        start = start + (part << shift)
        if here > FEW:
            shift = tl.maximum(shift - 8, 0)
    elif k <= 0:
        start = start * 0
        shift = shift * 0
        missing = missing * 0
        done = one
    elif k >= total:
        start = one << top
        shift = shift * 0
        missing = missing * 0
        done = one
    elif left <= 0:  # the sample misled: what was below the interval is the interval now
        shift = _width(start)
        start = start * 0
        done = one * 0
    else:
        start = start + ((one * 256) << shift)
        shift = _width((one << top) - start)
        done = one * 0
    return start, shift, missing, done


@jit
def narrow(
    table, state, counts, also,
    WORTH: tl.constexpr, ALLOWED: tl.constexpr, HIGHEST: tl.constexpr, MAGNITUDE: tl.constexpr,
    OUTSIDE: tl.constexpr, ALSO: tl.constexpr, SIGNED: tl.constexpr, SPARE: tl.constexpr,
    STEP: tl.constexpr, STEPS: tl.constexpr, FEW: tl.constexpr, LAST: tl.constexpr,
):  # fmt: skip
    """Narrow a row's interval down to the part that holds the k-th; grid (rows,).

    LAST: to the end, by this program alone: slow, and hardly ever needed.
    """
    row = tl.program_id(0)
    if tl.load(state + row * STATE + 3) == 0:
        start = tl.load(state + row * STATE)
        shift = tl.load(state + row * STATE + 1)
        n = tl.load(table + row * FIELDS + 2)
        top = 32 - SPARE + tl.load(table + row * FIELDS + 5)
        parts = tl.zeros((256,), tl.int32)
        below = n * 0
        total = n * 0
        group = tl.load(table + row * FIELDS + 9)
        end = group + (n + STEP * STEPS * TILES - 1) // (STEP * STEPS * TILES)
        while group < end:
            some = group + tl.arange(0, 16)
            at = counts + some * COUNTS
            each = at[:, None] + tl.arange(0, 256)[None, :]
            parts += tl.sum(tl.load(each, mask=some[:, None] < end, other=0), 0)
            below += tl.sum(tl.load(at + 256, mask=some < end, other=0), 0)
            total += tl.sum(tl.load(at + 257, mask=some < end, other=0), 0)
            group += 16
        if tl.load(state + row * STATE + 4) == 1:
            k = tl.load(state + row * STATE + 5)
        else:
            k = _asked(table, row, total, SIGNED)
        start, shift, missing, done = _narrowed(start, shift, parts, below, total, k, top, FEW)
        if LAST:
            while done == 0:  # of all numbers, whether those that matter are on lists or not
                parts = parts * 0
                below = below * 0
                total = total * 0
                first = n * 0
                while first < n:
                    digit, within, b, a = _counted(
                        table, row, first, n, start, shift, also,
                        WORTH, ALLOWED, HIGHEST, MAGNITUDE, OUTSIDE, ALSO, SIGNED, SPARE, STEP,
                    )  # fmt: skip
                    parts += _histogram(digit, within)
                    below += tl.sum(b.to(tl.int32), 0)
                    total += tl.sum(a.to(tl.int32), 0)
                    first += STEP
                k = _asked(table, row, total, SIGNED)
                start, shift, missing, done = _narrowed(
                    start, shift, parts, below, total, k, top, FEW
                )
        tl.store(state + row * STATE, start)
        tl.store(state + row * STATE + 1, shift)
        tl.store(state + row * STATE + 2, missing)
        tl.store(state + row * STATE + 3, done)


@jit
def _marked(
    places, part, i, there, clears: tl.constexpr, row, written, near, listed, marked,
    ALSO: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """Choose what lies below an interval, and list what lies in it; return how many of ``marked``.

    clears: whether what is not chosen is written, as well.
    """
    chosen = there & (part < 0)
    tl.store(written + i, chosen.to(tl.int8), mask=there if clears else chosen)
    common = 0
    if ALSO:
        both = tl.load(marked + i, mask=chosen, other=0) != 0
        common += tl.sum((chosen & both).to(tl.int32), 0)
    # So few that each takes its own place on the list.
    which = there & (part == 0)
    at = tl.atomic_add(listed + row + places * 0, which.to(tl.int32), mask=which, sem="relaxed")
    tl.store(near + row * FEW + at, places, mask=which & (at < FEW))
    return common


@jit
def mark(
    table, tiles, state, tallies, lists, out, near, listed, also, shared,
    WORTH: tl.constexpr, ALLOWED: tl.constexpr, HIGHEST: tl.constexpr, MAGNITUDE: tl.constexpr,
    OUTSIDE: tl.constexpr, ALSO: tl.constexpr, SIGNED: tl.constexpr, SPARE: tl.constexpr,
    STEP: tl.constexpr, STEPS: tl.constexpr, HELD: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """Choose what lies below the interval, and list what lies in it; grid (tiles,)."""
    tile = tl.program_id(0)
    row = tl.load(tiles + tile * 2)
    offset = tl.load(table + row * FIELDS + 6)
    written = out + offset
    marked = also + offset
    start = tl.load(state + row * STATE)
    shift = tl.load(state + row * STATE + 1)
    common = 0
    if tl.load(state + row * STATE + 4) == 1:
        held = tl.minimum(tl.load(tallies + tile * TALLIES), HELD)
        some = held * 0
        index = ((start * 0 + 1) << tl.load(table + row * FIELDS + 5)) - 1
        while some < held:
            j = some + tl.arange(0, SOME)
            places, part, there = _listed(tile, j, held, lists, start, shift, HELD)
            common += _marked(
                places, part, places & index, there, False, row, written, near, listed, marked,
                ALSO, FEW,
            )  # fmt: skip
            some += SOME
    else:
        begin = tl.load(tiles + tile * 2 + 1)
        n = tl.load(table + row * FIELDS + 2)
        for step in range(STEPS):
            i = begin.to(tl.int32) + step * STEP + tl.arange(0, STEP)
            places, there = _places(
                table, row, i, i < n, also,
                WORTH, ALLOWED, HIGHEST, MAGNITUDE, OUTSIDE, ALSO, SIGNED, SPARE,
            )  # fmt: skip
            part = (places - start) >> shift
            # What the sieve chose is taken back where it is not.
            common += _marked(
                places, part, i, there, True, row, written, near, listed, marked, ALSO, FEW
            )
    if ALSO:
        tl.atomic_add(shared + row, common, sem="relaxed")


@jit
def finish(
    table, state, out, near, listed, also, shared,
    ALSO: tl.constexpr, FEW: tl.constexpr,
):  # fmt: skip
    """Choose as many of a row's list as are missing, the lowest; grid (rows,)."""
    row = tl.program_id(0)
    missing = tl.load(state + row * STATE + 2)
    if missing > 0:
        start = tl.load(state + row * STATE)
        shift = tl.load(state + row * STATE + 1)
        offset = tl.load(table + row * FIELDS + 6)
        j = tl.arange(0, FEW)
        there = j < tl.load(listed + row)
        places = tl.load(near + row * FEW + j, mask=there, other=0)
        low, width = _kth(places - start, there, missing, shift, FEW)
        end = start + low + ((width * 0 + 1) << width)
        chosen = there & (places < end)
        i = places & (((start * 0 + 1) << tl.load(table + row * FIELDS + 5)) - 1)
        tl.store(out + offset + i, chosen.to(tl.int8), mask=chosen)
        if ALSO:
            both = tl.load(also + offset + i, mask=chosen, other=0) != 0
            tl.atomic_add(shared + row, tl.sum((chosen & both).to(tl.int32), 0), sem="relaxed")
