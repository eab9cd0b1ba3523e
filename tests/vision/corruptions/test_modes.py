"""A corruption is the same, bit for bit, in whatever mode its caller has put torch."""

from contextlib import ExitStack, contextmanager

import pytest
import torch

from regrow.vision.corruptions import CORRUPTIONS, EXTRA, corrupt, corrupt_video
from regrow.vision.corruptions.modes import ordinary_modes
from tests.ranks import run_code

ALL = CORRUPTIONS + EXTRA


@contextmanager
def put(setter, value, before):
    setter(value)
    try:
        yield
    finally:
        setter(before)


MODES = {
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "inference mode": torch.inference_mode,
    "no gradients": torch.no_grad,
    "default dtype": lambda: put(torch.set_default_dtype, torch.float64, torch.float32),
    "half by default": lambda: put(torch.set_default_dtype, torch.float16, torch.float32),
    "default device": lambda: torch.device("meta"),
    "deterministic": lambda: put(torch.use_deterministic_algorithms, True, False),
    "medium products": lambda: put(torch.set_float32_matmul_precision, "medium", "highest"),
}

_KEPT = """
import sys, torch
from regrow.vision.corruptions import CORRUPTIONS, EXTRA, corrupt
images = torch.rand(2, 3, 40, 42, generator=torch.Generator().manual_seed(0))
def all_of_them():
    return [corrupt(images, n, s, table=t) for n in CORRUPTIONS + EXTRA for s in (1, 5)
            for t in ("cifar", "imagenet")]
with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16), torch.device("meta"):
    torch.set_default_dtype(torch.float64)
    first = all_of_them()
    torch.set_default_dtype(torch.float32)
assert not any(image.is_inference() for image in first)
import regrow.vision.corruptions.blur as b, regrow.vision.corruptions.digital as d
import regrow.vision.corruptions.draws as r, regrow.vision.corruptions.ice as i
import regrow.vision.corruptions.jpeg as j, regrow.vision.corruptions.linear as l
import regrow.vision.corruptions.noise as n
kept = [f for m in (b, d, r, i, j, l, n) for f in vars(m).values() if hasattr(f, "cache_clear")]
assert len(set(kept)) >= 9 and all(f.cache_info().currsize for f in kept)
again = all_of_them()
for f in kept:
    f.cache_clear()
for one, two, three in zip(first, again, all_of_them()):
    assert torch.equal(one, two) and torch.equal(two, three)
"""


@pytest.fixture(scope="module")
def images():
    generator = torch.Generator().manual_seed(0)
    return {side: torch.rand(2, 3, side, side + 2, generator=generator) for side in (32, 70)}


@pytest.mark.parametrize("name", ALL)
def test_the_result_is_the_same_in_every_mode(images, name):
    for given in images.values():
        for one in (given, (given * 255).byte(), given.half()):
            for severity in (1, 3, 5):
                wanted = corrupt(one, name, severity)
                for mode, enter in MODES.items():
                    with enter():
                        found = corrupt(one, name, severity)
                    assert torch.equal(found, wanted), mode
                    assert found.dtype == wanted.dtype and not found.is_inference(), mode


@pytest.mark.parametrize("name", ALL)
def test_the_result_is_the_same_in_all_modes_at_once_and_they_are_given_back(images, name):
    wanted = corrupt_video(images[32][None], name, 4)
    with ExitStack() as stack:
        for mode in MODES.values():
            stack.enter_context(mode())
        found = corrupt_video(images[32][None], name, 4)
        assert torch.is_inference_mode_enabled() and torch.is_autocast_enabled("cpu")
        assert torch.get_default_dtype() == torch.float16
        assert torch.zeros(1).device.type == "meta"
        assert torch.get_float32_matmul_precision() == "medium"
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("name", ALL)
def test_images_made_in_another_mode_are_taken(images, name):
    wanted = corrupt(images[32], name, 3)
    with torch.inference_mode():
        given = images[32].clone()
    assert torch.equal(corrupt(given, name, 3), wanted)
    found = corrupt(images[32].clone().requires_grad_(), name, 3)
    assert torch.equal(found, wanted)
    assert not found.requires_grad


def test_what_is_kept_from_a_first_call_in_odd_modes_serves_all_others():
    ran = run_code(_KEPT)
    assert ran.returncode == 0, ran.stderr


def test_modes_come_back_after_an_error():
    with pytest.raises(KeyError), MODES["default dtype"]():
        try:
            with ordinary_modes():
                assert torch.get_default_dtype() == torch.float32
                raise KeyError
        finally:
            assert torch.get_default_dtype() == torch.float64
    assert torch.get_default_dtype() == torch.float32
    assert torch.is_grad_enabled()
