"""The GPU kernels of a block-sparse linear layer, in Triton: Y = X·Wᵀ + bias and both gradients.

A program of the products holds some tokens × one block row (or column) of the result, and walks the
blocks of that row; a program of the weight gradient holds one active block, or a few of one row,
and walks the tokens.
All sums are float32, in an order that does not change from run to run.
"""

# mypy: ignore-errors
# The language of the kernels has no types; the functions of products.py and outer.py, which call
# them, do.

from __future__ import annotations

try:
    import triton
    import triton.language as tl
except ImportError:  # the module can be read without it
    triton = None

__all__ = ["available", "outer", "outer_row", "product", "sum_parts", "turn"]

available = triton is not None


def jit(kernel):
    """Compile with Triton, where it is installed."""
    return triton.jit(kernel) if triton else kernel


@jit
def _load(
    source,
    row,
    column,
    n_rows,
    n_columns,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    EVEN: tl.constexpr,
    TMA: tl.constexpr,
):
    """Load a tile of a row-major matrix, with zeros beyond its edges."""
    # The copy engine fetches a tile by its corner and fills what lies outside with zeros; without
    # it, addresses and edges are computed here.
    if TMA:
        tile = source.load([row, column])
    else:
        i = tl.arange(0, ROWS)
        j = column + tl.arange(0, COLUMNS)
        # Only the tile's corner needs 64 bits.
        corner = source + tl.cast(row, tl.int64) * n_columns
        at = corner + i[:, None] * n_columns + j[None, :]
        # Masks cost registers and time: left out where no tile reaches beyond the edge.
        if EVEN:
            tile = tl.load(at)
        else:
            inside = (row + i < n_rows)[:, None] & (j < n_columns)[None, :]
            tile = tl.load(at, mask=inside, other=0.0)
    return tile


