"""Batch normalization of activations whose batch lies innermost in memory.

The rows of one channel fit a cache: statistics and result take one pass through main memory.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from regrow.execution.csr import memory
from regrow.execution.csr.dispatch import in_use, kernels

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "with_batch_last"]

_Model = TypeVar("_Model", bound=nn.Module)


def _channels(x: Tensor) -> Tensor | None:
    """View x [batch, channels, ...] as rows, one a channel, if they are contiguous in memory."""
    if x.dim() < 2 or x.stride(0) != 1 or len(x) < 2 or x.is_neg():
        return None
    if x.dtype != torch.float32:
        return None
    turned = x.permute(1, *range(2, x.dim()), 0)
    return turned.flatten(1) if turned.is_contiguous() and x.device.type == "cpu" else None


class _Normalize(torch.autograd.Function):
    """y = (x - mean) / sqrt(variance + eps) * weight + bias; fixed: the statistics are given."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        mean: Tensor,
        variance: Tensor,
        fixed: bool,
        eps: float,
    ) -> Tensor:
        mean, inverse = memory.plain(mean), memory.plain(1 / (variance + eps))
        scale = memory.plain(inverse.sqrt() if weight is None else inverse.sqrt() * weight)
        ctx.save_for_backward(rows, mean, scale, inverse)
        ctx.fixed = fixed
        bias = None if bias is None else memory.plain(bias)
        made: Tensor = kernels().normalize(rows, mean, scale, bias)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, mean, scale, inverse = ctx.saved_tensors
        _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
        out, sums, products = kernels().normalize_backward(
            memory.plain(grad), rows, mean, scale, inverse, ctx.fixed
        )
        weight = products * inverse.sqrt() if needs_weight else None
        return out, weight, sums if needs_bias else None, None, None, None, None


class _BatchLast(nn.modules.batchnorm._BatchNorm):
    """Batch norm over contiguous channels; anything else is left to `torch.nn`."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # which makes a pass of its own of it
            return super().forward(x)
        rows = None if in_use() == "torch" or not self._plain() else _channels(x)
        # Also another number of channels, which torch.nn refuses: C would read beyond the ends.
        if rows is None or len(rows) != self.num_features or torch.is_autocast_enabled("cpu"):
            return super().forward(x)
        self._check_input_dim(x)  # type: ignore[no-untyped-call]
        mean, variance = self.running_mean, self.running_var
        fixed = not self.training and mean is not None and variance is not None
        if not fixed:
            with torch.no_grad():
                mean, variance = kernels().moments(rows.detach())
                self._track(mean, variance, rows.shape[1])
        eps = self.eps
        y: Tensor = _Normalize.apply(rows, self.weight, self.bias, mean, variance, fixed, eps)  # type: ignore[no-untyped-call]
        return y.view(x.shape[1], *x.shape[2:], len(x)).permute(-1, *range(x.dim() - 1))

    def _plain(self) -> bool:
        """Whether C can read the parameters and statistics: the model may have been converted."""
        held = (self.weight, self.bias, self.running_mean, self.running_var)
        size = (self.num_features,)
        return all(
            t is None or (t.dtype is torch.float32 and t.is_cpu and t.shape == size) for t in held
        )

    def _track(self, mean: Tensor, variance: Tensor, count: int) -> None:
        """Move the running statistics as `torch.nn` does; None momentum averages all batches."""
        if not self.training or self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = self.momentum
        factor = 1 / float(self.num_batches_tracked) if momentum is None else momentum
        self.running_mean.lerp_(mean, factor)
        self.running_var.lerp_(variance * (count / (count - 1)), factor)


class BatchNorm1d(_BatchLast, nn.BatchNorm1d):
    """`torch.nn.BatchNorm1d`, fast where the batch lies innermost; the same result and state."""


class BatchNorm2d(_BatchLast, nn.BatchNorm2d):
    """`torch.nn.BatchNorm2d`, fast where the batch lies innermost; the same result and state."""


class BatchNorm3d(_BatchLast, nn.BatchNorm3d):
    """`torch.nn.BatchNorm3d`, fast where the batch lies innermost; the same result and state."""


def with_batch_last(model: _Model) -> _Model:
    """Make every batch norm of a model fast after sparse layers, in place.

    Parameters, buffers, hooks and `state_dict` keys stay; only the class changes.

    Example:
        >>> type(with_batch_last(nn.Sequential(nn.BatchNorm2d(3)))[0]).__module__
        'regrow.execution.csr.norm'
    """
    classes = {
        nn.BatchNorm1d: BatchNorm1d,
        nn.BatchNorm2d: BatchNorm2d,
        nn.BatchNorm3d: BatchNorm3d,
    }
    # The class is exchanged, not the module: hooks, references and state stay.
    for module in model.modules():
        for dense, turned in classes.items():
            if type(module) is dense:
                module.__class__ = turned
    return model
