"""Floating-point operations, counted per weight, scaled by density.

Counted: matrix products and convolutions, forward and backward, 2 operations a multiply-add, by the
formulas of ``torch.utils.flop_counter``. Not counted: elementwise work, norms, softmax, the
optimizer, fused recurrent kernels.
"""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from regrow.engine.sparsifier import Sparsifier
from regrow.engine.undisturbed import kept_random_state
from regrow.engine.wrappers import unwrap
from regrow.measure.movement import density_history

__all__ = ["LayerFlops", "ModelFlops", "count_flops", "training_flops"]

_CONVOLUTION_BACKWARD = torch.ops.aten.convolution_backward


@dataclass(frozen=True)
class LayerFlops:
    """Operations that multiply by one weight, were it dense.

    Args:
        forward: the layer's output.
        input_gradient: the gradient of the layer's input; 0 where no input needs one.
        weight_gradient: the gradient of the weight; 0 where it is frozen.
    """

    forward: int
    input_gradient: int
    weight_gradient: int


@dataclass(frozen=True)
class ModelFlops:
    """Operations of one forward and backward pass on the batch that was counted.

    Args:
        layers: operations by weight, were it dense.
        other_forward: products of activations with activations, such as attention.
        other_backward: their gradients.
        uncounted: weights no counted operation was seen to use: tables that are looked up, fused
            recurrent kernels, parts that took no part.
    """

    layers: dict[str, LayerFlops]
    other_forward: int
    other_backward: int
    uncounted: tuple[str, ...] = ()

    def forward(self, density: Mapping[str, float] | None = None) -> float:
        """Return the operations of inference, with weights of these densities (others dense)."""
        density = density or {}
        weights = sum(density.get(name, 1.0) * f.forward for name, f in self.layers.items())
        return self.other_forward + weights

    def step(
        self,
        density: Mapping[str, float] | None = None,
        *,
        dense_gradients: bool = False,
        gradients: Mapping[str, float] | None = None,
    ) -> float:
        """Return the operations of one training step.

        Args:
            density: by weight; others are dense.
            dense_gradients: whether the weight gradients of all positions are computed, as a step
                does whose update grows by gradient.
            gradients: by weight, the share of positions whose gradients are computed, where it is
                not the density: methods that follow inactive weights at every step.

        Source: the accounting of RigL (Evci et al. 2020, appendix H): 3 f_S for a sparse step, 2
        f_S + f_D with dense gradients.

        Differs from it: the input gradient of the first layer, which nobody computes, is not
        counted.
        """
        density = density or {}
        total = float(self.other_forward + self.other_backward)
        for name, layer in self.layers.items():
            d = density.get(name, 1.0)
            share = 1.0 if dense_gradients else (gradients or {}).get(name, d)
            total += d * (layer.forward + layer.input_gradient) + share * layer.weight_gradient
        return total


def count_flops(model: nn.Module, *inputs: Any) -> ModelFlops:
    """Count the operations of one forward and backward pass, weight by weight.

    A copy of the model is run once on the inputs, so that no statistic, gradient or random state of
    the model changes.

    Args:
        model: any module that returns tensors; wrapped models are looked into.
        *inputs: what the model is called with; counts are for this batch.

    Returns:
        Operations by weight, dense.

    Example:
        >>> flops = count_flops(nn.Linear(8, 4), torch.zeros(2, 8))
        >>> flops.layers["weight"].forward, flops.forward({"weight": 0.25})
        (128, 32.0)
    """
    twin = copy.deepcopy(unwrap(model))
    weights = {name: p for name, p in twin.named_parameters() if p.ndim >= 2}
    # By storage: a weight reaches its product as a view, transposed or flattened, of the parameter.
    # Not by address, which on the meta device is zero for all.
    counter = _Counter({_storage(p): name for name, p in weights.items()})
    # Attention in its plain form: the fused kernels have no formula on every device.
    with kept_random_state(twin), sdpa_kernel(SDPBackend.MATH), torch.enable_grad():
        with counter:
            outputs = tree_leaves(twin(*inputs))
        loss = sum(out.float().sum() for out in outputs if _differentiable(out))
        counter.backward = True
        if isinstance(loss, Tensor):
            with counter:
                loss.backward()
    layers = {
        name: LayerFlops(
            forward=counter.forward_of[name],
            input_gradient=counter.input_gradient_of[name],
            weight_gradient=counter.forward_of[name] if p.grad is not None else 0,
        )
        for name, p in weights.items()
        if counter.forward_of[name]
    }
    # A linear layer's weight gradient multiplies two activations, so that the counter books it as
    # "other": it is taken out there.
    linear = sum(f.weight_gradient for name, f in layers.items() if name not in counter.convolved)
    return ModelFlops(
        layers,
        counter.other_forward,
        max(counter.other_backward - linear, 0),
        uncounted=tuple(name for name in weights if name not in layers),
    )


