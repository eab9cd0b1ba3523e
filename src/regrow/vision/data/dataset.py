"""A data set in memory, ready to be trained on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["DataSet"]


@dataclass(frozen=True)
class DataSet:
    """Inputs and labels, split for training and testing.

    Args:
        name: of the data set.
        train_inputs: images as uint8, shape (n, channels, height, width), clips as uint8, shape (n,
            channels, frames, height, width), or features as float32, shape (n, features).
        train_labels: int64, shape (n,); numbers that are learnt are float64.
        test_inputs: as ``train_inputs``.
        test_labels: as ``train_labels``.
        classes: how many labels there are, counted from 0; 1 where numbers are learnt.
        source: where it came from, for a reader of results.

    Example:
        >>> pixels = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
        >>> data = DataSet("two", pixels, torch.tensor([0, 1]), pixels, torch.tensor([0, 1]), 2, "")
        >>> data.standardized()[0].tolist()
        [[-0.7071067690849304, 0.0], [0.7071067690849304, 0.0]]
    """

    name: str
    train_inputs: Tensor
    train_labels: Tensor
    test_inputs: Tensor
    test_labels: Tensor
    classes: int
    source: str

    def standardized(self) -> tuple[Tensor, Tensor]:
        """Return train and test inputs as float32, with mean 0 and deviation 1 by channel.

        Features count as channels of one pixel. Mean and deviation are those of the training
        inputs; a channel that never changes is moved to 0 and not divided.
        """
        train = self.train_inputs.to(torch.float32, copy=True)
        test = self.test_inputs.to(torch.float32, copy=True)
        mean, deviation = _moments(train)
        for part in (train, test):
            part.sub_(mean).div_(deviation)
        return train, test

    def moments(self) -> tuple[Tensor, Tensor]:
        """Return mean and deviation that :meth:`standardized` takes, of shape (1, channels, ...).

        Example:
            >>> pixels = torch.tensor([[0.0, 5.0], [2.0, 5.0]])
            >>> labels = torch.tensor([0, 1])
            >>> data = DataSet("two", pixels, labels, pixels, labels, 2, "")
            >>> data.moments()[0].tolist()
            [[1.0, 5.0]]
        """
        return _moments(self.train_inputs.to(torch.float32))


def _moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    dim = [d for d in range(inputs.ndim) if d != 1]
    deviation, mean = torch.std_mean(inputs, dim=dim, keepdim=True)
    return mean, torch.where(deviation > 0, deviation, torch.ones_like(deviation))
