"""Draws initial values for the free weights that a new task begins with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from regrow.engine.selection import seeded_generator

__all__ = ["Fresh", "take_fresh"]

SAMPLE = 1024


@dataclass(frozen=True)
class Fresh:
    """First values of a network, from which fresh ones are drawn, without a second copy of it.

    Args:
        own: the first values of all that belongs to one task: norms, biases, statistics.
        samples: of each weight that is drawn anew, up to 1,024 of its first values.
        seed: of what is drawn.
    """

    own: Mapping[str, Tensor]
    samples: Mapping[str, Tensor]
    seed: int

    def draw(self, name: str, shape: tuple[int, ...], task: int) -> Tensor:
        """Draw a weight as it was drawn at first: from its own first values, with replacement.

        So initialisations of any kind are kept in scale and shape of distribution, zeros included.

        Example:
            >>> fresh = take_fresh({}, {"w": torch.tensor([-1.0, 1.0])}, seed=0)
            >>> fresh.draw("w", (3, 5), task=1).abs().sum()
            tensor(15.)
        """
        sample = self.samples[name]
        generator = seeded_generator(self.seed, name, task, "fresh")
        places = torch.randint(len(sample), shape, generator=generator, device="cpu")
        return sample[places]


def take_fresh(own: Mapping[str, Tensor], drawn: Mapping[str, Tensor], seed: int) -> Fresh:
    """Note the first values of a network.

    Args:
        own: what belongs to one task; kept whole.
        drawn: weights that are drawn anew; a sample is kept.
        seed: of the sample and of all draws.
    """
    samples = {name: _sample(value, seed, name) for name, value in drawn.items()}
    return Fresh(copies(own), samples, seed)


def copies(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy tensors to the CPU, by name."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


def _sample(values: Tensor, seed: int, name: str) -> Tensor:
    flat = values.detach().reshape(-1)
    if flat.numel() <= SAMPLE:
        return flat.to("cpu", copy=True)
    generator = seeded_generator(seed, name, "sample")
    places = torch.randint(flat.numel(), (SAMPLE,), generator=generator, device="cpu")
    return flat[places.to(flat.device)].cpu()
