"""Equal keys draw alike whatever the type of their integers; what is no integer is refused."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import regrow
from regrow.continual import TaskNetwork
from regrow.continual.baselines.network import seeded_build
from regrow.continual.streams.split import class_order
from regrow.data.labels import split_off
from regrow.data.order import Order
from regrow.engine.checks import check_integer
from regrow.engine.selection import seeded_generator
from regrow.vision.adversarial import pgd
from regrow.vision.corruptions import corrupt, corrupt_video
from regrow.vision.corruptions.draws import Draws
from regrow.vision.hardness import choose

THREES = [np.int64(3), np.uint8(3), np.int32([3])[0], torch.tensor(3), torch.tensor(3).int()]
NO_INTEGERS = [True, np.True_, torch.tensor(True), 3.0, np.float32(3), torch.tensor(3.0), "3", None]
IMAGES = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def first_masks(seed):
    model = nn.Sequential(nn.Linear(9, 7), nn.Linear(7, 3))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    sparse = regrow.sparsify(model, optimizer, regrow.SET(density=0.3), total_steps=9, seed=seed)
    return torch.cat([mask.flatten() for mask in sparse.masks.values()])


def task_mask(seed):
    model = nn.Sequential(nn.Linear(9, 7), nn.Linear(7, 3))
    network = TaskNetwork(model, regrow.SET(density=0.3), seed=seed)
    network.add_task(2)
    network.sparsify(torch.optim.SGD(network.parameters(), 0.1), total_steps=9)
    return network.masks(0)["0.weight"]


def attacked(seed):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    return pgd(model, IMAGES, torch.zeros(2).long(), seed=seed, steps=0)


def chosen(seed):
    return choose(torch.arange(40.0), torch.arange(40) % 4, 0.5, "random", seed)


DRAWN = {
    "generator": lambda seed: torch.rand(5, generator=seeded_generator(seed, "layer", 2)),
    "part of a key": lambda seed: torch.rand(5, generator=seeded_generator("layer", seed)),
    "draws": lambda seed: Draws((seed, "fog"), torch.arange(2)).uniform(4),
    "corrupt, seed": lambda seed: corrupt(IMAGES, "gaussian_noise", 3, seed=seed),
    "corrupt, first": lambda seed: corrupt(IMAGES, "gaussian_noise", 3, first=seed),
    "video, seed": lambda seed: corrupt_video(IMAGES[None], "fog", 3, seed=seed),
    "video, first": lambda seed: corrupt_video(IMAGES[None], "fog", 3, first=seed),
    "sparsify": first_masks,
    "task network": task_mask,
    "attack": attacked,
    "order": lambda seed: torch.cat(list(Order(10, 2, seed).epoch(1))),
    "order, epoch": lambda number: torch.cat(list(Order(10, 2, 0).epoch(number))),
    "samples": chosen,
    "classes": lambda seed: torch.tensor(class_order(20, seed)),
    "split": lambda seed: split_off(torch.arange(40) % 4, 0.5, seed)[0],
    "network": lambda seed: seeded_build(lambda: nn.Linear(3, 2), seed).weight.detach(),
}


@pytest.mark.parametrize("what", DRAWN)
def test_an_integer_draws_alike_whatever_its_type(what):
    wanted = DRAWN[what](3)
    assert not torch.equal(wanted, DRAWN[what](4))
    for three in THREES:
        assert torch.equal(DRAWN[what](three), wanted)


@pytest.mark.parametrize("what", [name for name in DRAWN if name != "order, epoch"])
@pytest.mark.parametrize("value", [True, np.True_, 3.0, np.float32(3), None], ids=repr)
def test_what_is_no_integer_is_refused(what, value):
    with pytest.raises(TypeError, match="an integer is needed"):
        DRAWN[what](value)


@pytest.mark.parametrize("value", NO_INTEGERS, ids=repr)
def test_a_severity_that_is_no_integer_is_refused(value):
    with pytest.raises(ValueError, match="must be an integer from 1 to 5"):
        corrupt(IMAGES, "fog", value)
    with pytest.raises(TypeError, match=r"severity=.*: an integer is needed"):
        check_integer(value, "severity")


def test_a_severity_counts_whatever_its_type():
    wanted = corrupt(IMAGES, "gaussian_noise", 3)
    for three in THREES:
        assert torch.equal(corrupt(IMAGES, "gaussian_noise", three), wanted)


def test_a_name_draws_alike_whatever_its_type():
    one, other = seeded_generator(0, np.str_("fc")), seeded_generator(0, "fc")
    assert one.initial_seed() == other.initial_seed()


def test_the_numbers_are_those_of_before_and_of_every_process():
    """Records and masks rest on them: the hash of the key's text, as it is written in Python."""
    import hashlib

    digest = hashlib.blake2b(b"(5, 'fc1.weight', 'start')", digest_size=8).digest()
    wanted = int.from_bytes(digest, "little", signed=True)
    assert seeded_generator(5, "fc1.weight", "start").initial_seed() == wanted % 2**64
    code = (
        "from regrow.engine.selection import seeded_generator as g;"
        "print(g(5, 'fc1.weight', 'start').initial_seed())"
    )
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert int(told.stdout) == wanted % 2**64


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.bool])
def test_an_index_that_would_wrap_or_round_is_refused(dtype):
    with pytest.raises(TypeError, match="index of dtype"):
        Draws(("fog",), torch.zeros(2, dtype=dtype))


def test_a_short_index_draws_as_a_long_one():
    long = torch.tensor([0, 2**31 - 1])
    one, other = (Draws(("fog",), index).uniform(3) for index in (long, long.int()))
    assert torch.equal(one, other)
