"""Networks of all runs and members as batched weights, with their Adam and input masks.

The weights of one network lie side by side in a row, and the rows of all networks in one tensor:
an optimizer step of a whole population is a handful of kernels, and a layer is one batched product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional

from regrow.control.draws import RunDraws
from regrow.control.steady import steady

__all__ = ["DECAYS", "Networks", "joined", "row_views", "shrunk", "split_rows"]

Activation = Callable[[Tensor], Tensor]


class Networks:
    """Networks of equal sizes, some members for each run, seen as [runs, members, in, out].

    Weights and biases start uniform in ±1/√in, as torch's own linear layers do. The masks of the
    first layer hold at every moment, and the moments of masked weights are zero.

    Args:
        seeds: of the runs.
        members: networks a run.
        sizes: inputs, hidden units and outputs.
        purpose: names the networks, for what they draw.
        learning_rate: of Adam, for all runs or for each.
        device: where they are.
        activation: between layers.

    Attributes:
        rows: all weights, shape (runs · members, n), those of the first layer first; zeros at the
            end make n a multiple of 32.
        mask: of the first layer, 1 = kept, shape (runs · members, in · out).
        first: Adam's first moments, shaped like the rows.
        second: its second moments.
        steps: of Adam, shape (runs · members, 1).

    Example:
        >>> nets = Networks([0, 1], 3, [4, 8, 1], "reward", 1e-3)
        >>> nets(torch.zeros(2, 5, 4)).shape
        torch.Size([2, 3, 5, 1])
    """

    def __init__(
        self,
        seeds: Sequence[int],
        members: int,
        sizes: Sequence[int],
        purpose: str,
        learning_rate: float,
        device: torch.device | str = "cpu",
        activation: Activation = torch.relu,
    ) -> None:
        self.runs, self.members, self.sizes = len(seeds), members, tuple(sizes)
        self.learning_rate, self.activation = learning_rate, activation
        self._draws = RunDraws(seeds, f"weights of {purpose}", device)
        self.rows = self._fresh()
        self.first, self.second = torch.zeros_like(self.rows), torch.zeros_like(self.rows)
        self.steps = torch.zeros(len(self.rows), 1, device=device)
        self.mask = torch.ones(len(self.rows), sizes[0] * sizes[1], device=device)
        self.weights = [part.requires_grad_() for part in row_views(self.rows, self.sizes)]
        self._penalty: tuple[int, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """Return the outputs of all members: (runs, members, B, out) for x of (runs, B, in)."""
        x = x[:, None].expand(-1, self.members, -1, -1).flatten(0, 1)
        outputs: Tensor = self.each(x).unflatten(0, (self.runs, self.members))
        return outputs

    def each(self, x: Tensor, weights: Sequence[Tensor] | None = None) -> Tensor:
        """Return the outputs of every network for inputs of its own, (runs · members, B, in).

        Args:
            x: the inputs.
            weights: in place of their own, such as those of targets.
        """
        parts = self.weights if weights is None else weights
        last = len(parts) // 2 - 1
        for layer in range(last):
            x = self.activation(torch.baddbmm(parts[2 * layer + 1], x, parts[2 * layer]))
        last_weights, biases = parts[-2:]
        if self.sizes[-1] > 1:
            return torch.baddbmm(biases, x, last_weights)
        # Products with a vector are computed otherwise for one network than for several: a second
        # column of zeros keeps a run's numbers the same whatever is beside it.
        wide = functional.pad(last_weights, (0, 1))
        return torch.baddbmm(functional.pad(biases, (0, 1)), x, wide)[..., :1]

    def input_weights(self) -> Tensor:
        """Return the weights of the first layer, (runs, members, in, out), to be read."""
        first: Tensor = self.weights[0].detach().unflatten(0, (self.runs, self.members))
        return first

    def input_mask(self) -> Tensor:
        """Return the mask of the first layer, (runs, members, in, out), to be read or written."""
        return self.mask.view(self.runs, self.members, *self.sizes[:2])

    def reads(self) -> Tensor:
        """Return which weights of the first layer are in use, bool, (runs, members, in, out).

        Those that the mask keeps, of inputs whose weights are not all zero.
        """
        used: Tensor = (self.input_mask() > 0) & (self.input_weights() != 0).any(3, keepdim=True)
        return used

    def gradients(self, loss: Tensor) -> Tensor:
        """Return the gradient of a sum of all networks' losses, in rows, dense."""
        parts = torch.autograd.grad(loss, self.weights)
        return joined([part.flatten(1) for part in parts])

    def penalise_(self, penalties: Sequence[float], inputs: int) -> None:
        """Shrink the weights of each of the first inputs together, at every step from now on.

        Args:
            penalties: λ of each run.
            inputs: how many of them.
        """
        thresholds = torch.tensor(penalties) * self.learning_rate * math.sqrt(self.sizes[1])
        rows = thresholds.repeat_interleave(self.members)[:, None]
        self._penalty = (inputs, rows.to(self.rows.device)) if any(penalties) else None

    @torch.no_grad()
    def step_(self, gradients: Tensor, on: Tensor | None = None) -> None:
        """Make a step of Adam (0.9, 0.999, 1e-8), and mask.

        Args:
            gradients: in rows; written.
            on: 1 where a network learns and 0 where it stays as it is, shape (runs · members, 1).
        """
        inputs = self.mask.shape[1]
        gradients[:, :inputs].mul_(self.mask)
        on = torch.ones_like(self.steps) if on is None else on
        self.steps += on
        self.first += 0.1 * on * (gradients - self.first)
        self.second += 0.001 * on * (gradients.square_() - self.second)
        # Networks that have made no step yet divide zero by almost nothing.
        faded = [(1 - steady(decay, self.steps)).clamp(min=1e-12) for decay in DECAYS]
        sizes = (self.second / faded[1]).sqrt_().add_(1e-8)
        self.rows.sub_(self.learning_rate * on / faded[0] * self.first / sizes)
        self.rows[:, :inputs].mul_(self.mask)
        if self._penalty is not None:
            penalised, thresholds = self._penalty
            columns = self.rows[:, : penalised * self.sizes[1]].unflatten(1, (penalised, -1))
            columns.copy_(shrunk(columns, thresholds * on))

    @torch.no_grad()
    def apply_mask_(self, grown: Tensor | None = None, values: Tensor | None = None) -> None:
        """Zero the weights and moments that the mask leaves out, and start those that were grown.

        Args:
            grown: bool, shaped like the mask: they begin with moments of zero.
            values: that they begin with; else 0.
        """
        inputs = self.mask.shape[1]
        kept = self.mask if grown is None else self.mask * ~grown
        for rows in (self.first, self.second):
            rows[:, :inputs].mul_(kept)
        self.rows[:, :inputs].mul_(kept)
        if grown is not None and values is not None:
            self.rows[:, :inputs].add_(values * grown)

    @torch.no_grad()
    def reset_(self, which: Tensor) -> None:
        """Start the networks of some runs anew, under the masks that they have.

        Inputs that the masks leave out are not counted in ±1/√in of the first layer.

        Args:
            which: bool, shape (runs,).
        """
        rows = which.repeat_interleave(self.members)[:, None]
        fresh, inputs = self._fresh(), self.sizes[0]
        seen = self.mask.unflatten(1, self.sizes[:2]).amax(2).sum(1, keepdim=True).clamp(min=1)
        fresh[:, : (inputs + 1) * self.sizes[1]].mul_((inputs / seen).sqrt())
        self.rows.copy_(torch.where(rows, fresh, self.rows))
        for state in (self.first, self.second, self.steps):
            state.masked_fill_(rows, 0.0)
        self.apply_mask_()

    def _fresh(self) -> Tensor:
        """Draw weights; those of a run do not depend on the others."""
        parts = []
        for inputs, outputs in pairwise(self.sizes):
            drawn = self._draws.uniform(self.members, (inputs + 1) * outputs)
            parts.append((2 * drawn - 1).flatten(0, 1) / math.sqrt(inputs))
        return joined(parts)

    def state_dict(self) -> dict[str, Tensor]:
        """Return all that changes."""
        kept = {n: getattr(self, n).detach().clone() for n in _STATE}
        return kept | self._draws.state_dict()

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state, in place: captured graphs hold these tensors."""
        for name in _STATE:
            getattr(self, name).copy_(state[name])
        self._draws.load_state_dict(state)


DECAYS: tuple[Activation, Activation] = (lambda n: 0.9**n, lambda n: 0.999**n)
"""What is left of Adam's first state in its moments after n steps."""

