"""Copies for inference: which layers compute nonzeros only, by batch; what they compute."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from regrow.engine.patterns import Kernel
from regrow.execution.csr import dispatch
from regrow.execution.csr.conv import CsrConv2d
from regrow.execution.csr.linear import CsrLinear
from regrow.execution.inference import inference_module


def thinned(layer, density, *, kernels=False):
    weight = layer.weight.data
    shape = weight.shape[:2] if kernels else weight.shape
    mask = torch.rand(shape) < density
    weight *= Kernel().expand(mask, weight.shape) if kernels else mask
    return layer


def is_stored(layer, **arguments):
    return isinstance(inference_module(nn.Sequential(layer), **arguments)[0], CsrLinear | CsrConv2d)


@pytest.mark.parametrize(
    ("size", "density", "batch", "stored"),
    [
        (768, 0.15, 1, True),
        (768, 0.25, 1, False),  # one sample: bytes count, and an index is as large as a value
        (768, 0.25, 2, True),
        (768, 0.25, None, False),  # a single sample may come
        (768, 0.35, 64, False),
        (512, 0.08, 1, True),  # narrow
        (512, 0.15, 1, False),
        (512, 0.14, 8, True),
        (128, 0.01, 64, False),  # tiny
    ],
)
def test_how_sparse_a_layer_must_be_depends_on_the_batch(size, density, batch, stored):
    layer = thinned(nn.Linear(size, size), density)
    assert is_stored(layer, batch=batch) == stored
    assert is_stored(layer, batch=batch, below=1.1)
    assert not is_stored(layer, batch=batch, below=0.0)


@pytest.mark.parametrize(
    ("kernels", "density", "batch", "stored"),
    [
        (True, 0.3, 1, True),
        (True, 0.3, None, True),
        (False, 0.1, None, False),
        (False, 0.1, 8, False),  # takes sixteen samples for one
        (False, 0.1, 16, True),
        (False, 0.2, 16, False),
    ],
)
def test_convolutions_of_single_weights_are_for_sixteen_samples(kernels, density, batch, stored):
    layer = thinned(nn.Conv2d(32, 48, 3, padding=1), density, kernels=kernels)
    assert is_stored(layer, batch=batch) == stored


def test_what_nonzeros_cannot_compute_stays_as_it_is():
    circular = thinned(nn.Conv2d(8, 8, 3, padding=1, padding_mode="circular"), 0.1)
    hooked = thinned(nn.Linear(8, 8), 0.1)
    hooked.register_forward_hook(lambda *_: torch.zeros(1))
    double = thinned(nn.Linear(8, 8), 0.1).double()
    for layer in (circular, hooked, double):
        assert not is_stored(layer, below=1.0)
    x = torch.randn(2, 8, 5, 5)
    model = nn.Sequential(circular)
    assert torch.equal(inference_module(model, below=1.0)(x), model(x))


@pytest.mark.parametrize(("batch", "error"), [(0, ValueError), (1.0, TypeError)])
def test_a_batch_that_is_none_is_refused(batch, error):
    with pytest.raises(error, match="batch="):
        inference_module(nn.Sequential(nn.Linear(2, 2)), batch=batch)


@settings(deadline=None, max_examples=40)
@given(
    rows=st.integers(1, 40),
    columns=st.integers(1, 700),
    batch=st.integers(0, 40),
    density=st.sampled_from([0.0, 0.02, 0.1, 0.5, 1.0]),
    relu=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_one_result_with_and_without_a_graph_on_any_number_of_threads(
    rows, columns, batch, density, relu, seed
):
    torch.manual_seed(seed)
    dense = thinned(nn.Linear(columns, rows), density)
    at = dense.weight.data.flatten().nonzero().flatten()
    layer = CsrLinear(
        columns,
        rows,
        at,
        dense.weight.data.flatten()[at],
        dense.bias.data,
        activation="relu" if relu else None,
    )
    x = torch.randn(batch, columns)
    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        with torch.inference_mode():
            found.append(layer(x))
        found.append(layer(x).detach())
    torch.set_num_threads(1)
    assert all(torch.equal(found[0], other) for other in found)
    expected = dense(x).relu() if relu else dense(x)
    torch.testing.assert_close(found[0], expected.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(dispatch.in_use() == "torch", reason="no kernel library here")
@pytest.mark.parametrize("name", dispatch.available())
def test_not_a_number_and_infinity_stay_what_they_are(name):
    before = dispatch.in_use()
    dispatch.use(name)
    try:
        at, values = torch.arange(20), torch.ones(20)
        layer = CsrLinear(10, 2, at, values, torch.zeros(2), activation="relu")
        for batch in (1, 3, 16, 17):
            x = torch.ones(batch, 10)
            x[0, 3], x[-1, 4] = float("nan"), float("inf")
            found = layer(x).detach()
            assert found[0].isnan().all()
            assert batch == 1 or (found[-1] == float("inf")).all()
            assert found[1:-1].eq(10).all()
    finally:
        dispatch.use(before)
