"""Convolutions by whole kernels against dense ones, and when they are chosen."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from regrow.engine.patterns import Kernel
from regrow.execution.csr import dispatch, layout
from regrow.execution.csr.conv import CsrConv2d, CsrConv3d
from regrow.execution.export import inference_module

needs_library = pytest.mark.skipif(dispatch.in_use() == "torch", reason="no kernel library here")


def sparse(dense, density, empty=()):
    """Mask a convolution by kernels, with nothing left of the outputs `empty`."""
    kept = torch.rand(dense.weight.shape[:2]) < density
    kept[list(empty)] = False
    dense.weight.data *= Kernel().expand(kept, dense.weight.shape)
    return dense.requires_grad_(False)


def stored(dense):
    """Make the csr layer of all kernels of a masked convolution that are not zero."""
    return inference_module(nn.Sequential(dense), below=2)[0]


def way(layer, x):
    return type(layer.way(x)).__name__


@st.composite
def convolutions(draw):
    inputs, outputs, stride = (draw(st.integers(*ends)) for ends in ((1, 40), (1, 9), (1, 2)))
    pad = st.integers(0, 2)
    options = {"bias": draw(st.booleans())}
    if draw(st.booleans()):
        padding = draw(st.tuples(pad, pad, pad))
        stride = (draw(st.integers(1, 3)), stride, stride)
        dense = nn.Conv3d(inputs, outputs, (1, 3, 3), stride, padding, **options)
        sides = draw(st.tuples(st.integers(1, 5), st.integers(3, 19), st.integers(3, 70)))
    else:
        dense = nn.Conv2d(inputs, outputs, 3, stride, draw(st.tuples(pad, pad)), **options)
        sides = draw(st.tuples(st.integers(3, 19), st.integers(3, 70)))
    return dense, (draw(st.sampled_from([1, 2, 5])), inputs, *sides)


@settings(deadline=None, max_examples=60)
@given(
    made=convolutions(),
    density=st.sampled_from([0.0, 0.1, 0.5, 1.0]),
    last=st.booleans(),
    name=st.sampled_from(dispatch.available()),
    threads=st.sampled_from([1, 2, 5]),
    seed=st.integers(0, 2**16),
)
def test_it_equals_the_dense_convolution(instruction_set, made, density, last, name, threads, seed):
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    dense, shape = made
    dense.reset_parameters()
    sparse(dense, density, empty=[0])
    x = torch.randn(shape)
    if last:
        x = x.movedim(1, -1).contiguous().movedim(-1, 1)
    layer = stored(dense)
    with instruction_set(name):
        assert way(layer, x) == ("ThroughDense" if name == "torch" else "KernelWise")
        y = layer(x)
    expected = dense.double()(x.double())
    torch.testing.assert_close(y.double(), expected, rtol=1e-5, atol=1e-5)


@needs_library
def test_each_number_is_summed_in_one_order_whatever_the_threads():
    layer, x = stored(sparse(nn.Conv2d(70, 33, 3, padding=1), 0.3)), torch.randn(2, 70, 21, 9)
    found = []
    for threads in (1, 2, 7):
        torch.set_num_threads(threads)
        found.append(layer(x))
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


@needs_library
def test_all_volumes_of_a_batch_and_all_slices_are_alike():
    layer, x = stored(sparse(nn.Conv3d(20, 6, (1, 3, 3)), 0.3)), torch.randn(3, 20, 4, 9, 11)
    alone = [layer(x[b : b + 1, :, d : d + 1]) for b in range(3) for d in range(4)]
    together = torch.cat(alone).unflatten(0, (3, 4)).squeeze(3).transpose(1, 2)
    assert torch.equal(layer(x), together)


def test_gradients_are_those_of_other_sparse_convolutions(kernels, check):
    for relu in (None, "relu"):
        kept = Kernel().expand(torch.rand(5, 4) < 0.4, (5, 4, 3, 3)).flatten().nonzero().flatten()
        values, bias = torch.randn(len(kept)), torch.randn(5)
        layer = CsrConv2d(4, 5, 3, kept, values, bias, stride=2, padding=1, activation=relu)
        for samples in (1, 3):
            check(
                layer,
                lambda x, w, b: functional.conv2d(x, w, b, 2, 1),
                torch.randn(samples, 4, 9, 8),
                1e-4,
            )


@needs_library
def test_views_of_any_strides_are_read_as_they_show():
    layer = stored(sparse(nn.Conv2d(3, 4, 3), 0.6))
    x = torch.randn(2, 3, 9, 9)
    views = [
        torch.complex(torch.zeros_like(x), -x).conj().imag,
        torch.stack([x, x * 0], 4).flatten(3)[..., ::2],
        x.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0),
        layout.batch_last(x),
        torch.cat([x, x], 2)[:, :, 9:],
    ]
    for view in views:
        assert torch.equal(view, x)
        assert torch.equal(layer(view), layer(x))
    assert torch.equal(
        layer(x[:1, :, :1].expand(2, 3, 9, 9)), layer(x[:1, :, :1].repeat(2, 1, 9, 1))
    )


@needs_library
@pytest.mark.parametrize(
    ("dense", "chosen"),
    [
        (nn.Conv2d(6, 5, 3, stride=2), "KernelWise"),
        (nn.Conv3d(6, 5, (1, 3, 3), stride=(3, 1, 1), padding="valid"), "KernelWise"),
        (nn.Conv3d(6, 5, (1, 3, 3), padding="same"), "KernelWise"),
        (nn.Conv2d(6, 5, 3, stride=3), "Shifted"),
        (nn.Conv2d(6, 5, 3, stride=(1, 2)), "Shifted"),
        (nn.Conv2d(6, 5, 3, dilation=2), "Shifted"),
        (nn.Conv2d(6, 5, (1, 9)), "Shifted"),
        (nn.Conv2d(6, 6, 3, groups=2), "Shifted"),
        (nn.Conv3d(6, 5, 3), "Shifted"),
        (nn.Conv1d(6, 5, 3), "Shifted"),
    ],
)
def test_other_geometries_are_computed_as_before(dense, chosen):
    x = torch.randn(2, 6, *[11] * (dense.weight.ndim - 2))
    layer = stored(sparse(dense, 0.5))
    assert way(layer, x) == chosen
    torch.testing.assert_close(layer(x), dense(x), rtol=1e-4, atol=1e-5)


@needs_library
def test_single_weights_are_no_whole_kernels():
    x = torch.randn(1, 4, 8, 8)
    whole = Kernel().expand(torch.rand(5, 4) < 0.5, (5, 4, 3, 3)).flatten()
    for moved in (whole.roll(1), whole.roll(4), whole & (torch.arange(180) != whole.nonzero()[0])):
        at = moved.nonzero().flatten()
        layer = CsrConv2d(4, 5, 3, at, torch.randn(len(at)))
        assert way(layer, x) == "Shifted"
        expected = functional.conv2d(x, layer.dense_weight())
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_a_few_zeros_within_kernels_do_not_break_them():
    dense = sparse(nn.Conv2d(8, 6, 3), 0.3)
    for number in dense.weight.data.view(-1).nonzero()[::30]:
        dense.weight.data.view(-1)[number] = 0
    model = nn.Sequential(dense)
    fast, x = inference_module(model), torch.randn(1, 8, 9, 9)
    assert len(fast[0].positions) % 9 == 0
    torch.testing.assert_close(fast(x), model(x), rtol=1e-4, atol=1e-5)
    dense.weight.data *= torch.rand(dense.weight.shape) < 0.5  # many: single weights are stored
    assert type(inference_module(model)[0]) is nn.Conv2d  # slower for a single image
    found = inference_module(model, below=0.4)[0]
    assert len(found.positions) == int((dense.weight != 0).sum())


def test_the_threshold_goes_by_what_is_stored():
    kernels = Kernel().expand((torch.arange(100) % 5 < 2).view(10, 10), (10, 10, 3, 3))
    dense = nn.Conv2d(10, 10, 3)
    dense.weight.data *= kernels
    model = nn.Sequential(dense)
    assert isinstance(inference_module(model)[0], nn.Conv2d)  # 0.4 is not below 0.4
    assert isinstance(inference_module(model, below=0.41)[0], CsrConv2d)


def test_copies_pickles_and_states_compute_the_same(kernels):
    model = nn.Sequential(stored(sparse(nn.Conv3d(5, 4, (1, 3, 3), padding=(0, 1, 1)), 0.4)))
    x = torch.randn(1, 5, 3, 9, 8)
    expected = model(x)
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    blank = sparse(nn.Conv3d(5, 4, (1, 3, 3), padding=(0, 1, 1)), 0.9)
    others.append(nn.Sequential(stored(blank)))
    others[2](x)
    others[2].load_state_dict(model.state_dict())
    for other in others:
        assert isinstance(other[0], CsrConv3d) and torch.equal(other(x), expected)


def test_bad_inputs_and_converted_layers_are_refused_by_name(kernels):
    layer = stored(sparse(nn.Conv3d(5, 4, (1, 3, 3)), 0.4))
    x = torch.randn(1, 5, 3, 9, 8)
    layer(x)
    with pytest.raises(TypeError, match=r"input is torch.float64"):
        layer(x.double())
    with pytest.raises(TypeError, match=r"input is on meta"):
        layer(x.to("meta"))
    with pytest.raises(ValueError, match=r"input has shape \(1, 4, 3, 9, 8\)"):
        layer(x[:, 1:])
    with pytest.raises(ValueError, match="too small"):
        layer(x[..., :2])
    layer.bias.data = layer.bias.data[1:]
    with pytest.raises(ValueError, match=r"bias has shape \(3,\)"):
        layer(x)
    with pytest.raises(ValueError, match="weight has"):
        layer.double()(x)
