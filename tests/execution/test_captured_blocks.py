"""Steps over stored blocks as CUDA graphs replay them: what they read and write stays in place."""

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.patterns import Block
from regrow.execution.block import scatter_blocks

BLOCKS = {"density": 0.3, "pattern": Block(4), "update_every": 3}


def blocks(method):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    return (
        model,
        optimizer,
        regrow.sparsify(model, optimizer, method, total_steps=40, execution="block"),
    )


def backward(model, number):
    x = torch.randn(8, 16, generator=torch.Generator().manual_seed(number))
    model.zero_grad(set_to_none=False)
    loss = model(x).square().mean()
    loss.backward()
    return loss


@pytest.mark.parametrize("grows", ["at random", "by gradient"])
def test_a_topology_of_stored_blocks_moves_between_replays(grows):
    """Where growth reads dense gradients, the step of an update is launched; else none is."""
    method = regrow.SET(**BLOCKS) if grows == "at random" else regrow.RigL(**BLOCKS)
    (one, plain, expected), (other, optimizer, sparse) = blocks(method), blocks(method)
    places = [p.data_ptr() for p in other.parameters()]
    gradients = None
    for number in range(8):
        backward(one, number)
        plain.step()
        following = method.next_update(sparse.steps, sparse.total_steps)
        backward(other, number)
        gradients = gradients or [p.grad.data_ptr() for p in other.parameters()]
        if grows == "by gradient" and following == sparse.steps + 1:
            with pytest.raises(ValueError, match=r"launch the passes and optimizer\.step"):
                sparse.advance_()
            optimizer.step()
            continue
        with sparse.captured():
            optimizer.step()
        sparse.advance_()
    assert [update.step for update in sparse.history] == [3, 6]
    assert sparse.history == expected.history
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    # All that a graph reads and writes is where it was.
    assert places == [p.data_ptr() for p in other.parameters()]
    assert gradients == [p.grad.data_ptr() for p in other.parameters()]


def test_gradients_move_with_their_weights():
    model, optimizer, sparse = blocks(regrow.SET(**BLOCKS))
    for number in range(2):
        backward(model, number)
        optimizer.step()
    backward(model, 2)
    layer = model[0]
    before, gradient = sparse.masks["0.weight"], layer.weight.grad
    dense = scatter_blocks(gradient, layer.positions, (32, 16)).clone()
    optimizer.step()
    after = sparse.masks["0.weight"]
    assert not after.equal(before)
    assert layer.weight.grad is gradient
    moved = scatter_blocks(gradient, layer.positions, (32, 16))
    assert torch.equal(moved, dense * (before & after))


def test_a_number_of_blocks_does_not_change_under_a_graph_that_reads_them():
    model, optimizer, sparse = blocks(regrow.GMP(**BLOCKS))
    refused = pytest.raises(RuntimeError, match=r"GMP changes how many weights 0\.weight")
    with refused, sparse.captured():
        pass
    backward(model, 0)
    optimizer.step()
    for layer in model[::2]:
        layer.graphed = True  # as the forward pass notes while a graph is captured
    masks, weight = sparse.masks, model[0].weight
    with pytest.raises(RuntimeError, match=r"0\.weight was captured in a CUDA graph"):
        for number in range(1, 12):
            backward(model, number)
            optimizer.step()
    assert all(torch.equal(mask, masks[name]) for name, mask in sparse.masks.items())
    assert model[0].weight is weight


@pytest.mark.parametrize("execution", ["csr", "block"])
def test_a_density_falls_while_the_last_loss_is_alive(execution):
    """As in every loop that assigns the loss to a name; its graph holds the gradient's length."""
    pattern = {"pattern": Block(4)} if execution == "block" else {}
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 16))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    method = regrow.GMP(density=0.2, update_every=2, **pattern)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=20, execution=execution)
    losses, counts = [], []
    for number in range(10):
        losses.append(backward(model, number))
        optimizer.step()
        counts.append(len(model[0].weight))
    assert counts[-1] < counts[0]
    assert counts[-1] == sparse.history[-1].layers["0.weight"].active
