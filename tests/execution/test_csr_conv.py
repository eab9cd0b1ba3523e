"""Sparse convolutions against dense autograd in float64."""

import copy
import math
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from regrow.execution.csr import dispatch, layout
from regrow.execution.csr.conv import CsrConv1d, CsrConv2d, CsrConv3d
from regrow.execution.csr.linear import CsrLinear
from regrow.execution.csr.norm import BatchNorm1d, BatchNorm2d, BatchNorm3d, with_batch_last

TOLERANCE = 1e-4
LAYERS = {1: CsrConv1d, 2: CsrConv2d, 3: CsrConv3d}
DENSE = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}


def make(draw, inputs, outputs, kernel, density=0.3, *, bias=True, groups=1, **options):
    kind = LAYERS[len(kernel)]
    positions, values = draw((outputs, inputs // groups, *kernel), density)
    bias = torch.randn(outputs) if bias else None
    return kind(inputs, outputs, kernel, positions, values, bias, groups=groups, **options)


def dense(layer):
    """The same convolution with a dense weight; the input is padded apart from it."""

    def function(x, weight, bias):
        x = functional.pad(x, [n for pad in reversed(layer.pads) for n in pad])
        convolve = DENSE[layer.dimensions]
        return convolve(x, weight, bias, layer.stride, 0, layer.dilation, layer.groups)

    return function


@st.composite
def geometries(draw):
    axes = draw(st.sampled_from([1, 2, 2, 2, 3]))
    each = st.tuples(*[st.integers(1, 3)] * axes)
    kernel, dilation = draw(st.tuples(*[st.integers(1, 4)] * axes)), draw(each)
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    same = draw(st.booleans()) and draw(st.booleans())
    return {
        "inputs": groups * draw(st.integers(1, 5)),
        "outputs": groups * draw(st.integers(1, 5)),
        "kernel": kernel,
        "dilation": dilation,
        "groups": groups,
        "stride": 1 if same else draw(each),
        "padding": "same" if same else draw(st.tuples(*[st.integers(0, 3)] * axes)),
        "density": draw(st.sampled_from([0.0, 0.1, 0.5, 1.0])),
        "activation": draw(st.sampled_from([None, "relu"])),
        "bias": draw(st.booleans()),
    }, [draw(st.integers(1, 18)) + d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]


@settings(deadline=None, max_examples=80)
@given(
    geometry=geometries(),
    batch=st.sampled_from([1, 2, 15, 16, 17, 33]),
    channels_last=st.booleans(),
    name=st.sampled_from(dispatch.available()),
    threads=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 2**16),
)
def test_everything_is_as_in_a_dense_layer(
    draw, check, instruction_set, geometry, batch, channels_last, name, threads, seed
):
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    options, size = geometry
    layer = make(draw, **options)
    x = torch.randn(batch, layer.in_channels, *size)
    if channels_last and x.dim() == 4:
        x = x.contiguous(memory_format=torch.channels_last)
    with instruction_set(name):
        check(layer, dense(layer), x, TOLERANCE)


@pytest.mark.parametrize("size", [4, 7, 8, 33])
@pytest.mark.parametrize("stride", [1, 2])
def test_many_channels_in_blocks(kernels, draw, check, size, stride):
    layer = make(draw, 70, 40, (3, 3), 0.1, padding=1, stride=stride, activation="relu")
    check(layer, dense(layer), torch.randn(18, 70, size, size), TOLERANCE)


def test_empty_channels(kernels, draw, check):
    positions, values = draw((8, 6, 3, 3), 0.3, empty_rows=True)
    layer = CsrConv2d(6, 8, 3, positions, values, torch.randn(8), padding=1)
    check(layer, dense(layer), torch.randn(5, 6, 7, 7), TOLERANCE)


@pytest.mark.parametrize("batch", [1, 16, 20])
def test_any_strides_of_input_and_gradient(kernels, draw, check, batch):
    layer = make(draw, 3, 4, (3, 3), padding=1)
    x = torch.randn(2 * batch, 3, 18, 9)[::2, :, ::2]
    grads = [
        torch.randn(batch, 4, 9, 9).transpose(2, 3),
        torch.randn(4, 9, 9, batch + 3).permute(3, 0, 1, 2)[:batch],
        torch.randn(batch, 4, 1, 1).expand(-1, -1, 9, 9),
    ]
    for grad in grads:
        check(layer, dense(layer), x, TOLERANCE, grad)


def test_results_do_not_depend_on_threads(kernels, draw):
    if kernels == "torch":
        pytest.skip("torch decides for itself")
    layer = make(draw, 12, 10, (3, 3), padding=1)
    x, found = torch.randn(37, 12, 20, 20), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        x.grad = layer.weight.grad = None
        x.requires_grad_()
        y = layer(x)
        y.square().sum().backward()
        found.append((y, x.grad, layer.weight.grad))
    for other in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(other, found[0], strict=True))


