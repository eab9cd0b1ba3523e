"""Stored layers under DistributedDataParallel: two ranks are one process on the batches of both.

Each rank gathers the dense gradient of its own batches, and growth needs that of all.
"""

import contextlib

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import regrow
from regrow.engine.patterns import Block
from tests.ranks import on_ranks, once

STEPS, WORLD = 12, 2
LAYERS = {
    "csr": {},
    "block": {"pattern": Block(2)},
}


class Net(nn.Module):
    """Twelve inputs; a branch that only some batches go through."""

    def __init__(self):
        super().__init__()
        self.into, self.branch = nn.Linear(12, 14), nn.Linear(14, 14)
        self.out = nn.Linear(14, 4)

    def forward(self, x, through):
        x = self.into(x).tanh()
        return self.out(self.branch(x).tanh() if through else x)


def draw(step):
    return torch.randn(16, 12, generator=torch.Generator().manual_seed(step))


def start(execution, method=None):
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    method = method or regrow.RigL(
        density=0.3, update_every=2, drop_fraction=0.5, **LAYERS[execution]
    )
    sparse = regrow.sparsify(model, optimizer, method, total_steps=STEPS, execution=execution)
    return model, optimizer, sparse


def train(run, rank=None, parts=1, partly=False):
    """Train on a rank's half of every batch, or on both halves."""
    model, optimizer, _ = run
    for step in range(STEPS):
        optimizer.zero_grad()
        for half in (0, 1) if rank is None else (rank,):
            share = parts * (WORLD if rank is None else 1)
            pieces = draw(step).chunk(WORLD)[half].chunk(parts)
            for number, piece in enumerate(pieces):
                quiet = rank is not None and number < parts - 1
                with model.no_sync() if quiet else contextlib.nullcontext():
                    # Where only a part of the batch goes through a branch, one rank has none of it.
                    outputs = model(piece, through=not partly or half == 0)
                    ((outputs - 1).square().mean() / share).backward()
        optimizer.step()


def tell(run):
    model, _, sparse = run
    weights = {name: p.detach() for name, p in model.named_parameters()}
    return {"masks": sparse.masks, "weights": weights, "updates": len(sparse.history)}


SCENARIOS = {
    f"{execution} {name}": (execution, options, ddp)
    for execution in LAYERS
    for name, (options, ddp) in {
        "plain": ({}, {}),
        "views": ({}, {"gradient_as_bucket_view": True}),
        "accumulating": ({"parts": 2}, {"gradient_as_bucket_view": True}),
        "partly": ({"partly": True}, {"find_unused_parameters": True}),
    }.items()
}


def be_rank(folder):
    dist.init_process_group("gloo")
    rank, found = dist.get_rank(), {}
    for name, (execution, options, ddp) in SCENARIOS.items():
        model, optimizer, sparse = start(execution)
        wrapped = nn.parallel.DistributedDataParallel(model, **ddp)
        train((wrapped, optimizer, sparse), rank, **options)
        found[name] = tell((model, optimizer, sparse))
    model, optimizer, sparse = start("csr", regrow.GMP(density=0.3, update_every=2))
    wrapped = nn.parallel.DistributedDataParallel(model)
    try:
        train((wrapped, optimizer, sparse), rank)
    except RuntimeError as error:
        found["refused"] = str(error), sparse.density
    found["sharded"] = refused_when_sharded()
    train(alone := start("csr"))  # in no wrapper: both halves here, and none of the other's
    found["alone"] = tell(alone)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def refused_when_sharded():
    """What is said of a model that FSDP has sharded, and how "auto" computes it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 14), nn.Tanh(), nn.Linear(14, 4))
    fully_shard(model, mesh=init_device_mesh("cpu", (WORLD,)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    method = regrow.RigL(density=0.3, update_every=2)
    with pytest.raises(ValueError, match="sharded over ranks") as caught:
        regrow.sparsify(model, optimizer, method, total_steps=STEPS, execution="csr")
    inputs = draw(0)
    sparse = regrow.sparsify(
        model, optimizer, method, total_steps=STEPS, execution="auto", example_inputs=inputs
    )
    return str(caught.value), [(layer.execution, layer.why) for layer in sparse.plan.layers]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    def make(folder):
        for ended in on_ranks(be_rank, folder, ranks=WORLD):
            assert ended.returncode == 0, ended.stderr
            (folder / "said").write_text(ended.stderr)

    folder = once(tmp_path_factory, "stored-ranks", make)
    return *(torch.load(folder / f"{rank}.pt") for rank in range(WORLD)), folder


pytestmark = pytest.mark.slow


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_two_ranks_grow_as_one_process(ranks, scenario):
    one, other = (found[scenario] for found in ranks[:2])
    execution, options, _ = SCENARIOS[scenario]
    train(run := start(execution), **options)
    expected = tell(run)
    assert one["updates"] == other["updates"] == expected["updates"] >= 3
    for name, mask in expected["masks"].items():
        assert torch.equal(one["masks"][name], mask), name
        assert torch.equal(other["masks"][name], mask), name
    for name, weight in expected["weights"].items():
        assert torch.equal(one["weights"][name], other["weights"][name]), name
        torch.testing.assert_close(one["weights"][name], weight, rtol=1e-4, atol=1e-5)


def test_a_number_of_weights_that_moves_is_refused(ranks):
    for found in ranks[:2]:
        message, density = found["refused"]
        assert "into.weight is in a DistributedDataParallel" in message
        assert "execution='masked'" in message
        assert density == 1.0  # nothing was changed


def test_sharded_weights_are_refused_by_name_and_left_masked_by_auto(ranks):
    for found in ranks[:2]:
        message, layers = found["sharded"]
        assert "0.weight: it is sharded over ranks, and csr computes whole weights" in message
        assert [execution for execution, _ in layers] == ["masked", "masked"]
        assert all("sharded over ranks" in why for _, why in layers)


def test_ranks_that_are_in_no_wrapper_are_told_and_train_alone(ranks):
    train(run := start("csr"))
    expected = tell(run)
    for found in ranks[:2]:
        for name, mask in expected["masks"].items():
            assert torch.equal(found["alone"]["masks"][name], mask), name
    assert "2 ranks run, and the model is in no DistributedDataParallel" in (
        (ranks[2] / "said").read_text()
    )
