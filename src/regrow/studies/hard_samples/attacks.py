"""Adversarial training: batches are attacked before they are learnt, and the network after it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from regrow.measure.flops import count_flops, training_flops
from regrow.studies.supervised.classify import Classifier
from regrow.training.batch import Batch, Batches
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


def attacked(trainer: Classifier, attack: Attack, data: str) -> Classifier:
    """Make a trainer learn attacked batches; return it.

    Images are attacked after augmentation, each batch anew against the network as it is, in
    training mode: batch norm takes the statistics of the attacked batch.

    Args:
        trainer: not yet trained.
        attack: which.
        data: the name of the data set.

    Raises:
        ValueError: the data set's samples are no images in memory.
    """
    if trainer.source.moments is None or len(trainer.source.shape) != 3:
        raise ValueError(
            f"attack={attack}: it is on images in memory, and data={data!r} holds none"
        )
    batches = Attacked(trainer, trainer.source.batches, attack)
    trainer.source = replace(trainer.source, batches=batches)
    return trainer


def robustness(trainer: Classifier, attack: Attack, tell: Callable[[int], None]) -> RobustAccuracy:
    """Test a network on the test images, clean and attacked, in evaluation mode.

    Args:
        trainer: of the trained network.
        attack: which.
        tell: is told how many images are done.
    """
    scale = _Scale(trainer)
    batches = ((scale.pixels(inputs), labels) for inputs, labels in trainer.source.test())
    return robust_accuracy(
        scale.predict,
        batches,
        model=trainer.model,
        radius=attack.radius,
        step=attack.step,
        steps=attack.test_steps,
        seed=_TEST_SEED,
        tell=tell,
    )


def attack_flops(trainer: Classifier, attack: Attack) -> float:
    """Count the operations of all attacks of a finished run, at the densities it went through.

    A step is a forward pass and the gradient of all inputs, those of the first layer included.
    """
    inputs = torch.zeros(2, *trainer.source.shape, device=trainer.device, requires_grad=True)
    flops = count_flops(trainer.model, inputs)
    layers = {n: replace(layer, weight_gradient=0) for n, layer in flops.layers.items()}
    a_step = training_flops(replace(flops, layers=layers), trainer.sparse)
    return attack.steps * a_step * trainer.setting.batch / 2


class _Scale:
    """Turns what a model takes into pixels in [0, 1], and back."""

    def __init__(self, trainer: Classifier) -> None:
        assert trainer.source.moments is not None
        self.trainer = trainer
        self.mean, self.deviation = (moment / 255 for moment in trainer.source.moments)

    def pixels(self, inputs: Tensor) -> Tensor:
        return (inputs * self.deviation + self.mean).clamp_(0, 1)

    def standard(self, pixels: Tensor) -> Tensor:
        return (pixels - self.mean) / self.deviation

    def predict(self, pixels: Tensor) -> Tensor:
        outputs: Tensor = self.trainer.predict(self.standard(pixels))
        return outputs


class Attacked:
    """Batches that are attacked when they are asked for: by then the step before is taken.

    Args:
        trainer: learns them.
        batches: before the attack.
        attack: which.
    """

    def __init__(self, trainer: Classifier, batches: Batches, attack: Attack) -> None:
        self.trainer, self.batches, self.attack = trainer, batches, attack
        self.scale = _Scale(trainer)

    def __len__(self) -> int:
        """Return how many batches an epoch has."""
        return len(self.batches)

    def epoch(self, number: int, /) -> Iterator[Batch]:
        """Yield attacked batches; where attacks start differs from epoch to epoch."""
        run, attack = self.trainer, self.attack
        for step, batch in enumerate(self.batches.epoch(number)):
            place = (number * len(self) + step) * run.ranks + run.rank
            changed = pgd(
                self.scale.predict,
                self.scale.pixels(batch.inputs),
                batch.targets,
                model=run.model,
                radius=attack.radius,
                step=attack.step,
                steps=attack.steps,
                seed=run.setting.seed,
                first=place * len(batch),
            )
            yield replace(batch, inputs=self.scale.standard(changed))
