"""The base of csr layers: values and index, the dense view, gradients captured for an update."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from regrow.execution.csr import dispatch
from regrow.execution.csr.index import Index
from regrow.execution.stored_module import StoredModule

__all__ = ["CsrLayer", "checked"]


def checked(x: Tensor, layer: nn.Module) -> Tensor:
    """Return what the kernels can compute with, or refuse it; autocast casts other precisions.

    Raises:
        TypeError: x is not float32 on the CPU.
    """
    if x.dtype == torch.float32 and x.device.type == "cpu":
        return x
    if x.device.type != "cpu":
        raise TypeError(
            f"input is on {x.device}: {type(layer).__name__} computes on the CPU only; "
            "move the input with .cpu(), or keep the layer masked on this device"
        )
    if x.is_floating_point() and torch.is_autocast_enabled("cpu"):
        return x.float()
    raise TypeError(
        f"input is {x.dtype}: {type(layer).__name__} computes in torch.float32 only; "
        "convert the input with .float()"
    )


class CsrLayer(StoredModule):
    """A layer that stores its nonzeros only.

    Args:
        dense_shape: shape of the dense weight.
        index: an `Index`, or the ascending flat positions of the nonzeros in the dense weight.
        values: their values in that order, float32; a Parameter is taken over as it is.
        bias: dense bias or None.
        activation: None or "relu", computed together with the layer.

    Attributes:
        weight: Parameter (nonzeros,), in the order of ascending flat position.
        index: where the nonzeros are.

    Raises:
        ValueError: values or index do not fit, or the activation is unknown.
    """

    def __init__(
        self,
        dense_shape: tuple[int, ...],
        index: Index | Tensor,
        values: Tensor,
        bias: Tensor | None,
        activation: str | None,
    ) -> None:
        super().__init__()
        if activation not in (None, "relu"):
            raise ValueError(f"activation={activation!r} is not known; allowed are None and 'relu'")
        self.dense_shape = tuple(dense_shape)
        self.activation = activation
        self.set_topology_(index)
        self.weight = values if isinstance(values, nn.Parameter) else nn.Parameter(values)
        if bias is None or isinstance(bias, nn.Parameter):
            self.register_parameter("bias", bias)
        else:
            self.bias = nn.Parameter(bias)
        self._check_values()

    def _check_values(self) -> None:
        for name, value, size in (
            ("weight", self.weight, len(self.index)),
            ("bias", self.bias, self.dense_shape[0]),
        ):
            if value is not None and (value.shape != (size,) or value.dtype != torch.float32):
                raise ValueError(
                    f"{name} has shape {tuple(value.shape)} and dtype {value.dtype}; "
                    f"this layer needs ({size},) and torch.float32"
                )

    @torch.no_grad()
    def set_topology_(self, positions: Index | Tensor) -> None:
        """Put the nonzeros elsewhere; the caller writes `weight`, whose length must fit.

        Args:
            positions: an `Index`, or ascending flat positions in the dense weight.

        Raises:
            ValueError: positions do not ascend, or do not fit the dense weight.
        """
        shape = (self.dense_shape[0], math.prod(self.dense_shape[1:]))
        index = positions if isinstance(positions, Index) else Index(positions, shape)
        if index.shape != shape:
            raise ValueError(f"positions are of a matrix {index.shape}; this layer needs {shape}")
        self.index = index

    @property
    def positions(self) -> Tensor:
        """Flat positions of the nonzeros in the dense weight, ascending, int64."""
        return self.index.positions

    @torch.no_grad()
    def dense_weight(self) -> Tensor:
        """Return the weight as a new dense tensor of shape `dense_shape`."""
        dense = torch.zeros(math.prod(self.dense_shape), dtype=self.weight.dtype)
        return dense.index_put_((self.index.positions,), self.weight).view(self.dense_shape)

    def capture(self, x: Tensor, grad: Tensor) -> None:
        """Keep the input and output gradient of one backward pass."""
        self._captured.append((x.detach(), grad.detach()))

    def computed_by(self) -> str:
        """Name the kernels in use: the C library's instruction set, or torch."""
        name = dispatch.in_use()
        return "torch (no C library)" if name == "torch" else f"C kernels ({name})"

    def topology_bytes(self) -> int:
        """Count the bytes that say where the nonzeros are, in the orders used until now."""
        memory = [tensor.untyped_storage() for tensor in self.index_tensors()]
        # By memory and not by tensor: several orders share their pointers.
        return sum({held.data_ptr(): held.nbytes() for held in memory}.values())

    def index_tensors(self) -> list[Tensor]:
        """Return the tensors that say where the nonzeros are; some may share their memory."""
        return self.index.tensors()
