"""torch.compile takes sparse models whole: before, in and after updates, layer by layer alike."""

import copy
import shutil

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch._dynamo.utils import counters

import regrow
from regrow.engine.patterns import Block
from regrow.execution.csr import handles
from regrow.execution.csr.linear import CsrLinear

pytestmark = [
    # What torch.compile imports on the way.
    pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
]

EVERY = {"density": 0.3, "update_every": 2}
GROWS_BY_GRADIENT = {
    "masked": regrow.RigL(**EVERY),
    "csr": regrow.RigL(**EVERY),
    "block": regrow.DynamicBlock(**EVERY, pattern=Block(4)),
}
GROWS_AT_RANDOM = {
    "masked": regrow.SET(**EVERY),
    "csr": regrow.SET(**EVERY),
    "block": regrow.SET(**EVERY, pattern=Block(4)),
}
CASES = [
    pytest.param(execution, method, id=f"{execution}-{method.name}")
    for methods in (GROWS_BY_GRADIENT, GROWS_AT_RANDOM)
    for execution, method in methods.items()
]


@pytest.fixture(autouse=True)
def _nothing_compiled_yet():
    torch.compiler.reset()
    counters.clear()
    yield
    torch.compiler.reset()


def perceptron():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 8)
    )


def images():
    """Images of three channels, through all that stored convolutions bring with them."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 6, (3, 1), stride=2),
        nn.Flatten(),
        nn.Linear(6 * 2 * 2, 8),
    )


def step(model, optimizer, number, shape=(16,), batch=6):
    generator = torch.Generator().manual_seed(number)
    optimizer.zero_grad()
    # Kept until the next loss is there, as in most loops.
    loss = model(torch.randn(batch, *shape, generator=generator)).square().mean()
    loss.backward()
    optimizer.step()
    return loss


class Run:
    def __init__(self, build, method, execution, backend=None, shape=(16,)):
        self.model, self.shape, self.loss = build(), shape, None
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01)
        self.sparse = regrow.sparsify(
            self.model, self.optimizer, method, total_steps=40, execution=execution
        )
        self.counter = CompileCounterWithBackend(backend) if backend else None
        self.called = self.model
        if backend:
            self.called = torch.compile(self.model, backend=self.counter, fullgraph=True)

    def go(self, steps):
        for number in steps:
            self.loss = step(self.called, self.optimizer, number, self.shape)


def agree(one, other):
    for name, mask in one.sparse.masks.items():
        assert mask.equal(other.sparse.masks[name])
    ours, theirs = one.model.state_dict(), other.model.state_dict()
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def one_graph_all_along(build, method, execution, backend, shape=(16,)):
    compiled, eager = (Run(build, method, execution, b, shape) for b in (backend, None))
    compiled.go(range(1))
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled.go(range(1, 8))
    eager.go(range(8))
    assert compiled.counter.frame_count == 1
    assert not counters["graph_break"]
    assert len(compiled.sparse.history) >= 3
    assert compiled.sparse.history == eager.sparse.history
    return compiled, eager


@pytest.mark.parametrize(("execution", "method"), CASES)
def test_one_graph_before_in_and_after_updates(execution, method):
    agree(*one_graph_all_along(perceptron, method, execution, "aot_eager"))


def test_convolutions_and_their_norms_are_one_graph():
    method = regrow.RigL(**EVERY)
    found, expected = one_graph_all_along(images, method, "csr", "aot_eager", (3, 6, 3))
    for name, mask in found.sparse.masks.items():
        assert mask.equal(expected.sparse.masks[name])
    torch.testing.assert_close(found.loss, expected.loss, rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize(("execution", "method"), CASES)
def test_compiled_code_writes_into_nothing_that_an_update_reads(execution, method):
    """Inductor gives the memory of activations and their gradients to what comes next."""
    agree(*one_graph_all_along(perceptron, method, execution, "inductor"))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(16, 32), nn.Linear(32, 16)

    def forward(self, x):
        return x + self.two(self.one(x).relu())


@pytest.mark.parametrize("execution", ["masked", "csr", "block"])
def test_layers_of_one_kind_share_what_is_compiled(execution):
    """Twelve blocks compiled one by one: more than dynamo would compile anew."""
    method = GROWS_BY_GRADIENT[execution]
    counter, model = (
        CompileCounterWithBackend("eager"),
        nn.Sequential(*(Residual() for _ in range(12))),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=40, execution=execution)
    for block in model:
        block.compile(backend=counter, fullgraph=True)
    for number in range(5):
        step(model, optimizer, number)
    assert sparse.history
    assert counter.frame_count == 2  # the first input needs no gradient, the others do


@pytest.mark.parametrize("execution", ["csr", "block"])
def test_a_density_that_moves_is_compiled_once_where_sizes_may(execution):
    pattern = {"pattern": Block(4)} if execution == "block" else {}
    method = regrow.GMP(density=0.2, update_every=2, **pattern)
    sizes = {
        "force_parameter_static_shapes": False,
        "force_nn_module_property_static_shapes": False,
    }
    with torch._dynamo.config.patch(sizes):
        compiled, eager = (Run(perceptron, method, execution, b) for b in ("aot_eager", None))
        compiled.go(range(12))
        with torch._dynamo.config.patch(error_on_recompile=True):
            compiled.go(range(12, 20))
    eager.go(range(20))
    assert compiled.counter.frame_count <= 4
    counts = [update.layers["0.weight"].active for update in compiled.sparse.history]
    assert counts[-1] < counts[0]
    agree(compiled, eager)


def test_the_operator_of_csr_layers_meets_torchs_own_rules():
    layer = CsrLinear(5, 4, torch.tensor([1, 3, 8, 19]), torch.randn(4), torch.randn(4))
    x = torch.randn(3, 5, requires_grad=True)
    args = (x, layer.weight, layer.bias, layer.handle, [3, 4], False)
    torch.library.opcheck(torch.ops.regrow.csr.default, args)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("batch_major", [True, False])
def test_compiled_csr_layers_have_the_gradients_of_launched_ones(activation, batch_major):
    positions, bias = torch.tensor([1, 3, 8, 12, 19]), torch.randn(4)
    layer = CsrLinear(5, 4, positions, torch.randn(5), bias, activation=activation)
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    x = torch.randn(7, 5) if batch_major else torch.randn(5, 7).t()
    found = []
    for call in (layer, compiled):
        leaf = x.detach().requires_grad_()
        layer.captures = True
        y = call(leaf)
        y.backward(torch.arange(28.0).view(7, 4))
        dense = layer.gradient_rows(0, 4)
        found.append([y, leaf.grad, layer.weight.grad, layer.bias.grad, dense])
        layer.zero_grad()
        layer.release()
    torch.testing.assert_close(found[0], found[1])
    assert found[0][0].stride() == found[1][0].stride()


def test_a_topology_that_moves_between_the_passes_is_refused():
    layer = CsrLinear(5, 4, torch.tensor([1, 3, 8]), torch.randn(3))
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    y = compiled(torch.randn(3, 5))
    layer.set_topology_(torch.tensor([1, 3, 9]))
    with pytest.raises(RuntimeError, match="moved between a forward pass and its backward pass"):
        y.sum().backward()


def test_a_copy_of_a_layer_computes_as_itself():
    layer = CsrLinear(5, 4, torch.tensor([1, 3, 8]), torch.randn(3))
    model = nn.Sequential(layer, nn.Linear(4, 5), copy.deepcopy(layer))
    with torch.no_grad():
        model[2].weight.mul_(3)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    x = torch.randn(3, 5)
    torch.testing.assert_close(compiled(x), model(x))


def test_handles_of_topologies_that_are_gone_are_not_kept():
    layer = CsrLinear(3, 4, torch.tensor([1, 3, 7]), torch.ones(3))
    kept = len(handles._LAYERS)
    for _ in range(5):
        before = layer.handle
        layer.set_topology_(torch.tensor([1, 3, 8]))
    assert len(handles._LAYERS) == kept and handles.layer_of(layer.handle) is layer
    with pytest.raises(RuntimeError, match="between a forward pass and its backward pass"):
        handles.layer_of(before)
