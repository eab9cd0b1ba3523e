"""Builds a model without memory for its large weights, and remembers how they were to be filled.

Under :func:`empty` the weights of linear and convolutional layers are on the meta device. What
fills them there, ``reset_parameters`` or ``nn.init``, is written down. Values that each depend on
themselves alone can be drawn later for active weights only.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Unmade", "empty", "fill_", "made_real"]

_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_LAYERS = (functional.linear, torch.conv1d, torch.conv2d, torch.conv3d)
_FILLS = (torch.ops.aten.zero_.default, torch.ops.aten.fill_.Scalar, torch.ops.aten.fill_.Tensor)

Write = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Unmade(nn.Parameter):
    """A weight on the meta device that knows how it is to be filled.

    Attributes:
        writes: operations on it, in order, each on every number alone.
        whole: an operation that was not, by name; None if there was none.
        seen: how often it had been written when :func:`empty` ended; None before.
    """

    writes: list[Write]
    whole: str | None
    seen: int | None

    @classmethod
    def of(cls, weight: Tensor) -> Unmade:
        """Take over a tensor on the meta device, which nothing has been written to."""
        made = cls(weight.detach(), requires_grad=weight.requires_grad)
        made.writes, made.whole, made.seen = [], None, None
        _ALIVE[_key(made)] = made
        return made

    @property
    def is_meta(self) -> bool:  # type: ignore[override]
        """Whether it is past filling: ``nn.init`` leaves tensors on the meta device as they are."""
        return self.seen is not None

    def to(self, *args: Any, **kwargs: Any) -> Tensor:
        """Return the weight itself where nothing is to change; else say what it waits for.

        ``model.to("cpu")`` of a model that is made on the CPU is part of many a script.
        """
        device, dtype, *_ = torch._C._nn._parse_to(*args, **kwargs)
        if (device is None or device.type in ("cpu", "meta")) and dtype in (None, self.dtype):
            return self
        raise NotImplementedError(
            "a weight made under regrow.empty() has no values yet to be moved or converted, "
            f"as asked (device={device}, dtype={dtype}): call regrow.sparsify() first"
        )

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Refuse to compute real inputs: torch would return whatever lies in memory."""
        if func in _LAYERS and args and not args[0].is_meta:
            raise RuntimeError(
                "a weight made under regrow.empty() has no values yet to compute with: call "
                "regrow.sparsify() first"
            )
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    def why_not(self) -> str | None:
        """Return why its values cannot be drawn one by one, or None if they can."""
        if self.whole is not None:
            return (
                f"it was made under regrow.empty(), and {self.whole} fills it, which needs the "
                "whole weight: build this model plainly, or initialise this layer otherwise"
            )
        if self.seen is not None and self._version != self.seen:
            return (
                "it was made under regrow.empty() and written afterwards, where it had no memory: "
                "initialise inside the context, and load states after sparsify()"
            )
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> Unmade:
        """Copy what is known, too; torch copies the tensor alone."""
        twin = Unmade.of(self.detach().clone().requires_grad_(self.requires_grad))
        twin.writes, twin.whole = list(self.writes), self.whole
        twin.seen = None if self.seen is None else twin._version
        memo[id(self)] = twin
        return twin

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError(
            "a weight made under regrow.empty() has no values yet that could be saved or sent: "
            "call regrow.sparsify() first"
        )


class _Here(threading.local):
    """Whether this thread is building without memory: another may build as always meanwhile."""

    active = False


_HERE = _Here()
_ALIVE: weakref.WeakValueDictionary[int, Unmade] = weakref.WeakValueDictionary()


def _key(tensor: Tensor) -> int:
    """Return a number that all views of a tensor's memory share, while one of them lives."""
    return int(tensor.untyped_storage()._cdata)