def test_one_image_without_a_batch(kernels, draw):
    layer = make(draw, 3, 4, (3, 3))
    x = torch.randn(3, 9, 9)
    torch.testing.assert_close(layer(x), dense(layer)(x[None], layer.dense_weight(), layer.bias)[0])


def test_every_batch_size_and_image_size_in_turn(kernels, draw, check):
    layer = make(draw, 3, 4, (3, 3), padding=1)
    for batch, size in ((4, 8), (3, 8), (4, 5), (4, 8), (20, 8)):
        check(layer, dense(layer), torch.randn(batch, 3, size, size), TOLERANCE)


def test_the_topology_moves(kernels, draw, check):
    layer = make(draw, 3, 4, (3, 3), 0.2)
    x = torch.randn(5, 3, 9, 9)
    layer(x).sum().backward()
    layer.set_topology_(torch.randperm(108)[: len(layer.index)].sort()[0])
    check(layer, dense(layer), x, TOLERANCE)


def test_captured_passes_add_up(kernels, draw, by_rows):
    layer = make(draw, 6, 6, (3, 3), groups=2, padding=1)
    layer.captures = True
    weight = layer.dense_weight().requires_grad_()
    for batch in (3, 5):
        x = torch.randn(batch, 6, 8, 8)
        layer(layer(x)).square().sum().backward()
        bias = layer.bias.detach()
        dense(layer)(dense(layer)(x, weight, bias), weight, bias).square().sum().backward()
    expected = weight.grad.flatten(1)
    for rows in (1, 4, 6):
        torch.testing.assert_close(by_rows(layer, rows), expected, rtol=1e-3, atol=1e-3)


def test_memory_keeps_the_batch_innermost_through_a_network(draw):
    layer, norm = make(draw, 8, 8, (3, 3), padding=1), BatchNorm2d(8)
    y = layer(torch.randn(32, 8, 10, 10))
    z = functional.relu(norm(layer(functional.relu(norm(y)))) + y)
    assert y.stride() == z.stride() == (1, 3200, 320, 32)
    flat = functional.adaptive_avg_pool2d(z, 1).flatten(1)
    assert flat.shape == (32, 8) and z.flatten(1).stride() == (1, 32)
    positions, values = draw((5, 800), 0.1)
    assert CsrLinear(800, 5, positions, values)(z.flatten(1)).shape == (32, 5)


