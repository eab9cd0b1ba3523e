"""On a GPU: sparse tensor cores against dense products, in training, graphs and inference."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine.patterns import NM
from regrow.execution.export import inference_module
from regrow.execution.two_four import PackedLinear, TwoFourLinear, library

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.skipif(
        torch.cuda.is_available() and library.library(torch.device("cuda", 0)) is None,
        reason="needs sparse tensor cores and cuSPARSELt or CUTLASS",
    ),
]
HALVES = [torch.bfloat16, torch.float16]


def layer_of(out=256, into=512, dtype=torch.bfloat16, bias=True):
    torch.manual_seed(1)
    dense = nn.Linear(into, out, bias=bias)
    units = NM(2, 4).draw(
        out * into // 2, torch.ones(out, into, dtype=torch.bool), out * into, torch.Generator()
    )
    dense, mask = dense.to("cuda", dtype), units.to("cuda", dtype)
    with torch.no_grad():
        dense.weight.mul_(mask)
    return TwoFourLinear.made_of_(dense, mask)


def error(found, expected):
    assert found.shape == expected.shape
    assert found.isfinite().all()
    found, expected = found.detach(), expected.detach()
    return float((found.double() - expected).norm() / expected.norm().clamp(min=1e-30))


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("size", [(256, 512), (64, 64), (32, 1024), (96, 192)])
@pytest.mark.parametrize("dtype", HALVES)
def test_output_and_gradients_are_those_of_the_dense_layer(dtype, size, bias):
    layer = layer_of(*size, dtype=dtype, bias=bias)
    assert library.why_dense(layer.weight, dtype, layer.library) is None
    for tokens in (1, 8, 37, 256, 1003):
        x = torch.randn(tokens, size[1], device="cuda", dtype=dtype, requires_grad=True)
        g = torch.randn(tokens, size[0], device="cuda", dtype=dtype)
        layer.zero_grad()
        y = layer(x)
        assert y.is_contiguous()
        y.backward(g)
        weight, flat = layer.weight.detach().double(), x.detach().double()
        expected = flat @ weight.mT + (layer.bias.detach().double() if bias else 0)
        assert error(y.detach(), expected) < 1e-2
        assert error(x.grad, g.double() @ weight) < 1e-2
        assert error(layer.weight.grad, g.double().mT @ flat) < 1e-2
        if bias:
            assert error(layer.bias.grad, g.double().sum(0)) < 1e-2


@pytest.mark.parametrize("shape", [(3, 5, 512), (512,), (0, 512)])
def test_inputs_of_any_number_of_dimensions(shape):
    layer = layer_of()
    x = torch.randn(shape, device="cuda", dtype=torch.bfloat16)
    torch.testing.assert_close(
        layer(x), functional.linear(x, layer.weight, layer.bias), rtol=2e-2, atol=2e-2
    )


@pytest.mark.parametrize("view", ["transposed", "expanded"])
def test_inputs_of_any_layout(view):
    layer = layer_of()
    x = {
        "transposed": lambda: torch.randn(512, 40, device="cuda", dtype=torch.bfloat16).mT,
        "expanded": lambda: torch.randn(1, 512, device="cuda", dtype=torch.bfloat16).expand(40, -1),
    }[view]()
    expected = functional.linear(x, layer.weight, layer.bias)
    torch.testing.assert_close(layer(x), expected, rtol=2e-2, atol=2e-2)


def test_sizes_and_dtypes_that_do_not_fit_are_multiplied_dense():
    for layer in (layer_of(40, 100), layer_of(dtype=torch.float32)):
        x = torch.randn(8, layer.in_features, device="cuda", dtype=layer.weight.dtype)
        expected = functional.linear(x, layer.weight, layer.bias)
        assert layer(x).equal(expected)
        assert "dense products" in layer.computed_by()


@pytest.mark.parametrize("dtype", HALVES)
def test_autocast_over_float32_weights(dtype):
    layer = layer_of(dtype=torch.float32)
    x = torch.randn(64, 512, device="cuda")
    with torch.autocast("cuda", dtype):
        y = layer(x)
    assert y.dtype == dtype
    expected = functional.linear(x, layer.weight, layer.bias).double()
    assert error(y.detach(), expected) < 1e-2
    y.float().square().mean().backward()
    assert layer.weight.grad.dtype == torch.float32


def test_runs_agree_bit_for_bit():
    layer, x = layer_of(), torch.randn(999, 512, device="cuda", dtype=torch.bfloat16)
    assert layer(x).equal(layer(x))


class Run:
    def __init__(self, execution, method=None):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256))
        self.model = model.to("cuda", torch.bfloat16)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, capturable=True)
        method = method or regrow.DynamicNM(update_every=4)
        self.sparse = regrow.sparsify(
            self.model, self.optimizer, method, total_steps=60, execution=execution
        )
        self.called = self.model
        self.inputs = torch.zeros(96, 256, device="cuda", dtype=torch.bfloat16)

    def draw(self, number):
        self.inputs.copy_(torch.randn(96, 256, generator=torch.Generator().manual_seed(number)))

    def step(self):
        self.optimizer.zero_grad(set_to_none=False)
        loss = (self.called(self.inputs) - self.inputs).float().square().mean()
        loss.backward()
        self.optimizer.step()
        return loss.detach()

    def go(self, steps):
        losses = []
        for number in steps:
            self.draw(number)
            losses.append(float(self.step()))
        return losses


def test_training_is_that_of_masks():
    masked, found = Run("masked"), Run("2:4")
    assert "(2:4)" in found.sparse.summary()
    losses = masked.go(range(20)), found.go(range(20))
    torch.testing.assert_close(*map(torch.tensor, losses), rtol=2e-2, atol=1e-3)
    assert [update.step for update in found.sparse.history] == [4, 8, 12, 16, 20]
    for name, mask in found.sparse.masks.items():
        assert NM(2, 4).allows(NM(2, 4).reduce(mask))
        assert (mask == masked.sparse.masks[name]).float().mean() > 0.8
        assert not found.model.get_parameter(name)[~mask].any()


@pytest.mark.filterwarnings("ignore")  # what a compiler has to say is not ours
def test_torch_compile_takes_the_layers_whole_through_updates():
    torch.compiler.reset()
    compiled, eager = Run("2:4"), Run("2:4")
    compiled.called = torch.compile(compiled.model, fullgraph=True)
    losses = compiled.go(range(2))
    with torch._dynamo.config.patch(error_on_recompile=True):
        losses += compiled.go(range(2, 10))
    torch.testing.assert_close(
        torch.tensor(losses), torch.tensor(eager.go(range(10))), rtol=2e-2, atol=1e-3
    )
    assert len(compiled.sparse.history) == 2


@pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream:UserWarning")
def test_a_whole_step_is_replayed_and_its_topology_moves():
    """Packing is part of the graph: what is replayed after an update is packed anew."""
    run = Run("2:4")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        run.go(range(3))
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with run.sparse.captured(), torch.cuda.graph(graph):
        loss = run.step()
    before = run.sparse.masks
    for number in range(9):
        run.draw(number)
        with torch.no_grad():
            expected = (run.model(run.inputs) - run.inputs).float().square().mean()
        graph.replay()
        torch.testing.assert_close(loss, expected, rtol=2e-2, atol=1e-3)
        run.sparse.advance_()
    assert [update.step for update in run.sparse.history] == [4, 8, 12]
    assert any(not mask.equal(before[name]) for name, mask in run.sparse.masks.items())


@pytest.mark.parametrize("dtype", HALVES)
def test_a_packed_layer_computes_the_same_from_fewer_bytes(dtype):
    layer = layer_of(dtype=dtype)
    packed = inference_module(nn.Sequential(layer))[0]
    assert isinstance(packed, PackedLinear)
    x = torch.randn(70, 512, device="cuda", dtype=dtype)
    with torch.no_grad():
        torch.testing.assert_close(packed(x), layer(x), rtol=2e-2, atol=2e-2)
    held = sum(value.nbytes for name, value in packed.named_buffers() if name != "bias")
    assert held < 0.6 * layer.weight.nbytes


def test_auto_times_both_and_says_what_it_found():
    model = nn.Sequential(nn.Linear(512, 512), nn.Linear(512, 100)).to("cuda", torch.bfloat16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = torch.zeros(64, 512, device="cuda", dtype=torch.bfloat16)
    options = {"total_steps": 9, "execution": "auto", "example_inputs": inputs}
    first, second = regrow.sparsify(model, optimizer, regrow.DynamicNM(), **options).plan.layers
    assert "ms as 2:4" in first.why and "masked" in first.why
    assert second.execution == "masked" and "outputs by multiples" in second.why


def test_the_operator_meets_torchs_own_rules():
    layer = layer_of()
    x = torch.randn(16, 512, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    args = (x, layer.weight, layer.mask, layer.bias)
    checks = ("test_schema", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(
        torch.ops.regrow.two_four_linear.default, args, test_utils=checks, rtol=1e-2, atol=1e-2
    )
