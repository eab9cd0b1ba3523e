"""Multilayer perceptrons, and fitting a model into a budget of parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from regrow.measure.widths import largest_width

__all__ = ["mlp", "perceptron", "widest_within"]


def perceptron(
    inputs: int, widths: Sequence[int], classes: int, *, dropout: float = 0.0
) -> nn.Sequential:
    """Build a multilayer perceptron with ReLU.

    Args:
        inputs: numbers in an image; images are flattened.
        widths: units of each hidden layer.
        classes: outputs.
        dropout: the share of hidden units left out at every training step.

    Example:
        >>> sum(p.numel() for p in perceptron(784, (300, 100), 10).parameters())  # LeNet-300-100
        266610
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for before, after in pairwise([inputs, *widths]):
        layers += [nn.Linear(before, after), nn.ReLU()]
        if dropout:
            layers.append(nn.Dropout(dropout))
    return nn.Sequential(*layers, nn.Linear(widths[-1] if widths else inputs, classes))


def mlp(inputs: int, width: int, classes: int, hidden: int = 2) -> nn.Sequential:
    """Build a multilayer perceptron with ReLU and equally wide hidden layers.

    Args:
        inputs: numbers in an image; images are flattened.
        width: units in each hidden layer.
        classes: outputs.
        hidden: hidden layers.

    Example:
        >>> sum(p.numel() for p in mlp(64, 100, 10).parameters())
        17610
    """
    return perceptron(inputs, [width] * hidden, classes)


def widest_within(budget: int, build: Callable[[int], nn.Module]) -> int:
    """Find the largest width whose model has no more parameters than the budget.

    Args:
        budget: a number of parameters, biases and norms included.
        build: makes a model of a width; its parameters grow with the width.

    Raises:
        ValueError: even width 1 exceeds the budget.

    Example:
        >>> widest_within(17_610, lambda width: mlp(64, width, 10))
        100
    """

    def fits(width: int) -> bool:
        return sum(p.numel() for p in build(width).parameters()) <= budget

    if not fits(1):
        raise ValueError(f"budget={budget}: even a model of width 1 has more parameters")
    return largest_width(fits)
