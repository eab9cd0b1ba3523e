"""The kernels between convolutions of volumes, by Triton's interpreter: make interpret."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.segmentation import fused, plain
from regrow.segmentation.joins import Reading, join, leave
from tests.interpreted import interpreted
from tests.segmentation.test_links import sparse_lattice

pytestmark = [interpreted, pytest.mark.usefixtures("whole_numbers")]
LAST = torch.channels_last_3d
TOLERANCES = {torch.float32: 1e-5, torch.bfloat16: 1.6e-2, torch.float16: 2e-3}


def by_kernels(call):
    """Call with the kernels, as on a GPU."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fused, "_on_gpu", lambda _: True)
        return call()


@st.composite
def joins(draw):
    """A block's output with several readers, one of whom joins it with a plain source."""
    n, channels = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 5, 16, 70]))
    sides = [draw(st.integers(1, 5)) for _ in range(3)]
    axis, readings = draw(st.integers(0, 2)), {}
    window = draw(st.sampled_from([(1, 2, 2), (2, 2, 2), (2, 1, 3)]))
    window = tuple(min(a, b) for a, b in zip(window, sides, strict=True))
    for reader in range(draw(st.integers(1, 3))):
        moves, start = [], 0
        while start < channels:
            stop = min(channels, start + draw(st.sampled_from([1, 2, 7, 30])))
            if draw(st.booleans()) or (stop == channels and not moves):
                moves.append((start, stop, draw(st.integers(-2, 2))))
            start = stop
        pooled = draw(st.booleans())
        readings[str(reader)] = Reading(tuple(moves), axis, window if pooled else (1, 1, 1))
    return n, channels, sides, readings, draw(st.booleans())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@settings(max_examples=15, deadline=None)
@given(joins(), st.integers(0, 9))
def test_the_kernels_join_and_send_back_what_plain_torch_does(dtype, made, seed):
    n, channels, sides, readings, whole = made
    generator = torch.Generator().manual_seed(seed)

    def random(*shape):
        x = torch.randn(shape, generator=generator)
        return x.to(dtype).to(memory_format=LAST).requires_grad_()

    # Whole numbers, so that windows have equal maxima: the first one counts.
    z = (2 * random(n, channels, *sides)).round().detach().requires_grad_()
    weight = torch.rand(channels, generator=generator).add(0.5).requires_grad_()
    bias = torch.randn(channels, generator=generator).requires_grad_()
    plain_ones = {
        reader: random(n, 3, *(a // b for a, b in zip(sides, reading.window, strict=True)))
        for reader, reading in readings.items()
    }
    segments = ((1, 0, 2, 0), (1, 2, 3, 1))

    def call():
        pending = leave(z, weight, bias, 1e-5, 0.01, readings, whole=whole)
        found = [
            join([pending, plain_ones[reader]], segments, reading.axis, reader)
            for reader, reading in readings.items()
        ] + ([pending.whole] if whole else [])
        torch.manual_seed(seed)
        outward = [torch.randn_like(f) for f in found]
        leaves = [z, weight, bias, *plain_ones.values()]
        return found, torch.autograd.grad(found, leaves, outward)

    ours, theirs = by_kernels(call), call()
    for one, other in zip((*ours[0], *ours[1]), (*theirs[0], *theirs[1]), strict=True):
        assert one.dtype == other.dtype and one.stride() == other.stride()
        scale = other.float().abs().max().clamp(min=1)
        assert (one.float() - other.float()).abs().max() <= TOLERANCES[dtype] * scale


def test_a_number_that_is_none_stays_in_its_window():
    z = torch.zeros(1, 16, 2, 2, 2).to(memory_format=LAST)
    z[0, 3, 1, 0, 1] = torch.nan
    table = torch.tensor([[3, 4], [0, 0]], dtype=torch.int32)
    for call in (by_kernels, lambda f: f()):
        out = call(
            lambda: torch.ops.regrow.join_normed([z], [None], [0, 3, 5, 0], [2, 2, 2], 0, [1.0])
        )
        assert out.flatten().isnan().tolist() == [True, False]
    assert plain.columns(z, None, 1.0, table, (2, 2, 2), 0).isnan().sum() == 1


@pytest.mark.parametrize("options", [{}, {"shift": 0}], ids=str)
def test_a_packed_network_by_kernels_is_the_one_without(options):
    from regrow.segmentation import pack

    model, _, sparse = sparse_lattice(**options)
    packed = pack(model, sparse.masks, fused=True).float().to(memory_format=LAST)
    x = torch.randn(1, 2, 8, 8, 8).to(memory_format=LAST)

    def call():
        outputs = packed(x)
        parameters = list(packed.parameters())
        loss = sum(o.square().mean() for o in outputs)
        return [*outputs, *torch.autograd.grad(loss, parameters, allow_unused=True)]

    for one, other in zip(by_kernels(call), call(), strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            assert (one - other).norm() <= 2e-3 * other.norm() + 1e-5
