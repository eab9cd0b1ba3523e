"""A linear layer whose weight is 2:4 sparse under a mask, and one that holds it packed."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.execution.two_four import library
from regrow.execution.two_four.operations import two_four_linear

__all__ = ["PackedLinear", "TwoFourLinear", "why_not_packed"]


class TwoFourLinear(nn.Linear):
    """A linear layer that sparse tensor cores multiply, where they can: y = x·Wᵀ + bias.

    The weight is the dense layer's own, and has dense gradients; it is packed at every forward
    pass. On a CPU, in float32, or with sizes that the libraries refuse, the product is dense, and
    the same to rounding. An ``nn.Linear`` becomes one by :meth:`made_of_`, in place.

    Attributes:
        mask: (out, in), where the topology has the weights; None: it has left, or this is a copy,
            which it does not move: the layer is then dense.
        library: what multiplies on the mask's device; None: nothing.
    """

    stored_as = nn.Linear
    mask: Tensor | None
    library: str | None

    @staticmethod
    def made_of_(dense: nn.Linear, mask: Tensor) -> TwoFourLinear:
        """Let a dense layer compute by a mask from now on; parameters, hooks and names stay.

        Example:
            >>> mask = torch.tensor([[1.0, 0.0, 0.0, 1.0]])
            >>> layer = TwoFourLinear.made_of_(nn.Linear(4, 1), mask)
            >>> layer(torch.ones(3, 4)).shape
            torch.Size([3, 1])
        """
        # The class is exchanged, not the module: whoever holds the layer holds this one.
        dense.__class__ = TwoFourLinear
        made = cast(TwoFourLinear, dense)
        made.follow_(mask)
        return made

    def follow_(self, mask: Tensor | None) -> None:
        """Compute by another mask; None: as the dense layer."""
        self.mask = mask
        # Of a sharded mask a rank holds a part only: the layer then computes dense.
        whole = mask is not None and not hasattr(mask, "full_tensor")
        self.library = library.library(mask.device) if mask is not None and whole else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "mask": None}

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out)."""
        weight: Tensor = self.weight
        bias: Tensor | None = self.bias
        mask, kind = self.mask, x.device.type
        halved = torch.is_autocast_enabled(kind) and x.dtype != torch.float64
        dtype = torch.get_autocast_dtype(kind) if halved else weight.dtype
        if mask is None or not self._takes(x, mask, dtype, halved):
            return functional.linear(x, weight, bias)
        if halved:
            x, weight, mask = x.to(dtype), weight.to(dtype), mask.to(dtype)
            bias = None if bias is None else bias.to(dtype)
        y = two_four_linear(x.reshape(-1, x.shape[-1]), weight, mask, bias)
        return y.view(*x.shape[:-1], self.out_features)

    def _takes(self, x: Tensor, mask: Tensor, dtype: torch.dtype, halved: bool) -> bool:
        # What is exported must run without regrow; torch.nn says what is wrong with an input.
        if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            return False
        fits = x.shape[-1:] == self.weight.shape[1:] and x.device == self.weight.device
        same = halved or x.dtype == dtype
        weight = self.weight
        there = (mask.shape, mask.device, mask.dtype) == (weight.shape, x.device, weight.dtype)
        reason = library.why_dense(self.weight, dtype, self.library)
        return fits and same and there and reason is None

    def computed_by(self) -> str:
        """Name what multiplies the weight, outside autocast."""
        reason = library.why_dense(self.weight, self.weight.dtype, self.library)
        return f"{self.library} (2:4)" if reason is None else f"dense products (2:4: {reason})"


class PackedLinear(nn.Module):
    """A linear layer for inference that holds its 2:4 weight packed, at 9/16 of its bytes.

    Args:
        dense: its weight is 2:4 sparse, and sparse tensor cores take it.

    Raises:
        ValueError: they do not, or the weight has more than two nonzeros among four inputs.
    """

    bias: Tensor | None

    def __init__(self, dense: nn.Linear) -> None:
        super().__init__()
        if reason := why_not_packed(dense):
            raise ValueError(f"the weight cannot be packed: {reason}")
        self.in_features, self.out_features = dense.in_features, dense.out_features
        weight = dense.weight.detach().contiguous()
        self.dtype = weight.dtype
        packed = library.pack(weight)
        self.n_parts = len(packed)
        for i, part in enumerate(packed):
            self.register_buffer(f"packed{i}", part)
        self.register_buffer("bias", None if dense.bias is None else dense.bias.detach())

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., in) to (..., out).

        Raises:
            TypeError: x has another dtype than the weight, outside autocast.
        """
        if torch.is_autocast_enabled(x.device.type):
            x = x.to(self.dtype)
        if x.dtype != self.dtype:
            raise TypeError(f"input is {x.dtype}, weight {self.dtype}: cast the input")
        packed = tuple(getattr(self, f"packed{i}") for i in range(self.n_parts))
        flat = x.reshape(-1, self.in_features)
        y = library.product(flat, packed, self.bias, self.out_features)
        return y.view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Return sizes."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}, 2:4"
        )


def why_not_packed(dense: nn.Linear) -> str | None:
    """Return why a layer's weight cannot be packed, or None if it can."""
    weight = dense.weight
    if reason := library.why_dense(weight, weight.dtype, library.library(weight.device)):
        return reason
    groups = (weight.detach() != 0).view(len(weight), -1, 4).sum(-1)
    if bool((groups > 2).any()):
        return "of four inputs more than two have a nonzero weight"
    return None
