"""Which dimension of a weight is its output: told from the module that holds it, never guessed.

Patterns that go by outputs (:class:`regrow.engine.patterns.Channel`, ``FanIn``, ``NM``) see every
weight as (out, in, *kernel), whatever way round it is stored.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regrow.engine.patterns import Pattern

__all__ = ["LINEAR", "UNKNOWN", "Layout", "Turned", "is_conv1d", "layouts_of", "turned"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """How a weight is stored.

    Args:
        kind: of the layer: linear, convolution, transposed, Conv1D, experts, recurrent, bilinear,
            or unknown.
        output: the dimension of the outputs; None if it is not known.
        inputs: the dimension of the inputs.
        experts: whether the first dimension counts experts, each a layer of its own.
    """

    kind: str
    output: int | None
    inputs: int = 1
    experts: bool = False

    @property
    def plain(self) -> bool:
        """Whether the weight is stored as (out, in, *kernel)."""
        return (self.output, self.inputs) == (0, 1)


LINEAR = Layout("linear", 0)
UNKNOWN = Layout("unknown", None)

_OF_MODULES = (
    (nn.Linear, LINEAR),
    (nn.MultiheadAttention, LINEAR),
    (nn.modules.conv._ConvTransposeNd, Layout("transposed", 1, 0)),
    (nn.modules.conv._ConvNd, Layout("convolution", 0)),
    ((nn.RNNBase, nn.RNNCellBase), Layout("recurrent", 0)),
    (nn.Bilinear, Layout("bilinear", 0)),
)


def layouts_of(model: nn.Module) -> dict[str, Layout]:
    """Return the layout of every parameter of two or more dimensions, by name.

    A weight of another module may say it itself, by ``weight.output_dim = 0`` or ``1``.

    Example:
        >>> {n: one.kind for n, one in layouts_of(nn.LSTMCell(3, 2)).items()}
        {'weight_ih': 'recurrent', 'weight_hh': 'recurrent'}
    """
    return {
        f"{path}.{name}".lstrip("."): _layout(module, name, parameter)
        for path, module in model.named_modules()
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.ndim > 1
    }


def _layout(module: nn.Module, name: str, parameter: Tensor) -> Layout:
    said = getattr(parameter, "output_dim", None)
    if said in (0, 1):
        return Layout("as it says", said, 1 - said)
    if not name.startswith("bias"):
        for kinds, layout in _OF_MODULES:
            if isinstance(module, kinds):
                return layout
    # transformers' own linear layer of GPT-2 and its kin, which stores (in, out).
    if is_conv1d(module) and name == "weight":
        return Layout("Conv1D", 1, 0)
    return _experts(module, name, parameter)


def is_conv1d(module: nn.Module) -> bool:
    """Tell whether a module is transformers' Conv1D, without importing it."""
    return any(
        kind.__name__ == "Conv1D" and kind.__module__ == "transformers.pytorch_utils"
        for kind in type(module).__mro__
    )


def _experts(module: nn.Module, name: str, parameter: Tensor) -> Layout:
    """Return the layout of fused experts of transformers, which say which way round they are."""
    count, way = getattr(module, "num_experts", None), getattr(module, "is_transposed", None)
    if parameter.ndim != 3 or parameter.shape[0] != count or "bias" in name:
        return UNKNOWN
    if not isinstance(way, bool):
        return Layout("experts", None, experts=True)
    return Layout("experts", *((2, 1) if way else (1, 2)), experts=True)


def turned(pattern: Pattern, layout: Layout) -> Pattern:
    """Return the pattern as it is for a weight stored this way; itself if nothing is turned.

    Example:
        >>> from regrow.engine.patterns import Channel
        >>> turned(Channel(), Layout("Conv1D", 1, 0)).grid((8, 3))
        (3,)
        >>> turned(Channel(), LINEAR)
        Channel()
    """
    if not pattern.by_output or layout.plain or layout.output is None:
        return pattern
    return Turned(pattern, layout)


@dataclass(frozen=True)
class Turned(Pattern):
    """A pattern on a weight that is not stored as (out, in, *kernel), which it is turned into.

    Args:
        pattern: goes by outputs.
        layout: of the weight. The outputs of all experts are outputs side by side.
    """

    pattern: Pattern
    layout: Layout

    by_output = True

    @property
    def single(self) -> bool:  # type: ignore[override]
        """Whether every unit is one weight."""
        return self.pattern.single

    def __str__(self) -> str:
        """Return the pattern as the user wrote it."""
        return str(self.pattern)

    def _turn(self, values: Tensor) -> Tensor:
        if self.layout.experts:
            flat = values if self.layout.output == 1 else values.transpose(1, 2)
            return flat.flatten(0, 1)
        return values.transpose(0, 1)

    def _shape(self, shape: Shape) -> Shape:
        if self.layout.experts:
            assert self.layout.output is not None
            return shape[0] * shape[self.layout.output], shape[self.layout.inputs]
        return shape[1], shape[0], *shape[2:]

    def grid(self, shape: Shape) -> Shape:
        """Return the grid of the turned weight."""
        return self.pattern.grid(self._shape(shape))

    def reduce(self, values: Tensor) -> Tensor:
        """Sum over each unit."""
        return self.pattern.reduce(self._turn(values).contiguous())

    def expand(self, units: Tensor, shape: Shape) -> Tensor:
        """Spread over the weights, the way round they are stored."""
        spread = self.pattern.expand(units, self._shape(shape))
        if not self.layout.experts:
            return spread.transpose(0, 1)
        if self.layout.output == 1:
            return spread.reshape(shape)
        return spread.reshape(shape[0], shape[2], shape[1]).transpose(1, 2)

    def group(self, shape: Shape) -> int | None:
        """Return how many consecutive units form a group."""
        return self.pattern.group(self._shape(shape))

    def allows(self, units: Tensor) -> bool:
        """Tell whether groups keep equally many units."""
        return self.pattern.allows(units)

    def kept(self, density: float, shape: Shape) -> int:
        """Turn a density into a number of units."""
        return self.pattern.kept(density, self._shape(shape))

    def draw(self, k: int, free: Tensor, n_free: int, generator: torch.Generator) -> Tensor:
        """Draw k of the free units at random."""
        return self.pattern.draw(k, free, n_free, generator)
