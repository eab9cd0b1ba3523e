"""Bytes against hand counts."""

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.patterns import Block, Kernel
from regrow.measure.memory import bytes_allocated, bytes_of_nonzeros, nonzeros


def trained(model, optimizer, method, inputs):
    sparse = regrow.sparsify(model, optimizer, method, total_steps=10)
    model(inputs).sum().backward()
    optimizer.step()
    return sparse


@pytest.mark.parametrize(
    ("make", "slots", "scalars"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.1), 0, 0),
        (lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9), 1, 0),
        (torch.optim.AdamW, 2, 1),
        (lambda p: torch.optim.AdamW(p, amsgrad=True), 3, 1),
    ],
)
def test_optimizer_slots_are_counted(make, slots, scalars):
    model = nn.Linear(20, 10)
    optimizer = make(model.parameters())
    sparse = trained(model, optimizer, regrow.Static(density=0.1), torch.randn(2, 20))
    held = bytes_allocated(model, optimizer, sparse)
    assert held.weights == held.gradients == 4 * 210
    assert held.optimizer_state == slots * 4 * 210 + scalars * 4 * 2
    assert held.topology == 4 * 200
    assert held.total == held.weights + held.gradients + held.optimizer_state + held.topology
    needed = bytes_of_nonzeros(model, optimizer, sparse)
    assert needed.weights == needed.gradients == 4 * (20 + 10)
    assert needed.optimizer_state == slots * 4 * (20 + 10) + scalars * 4 * 2
    assert needed.topology == 4 * (20 + 11)


def test_structured_units_need_one_index_each():
    model = nn.Conv2d(8, 8, 3, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.Static(density=0.25, pattern=Kernel())
    sparse = trained(model, optimizer, method, torch.randn(1, 8, 5, 5))
    needed = bytes_of_nonzeros(model, optimizer, sparse)
    assert needed.weights == 4 * 16 * 9
    assert needed.topology == 4 * (16 + 9)


def test_blocks_at_the_edge_hold_fewer_weights():
    model = nn.Linear(6, 6, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.Static(density=1.0, pattern=Block(4))
    sparse = trained(model, optimizer, method, torch.randn(1, 6))
    assert bytes_of_nonzeros(model, optimizer, sparse).weights == 4 * 36


def test_half_precision_halves_the_bytes():
    model = nn.Linear(16, 16, bias=False).bfloat16()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(model, optimizer, regrow.Static(density=0.5), total_steps=1)
    held = bytes_allocated(model, optimizer, sparse)
    assert held.weights == held.topology == 2 * 256


def test_nonzeros_counts_what_is_not_zero():
    model = nn.Linear(10, 10)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    regrow.sparsify(model, optimizer, regrow.Static(density=0.3), total_steps=1)
    assert nonzeros(model) == 30 + 10
