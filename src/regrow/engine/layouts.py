"""Which dimension of a weight is its output: told from the module that holds it, never guessed.

Patterns that go by outputs (:class:`regrow.engine.patterns.Channel`, ``FanIn``, ``NM``) see every
weight as (out, in, *kernel), whatever way round it is stored; ``Kernel`` and ``Block`` see each of
several experts that are stored in one tensor.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.engine.patterns import Block, Kernel, Pattern

__all__ = [
    "LINEAR",
    "UNKNOWN",
    "Layout",
    "Turned",
    "is_conv1d",
    "layouts_of",
    "outputs_first",
    "turned",
]

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
        groups: of a transposed convolution, which stores (in, out/groups, *kernel): every group of
            inputs has outputs of its own.
    """

    kind: str
    output: int | None
    inputs: int = 1
    experts: bool = False
    groups: int = 1

    @property
    def plain(self) -> bool:
        """Whether the weight is stored as (out, in, *kernel)."""
        return (self.output, self.inputs) == (0, 1)

    def ordered(self, shape: Shape) -> Shape:
        """Return a weight's sizes with those of its inputs and outputs before that of experts.

        Example:
            >>> Layout("experts", 1, 2, experts=True).ordered((8, 32, 16))
            (32, 16, 8)
        """
        return (*shape[1:], shape[0]) if self.experts else shape


LINEAR = Layout("linear", 0)
UNKNOWN = Layout("unknown", None)

_OF_MODULES = (
    (nn.Linear, LINEAR),
    (nn.MultiheadAttention, LINEAR),
    (nn.modules.conv._ConvNd, Layout("convolution", 0)),
    ((nn.RNNBase, nn.RNNCellBase), Layout("recurrent", 0)),
    (nn.Bilinear, Layout("bilinear", 0)),
)


def layouts_of(model: nn.Module) -> dict[str, Layout]:
    """Return the layout of every parameter of two or more dimensions, by name.

    A weight of another module may say it itself: ``weight.output_dim = 0`` or ``1``; of experts in
    one tensor, ``weight.output_dim = 1`` and ``weight.input_dim = 2``, or the other way round.

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
    if said is not None:
        return _as_said(parameter, said, getattr(parameter, "input_dim", None))
    if isinstance(module, nn.modules.conv._ConvTransposeNd) and name == "weight":
        return Layout("transposed", 1, 0, groups=module.groups)
    if not name.startswith("bias"):
        for kinds, layout in _OF_MODULES:
            if isinstance(module, kinds):
                return layout
    # transformers' own linear layer of GPT-2 and its kin, which stores (in, out).
    if is_conv1d(module) and name == "weight":
        return Layout("Conv1D", 1, 0)
    return _experts(module, name, parameter)


def _as_said(parameter: Tensor, said: int, inputs: int | None) -> Layout:
    """Return the layout that a parameter says; unknown if it is none."""
    output, source = said, (1 - said if inputs is None and said in (0, 1) else inputs)
    if (output, source) in ((0, 1), (1, 0)):
        return Layout("as it says", output, 1 - output)
    if (output, source) in ((1, 2), (2, 1)) and parameter.ndim == 3:
        return Layout("experts", output, 3 - output, experts=True)
    return UNKNOWN


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


def outputs_first(weight: Tensor, layout: Layout) -> Tensor:
    """Return a weight as (out, in, ...), a view; experts are refused, each is a layer of its own.

    Example:
        >>> outputs_first(torch.zeros(8, 3), Layout("Conv1D", 1, 0)).shape
        torch.Size([3, 8])
    """
    if layout.plain:
        return weight
    if (layout.output, layout.inputs) != (1, 0) or layout.groups > 1:
        raise ValueError(f"a weight of kind {layout.kind!r} has no single row an output")
    return weight.transpose(0, 1)


def turned(pattern: Pattern, layout: Layout) -> Pattern:
    """Return the pattern as it is for a weight stored this way; itself if nothing is turned.

    Example:
        >>> from regrow.engine.patterns import Channel
        >>> turned(Channel(), Layout("Conv1D", 1, 0)).grid((8, 3))
        (3,)
        >>> turned(Channel(), LINEAR)
        Channel()
    """
    # Pairs of an output and an input, and square tiles of a matrix, are the same ones either way
    # round: only experts have to be told apart.
    if isinstance(pattern, Kernel | Block):
        return Turned(pattern, layout) if layout.experts else pattern
    if not pattern.by_output or layout.plain or layout.output is None:
        return pattern
    return Turned(pattern, layout)


@dataclass(frozen=True)
class Turned(Pattern):
    """A pattern on a weight that is not stored as (out, in, *kernel), which it is turned into.

    A weight is seen as layers side by side, which are experts, or the groups of a transposed
    convolution; their outputs follow one another.

    Args:
        pattern: goes by outputs, or is a kernel or block of each expert.
        layout: of the weight.

    Example:
        >>> from regrow.engine.patterns import Channel
        >>> grouped = Turned(Channel(), Layout("transposed", 1, 0, groups=2))
        >>> grouped.expand(torch.tensor([1, 2, 3, 4]), (2, 2, 1)).squeeze(2).tolist()
        [[1, 2], [3, 4]]
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

    @property
    def _swaps(self) -> bool:
        """Whether the layers side by side are stored as (in, out, *kernel)."""
        return self.layout.output is not None and self.layout.output > self.layout.inputs

    def _layers(self, shape: Shape) -> Shape:
        """Return the sizes as stored, that of the layers side by side first."""
        if self.layout.experts:
            return shape
        return self.layout.groups, shape[0] // self.layout.groups, *shape[1:]

    def _each(self, shape: Shape) -> Shape:
        """Return the sizes (out, in, *kernel) of one of the layers side by side."""
        _, first, second, *kernel = self._layers(shape)
        return (second, first, *kernel) if self._swaps else (first, second, *kernel)

    def _rows(self, shape: Shape) -> int:
        """Return the outputs of a layer, filled up so that no block reaches into the next layer."""
        size = self.pattern.size if isinstance(self.pattern, Block) else 1
        return -(-self._each(shape)[0] // size) * size

    def _shape(self, shape: Shape) -> Shape:
        return self._layers(shape)[0] * self._rows(shape), *self._each(shape)[1:]

    def _turn(self, values: Tensor) -> Tensor:
        shape = tuple(values.shape)
        layers = values.reshape(self._layers(shape))
        layers = layers.transpose(1, 2) if self._swaps else layers
        if below := self._rows(shape) - layers.shape[1]:
            # Zeros add nothing to a sum.
            layers = functional.pad(layers, (0, 0) * (layers.ndim - 2) + (0, below))
        return layers.flatten(0, 1)

    def grid(self, shape: Shape) -> Shape:
        """Return the grid of the turned weight."""
        return self.pattern.grid(self._shape(shape))

    def reduce(self, values: Tensor) -> Tensor:
        """Sum over each unit."""
        return self.pattern.reduce(self._turn(values).contiguous())

    def expand(self, units: Tensor, shape: Shape) -> Tensor:
        """Spread over the weights, the way round they are stored."""
        rows, *rest = self._each(shape)
        spread = self.pattern.expand(units, self._shape(shape))
        layers = spread.reshape(-1, self._rows(shape), *rest)[:, :rows]
        return (layers.transpose(1, 2) if self._swaps else layers).reshape(shape)

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

    def best(self, k: int, worth: Tensor) -> Tensor:
        """Choose the best k units."""
        return self.pattern.best(k, worth)