_ALIGNED = 32
_STATE = ("rows", "first", "second", "steps", "mask")


def joined(parts: Sequence[Tensor]) -> Tensor:
    """Put parts side by side, and zeros behind: rows begin where GPUs read fastest."""
    n = sum(part.shape[1] for part in parts)
    return functional.pad(torch.cat(list(parts), 1), (0, -n % _ALIGNED))


def shrunk(columns: Tensor, thresholds: Tensor) -> Tensor:
    """Return columns shortened by a threshold each, those that are shorter as zero.

    w · max(0, 1 − θ/‖w‖): the proximal step of the group lasso.

    Args:
        columns: (rows, columns, n).
        thresholds: θ, (rows, 1).

    Source: Yuan & Lin 2006, section 2; Scardapane et al. 2017 (arXiv 1607.00485) on inputs.

    Example:
        >>> shrunk(torch.tensor([[[0.0, 4.0], [0.6, 0.8]]]), torch.tensor([[2.0]])).tolist()
        [[[0.0, 2.0], [0.0, 0.0]]]
    """
    sizes = columns.square().sum(2).sqrt().clamp(min=1e-12)
    return columns * (1 - thresholds / sizes).clamp(min=0)[..., None]


def row_views(rows: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return weights (P, in, out) and biases (P, 1, out) of each layer as views of rows.

    Example:
        >>> [tuple(part.shape) for part in row_views(torch.zeros(2, 13), [2, 3, 1])]
        [(2, 2, 3), (2, 1, 3), (2, 3, 1), (2, 1, 1)]
    """
    return split_rows(rows.detach(), sizes)


def split_rows(rows: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return the same parts of rows, through which gradients flow."""
    views, at = [], 0
    for inputs, outputs in pairwise(sizes):
        for shape in ((inputs, outputs), (1, outputs)):
            part = rows[:, at : at + math.prod(shape)]
            views.append(part.unflatten(1, shape))
            at += math.prod(shape)
    return views
