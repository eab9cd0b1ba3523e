"""A short run of the fuzzers of the engine; ``make fuzz`` runs thousands."""

import random

import pytest
import torch

import regrow
from tests.fuzz import faults, trainings
from tests.fuzz.budget import run


@pytest.mark.parametrize("fuzzer", [trainings, faults], ids=lambda one: one.__name__)
@pytest.mark.slow
def test_random_trainings(fuzzer):
    torch.set_num_threads(1)
    kinds, wrong = run(fuzzer.case, 0, range(25))
    assert wrong == []
    assert sum(n for kind, n in kinds.items() if "refused" not in kind) > 10


def test_a_check_that_finds_nothing_would_not_be_one():
    """Weights outside the masks, masks moved without a record, and torn states are found."""
    drawn = trainings.draw(random.Random("0/1"))
    options = {"method": regrow.SET, "options": {"density": 0.3}, "network": "mlp"}
    parts = trainings.build(drawn | options | {"execution": "masked"})
    before = parts[2].masks
    trainings.check(parts, before, 0)
    name = next(iter(before))
    flipped = before | {name: ~before[name]}
    with pytest.raises(AssertionError):
        trainings.check(parts, flipped, 0)
    model = parts[0]
    weight = dict(model.named_parameters())[name]
    with torch.no_grad():
        weight[~before[name]] = 1.0
    with pytest.raises(AssertionError, match="outside"):
        trainings.check(parts, before, 0)
