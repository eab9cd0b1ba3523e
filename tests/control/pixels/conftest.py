"""A setting small enough for a CPU, and environments of a few pixels."""

import pytest

from regrow.control.pixels.dot import Dot
from regrow.control.pixels.method import PIXEL_METHODS
from regrow.control.pixels.setting import PixelSetting

TINY = {
    "steps": 40, "seed_steps": 12, "size": 16, "layers": 3, "filters": 4, "projection": 8,
    "width": 16, "batch": 4, "soda_batch": 4, "shift": 2, "evaluate_every": 20, "episodes": 1,
}  # fmt: skip


@pytest.fixture
def tiny():
    def make(**changes):
        return PixelSetting(**(TINY | changes))

    return make


@pytest.fixture
def dots():
    """Environments of training, and those of tests, for a method by name."""

    def make(method, seed=0, episode=10):
        size = PIXEL_METHODS[method].rendered(TINY["size"])
        tests = {
            m: Dot([seed + 9], size=size, mode=m, episode=episode) for m in ("clean", "moving")
        }
        return Dot([seed], size=size, episode=episode), tests

    return make