@contextlib.contextmanager
def empty() -> Iterator[None]:
    """Build a model inside this context without memory for the weights of its large layers.

    Those of ``Linear``, ``Conv1d``, ``Conv2d`` and ``Conv3d`` come to the meta device; all other
    parameters and buffers are made as always. :func:`regrow.sparsify` with ``execution="csr"`` or
    ``"block"`` then draws active weights only, as the model's own initialisation fills them, and
    gives layers that stay dense their memory. In distribution the model is the one built plainly,
    number for number it is not.

    Initialise inside the context, by what treats each weight alone (``uniform_``, ``normal_``,
    ``trunc_normal_``, ``kaiming_…``, ``xavier_…``, ``constant_``); what needs a weight whole
    (``orthogonal_``, ``copy_``) is an error of ``sparsify`` that names the layer. Layers that are
    given a device of their own are made there.

    Example:
        >>> import regrow
        >>> with empty():
        ...     model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> model[0].weight.device.type, model[0].bias.device.type
        ('meta', 'cpu')
        >>> optimizer = torch.optim.Adam(model.parameters())
        >>> method = regrow.RigL(density=0.25)
        >>> sparse = regrow.sparsify(
        ...     model, optimizer, method, total_steps=1000, execution="csr", exclude="2.weight"
        ... )
        >>> model[0].weight.shape, model[2].weight.device.type
        (torch.Size([16]), 'cpu')
    """
    if _HERE.active:  # within another
        yield
        return
    before = {kind: kind.__init__ for kind in _KINDS}

    def without_memory(own: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(own)
        def made(self: nn.Module, *args: Any, **kwargs: Any) -> None:
            given = inspect.signature(own).bind(self, *args, **kwargs).arguments
            if given.get("device") is not None or not _HERE.active:
                own(self, *args, **kwargs)
                return
            with torch.device("meta"):
                own(self, *args, **kwargs)
            # A bias is small, and nobody has to wait for its values.
            if isinstance(self.bias, Unmade):
                self.bias = made_real(self.bias)

        return made

    truncated = nn.init._no_grad_trunc_normal_
    nn.init._no_grad_trunc_normal_ = _noted(truncated)
    for kind, own in before.items():
        kind.__init__ = without_memory(own)  # type: ignore[method-assign]
        kind.register_parameter = _register  # type: ignore[method-assign]
    _HERE.active = True
    try:
        with _Recorder():  # type: ignore[no-untyped-call]
            yield
    finally:
        _HERE.active = False
        nn.init._no_grad_trunc_normal_ = truncated
        for kind, own in before.items():
            kind.__init__ = own  # type: ignore[method-assign]
            del kind.register_parameter
        for weight in list(_ALIVE.values()):
            weight.seen = weight._version if weight.seen is None else weight.seen


def fill_(values: Tensor, weight: Unmade) -> Tensor:
    """Fill values in place as a weight was to be filled; as many of its own as are wanted."""
    with torch.no_grad():
        for func, args, kwargs in weight.writes:
            func(values, *args, **kwargs)
    return values


def made_real(weight: Unmade) -> nn.Parameter:
    """Return a whole weight with memory on the CPU, filled as it was to be filled.

    Raises:
        ValueError: it cannot be; the message says why.
    """
    if reason := weight.why_not():
        raise ValueError(reason)
    values = torch.empty(weight.shape, dtype=weight.dtype, device="cpu")
    return nn.Parameter(fill_(values, weight), requires_grad=weight.requires_grad)


def _register(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
    """Register a parameter as always, but one on the meta device as one that will be filled."""
    if _HERE.active and param is not None and param.device.type == "meta":
        param = param if isinstance(param, Unmade) else Unmade.of(param)
    nn.Module.register_parameter(self, name, param)


def _noted(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let a function that fills number by number, and looks at what it drew, be written down."""

    @functools.wraps(own)
    def noted(tensor: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        weight = _ALIVE.get(_key(tensor)) if tensor.device.type == "meta" else None
        if weight is None or weight.shape != tensor.shape:
            return own(tensor, *args, **kwargs)
        weight.writes.append((own, args, kwargs))
        return tensor

    return noted


class _Recorder(TorchDispatchMode):
    """Notes what is written to weights without memory."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        for place, argument in enumerate(func._schema.arguments):
            if argument.alias_info is None or not argument.alias_info.is_write:
                continue
            target = args[place] if place < len(args) else kwargs.get(argument.name)
            if isinstance(target, Tensor) and target.device.type == "meta":
                _note(target, func, args, kwargs)
        return out


def _note(target: Tensor, func: Any, args: tuple[Any, ...], kwargs: Any) -> None:
    weight = _ALIVE.get(_key(target))
    if weight is None:
        return
    rest = (*args[1:], *kwargs.values())
    alone = target is args[0] and target.shape == weight.shape and all(map(_is_number, rest))
    pointwise = func in _FILLS or torch.Tag.pointwise in func.tags
    if alone and (pointwise or torch.Tag.nondeterministic_seeded in func.tags):
        weight.writes.append((func, args[1:], kwargs))
    else:
        weight.whole = weight.whole or func.name()


def _is_number(value: Any) -> bool:
    """Tell whether an argument is the same for all of a weight."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and not value.is_meta
    return value is None or isinstance(value, int | float | complex | torch.Generator)
