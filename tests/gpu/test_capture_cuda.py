"""A whole training step captured in a CUDA graph: refused while the topology is still to move."""

import pytest
import torch
from torch import nn

import regrow

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU"),
    # A step is warmed up on one stream and captured on another, which newer torch remarks on.
    pytest.mark.filterwarnings("ignore:The AccumulateGrad node's stream:UserWarning"),
]


class Run:
    """A layer, a capturable optimizer, and a step over inputs that stay where they are."""

    def __init__(self, method, total_steps=1000):
        self.model = nn.Linear(32, 32).to("cuda")
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.01, capturable=True)
        options = {"total_steps": total_steps}
        self.sparse = regrow.sparsify(self.model, self.optimizer, method, **options)
        self.inputs = torch.randn(8, 32, device="cuda")

    def step(self):
        self.optimizer.zero_grad(set_to_none=False)
        (self.model(self.inputs) - 1).square().mean().backward()
        self.optimizer.step()

    def warm_up(self, steps=3):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(steps):
                self.step()
        torch.cuda.current_stream().wait_stream(stream)

    def capture(self):
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        return graph


@pytest.mark.parametrize("kind", [regrow.SET, regrow.RigL, regrow.GMP])
def test_a_step_whose_topology_would_never_move_again_is_refused(kind):
    run = Run(kind(density=0.25, update_every=5, start_at=0))
    run.warm_up()
    before, masks = run.model.weight.detach().clone(), run.sparse.masks
    with pytest.raises(RuntimeError, match=r"step 5.*captured in a CUDA graph.*outside the graph"):
        run.capture()
    torch.cuda.synchronize()
    assert run.sparse.steps == 3
    assert run.model.weight.equal(before)
    run.step()
    run.step()  # goes on as if nothing had been
    assert [update.step for update in run.sparse.history] == [5]
    if kind is not regrow.GMP:
        assert not run.sparse.masks["weight"].equal(masks["weight"])
    assert not run.model.weight[~run.sparse.masks["weight"]].any()


def test_passes_may_be_captured_with_the_step_outside():
    run = Run(regrow.RigL(density=0.25, update_every=4))
    run.warm_up()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run.optimizer.zero_grad(set_to_none=False)
        loss = (run.model(run.inputs) - 1).square().mean()
        loss.backward()
    for _ in range(9):
        graph.replay()
        run.optimizer.step()
        assert not run.model.weight[~run.sparse.masks["weight"]].any()
    assert [update.step for update in run.sparse.history] == [4, 8, 12]


@pytest.mark.parametrize("late", [False, True])
def test_a_step_without_updates_ahead_is_captured_with_its_masks(late):
    """A static topology, or one that has made its last update."""
    method = regrow.RigL(density=0.25, update_every=2) if late else regrow.Static(density=0.25)
    run = Run(method, total_steps=8 if late else 1000)
    run.warm_up(8)
    assert len(run.sparse.history) == (2 if late else 0)
    graph, mask = run.capture(), run.sparse.masks["weight"]
    for _ in range(5):
        before = run.model.weight.detach().clone()
        graph.replay()
        assert not run.model.weight.equal(before)
        assert not run.model.weight[~mask].any()
    assert run.sparse.masks["weight"].equal(mask)
    assert int(mask.sum()) == 256