@pytest.mark.parametrize(
    ("ours", "theirs", "shape"),
    [
        (BatchNorm1d, nn.BatchNorm1d, (9, 4)),
        (BatchNorm1d, nn.BatchNorm1d, (9, 4, 7)),
        (BatchNorm2d, nn.BatchNorm2d, (9, 4, 7, 5)),
        (BatchNorm2d, nn.BatchNorm2d, (9, 4, 1, 1)),
        (BatchNorm3d, nn.BatchNorm3d, (9, 4, 3, 7, 5)),
    ],
)
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("innermost", [True, False])
def test_batch_norm_is_batch_norm(kernels, ours, theirs, shape, training, innermost):
    one, other = ours(4).train(training), theirs(4).train(training)
    for norm in (one, other):
        torch.manual_seed(1)
        nn.init.normal_(norm.weight)
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = (torch.randn(shape) + 3).requires_grad_()
    turned = layout.batch_last(x.detach()) if innermost else x.detach().clone()
    turned.requires_grad_()
    a, b, grad = one(turned), other(x), torch.randn(shape)
    a.backward(grad)
    b.backward(grad)
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(a, b, **close)
    torch.testing.assert_close(turned.grad, x.grad, **close)
    torch.testing.assert_close(one.weight.grad, other.weight.grad, **close)
    torch.testing.assert_close(one.bias.grad, other.bias.grad, **close)
    torch.testing.assert_close(one.state_dict(), other.state_dict(), **close)
    if innermost and kernels != "torch":
        assert a.stride(0) == 1 and layout.batch_last(a) is a


def test_batch_norms_of_a_model_are_turned_in_place():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Sequential(nn.BatchNorm1d(4)))
    keys, weight = list(model.state_dict()), model[1].weight
    assert with_batch_last(model) is model
    assert type(model[1]) is BatchNorm2d and type(model[2][0]) is BatchNorm1d
    assert list(model.state_dict()) == keys and model[1].weight is weight
    with pytest.raises(ValueError, match="4D"):
        model[1](torch.randn(4, 6).t())


def test_copies_pickles_and_compiled_models_compute_the_same(draw):
    model = nn.Sequential(make(draw, 3, 4, (3, 3), padding=1), nn.ReLU(), make(draw, 4, 2, (1, 1)))
    x = torch.randn(6, 3, 8, 8)
    expected = model(x)
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    others.append(torch.compile(copy.deepcopy(model), backend="eager"))
    for other in others:
        assert torch.equal(other(x), expected)


def test_what_it_cannot_compute_is_refused(draw):
    with pytest.raises(ValueError, match="padding_mode='reflect'"):
        make(draw, 3, 4, (3, 3), padding_mode="reflect")
    with pytest.raises(ValueError, match="'same' with stride 1"):
        make(draw, 3, 4, (3, 3), padding="same", stride=2)
    with pytest.raises(ValueError, match="'same' with stride 1"):
        make(draw, 3, 4, (3, 3), padding="full")
    with pytest.raises(ValueError, match="groups=2 must divide"):
        CsrConv2d(3, 4, 3, torch.tensor([0]), torch.ones(1), groups=2)
    with pytest.raises(ValueError, match="stride="):
        make(draw, 3, 4, (3, 3), stride=0)
    with pytest.raises(ValueError, match="kernel_size="):
        CsrConv2d(3, 4, (3, 3, 3), torch.tensor([0]), torch.ones(1))
    layer = make(draw, 3, 4, (3, 3))
    with pytest.raises(ValueError, match="too small"):
        layer(torch.randn(1, 3, 2, 9))
    with pytest.raises(ValueError, match="input has shape"):
        layer(torch.randn(1, 4, 9, 9))
    with pytest.raises(TypeError, match=r"\.float\(\)"):
        layer(torch.randn(1, 3, 9, 9).double())


def test_attributes_are_those_of_torch(draw):
    ours = make(draw, 4, 6, (3, 5), stride=2, padding=(1, 2), groups=2)
    theirs = nn.Conv2d(4, 6, (3, 5), 2, (1, 2), groups=2)
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
    for name in (*names, "groups", "padding_mode"):
        assert getattr(ours, name) == getattr(theirs, name)
    assert ours.dense_weight().shape == theirs.weight.shape
    assert math.prod(ours.dense_shape) == theirs.weight.numel()
