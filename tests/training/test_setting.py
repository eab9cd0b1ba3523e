"""What follows from a setting: the learning rate over a run."""

import math

import pytest

from regrow.training.setting import learning_rate_factor


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
        (0.9, "constant", 0.0, 1.0),
        (0.1, "constant", 0.2, 0.5),
    ],
)
def test_learning_rate_factor(progress, schedule, warmup, factor):
    found = learning_rate_factor(progress, schedule, warmup, (0.5, 0.75))
    assert found == pytest.approx(factor, abs=1e-12)
