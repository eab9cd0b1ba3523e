"""The shift against its definition: pad with zeros, cut into groups, roll, cut back, join."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from regrow.segmentation.shift import group_sizes, join_shifted, shift_channels, shift_segments


def moved(x, offset, axis):
    """x moved by an offset along an axis, zeros from outside: padded, rolled, cut back."""
    side, pad = x.shape[axis + 2], abs(offset)
    around = [0, 0, 0, 0, 0, 0]
    around[2 * (2 - axis)] = around[2 * (2 - axis) + 1] = pad
    wide = functional.pad(x, around)
    return wide.roll(offset, axis + 2).narrow(axis + 2, pad, side)


def as_defined(x, groups, axis):
    """Each group of channels moved by its place less that of the middle one."""
    middle = len(groups) // 2
    parts = x.split(list(groups), 1)
    return torch.cat([moved(part, k - middle, axis) for k, part in enumerate(parts)], 1)


def as_released(x, shift):
    """E2ENet's public code in one line: torch.chunk, then a roll for each chunk."""
    return torch.cat([moved(c, k - shift // 2, 0) for k, c in enumerate(x.chunk(shift, 1))], 1)


sizes = st.integers(1, 7)


@settings(max_examples=60, deadline=None)
@given(
    sources=st.lists(st.integers(5, 12), min_size=1, max_size=3),
    shift=st.sampled_from([0, 1, 3, 5]),
    sides=st.tuples(sizes, sizes, sizes),
    axis=st.integers(0, 2),
    last=st.booleans(),
)
def test_every_source_is_shifted_as_defined(sources, shift, sides, axis, last):
    layout = torch.channels_last_3d if last else torch.contiguous_format
    xs = [torch.randn(2, c, *sides).to(memory_format=layout) for c in sources]
    got = join_shifted(xs, shift_segments(sources, shift), axis)
    whole = torch.cat(xs, 1)
    if shift > 1:
        shifted = [as_defined(x, group_sizes(x.shape[1], shift), axis) for x in xs]
        whole = torch.cat(shifted, 1)
    assert torch.equal(got, whole)


@pytest.mark.parametrize("sources", [(1,), (4,), (48,), (96, 96, 48), (7, 9)])
@pytest.mark.parametrize("shift", [3, 5])
def test_the_released_layout_is_that_of_chunks_over_all_sources(sources, shift):
    xs = [torch.randn(2, c, 6, 2, 3) for c in sources]
    got = join_shifted(xs, shift_segments(sources, shift, released=True))
    assert torch.equal(got, as_released(torch.cat(xs, 1), shift))


@settings(max_examples=40, deadline=None)
@given(
    sources=st.lists(st.integers(3, 6), min_size=1, max_size=3),
    side=sizes,
    axis=st.integers(0, 2),
    released=st.booleans(),
)
def test_the_gradient_is_the_adjoint(sources, side, axis, released):
    """⟨S x, y⟩ = ⟨x, Sᵀ y⟩ for all y: the gradient of a linear map."""
    sides = [2, 3, 2]
    sides[axis] = side
    xs = [torch.randn(1, c, *sides, dtype=torch.float64, requires_grad=True) for c in sources]
    segments = shift_segments(sources, 3, released=released)
    joined = join_shifted(xs, segments, axis)
    y = torch.randn_like(joined)
    gradients = torch.autograd.grad(joined, xs, y)
    others = [torch.randn_like(x) for x in xs]
    forth = (join_shifted(others, segments, axis) * y).sum()
    back = sum((x * g).sum() for x, g in zip(others, gradients, strict=True))
    assert torch.allclose(forth, back)


@pytest.mark.parametrize("axis", [0, 2])
def test_channels_that_no_segment_names_are_left_out(axis):
    xs = [torch.randn(2, c, 4, 3, 5, dtype=torch.float64, requires_grad=True) for c in (4, 3)]
    segments = ((0, 1, 2, 1), (0, 3, 4, 0), (1, 0, 2, -1))
    whole = shift_segments((4, 3), 0)
    picked = [join_shifted(xs, whole)[:, [c]] for c in (1, 3, 4, 5)]
    moves = [
        join_shifted([x], ((0, 0, 1, by),), axis)
        for x, by in zip(picked, (1, 0, -1, -1), strict=True)
    ]
    joined, expected = join_shifted(xs, segments, axis), torch.cat(moves, 1)
    assert torch.equal(joined, expected)
    y = torch.randn_like(joined)
    for one, other in zip(
        torch.autograd.grad(joined, xs, y), torch.autograd.grad(expected, xs, y), strict=True
    ):
        assert torch.equal(one, other)
        assert not one.abs().sum((0, 2, 3, 4)).all()  # nothing comes back to what was left out


# Dynamo makes an instance of the function itself.
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_second_derivatives_and_compiled_passes_agree():
    x = torch.randn(1, 3, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: shift_channels(x).square(), x)
    compiled = torch.compile(
        lambda x: shift_channels(x).square().sum(), backend="aot_eager", fullgraph=True
    )
    (expected,) = torch.autograd.grad(shift_channels(x).square().sum(), x)
    assert torch.equal(torch.autograd.grad(compiled(x), x)[0], expected)


def test_sources_of_two_dtypes_join_in_the_wider_and_get_gradients_of_their_own():
    xs = [torch.randn(1, 3, 4, 1, 1, dtype=d).requires_grad_() for d in (torch.half, torch.float)]
    joined = join_shifted(xs, shift_segments((3, 3), 3))
    joined.sum().backward()
    assert joined.dtype == torch.float
    assert [x.grad.dtype for x in xs] == [torch.half, torch.float]


def test_the_layout_of_memory_stays():
    x = torch.randn(2, 6, 4, 5, 3).to(memory_format=torch.channels_last_3d)
    assert shift_channels(x).is_contiguous(memory_format=torch.channels_last_3d)
    assert shift_channels(x.contiguous()).is_contiguous()


def test_group_sizes_as_documented():
    assert group_sizes(96, 3) == (32, 32, 32)
    assert group_sizes(96, 5, ragged=True) == (20, 20, 20, 20, 16)
    assert group_sizes(48, 5, ragged=True) == (10, 10, 10, 10, 8)
    for channels, shift in itertools.product(range(1, 50), (3, 5, 7)):
        even, ragged = group_sizes(channels, shift), group_sizes(channels, shift, ragged=True)
        assert sum(even) == sum(ragged) == channels
        assert max(even) - min(even) <= 1
        chunks = torch.empty(channels).chunk(shift)
        assert ragged == tuple(len(chunk) for chunk in chunks)


@pytest.mark.parametrize("shift", [3, 5])
def test_every_source_sees_every_shift_unless_released(shift):
    def seen(segments, source):
        return {offset for s, _, _, offset in segments if s == source}

    every = set(range(-(shift // 2), shift // 2 + 1))
    ours = shift_segments((96, 96, 48), shift)
    released = shift_segments((96, 96, 48), 5, released=True)
    assert all(seen(ours, source) == every for source in range(3))
    assert [seen(released, source) for source in range(3)] == [{-2, -1}, {0, 1}, {2}]


@pytest.mark.parametrize(
    ("sources", "shift", "error", "said"),
    [
        ((8,), 2, ValueError, "shift=2: must be an odd number, such as 3, or 0"),
        ((8,), -3, ValueError, "shift=-3"),
        ((8,), 3.0, TypeError, "a whole number is needed"),
        ((8, 2), 3, ValueError, "2 channels cannot see 3 shifts; use at least 3"),
    ],
)
def test_bad_shifts_are_refused(sources, shift, error, said):
    with pytest.raises(error, match=said):
        shift_segments(sources, shift)
