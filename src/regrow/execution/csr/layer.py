"""The base of csr layers: values and index, the dense view, gradients captured for an update."""

from __future__ import annotations

import logging
import math
from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor, nn

from regrow.engine.resize import resize_
from regrow.execution.csr import dispatch
from regrow.execution.csr.handles import handle_of
from regrow.execution.csr.index import Index
from regrow.execution.stored_module import DENSE_WAY, StoredModule

__all__ = ["CsrLayer", "checked", "needs_graph"]

logger = logging.getLogger("regrow")


def checked(x: Tensor, layer: nn.Module) -> Tensor:
    """Return what the kernels can compute with, or refuse it; autocast casts other precisions.

    Raises:
        TypeError: x is no ordinary tensor, float32, on the CPU.
        RuntimeError: the model is being exported or traced.
    """
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    if tracing or torch.compiler.is_exporting():
        raise RuntimeError(
            f"{type(layer).__name__} cannot be exported or traced: it computes in C; {DENSE_WAY}"
        )
    if not isinstance(x, Tensor) or x.layout != torch.strided or x.is_nested:
        given = type(x).__name__
        if isinstance(x, Tensor):
            given = "a nested tensor" if x.is_nested else f"a tensor of layout {x.layout}"
        raise TypeError(
            f"input is {given}: {type(layer).__name__} computes with ordinary (strided) tensors; "
            "convert the input with .to_dense(), or torch.as_tensor()"
        )
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


def needs_graph(*inputs: Tensor | None) -> bool:
    """Tell whether autograd has to see what is computed of these.

    Example:
        >>> with torch.no_grad():
        ...     needs_graph(torch.ones(1, requires_grad=True))
        False
    """
    if torch.is_grad_enabled() and any(x is not None and x.requires_grad for x in inputs):
        return True
    # Forward-mode gradients: the function says that it has none, where a product would drop them.
    return torch.autograd.forward_ad._current_level >= 0


