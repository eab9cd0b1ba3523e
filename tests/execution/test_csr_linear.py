"""Sparse linear layers against dense autograd in float64."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

from regrow.execution.csr import dispatch
from regrow.execution.csr.linear import CsrLinear

TOLERANCE = 1e-5


def make(draw, inputs, outputs, density=0.3, *, bias=True, activation=None):
    positions, values = draw((outputs, inputs), density)
    bias = torch.randn(outputs) if bias else None
    return CsrLinear(inputs, outputs, positions, values, bias, activation=activation)


@settings(deadline=None, max_examples=60)
@given(
    inputs=st.integers(1, 300),
    outputs=st.integers(1, 200),
    batch=st.integers(1, 280),
    density=st.sampled_from([0.0, 0.01, 0.1, 0.5, 1.0]),
    bias=st.booleans(),
    activation=st.sampled_from([None, "relu"]),
    name=st.sampled_from(dispatch.available()),
    threads=st.sampled_from([1, 2, 3]),
    seed=st.integers(0, 2**16),
)
def test_everything_is_as_in_a_dense_layer(
    draw,
    check,
    instruction_set,
    inputs,
    outputs,
    batch,
    density,
    bias,
    activation,
    name,
    threads,
    seed,
):
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    layer = make(draw, inputs, outputs, density, bias=bias, activation=activation)
    with instruction_set(name):
        check(layer, functional.linear, torch.randn(batch, inputs), TOLERANCE)


def test_empty_rows_and_columns(kernels, draw, check):
    positions, values = draw((30, 50), 0.4, empty_rows=True)
    layer = CsrLinear(50, 30, positions, values, torch.randn(30))
    check(layer, functional.linear, torch.randn(40, 50), TOLERANCE)


@pytest.mark.parametrize("density", [0.1, 0.005])
def test_many_columns_in_blocks(kernels, draw, check, density):
    layer = make(draw, 2500, 40, density)
    check(layer, functional.linear, torch.randn(144, 2500), TOLERANCE)


FOREIGN = {
    "feature-major": lambda x: x.t().contiguous().t(),
    "every second": lambda x: x.repeat(2, 2)[::2, ::2][:, : x.shape[1]],
    "padded": lambda x: torch.cat([x, x]).t().contiguous().t()[: len(x)],
    "expanded": lambda x: x[:1].expand(x.shape),
}


@pytest.mark.parametrize("how", FOREIGN)
@pytest.mark.parametrize("batch", [1, 13, 128, 256])
def test_any_strides_of_input_and_gradient(kernels, draw, check, how, batch):
    layer = make(draw, 20, 14, activation="relu")
    x, grad = FOREIGN[how](torch.randn(batch, 20)), FOREIGN[how](torch.randn(batch, 14))
    assert x.shape == (batch, 20)
    check(layer, functional.linear, x, TOLERANCE, grad)


def test_more_axes_and_none(kernels, draw):
    layer = make(draw, 6, 4)
    x = torch.randn(2, 3, 5, 6)
    dense = functional.linear(x, layer.dense_weight(), layer.bias)
    torch.testing.assert_close(layer(x), dense)
    torch.testing.assert_close(layer(x[0, 0, 0]), dense[0, 0, 0])
    assert layer(layer.index.positions.new_empty(0, 6).float()).shape == (0, 4)


def test_an_empty_batch_has_zero_gradients(kernels, draw):
    layer = make(draw, 6, 4)
    layer(torch.empty(0, 6)).sum().backward()
    assert not layer.weight.grad.any() and not layer.bias.grad.any()


def test_memory_stays_feature_major_through_a_network(draw):
    first, second = make(draw, 20, 30), make(draw, 30, 10)
    hidden = first(torch.randn(64, 20))
    kept = functional.dropout(functional.relu(hidden), 0.5)
    assert hidden.stride() == kept.stride() == (1, 64)
    assert second(kept).stride(0) == 1
    assert first(torch.randn(512, 20)).stride() == (1, 528)


def test_a_fused_relu_is_a_relu(kernels, draw):
    fused = make(draw, 20, 30, activation="relu")
    plain = CsrLinear(
        20, 30, fused.index, fused.weight.detach().clone(), fused.bias.detach().clone()
    )
    x = torch.randn(33, 20)
    a, b = fused(x), plain(x).relu()
    assert torch.equal(a, b)
    grad = torch.randn(33, 30)
    a.backward(grad)
    b.backward(grad)
    torch.testing.assert_close(fused.weight.grad, plain.weight.grad)
    torch.testing.assert_close(fused.bias.grad, plain.bias.grad)


def test_gradients_that_are_not_needed_are_not_computed(draw):
    layer = make(draw, 20, 30)
    layer.weight.requires_grad_(False)
    x = torch.randn(8, 20)
    layer(x).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad is not None and x.grad is None
    layer.bias.requires_grad_(False)
    assert not layer(x).requires_grad
    with torch.no_grad():
        assert layer(x).grad_fn is None


def test_captured_passes_add_up(kernels, draw, by_rows):
    layer = make(draw, 20, 30)
    layer.captures = True
    dense = layer.dense_weight().requires_grad_()
    for batch in (5, 9):
        x = torch.randn(batch, 20)
        (layer(layer(x)[:, :20]).sum() * 0.1).backward()
        y = functional.linear(x, dense, layer.bias.detach())
        (functional.linear(y[:, :20], dense, layer.bias.detach()).sum() * 0.1).backward()
    for rows in (1, 7, 30):
        torch.testing.assert_close(by_rows(layer, rows), dense.grad)
    kept = layer.weight.grad
    torch.testing.assert_close(kept, dense.grad.flatten()[layer.index.positions])


def test_nothing_is_captured_unless_asked(draw):
    layer = make(draw, 5, 5)
    layer(torch.randn(2, 5)).sum().backward()
    assert not layer.captured


def test_the_topology_moves(kernels, draw, check):
    layer = make(draw, 20, 30, 0.2)
    count = len(layer.index)
    layer(torch.randn(3, 20)).sum().backward()
    elsewhere = torch.randperm(600)[:count].sort()[0]
    layer.set_topology_(elsewhere)
    assert layer.index.positions.equal(elsewhere)
    check(layer, functional.linear, torch.randn(17, 20), TOLERANCE)
    layer.set_topology_(elsewhere[:-1])
    with pytest.raises(ValueError, match=r"weight has shape"):
        layer(torch.randn(3, 20))
    before = layer.index
    with pytest.raises(ValueError, match="strictly ascending"):
        layer.set_topology_(torch.tensor([3, 3]))
    assert layer.index is before


def test_twice_differentiating_is_refused(draw):
    layer = make(draw, 5, 4)
    x = torch.randn(3, 5, requires_grad=True)
    (grad,) = torch.autograd.grad((layer(x) ** 2).sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_autocast_computes_in_float32(kernels, draw):
    layer = make(draw, 40, 30)
    x = torch.randn(8, 40, dtype=torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        y.sum().backward()
    assert y.dtype == layer.weight.grad.dtype == torch.float32
    torch.testing.assert_close(y, layer(x.float()))


def test_what_it_cannot_compute_is_refused(draw):
    layer = make(draw, 5, 4)
    with pytest.raises(TypeError, match=r"\.float\(\)"):
        layer(torch.randn(2, 5).double())
    with pytest.raises(TypeError, match=r"\.cpu\(\)"):
        layer(torch.randn(2, 5, device="meta"))
    with pytest.raises(ValueError, match="last size must be 5"):
        layer(torch.randn(2, 6))
    with pytest.raises(ValueError, match="activation='gelu'"):
        make(draw, 5, 4, activation="gelu")
    with pytest.raises(ValueError, match="weight has shape"):
        CsrLinear(5, 4, torch.tensor([1, 2]), torch.randn(3))
    with pytest.raises(ValueError, match="bias has shape"):
        CsrLinear(5, 4, torch.tensor([1, 2]), torch.randn(2), torch.randn(5))


def test_copies_and_pickles_compute_the_same(draw):
    model = nn.Sequential(make(draw, 20, 30, activation="relu"), make(draw, 30, 5))
    x = torch.randn(9, 20)
    expected = model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other(x), expected)
        with torch.no_grad():
            other[0].weight.zero_()
        assert torch.equal(model(x), expected)


def test_parameters_are_taken_over():
    values, bias = nn.Parameter(torch.randn(2)), nn.Parameter(torch.randn(4))
    layer = CsrLinear(5, 4, torch.tensor([1, 2]), values, bias)
    assert layer.weight is values and layer.bias is bias
    state = layer.state_dict()
    assert set(state) == {"weight", "bias", "_extra_state"}
    assert state["_extra_state"].tolist() == [1, 2]  # where the values are


def test_a_compiled_model_computes_the_same(draw):
    model = nn.Sequential(make(draw, 20, 30), nn.ReLU(), make(draw, 30, 5))
    compiled = torch.compile(copy.deepcopy(model), backend="eager")
    x = torch.randn(9, 20)
    for net in (model, compiled):
        net(x).square().sum().backward()
    assert torch.equal(model(x), compiled(x))
    for a, b in zip(model.parameters(), compiled.parameters(), strict=True):
        assert torch.equal(a.grad, b.grad)


def test_it_learns_what_a_masked_layer_learns(draw):
    layer = make(draw, 30, 20, 0.2)
    dense = layer.dense_weight().requires_grad_()
    mask = (layer.dense_weight() != 0).float()
    bias = layer.bias.detach().clone().requires_grad_()
    sparse_step = torch.optim.Adam(layer.parameters(), 0.01, fused=True)
    dense_step = torch.optim.Adam([dense, bias], 0.01, fused=True)
    for _ in range(20):
        x = torch.randn(16, 30)
        for optimizer, y in (
            (sparse_step, layer(x)),
            (dense_step, functional.linear(x, dense * mask, bias)),
        ):
            optimizer.zero_grad()
            y.square().mean().backward()
            optimizer.step()
    torch.testing.assert_close(layer.dense_weight(), dense * mask)