def training_flops(flops: ModelFlops, sparse: Sparsifier) -> float:
    """Sum the operations of a run so far, following the density and the updates as they happened.

    Args:
        flops: of one training batch.
        sparse: its history says when layers were how dense, and when dense gradients were needed.

    Returns:
        Operations; the dense run's would be ``sparse.steps * flops.step()``.

    Example:
        >>> import regrow
        >>> model = nn.Linear(8, 4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> flops = count_flops(model, torch.zeros(2, 8))
        >>> sparse = regrow.sparsify(model, optimizer, regrow.Static(density=0.25), total_steps=9)
        >>> optimizer.step()
        >>> training_flops(flops, sparse) / flops.step()
        0.25
    """
    total, done = 0.0, 0
    *before, (_, last) = density_history(sparse)
    for (_, density), update in zip(before, sparse.history, strict=True):
        shares = _shares(sparse, density)
        # Up to the update at the density before it; the update's own step still runs at that
        # density.
        total += (update.step - 1 - done) * flops.step(density, gradients=shares)
        total += flops.step(density, gradients=shares, dense_gradients=update.read_gradients)
        done = update.step
    return total + (sparse.steps - done) * flops.step(last, gradients=_shares(sparse, last))


def _shares(sparse: Sparsifier, density: Mapping[str, float]) -> dict[str, float]:
    """Return the share of each weight's positions whose gradients every step needs."""
    return {name: sparse.method.gradient_share(d) for name, d in density.items()}


class _Counter(TorchDispatchMode):
    """Attributes operations to the weight whose memory an operand shares."""

    def __init__(self, names: Mapping[int, str]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names = names
        self.backward = False
        self.forward_of: dict[str, int] = defaultdict(int)
        self.input_gradient_of: dict[str, int] = defaultdict(int)
        self.convolved: set[str] = set()
        self.other_forward = 0
        self.other_backward = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func.overloadpacket)
        if formula is not None:
            self._count(func.overloadpacket, formula, args, kwargs or {}, out)
        return out

    def _count(
        self,
        op: Any,
        formula: Callable[..., int],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        out: Any,
    ) -> None:
        name = next((n for a in tree_leaves(args) if (n := self._name(a))), None)
        if op is _CONVOLUTION_BACKWARD and name:
            # The weight's gradient is taken to cost what the forward pass does: torch's formula for
            # it leaves groups out.
            args = (*args[:10], [args[10][0], False, False])
            self.convolved.add(name)
        count = int(formula(*args, **kwargs, out_val=out))
        if name is None and self.backward:
            self.other_backward += count
        elif name is None:
            self.other_forward += count
        elif self.backward:
            self.input_gradient_of[name] += count
        else:
            self.forward_of[name] += count

    def _name(self, operand: Any) -> str | None:
        if not isinstance(operand, Tensor):
            return None
        return self.names.get(_storage(operand))


def _differentiable(out: Any) -> bool:
    return isinstance(out, Tensor) and out.requires_grad


def _storage(tensor: Tensor) -> int:
    """Return what names a tensor's storage for as long as it lives."""
    return int(tensor.untyped_storage()._cdata)