def _readable(value: Tensor, size: int) -> bool:
    # Cheapest first, since it is asked at every call; strides are the kernels' callers' to mend.
    return value.dtype is torch.float32 and value.is_cpu and value.shape == (size,)


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
        handle: int64, by which operators find the layer; another with every index.

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
        self.checked_values()

    def checked_values(self) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias as the kernels may read them; asked at every call.

        A model may have been changed by ``.half()``, ``.double()`` or ``.to()`` since, and C would
        read other numbers, or memory that is not there.

        Raises:
            ValueError: one has another shape, dtype or device than the layer computes with.
        """
        weight, bias = self.weight, self.bias
        if not _readable(weight, len(self.index)):
            raise self._unreadable("weight", weight, len(self.index))
        if bias is None:
            return weight, None
        if not _readable(bias, self.dense_shape[0]):
            raise self._unreadable("bias", bias, self.dense_shape[0])
        return weight, bias

    def _unreadable(self, name: str, value: Tensor, size: int) -> ValueError:
        return ValueError(
            f"{name} has shape {tuple(value.shape)}, dtype {value.dtype} and device "
            f"{value.device}; {type(self).__name__} needs ({size},), torch.float32 and cpu: undo "
            "what changed the model by .float().cpu(), or use execution='masked', which follows it"
        )

    @torch.no_grad()
    def set_topology_(self, positions: Index | Tensor) -> None:
        """Put the nonzeros elsewhere; the caller writes `weight`, whose length must fit.

        Args:
            positions: an `Index`, or ascending flat positions in the dense weight.

        Raises:
            ValueError: positions do not ascend, or do not fit the dense weight.
        """
        shape = self._matrix
        index = positions if isinstance(positions, Index) else self.index_of(positions)
        if index.shape != shape:
            raise ValueError(f"positions are of a matrix {index.shape}; this layer needs {shape}")
        self.index = index
        self.handle = handle_of(self, getattr(self, "handle", None))

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.handle = handle_of(self)  # a copy answers to its own

    @property
    def _matrix(self) -> tuple[int, int]:
        return self.dense_shape[0], math.prod(self.dense_shape[1:])

    def index_of(self, positions: Tensor) -> Index:
        """Return the index that :meth:`set_topology_` takes as well.

        Raises:
            ValueError: positions do not ascend, or do not fit the dense weight.
        """
        return Index(positions, self._matrix)

    # ------------------------------------------------------------------ save and restore

    def get_extra_state(self) -> Tensor:
        """Return where the nonzeros are: values alone would be taken for others'."""
        return self.positions

    @torch.no_grad()
    def set_extra_state(self, state: Tensor) -> None:
        """Put the nonzeros where a saved state had them.

        Raises:
            ValueError: they do not ascend, or do not fit the dense weight.
        """
        before, index = self.positions, self.index_of(state)
        if torch.equal(before.long(), index.positions.long()):
            return
        self.set_topology_(index)
        self.displaced_(before)

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Take values and positions of a saved state, as many as it has, or none of the two."""
        key = f"{prefix}_extra_state"
        positions, values = state_dict.get(key), state_dict.get(f"{prefix}weight")
        if positions is not None and values is not None:
            try:
                n = len(self.index_of(positions))
            except ValueError as error:
                error_msgs.append(f"{key}: {error}")
                return
            if values.shape != (n,):
                error_msgs.append(f"{prefix}weight has shape {tuple(values.shape)}: {n} positions")
                return
            if n != len(self.weight):
                resize_(self.weight, self.weight.new_empty(n))
        elif values is not None:
            logger.warning(
                "%sweight: the state does not say where its values are (it is of an older "
                "version); they are taken for those of the present topology: load the "
                "sparsifier's state first",
                prefix,
            )
        super()._load_from_state_dict(
            state_dict,
            prefix,
            local_metadata,
            strict,
            missing_keys,
            unexpected_keys,
            error_msgs,
        )
        if key in missing_keys:  # older states have none
            missing_keys.remove(key)

    @property
    def positions(self) -> Tensor:
        """Flat positions of the nonzeros in the dense weight, ascending, int64."""
        return self.index.positions

    @torch.no_grad()
    def dense_weight(self) -> Tensor:
        """Return the weight as a new dense tensor of shape `dense_shape`."""
        dense = self.weight.new_zeros(math.prod(self.dense_shape))
        return dense.index_put_((self.index.positions,), self.weight).view(self.dense_shape)

    def forget_orders(self) -> None:
        """Give back the orders of the index, which a new topology makes anew in any case."""
        self.index.forget_orders()

    @abstractmethod
    def compute(
        self, x: Tensor, values: Tensor, bias: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute the output; and input and values as :meth:`gradients` reads them."""

    @abstractmethod
    def gradients(
        self,
        grad: Tensor,
        kept: tuple[Any, ...],
        needs: tuple[bool, ...],
        *,
        batch_major: bool,
        lent: bool = False,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Compute those gradients of input, nonzeros and bias that are needed.

        Args:
            grad: of the output.
            kept: what :meth:`way` said at the forward pass; input and nonzeros as :meth:`compute`
                returned them; and the output of a layer with an activation.
            needs: which of the three.
            batch_major: how the gradient of the input lies in memory: False has the batch
                innermost.
            lent: others may write into grad and the input afterwards.
        """

    def ready(self, x: Tensor) -> Tensor:
        """Return an input as :meth:`gradients` reads it."""
        return x

    def way(self, x: Tensor) -> Any:
        """Return what :meth:`gradients` is to know of the forward pass of such an x."""
        return self.index

    def capture(self, x: Tensor, grad: Tensor, *, lent: bool) -> None:
        """Keep the input and output gradient of one backward pass; copies of what is lent."""
        self.keep(*((t.detach().clone() if lent else t.detach()) for t in (x, grad)))

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
