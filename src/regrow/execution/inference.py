"""Makes a copy of a trained network for inference: each layer dense, or nonzeros only."""

from __future__ import annotations

import copy
from typing import cast

import torch
from torch import Tensor, nn

from regrow.engine.checks import check_integer
from regrow.engine.patterns import Element
from regrow.execution.convert import stored_copy
from regrow.execution.modules import kind_of
from regrow.execution.two_four.linear import PackedLinear, why_not_packed

__all__ = ["inference_module"]

_STORABLE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
_FULL = 0.9  # share of a kernel's weights, on average, from which kernels are stored whole
# Densities below which nonzeros are clearly faster than a dense layer, on one core with AVX-512
# (benchmarks/csr_inference.py). One sample reads each weight once, dense or not: there it is bytes
# that count, and an index takes as many as a value.
_ONE, _MANY, _KERNELS, _CONVOLUTION = 0.2, 0.3, 0.4, 0.15
_NARROW = 1 << 19  # weights of a layer that its caches hold: half of these densities
_TINY = 1 << 16  # weights of a layer that takes no longer than calling it
_SIDE_BY_SIDE = 16  # samples that convolutions take at once


def inference_module(
    model: nn.Module, *, batch: int | None = None, below: float | None = None
) -> nn.Module:
    """Return a copy for inference, each layer of which computes what is faster.

    On a GPU linear layers of 2:4 weights in bfloat16 and float16 are held packed for its sparse
    tensor cores; others stay as they are. On a CPU layers compute dense products, or those of their
    nonzeros only. How sparse a layer must be depends on the batch:
    one sample below a density of 0.2, more below 0.3; narrow layers below half of that; tiny ones
    stay dense, as do layers that are not of float32, carry hooks, or pad with other than zeros.
    A convolution whose zeros are whole kernels keeps whole kernels, stray zeros in them
    included: with 3 × 3 or 1 × 3 × 3 weights, stride 1 or 2, no dilation and no groups it is fast
    below 0.4 for any number of samples. Other convolutions take sixteen samples at once: they are
    stored below 0.15, and for batches of at least sixteen.

    Args:
        model: trained, stored or under masks; stays as it is. What training stores
            stays stored.
        batch: samples that a call will bring; None: any number, a single one included.
        below: store every layer of a lower density, whatever the batch; None: by the rules above,
            which were measured on one machine.

    Returns:
        The copy, in evaluation mode, none of whose parameters requires a gradient.

    Raises:
        ValueError: the batch is below 1.
        TypeError: the batch is no whole number.

    Example:
        >>> model = nn.Sequential(nn.Linear(512, 512))
        >>> _ = model[0].weight.data.copy_(torch.eye(512))
        >>> fast = inference_module(model, batch=1)
        >>> torch.allclose(fast(torch.ones(1, 512)), model(torch.ones(1, 512)))
        True
    """
    if batch is not None and check_integer(batch, "batch") < 1:
        raise ValueError(f"batch={batch}: must be at least 1, or None for any")
    twin = copy.deepcopy(model)
    for name, module in list(twin.named_modules()):
        if not name or not _storable(module):
            continue
        if cast(Tensor, module.weight).is_cuda:
            if isinstance(module, nn.Linear) and why_not_packed(module) is None:
                twin.set_submodule(name, PackedLinear(module))
            continue
        kept = _kept(cast(Tensor, module.weight).detach())
        limit = _limit(module, kept, batch) if below is None else below
        kept = kept.reshape(-1)
        if int(kept.sum()) < limit * kept.numel():
            stored = stored_copy(module, kept.nonzero().squeeze(1), Element())
            twin.set_submodule(name, stored)
    return twin.eval().requires_grad_(requires_grad=False)


def _storable(module: nn.Module) -> bool:
    """Tell whether a layer's nonzeros alone compute what it does; others stay as they are."""
    if kind_of(module) not in _STORABLE or getattr(module, "parametrizations", None):
        return False
    if module._forward_hooks or module._forward_pre_hooks:
        return False
    weight = cast(Tensor, module.weight)
    plain = weight.dtype == torch.float32 and weight.device.type == "cpu"
    return (plain or weight.is_cuda) and getattr(module, "padding_mode", "zeros") == "zeros"


def _limit(module: nn.Module, kept: Tensor, batch: int | None) -> float:
    """Return the density below which a layer's nonzeros are faster than all of it."""
    if kept.ndim > 2:
        if _by_kernel(module, kept):
            return _KERNELS
        return _CONVOLUTION if batch is not None and batch >= _SIDE_BY_SIDE else 0.0
    if kept.numel() < _TINY:
        return 0.0
    limit = _ONE if batch in (None, 1) else _MANY
    return limit if kept.numel() >= _NARROW else limit / 2


def _by_kernel(module: nn.Module, kept: Tensor) -> bool:
    """Tell whether a convolution keeps whole kernels that are computed one by one."""
    conv = cast(nn.Conv2d, module)
    *depth, height, width = (1, *conv.kernel_size)
    flat = (*depth[1:], height, width) in ((3, 3), (1, 3, 3))
    stride, dilation = conv.stride[-2:], conv.dilation[-2:]
    even = stride in ((1, 1), (2, 2)) and dilation == (1, 1) and conv.groups == 1
    kernels = kept.flatten(2)
    return flat and even and bool((kernels.any(2) == kernels.all(2)).all())


def _kept(weight: Tensor) -> Tensor:
    """Return which weights inference stores: the nonzero ones, or all of kernels nearly full."""
    nonzero = weight != 0
    if weight.ndim < 3:
        return nonzero
    kernels = nonzero.flatten(2).any(2)
    whole = kernels.reshape(kernels.shape + (1,) * (weight.ndim - 2)).expand(weight.shape)
    return whole if int(nonzero.sum()) >= _FULL * int(whole.sum()) else nonzero
