"""The trial: a classifier is trained on clean images and tested under corruption."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regrow.studies.supervised.classify import Classifier, Classify, accuracy
from regrow.studies.supervised.corrupted import clean_test, corrupted_test, standardized
from regrow.studies.supervised.source import Pairs
from regrow.training.run import RunLike
from regrow.vision.analysis import (
    effective_filter_sizes,
    radius_accuracy,
    remaining_kernels,
    robustness_accuracy,
    singular_value_entropy,
)
from regrow.vision.analysis.spectral import Pass
from regrow.vision.corruptions import CORRUPTIONS

__all__ = ["Robust"]


@dataclass(frozen=True, kw_only=True)
class Robust(Classify):
    """Train, and test on clean images, under every corruption, and without some frequencies.

    Args:
        corruptions: which are tested.
        severities: of each.
        tested: how many of the test images, the first ones; None is all.
        published: test on the published set (CIFAR-10-C and its like), not on images made here.
        radii: of radius-accuracy curves, as shares of the highest frequency along an axis.
    """

    corruptions: tuple[str, ...] = CORRUPTIONS
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    tested: int | None = None
    published: bool = False
    radii: tuple[float, ...] = ()

    def test(self, trainer: Classifier, run: RunLike) -> Mapping[str, Any]:
        """Test what was trained.

        Returns:
            ``accuracy`` on all clean test images; ``corrupted``, accuracies by corruption and
            severity; ``robustness``, their mean; ``low_pass`` and ``high_pass``, accuracies by
            radius; ``remaining_kernels``, ``filter_sizes`` and ``filter_entropy`` of a model with
            convolutions.
        """
        found: dict[str, dict[str, float]] = {}
        for i, corruption in enumerate(self.corruptions):
            run.tell(i / len(self.corruptions), f"testing under {corruption}")
            found[corruption] = {
                str(severity): accuracy(trainer, self._pairs(trainer, run, corruption, severity))
                for severity in self.severities
            }
        by_severity = {
            name: {int(severity): value for severity, value in each.items()}
            for name, each in found.items()
        }
        return {
            **super().test(trainer, run),
            "corrupted": found,
            "robustness": robustness_accuracy(by_severity, severities=self.severities),
            **self._by_radius(trainer, run),
            **_filters(trainer),
        }

    def _pairs(self, trainer: Classifier, run: RunLike, corruption: str, severity: int) -> Pairs:
        return corrupted_test(
            trainer.source,
            self.data,
            corruption,
            severity,
            published=self.published,
            count=self.tested,
            data_dir=run.options.get("data_dir"),
        )

    def _by_radius(self, trainer: Classifier, run: RunLike) -> dict[str, dict[str, float]]:
        if not self.radii:
            return {}
        source, n = trainer.source, 0
        passes: tuple[Pass, ...] = ("low", "high")
        right = {pass_: dict.fromkeys(self.radii, 0.0) for pass_ in passes}

        def predict(images: Tensor) -> Tensor:
            outputs: Tensor = trainer.outputs(source.ready(standardized(255 * images, source)))
            return outputs

        where = run.options.get("data_dir")
        for images, labels in clean_test(source, self.data, count=self.tested, data_dir=where):
            run.tell(1.0, "testing with some frequencies only")
            pixels, numbers = images.to(trainer.device), labels.to(trainer.device)
            n += len(labels)
            for pass_, counts in right.items():
                found = radius_accuracy(predict, pixels, numbers, self.radii, pass_, batch_size=n)
                for radius, share in found.items():
                    counts[radius] += share * len(labels)
        return {
            f"{pass_}_pass": {str(radius): count / n for radius, count in counts.items()}
            for pass_, counts in right.items()
        }


def _filters(trainer: Classifier) -> dict[str, Any]:
    named = trainer.model.named_parameters()
    weights = {name: weight.detach() for name, weight in named if weight.ndim > 3}
    if not weights:
        return {}
    masks = {name: (weight != 0) for name, weight in weights.items()}
    spatial = {name: weight for name, weight in weights.items() if weight[0, 0].numel() > 1}
    entropies = [singular_value_entropy(weight) for weight in spatial.values()]
    return {
        "remaining_kernels": remaining_kernels(masks)["total"],
        "filter_sizes": effective_filter_sizes(masks)["total"],
        "filter_entropy": float(torch.tensor(entropies).mean()),
    }