@jit
def product(
    x,
    weight,
    bias,
    y,
    pointers,
    inner,
    order,
    n_outer,
    n_tokens,
    x_features,
    y_features,
    BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
    CHUNK: tl.constexpr,
    FORWARD: tl.constexpr,
    ALONG: tl.constexpr,
    BIAS: tl.constexpr,
    EVEN: tl.constexpr,
    TMA: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Compute Y = X·Wᵀ + bias by block rows (FORWARD), or dX = dY·W by block columns.

    ALONG: what is summed over lies side by side in a block, as it does in W for Y.
    """
    # Neighbouring programs share tokens, so that X is read from memory once.
    outer = tl.program_id(0) % n_outer
    token = tl.program_id(0) // n_outer * TOKENS
    feature = outer * BLOCK + tl.arange(0, BLOCK)
    # Sums in float32 whatever the inputs: thousands of terms in half precision would lose most
    # digits.
    total = tl.zeros((TOKENS, BLOCK), tl.float32)
    if BIAS:
        total += tl.load(bias + feature, mask=feature < y_features, other=0.0).to(tl.float32)[None]
    first = tl.load(pointers + outer)
    last = tl.load(pointers + outer + 1)
    # One loop over all pieces of all blocks, not two nested ones: Triton can then load the next
    # piece while it multiplies this one, across the border of two blocks too.
    for step in range(first * (BLOCK // CHUNK), last * (BLOCK // CHUNK)):
        entry = step // (BLOCK // CHUNK)
        offset = step % (BLOCK // CHUNK) * CHUNK
        column = tl.load(inner + entry) * BLOCK + offset
        tile = _load(x, token, column, n_tokens, x_features, TOKENS, CHUNK, EVEN, TMA)
        # Blocks are stored one below another, by block row; by column `order` finds them.
        row = entry * BLOCK if FORWARD else tl.load(order + entry) * BLOCK
        if ALONG:
            values = _load(weight, row, offset, 0, BLOCK, BLOCK, CHUNK, True, TMA).T
        else:
            values = _load(weight, row + offset, 0, 0, BLOCK, CHUNK, BLOCK, True, TMA)
        total = tl.dot(tile, values, total, input_precision=PRECISION)
    if TMA:
        y.store([token, outer * BLOCK], total.to(y.dtype))
    else:
        i = tl.arange(0, TOKENS)
        corner = y + tl.cast(token, tl.int64) * y_features
        at = corner + i[:, None] * y_features + feature[None, :]
        inside = (token + i < n_tokens)[:, None] & (feature < y_features)[None, :]
        tl.store(at, total.to(y.dtype.element_ty), mask=inside)


@jit
def outer(
    gradient,
    x,
    out,
    rows,
    columns,
    n_tokens,
    out_features,
    in_features,
    share,
    BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    TMA: tl.constexpr,
    TURNED: tl.constexpr,
):
    """Compute dW = dYᵀ·X of one active block, over one share of the tokens.

    TURNED: dY and X are (features, tokens), filled up with zeros so that no tile reaches beyond.
    """
    entry = tl.program_id(0)
    part = tl.program_id(1)
    row = tl.load(rows + entry) * BLOCK
    column = tl.load(columns + entry) * BLOCK
    total = tl.zeros((BLOCK, BLOCK), tl.float32)
    first = part * share
    for token in range(first, tl.minimum(first + share, n_tokens), TOKENS):
        if TURNED:
            left = _load(gradient, row, token, 0, n_tokens, BLOCK, TOKENS, True, TMA)
            right = _load(x, column, token, 0, n_tokens, BLOCK, TOKENS, True, TMA)
            total = tl.dot(left, right.T, total, input_precision=PRECISION)
        else:
            left = _load(gradient, token, row, n_tokens, out_features, TOKENS, BLOCK, EVEN, TMA)
            right = _load(x, token, column, n_tokens, in_features, TOKENS, BLOCK, EVEN, TMA)
            total = tl.dot(left.T, right, total, input_precision=PRECISION)
    i = tl.arange(0, BLOCK)
    # 64 bits: parts times blocks times b² can exceed 2^31.
    number = tl.cast(part * tl.num_programs(0) + entry, tl.int64)
    at = out + number * BLOCK * BLOCK + i[:, None] * BLOCK + i[None, :]
    tl.store(at, total.to(out.dtype.element_ty))


@jit
def _some_of_a_row(number, pointers, n_rows, GROUP: tl.constexpr, ROWS: tl.constexpr):
    """Return the block row of the number-th group, its first block, and where the row ends.

    A group is up to GROUP neighbouring blocks of a row. After the last group the row is n_rows.
    """
    # How many groups each row has is found here, by every program: nothing has to be kept for it.
    i = tl.arange(0, ROWS)
    begin = tl.load(pointers + i, mask=i < n_rows, other=0)
    end = tl.load(pointers + i + 1, mask=i < n_rows, other=0)
    groups = (end - begin + GROUP - 1) // GROUP
    up_to = tl.cumsum(groups, 0)
    row = tl.sum((up_to <= number).to(tl.int32))
    row = tl.minimum(row, n_rows)  # ROWS is a power of two, and may be more
    here = i == row
    first = tl.sum(tl.where(here, begin + (number - up_to + groups) * GROUP, 0))
    return row, first, tl.sum(tl.where(here, end, 0))


@jit
def outer_row(
    gradient,
    x,
    out,
    pointers,
    columns,
    n_rows,
    n_blocks,
    n_tokens,
    out_features,
    in_features,
    share,
    BLOCK: tl.constexpr,
    TOKENS: tl.constexpr,
    EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    GROUP: tl.constexpr,
    ROWS: tl.constexpr,
):
    """Compute dW = dYᵀ·X of some neighbouring blocks of a row, over one share of the tokens."""
    # Small blocks are held up by what they read, not by what they compute: dY is read once for all.
    part = tl.program_id(1)
    row, first, last = _some_of_a_row(tl.program_id(0), pointers, n_rows, GROUP, ROWS)
    if row < n_rows:
        i = row * BLOCK + tl.arange(0, BLOCK)
        j = tl.arange(0, GROUP * BLOCK)
        entry = first + j // BLOCK
        there = entry < last
        column = tl.load(columns + entry, mask=there, other=0) * BLOCK + j % BLOCK
        # Or Triton would load number by number.
        column = tl.max_contiguous(tl.multiple_of(column, BLOCK), BLOCK)
        t = tl.arange(0, TOKENS)
        begin = tl.cast(part * share, tl.int64)
        at_left = gradient + begin * out_features + t[:, None] * out_features + i[None, :]
        at_right = x + begin * in_features + t[:, None] * in_features + column[None, :]
        # The tensor cores want 64 rows at least, and the more columns the better.
        if BLOCK >= 64:
            total = tl.zeros((BLOCK, GROUP * BLOCK), tl.float32)
        else:
            total = tl.zeros((GROUP * BLOCK, BLOCK), tl.float32)
        for token in range(part * share, tl.minimum(part * share + share, n_tokens), TOKENS):
            if EVEN:
                left = tl.load(at_left)
                right = tl.load(at_right, mask=there[None, :], other=0.0)
            else:
                inside = (token + t < n_tokens)[:, None]
                left = tl.load(at_left, mask=inside & (i < out_features)[None, :], other=0.0)
                whole = there & (column < in_features)
                right = tl.load(at_right, mask=inside & whole[None, :], other=0.0)
            if BLOCK >= 64:
                total = tl.dot(left.T, right, total, input_precision=PRECISION)
            else:
                total = tl.dot(right.T, left, total, input_precision=PRECISION)
            at_left += TOKENS * out_features
            at_right += TOKENS * in_features
        # 64 bits: parts times blocks times b² can exceed 2^31.
        number = tl.cast(part * n_blocks + entry, tl.int64) * (BLOCK * BLOCK) + j % BLOCK
        number = tl.max_contiguous(tl.multiple_of(number, BLOCK), BLOCK)
        within = tl.arange(0, BLOCK) * BLOCK
        if BLOCK >= 64:
            at, kept = out + number[None, :] + within[:, None], there[None, :]
        else:
            at, kept = out + number[:, None] + within[None, :], there[:, None]
        tl.store(at, total.to(out.dtype.element_ty), mask=kept)


@jit
def turn(source, out, n_tokens, features, stride, SIDE: tl.constexpr):
    """Write (tokens, features) as (features, tokens), with zeros beyond the edges."""
    token = tl.program_id(0) * SIDE + tl.arange(0, SIDE)
    feature = tl.program_id(1) * SIDE + tl.arange(0, SIDE)
    inside = (token < n_tokens)[:, None] & (feature < features)[None, :]
    at = source + token.to(tl.int64)[:, None] * features + feature[None, :]
    tile = tl.load(at, mask=inside, other=0.0)
    # A tile is turned where it is, so that both sides are read and written in whole lines.
    tl.store(out + feature.to(tl.int64)[:, None] * stride + token[None, :], tile.T)


@jit
def sum_parts(shares, out, size, n_parts, WIDTH: tl.constexpr):
    """Add the parts of a weight gradient, in order."""
    at = tl.cast(tl.program_id(0), tl.int64) * WIDTH + tl.arange(0, WIDTH)
    total = tl.zeros((WIDTH,), tl.float32)
    for part in range(n_parts):
        total += tl.load(shares + tl.cast(part, tl.int64) * size + at)
    tl.store(out + at, total.to(out.dtype.element_ty))
