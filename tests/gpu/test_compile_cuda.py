"""On a GPU: compiled models and CUDA graphs whose topology moves, or which are refused."""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import regrow
from regrow.engine.patterns import Block

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    pytest.mark.filterwarnings("ignore"),  # what a compiler has to say is not ours
]

BLOCKS = {"density": 0.4, "pattern": Block(32), "update_every": 4}
BY_GRADIENT, AT_RANDOM = regrow.RigL(**BLOCKS), regrow.SET(**BLOCKS)


@pytest.fixture(autouse=True)
def _nothing_compiled_yet():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Run:
    """Three layers of blocks in bfloat16, and steps over inputs that stay where they are."""

    def __init__(self, method, **adam):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 256)
        )
        self.model = model.to("cuda", torch.bfloat16)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, **adam)
        self.sparse = regrow.sparsify(
            self.model, self.optimizer, method, total_steps=60, execution="block"
        )
        self.called = self.model
        self.inputs = torch.zeros(96, 256, device="cuda", dtype=torch.bfloat16)

    def draw(self, number):
        x = torch.randn(96, 256, generator=torch.Generator().manual_seed(number))
        self.inputs.copy_(x)

    def passes(self, *, set_to_none=True):
        self.optimizer.zero_grad(set_to_none=set_to_none)
        loss = (self.called(self.inputs) - self.inputs).float().square().mean()
        loss.backward()
        return loss.detach()

    def go(self, steps):
        for number in steps:
            self.draw(number)
            self.passes()
            self.optimizer.step()

    def near(self):
        following = self.sparse.method.next_update(self.sparse.steps, self.sparse.total_steps)
        return following == self.sparse.steps + 1


def alike(one, other):
    """What rounding leaves of two topologies that saw nearly the same gradients."""
    for name, mask in one.sparse.masks.items():
        assert (mask == other.sparse.masks[name]).float().mean() > 0.8, name
        assert int(mask.sum()) == int(other.sparse.masks[name].sum())


def captured(call, warm_up=3):
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for number in range(warm_up):
            call(number)
    torch.cuda.current_stream().wait_stream(stream)


@pytest.mark.parametrize("method", [BY_GRADIENT, AT_RANDOM], ids=lambda m: m.name)
def test_one_graph_before_in_and_after_updates(method):
    compiled, eager = Run(method), Run(method)
    counter = CompileCounterWithBackend("inductor")
    compiled.called = torch.compile(compiled.model, backend=counter, fullgraph=True)
    compiled.go(range(2))
    with torch._dynamo.config.patch(error_on_recompile=True):
        compiled.go(range(2, 14))
    eager.go(range(14))
    assert counter.frame_count == 1
    assert [update.step for update in compiled.sparse.history] == [4, 8, 12]
    alike(compiled, eager)


@pytest.mark.parametrize("method", [BY_GRADIENT, AT_RANDOM], ids=lambda m: m.name)
def test_graphs_that_torch_compile_makes_do_not_freeze_the_topology(method):
    """mode="reduce-overhead" replays: what an update reads is gathered outside of its graphs."""
    compiled, eager = Run(method), Run(method)
    compiled.called = torch.compile(compiled.model, mode="reduce-overhead", fullgraph=True)
    before = compiled.sparse.masks
    compiled.go(range(14))
    eager.go(range(14))
    assert [update.step for update in compiled.sparse.history] == [4, 8, 12]
    assert any(not m.equal(before[n]) for n, m in compiled.sparse.masks.items())
    alike(compiled, eager)


def test_a_whole_step_over_blocks_is_replayed_and_its_topology_moves():
    run = Run(AT_RANDOM, capturable=True)

    def step(number):
        run.passes(set_to_none=False)
        run.optimizer.step()

    captured(step)
    graph = torch.cuda.CUDAGraph()
    with run.sparse.captured(), torch.cuda.graph(graph):
        step(0)
    for number in range(10):
        weights = [p.detach().clone() for p in run.model.parameters()]
        layout = run.model[0].layout.clone()
        run.draw(number)
        graph.replay()
        moved = run.sparse.advance_()
        assert any(
            not torch.equal(a, b) for a, b in zip(weights, run.model.parameters(), strict=True)
        )
        assert (moved is not None) == (not torch.equal(layout, run.model[0].layout))
    assert [update.step for update in run.sparse.history] == [4, 8, 12]
    # What is replayed after an update computes with the blocks where they are now.
    run.draw(99)
    graph.replay()
    gradients = [p.grad.clone() for p in run.model.parameters()]
    assert all(gradient.isfinite().all() and gradient.any() for gradient in gradients)


def test_captured_passes_go_on_after_an_update_and_launched_ones_feed_it():
    run, eager = Run(BY_GRADIENT), Run(BY_GRADIENT)
    captured(lambda number: run.passes(set_to_none=False))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run.passes(set_to_none=False)
    for number in range(14):
        run.draw(number)
        if run.near():
            run.passes(set_to_none=False)
        else:
            graph.replay()
        before = run.model[0].weight.detach().clone()
        run.optimizer.step()
        assert not torch.equal(before, run.model[0].weight)
    eager.go(range(14))
    assert [update.step for update in run.sparse.history] == [4, 8, 12]
    for name, mask in run.sparse.masks.items():
        assert mask.equal(eager.sparse.masks[name])
    for one, other in zip(run.model.parameters(), eager.model.parameters(), strict=True):
        assert torch.equal(one, other)


def test_replays_that_an_update_finds_nothing_of_are_an_error():
    run = Run(BY_GRADIENT)
    captured(lambda number: run.passes(set_to_none=False))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run.passes(set_to_none=False)
    masks = run.sparse.masks
    with pytest.raises(RuntimeError, match=r"no dense gradient.*launched passes only"):
        for number in range(4):
            run.draw(number)
            graph.replay()
            run.optimizer.step()
    assert all(mask.equal(masks[name]) for name, mask in run.sparse.masks.items())


def test_a_number_of_blocks_does_not_change_under_a_graph_that_reads_them():
    run = Run(regrow.GMP(density=0.2, pattern=Block(32), update_every=4))
    captured(lambda number: run.passes(set_to_none=False))
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run.passes(set_to_none=False)
    assert all(layer.graphed for layer in run.model[::2])
    with pytest.raises(RuntimeError, match="captured in a CUDA graph"):
        run.go(range(8))
