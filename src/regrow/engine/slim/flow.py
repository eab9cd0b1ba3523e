"""Follows channels through a traced model: which are one and the same, which are constant."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

from regrow.engine.chains import is_activation, is_layer, uses_of
from regrow.engine.slim.groups import Channels, Groups, Read, side
from regrow.engine.slim.layers import computes, is_depthwise, why_whole

__all__ = ["follow"]

Shapes = dict[fx.Node, tuple[int, ...]]

# What computes every entry from itself alone.
_UNARY = frozenset(
    (
        "relu",
        "relu_",
        "relu6",
        "gelu",
        "silu",
        "selu",
        "celu",
        "elu",
        "elu_",
        "leaky_relu",
        "leaky_relu_",
        "sigmoid",
        "sigmoid_",
        "tanh",
        "tanh_",
        "softplus",
        "softsign",
        "hardswish",
        "hardsigmoid",
        "hardtanh",
        "mish",
        "logsigmoid",
        "clamp",
        "clamp_",
        "abs",
        "neg",
        "exp",
        "sqrt",
        "square",
        "pow",
    )
)
_SAME = frozenset(
    (
        "contiguous",
        "clone",
        "detach",
        "dropout",
        "dropout1d",
        "dropout2d",
        "dropout3d",
        "float",
    )
)
_BINARY = frozenset(
    (
        "add",
        "add_",
        "iadd",
        "sub",
        "isub",
        "mul",
        "mul_",
        "imul",
    )
)
_POOLS = ("MaxPool", "AvgPool", "AdaptiveMaxPool", "AdaptiveAvgPool", "LPPool", "Upsample")
_POOLING = ("max_pool", "avg_pool", "adaptive_max_pool", "adaptive_avg_pool", "interpolate")
_TRANSFORMERS = (nn.TransformerEncoderLayer.forward, nn.TransformerDecoderLayer.forward)


def follow(model: nn.Module, graph: fx.Graph, shapes: Shapes) -> Groups:
    """Return the groups of channels of a model.

    Args:
        model: in evaluation mode.
        graph: its calls.
        shapes: of the tensors in it.
    """
    flow = _Flow(model, shapes)
    for module in model.modules():
        if type(module).forward in _TRANSFORMERS:
            flow.feed_forward(module)
    for node in graph.nodes:
        flow.visit(node)
    return flow.groups


class _Flow:
    def __init__(self, model: nn.Module, shapes: Shapes) -> None:
        self.model, self.shapes, self.groups = model, shapes, Groups()
        self.channels: dict[fx.Node, Channels] = {}
        self.private: set[int] = set()  # layers that nobody calls but the layer around them
        self.uses = uses_of(model)

    # ------------------------------------------------------------------ nodes

    def visit(self, node: fx.Node) -> None:
        """Note what a call does with channels."""
        if node.op == "output":
            self.pin(node, "the model returns it")
        elif node.op == "get_attr":
            self._attribute(str(node.target))
        elif node.op == "call_module":
            self._module(node, self.model.get_submodule(str(node.target)))
        elif node.op in ("call_function", "call_method"):
            self._function(node)

    def pin(self, node: fx.Node, why: str) -> None:
        """Note that none of the channels which a call reads can be cut."""
        for given in node.all_input_nodes:
            if given in self.channels:
                self.groups.pin(self.channels[given].key, why)

    def given(self, node: fx.Node) -> Channels | None:
        """Return the channels of a call's first argument."""
        first = node.args[0] if node.args else None
        return self.channels.get(first) if isinstance(first, fx.Node) else None

    def _attribute(self, name: str) -> None:
        # A weight that the forward pass uses itself: nobody knows for what.
        path, _, key = name.rpartition(".")
        module = self.model.get_submodule(path)
        if key in module._parameters:
            self._leave_whole(module, f"its {key} is used outside of it")

    # ------------------------------------------------------------------ modules

    def _module(self, node: fx.Node, module: nn.Module) -> None:
        kind = type(module).__name__
        held = self.given(node)
        plain = len(node.args) == 1 and not node.kwargs
        made: Channels | None = None
        if is_layer(module) and plain:
            made = self.layer(module, held)
            if made is None:
                self.pin(node, "it is read along another dimension")
        elif held is None:
            pass
        elif isinstance(module, nn.Identity | nn.modules.dropout._DropoutNd):
            made = held
        elif isinstance(module, nn.modules.batchnorm._BatchNorm) and plain:
            made = self._batch_norm(module, held, len(self.shapes[node]))
        elif kind.startswith(_POOLS) and plain and node in self.shapes:
            made = self._pooled(held, module, len(self.shapes[node]))
        elif isinstance(module, nn.PReLU):
            made = self._each(module, held, module.num_parameters, math.nan)
        elif is_activation(module) and plain:
            made = self._applied(held, module)
        elif isinstance(module, nn.Flatten):
            made = self._reshaped(node, held, literal=None)
        if made is not None:
            self.channels[node] = made
            return
        self.pin(node, f"{kind} reads all channels together")
        self._leave_whole(module, f"it is inside of {kind}, whose calls are not known")

    def _leave_whole(self, module: nn.Module, why: str) -> None:
        for inside in module.modules():
            if id(inside) in self.private:
                continue
            for which in ("in", "out", "each"):
                self.groups.pin(side(inside, which), why)

    def layer(self, module: nn.Module, held: Channels | None) -> Channels | None:
        """Read channels by a layer, and return those it makes; None: they are not its inputs."""
        weight: Any = module.weight
        axes = weight.ndim - 2
        into, out = side(module, "in"), side(module, "out")
        reason = why_whole(module, self.uses)
        if reason:
            self.groups.pin(into, reason)
            self.groups.pin(out, reason)
        sizes: Any = module
        n: int = sizes.in_channels if axes else sizes.in_features
        if held is None:
            self.groups.pin(into, "what it reads is not made by a layer")
        elif held.dim != -(axes + 1) or len(held.constant) * held.span != n:
            return None
        else:
            self.groups.join(held.key, into)
        span = 1 if held is None else held.span
        constant = None if held is None else held.constant
        if is_depthwise(module):
            self.groups.join(into, out)
            self.groups.of(out).each[id(module)] = module
            return Channels(out, -(axes + 1), 1, torch.full((n,), math.nan, dtype=torch.float64))
        unknown = torch.full((n // span,), math.nan, dtype=torch.float64)
        self.groups.of(into).reads.append(
            Read(module, unknown if constant is None else constant, span)
        )
        self.groups.of(out).makes[id(module)] = module
        made = torch.full((len(weight),), math.nan, dtype=torch.float64)
        if not reason:
            made = computes(module, constant, span)
        return Channels(out, -(axes + 1), 1, made)

    def feed_forward(self, module: Any) -> None:
        """Follow the two linear layers inside a transformer layer of torch."""
        self.private |= {id(module.linear1), id(module.linear2)}
        hidden = self.layer(module.linear1, None)
        if hidden is not None:
            self.layer(module.linear2, self._applied(hidden, module.activation))
            self.groups.pin(side(module.linear2, "out"), "it is added to what the layer reads")

    def _batch_norm(self, module: Any, held: Channels, ndim: int) -> Channels | None:
        if held.dim != 1 - ndim:
            return None
        constant: Any = math.nan
        if module.running_mean is not None and module.running_var is not None:
            mean, var = module.running_mean.double().cpu(), module.running_var.double().cpu()
            if len(mean) == len(held.constant):
                constant = (held.constant - mean) / (var + module.eps).sqrt()
                if module.affine:
                    scale, shift = (p.detach().double().cpu() for p in (module.weight, module.bias))
                    constant = constant * scale + shift
        return self._each(module, held, module.num_features, constant)

    def _each(self, module: nn.Module, held: Channels, n: int, constant: Any) -> Channels | None:
        """Note a module with one entry a channel, or with one for all."""
        if n != 1 and (held.span != 1 or len(held.constant) != n):
            return None
        if any(self.uses.get(id(p), 1) > 1 for p in module.parameters(recurse=False)):
            return None
        if n != 1 or len(held.constant) == 1:
            self.groups.join(held.key, side(module, "each"))
            self.groups.of(held.key).each[id(module)] = module
        if not isinstance(constant, Tensor):
            # Zero stays zero under a slope.
            constant = torch.where(held.constant == 0, held.constant, constant)
        return Channels(held.key, held.dim, held.span, constant)

    def _pooled(self, held: Channels, pool: Any, ndim: int) -> Channels | None:
        if held.dim != 1 - ndim or held.span != 1 or getattr(pool, "return_indices", False):
            return None
        padding = getattr(pool, "padding", 0)
        padded = any(padding) if isinstance(padding, tuple) else bool(padding)
        averages = padded and "AvgPool" in type(pool).__name__
        constant = held.constant
        if averages or type(pool).__name__.startswith("LPPool"):
            constant = torch.where(constant == 0, constant, math.nan)
        return Channels(held.key, held.dim, 1, constant)

    def _applied(self, held: Channels, function: Callable[..., Any]) -> Channels:
        """Return channels after a function of every entry alone."""
        try:
            with torch.no_grad():
                constant = function(held.constant.clone())
            if constant.shape != held.constant.shape:
                raise ValueError
        except Exception:
            constant = torch.full_like(held.constant, math.nan)
        # Some functions make a number of what is none.
        constant = torch.where(held.constant.isnan(), math.nan, constant.double())
        return Channels(held.key, held.dim, held.span, constant)

    # ------------------------------------------------------------------ functions

    def _function(self, node: fx.Node) -> None:
        target = node.target
        name = str(target) if isinstance(target, str) else getattr(target, "__name__", str(target))
        if node not in self.shapes:
            if name not in ("size", "getattr", "dim", "ndimension", "getitem", "eq", "floordiv"):
                self.pin(node, f"{name}() reads it")
            return
        held, made = self.given(node), None
        others = [n for n in node.all_input_nodes if n in self.channels]
        if not others:
            return
        if name in _BINARY:
            made = self._joined(node, name)
        elif held is None or len(others) > 1:
            pass
        elif name in _SAME:
            made = held
        elif name in _UNARY:
            rest = node.args[1:]
            if not any(isinstance(a, fx.Node) for a in (*rest, *node.kwargs.values())):
                call = getattr(Tensor, name) if isinstance(target, str) else target
                made = self._applied(held, lambda v: call(v, *rest, **node.kwargs))
        elif name.startswith(_POOLING):
            made = self._pooling(node, name, held)
        elif name in ("getitem", "unsqueeze"):
            made = self._widened(node, name, held)
        elif name in ("flatten", "view", "reshape"):
            made = self._reshaped(node, held, literal=name)
        elif name == "mean":
            made = self._mean(node, held)
        elif name in ("permute", "transpose"):
            made = self._turned(node, name, held)
        if made is None:
            self.pin(node, f"{name}() reads it")
        else:
            self.channels[node] = made

    def _joined(self, node: fx.Node, name: str) -> Channels | None:
        """Join what is added or multiplied entry by entry."""
        values = [*node.args[:2], *node.kwargs.values()]
        ndim = len(self.shapes[node])
        held = [self.channels.get(v) if isinstance(v, fx.Node) else None for v in values]
        known = [one for one in held if one is not None]
        first = known[0]
        for value, one in zip(values, held, strict=True):
            if isinstance(value, fx.Node) and one is None and value in self.shapes:
                shape = self.shapes[value]
                # A tensor from elsewhere that is one number for all channels may come in.
                if -first.dim <= len(shape) and shape[first.dim] != 1:
                    return None
            if one is not None and (one.dim, one.span) != (first.dim, first.span):
                return None
            if one is not None and len(one.constant) != len(first.constant):
                return None
        if -first.dim > ndim or self.shapes[node][first.dim] != len(first.constant) * first.span:
            return None
        for one in known[1:]:
            self.groups.join(first.key, one.key)
        combined = self._combined(name, values, held)
        return Channels(first.key, first.dim, first.span, combined)

    def _combined(self, name: str, values: list[Any], held: list[Channels | None]) -> Tensor:
        n = next(len(one.constant) for one in held if one is not None)
        unknown = torch.full((n,), math.nan, dtype=torch.float64)
        if len(values) != 2:
            return unknown
        numbers = [
            one.constant if one is not None else (v if isinstance(v, int | float) else unknown)
            for v, one in zip(values, held, strict=True)
        ]
        kind = name.strip("_").removeprefix("i") if name.startswith("i") else name.strip("_")
        made: Tensor = getattr(operator, kind)(*numbers)
        if kind == "mul":  # zero times anything that is finite
            for one in numbers:
                if isinstance(one, Tensor):
                    made = torch.where(one == 0, 0.0, made)
        return made if isinstance(made, Tensor) else unknown

    def _pooling(self, node: fx.Node, name: str, held: Channels) -> Channels | None:
        ndim = len(self.shapes[node])
        if held.dim != 1 - ndim or held.span != 1:
            return None
        constant = held.constant
        if name.startswith("avg_pool"):  # which may pad
            constant = torch.where(constant == 0, constant, math.nan)
        return Channels(held.key, held.dim, 1, constant)

    def _reshaped(self, node: fx.Node, held: Channels, literal: str | None) -> Channels | None:
        """Follow channels through a flatten of all dimensions from theirs on."""
        source = node.args[0]
        assert isinstance(source, fx.Node)
        before, after = self.shapes[source], self.shapes[node]
        if before == after and literal not in {"view", "reshape"}:
            return held
        at = len(before) + held.dim
        stays = before[: at + 1] == after[: at + 1] and held.span == 1
        if after[:at] != before[:at] or not (stays or len(after) == at + 1):
            return None
        # A size that is written out would be wrong once channels are gone.
        if literal in {"view", "reshape"}:
            sizes: Any = node.args[1:]
            sizes = sizes[0] if len(sizes) == 1 and isinstance(sizes[0], tuple | list) else sizes
            if not isinstance(sizes, tuple | list) or len(sizes) <= at:
                return None
            if isinstance(sizes[at], int) and sizes[at] != -1:
                return None
        if stays:
            return Channels(held.key, at - len(after), 1, held.constant)
        return Channels(held.key, -1, held.span * math.prod(before[at + 1 :]), held.constant)

    def _widened(self, node: fx.Node, name: str, held: Channels) -> Channels | None:
        """Follow channels through new dimensions of one entry."""
        ndim = len(self.shapes[node])
        before = ndim - 1
        index: Any = node.args[1] if len(node.args) == 2 else None
        if name == "unsqueeze" and isinstance(index, int):
            order: list[int | None] = list(range(before))
            order.insert(index % ndim, None)
        elif name == "getitem" and isinstance(index, tuple):
            whole = slice(None, None, None)
            if not all(one is None or one == whole for one in index):
                return None
            before = ndim - sum(one is None for one in index)
            numbers = iter(range(before))
            order = [None if one is None else next(numbers) for one in index]
            order += list(numbers)
        else:
            return None
        return Channels(held.key, order.index(before + held.dim) - ndim, held.span, held.constant)

    def _mean(self, node: fx.Node, held: Channels) -> Channels | None:
        source = node.args[0]
        assert isinstance(source, fx.Node)
        ndim, after = len(self.shapes[source]), len(self.shapes[node])
        dims: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
        dims = [dims] if isinstance(dims, int) else dims
        if not isinstance(dims, tuple | list) or not all(isinstance(d, int) for d in dims):
            return None
        gone = {int(d) % ndim - ndim for d in dims}
        if held.dim in gone:
            return None
        shift = 0 if after == ndim else sum(d > held.dim for d in gone)
        return Channels(held.key, held.dim + shift, held.span, held.constant)

    def _turned(self, node: fx.Node, name: str, held: Channels) -> Channels | None:
        ndim = len(self.shapes[node])
        order: Any = list(range(ndim))
        given: Any = node.args[1:]
        if name == "permute":
            order = list(given[0] if len(given) == 1 else given)
        elif len(given) == 2:
            one, other = (int(d) % ndim for d in given)
            order[one], order[other] = order[other], order[one]
        else:
            return None
        if not all(isinstance(d, int) for d in order):
            return None
        at = [d % ndim for d in order].index(held.dim % ndim)
        return Channels(held.key, at - ndim, held.span, held.constant)
