"""Dense autograd in float64, beside which sparse layers must stand: fixtures return functions."""

import contextlib

import pytest
import torch

from regrow.execution.csr import dispatch


@contextlib.contextmanager
def _instruction_set(name):
    before = dispatch.in_use()
    dispatch.use(name)
    try:
        yield
    finally:
        dispatch.use(before)


@pytest.fixture(params=dispatch.available())
def kernels(request):
    """Every way this machine can compute, in turn."""
    with _instruction_set(request.param):
        yield request.param


@pytest.fixture(scope="session")
def instruction_set():
    return _instruction_set


@pytest.fixture(scope="session")
def draw():
    return _draw


@pytest.fixture(scope="session")
def check():
    return _check


def _draw(shape, density, *, empty_rows=False):
    """Positions and values of a random weight."""
    kept = torch.rand(shape) < density
    if empty_rows:
        kept[:: max(1, len(kept) // 3)] = False
        kept[:, 0] = False
    positions = kept.flatten().nonzero().flatten()
    return positions, torch.randn(len(positions))


def _close(actual, expected, magnitude, tolerance):
    """Whether the error is small beside what was expected, or beside the terms of the sums."""
    error = (actual.double() - expected).norm()
    return bool(error <= tolerance * (expected.norm() + magnitude.norm() / 10))


def _dense(function, tensors, grad, kept):
    """Output before ReLU, and the gradients of tensors where `kept` is what ReLU lets through."""
    leaves = [tensor.detach().double().requires_grad_() for tensor in tensors]
    y = function(*leaves, *[None] * (3 - len(leaves)))
    return [y.detach(), *torch.autograd.grad(y, leaves, grad.double() * kept)]


def gradient_by_rows(layer, rows):
    """Return the whole dense gradient of a csr layer, formed some rows at a time."""
    end = layer.dense_shape[0]
    firsts = range(0, end, rows)
    return torch.cat([layer.gradient_rows(first, min(first + rows, end)) for first in firsts])


@pytest.fixture
def by_rows():
    return gradient_by_rows


def _check(layer, function, x, tolerance, grad=None):
    """Compare everything a layer computes with dense autograd."""
    x = x.detach().requires_grad_()
    layer.captures = True
    y = layer(x)
    grad = torch.randn_like(y) if grad is None else grad
    layer.zero_grad()
    y.backward(grad)
    gradient = gradient_by_rows(layer, 2)
    layer.release()
    assert not layer.captured
    tensors = [x, layer.dense_weight(), *([] if layer.bias is None else [layer.bias])]
    # Near zero, rounding decides what ReLU lets through: the layer's own decision counts.
    kept = (y > 0).double() if layer.activation else torch.ones(())
    expected = _dense(function, tensors, grad, kept)
    magnitude = _dense(function, [t.abs() for t in tensors], grad.abs(), kept)
    if layer.activation:
        expected[0] = expected[0].relu()
    actual = [y, x.grad, gradient.view(layer.dense_shape)]
    actual += [] if layer.bias is None else [layer.bias.grad]
    names = ("y", "dX", "dense dW", "db")
    for name, a, b, size in zip(names, actual, expected, magnitude, strict=False):
        assert a.shape == b.shape
        assert _close(a, b, size, tolerance), name
    at = layer.index.positions
    weight, size = expected[2].flatten()[at], magnitude[2].flatten()[at]
    assert _close(layer.weight.grad, weight, size, tolerance)
