"""What follows from a setting: the learning rate over a run."""

import math

import pytest

import regrow
from regrow.training.setting import Setting, learning_rate_factor


@pytest.mark.parametrize(
    ("progress", "schedule", "warmup", "factor"),
    [
        (0.0, "steps", 0.0, 1.0),
        (0.49, "steps", 0.0, 1.0),
        (0.5, "steps", 0.0, 0.1),
        (0.75, "steps", 0.0, 0.01),
        (1.0, "steps", 0.0, 0.01),
        (0.0, "steps", 0.1, 0.0),
        (0.05, "steps", 0.1, 0.5),
        (0.1, "steps", 0.1, 1.0),
        (0.0, "cosine", 0.0, 1.0),
        (0.5, "cosine", 0.0, 0.5),
        (1.0, "cosine", 0.0, 0.0),
        (1.5, "cosine", 0.0, 0.0),
        (0.25, "cosine", 0.5, 0.5 * (1 + math.sqrt(0.5)) / 2),
        (0.0, "poly", 0.0, 1.0),
        (0.5, "poly", 0.0, 0.5**0.9),
        (1.0, "poly", 0.0, 0.0),
        (1.5, "poly", 0.0, 0.0),
        (0.05, "poly", 0.1, 0.5 * 0.95**0.9),
        (0.9, "constant", 0.0, 1.0),
        (0.1, "constant", 0.2, 0.5),
    ],
)
def test_learning_rate_factor(progress, schedule, warmup, factor):
    found = learning_rate_factor(progress, schedule, warmup, (0.5, 0.75))
    assert found == pytest.approx(factor, abs=1e-12)


def test_clipping_needs_a_norm_above_zero_and_a_method_that_bears_masked_gradients():
    kind = {"seed": 0, "epochs": 1, "method": regrow.SET(density=0.5)}
    assert Setting(**kind, clip=12).clip == 12
    with pytest.raises(ValueError, match="clip=0: must be above 0"):
        Setting(**kind, clip=0)
    momentum = regrow.SNFS(density=0.5)
    assert Setting(**kind | {"method": momentum}).clip is None
    with pytest.raises(ValueError, match=r"clip=12: .*starve.*clip=None"):
        Setting(**kind | {"method": momentum}, clip=12)
