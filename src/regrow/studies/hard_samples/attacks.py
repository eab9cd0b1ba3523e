"""Adversarial training: batches are attacked before they are learnt, and the network after it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from regrow.measure.flops import count_flops, training_flops
from regrow.studies.training.loop import Training
from regrow.studies.training.source import Epochs, Pairs
from regrow.vision.adversarial import RobustAccuracy, pgd, robust_accuracy

__all__ = ["Attack", "Attacked", "attack_flops", "attacked", "robustness"]

_TEST_SEED = 20_000  # starts in testing are not those of training


@dataclass(frozen=True, kw_only=True)
class Attack:
    """Projected gradient descent on every batch of training, and a longer one on the test images.

    Args:
        radius: the most by which a pixel changes, in [0, 1].
        step: by how much at a time.
        steps: in training.
        test_steps: in testing.

    Source: Madry et al. 2018 (arXiv 1706.06083), with the study's numbers.
    """

    radius: float = 8 / 255
    step: float = 2 / 255
    steps: int = 10
    test_steps: int = 20


def attacked(training: Training, attack: Attack) -> Training:
    """Let a run train on attacked batches; returns it.

    Images are attacked after augmentation, each batch anew against the network as it is, in
    training mode: batch norm takes the statistics of the attacked batch.

    Raises:
        ValueError: the data set's samples are no images in memory.
    """
    if training.source.moments is None or len(training.source.shape) != 3:
        raise ValueError(
            f"attack={attack}: it is on images in memory, and data={training.setting.data!r} "
            "holds none"
        )
    batches = Attacked(training, training.source.batches, attack)
    training.source = replace(training.source, batches=batches)
    return training


def robustness(training: Training, attack: Attack, tell: Callable[[int], None]) -> RobustAccuracy:
    """Test a run on the test images, clean and attacked, in evaluation mode.

    Args:
        training: the run.
        attack: which.
        tell: is told how many images are done.
    """
    scale = _Scale(training)
    batches = ((scale.pixels(inputs), labels) for inputs, labels in training.source.test())
    return robust_accuracy(
        scale.predict,
        batches,
        model=training.model,
        radius=attack.radius,
        step=attack.step,
        steps=attack.test_steps,
        seed=_TEST_SEED,
        tell=tell,
    )


def attack_flops(training: Training, attack: Attack) -> float:
    """Count the operations of all attacks of a finished run, at the densities it went through.

    A step is a forward pass and the gradient of all inputs, those of the first layer included.
    """
    inputs = torch.zeros(2, *training.source.shape, device=training.device, requires_grad=True)
    flops = count_flops(training.model, inputs)
    layers = {n: replace(layer, weight_gradient=0) for n, layer in flops.layers.items()}
    a_step = training_flops(replace(flops, layers=layers), training.sparse)
    return attack.steps * a_step * training.setting.batch / 2


class _Scale:
    """Turns what a model takes into pixels in [0, 1], and back."""

    def __init__(self, training: Training) -> None:
        assert training.source.moments is not None
        self.training = training
        self.mean, self.deviation = (moment / 255 for moment in training.source.moments)

    def pixels(self, inputs: Tensor) -> Tensor:
        return (inputs * self.deviation + self.mean).clamp_(0, 1)

    def standard(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.deviation

    def predict(self, pixels: Tensor) -> Tensor:
        return self.training.predict(self.standard(pixels))


class Attacked:
    """Batches that are attacked when they are asked for: by then the step before is taken.

    Args:
        training: the run that learns them.
        batches: before the attack.
        attack: which.
    """

    def __init__(self, training: Training, batches: Epochs, attack: Attack) -> None:
        self.training, self.batches, self.attack = training, batches, attack
        self.scale = _Scale(training)

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        return len(self.batches)

    def epoch(self, number: int, /) -> Pairs:
        """Yield inputs and labels, batch by batch; starts differ from epoch to epoch."""
        run, attack = self.training, self.attack
        for step, (inputs, labels) in enumerate(self.batches.epoch(number)):
            place = (number * len(self) + step) * run.ranks + run.rank
            changed = pgd(
                self.scale.predict,
                self.scale.pixels(inputs),
                labels,
                model=run.model,
                radius=attack.radius,
                step=attack.step,
                steps=attack.steps,
                seed=run.setting.seed,
                first=place * len(labels),
            )
            yield self.scale.standard(changed), labels
