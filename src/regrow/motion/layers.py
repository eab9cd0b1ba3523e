"""Parts that all of the network is made of: perceptrons over valid rows, position embeddings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = [
    "MLP",
    "MaskedBatchNorm",
    "PointNet",
    "centred",
    "picked",
    "position_embedding",
]


class MaskedBatchNorm(nn.BatchNorm1d):
    """Normalise each channel by its mean and variance over the valid rows of a batch.

    y = (x - E[x]) / √(Var[x] + ε) · γ + β, with both moments over valid rows. It computes what
    ``BatchNorm1d`` does of ``x[valid]``, but shapes do not hang on what is valid: such a network
    can be compiled, exported and trained on several ranks. Without any valid row the running
    statistics stay. Rows that are not valid come out as numbers without meaning.

    Example:
        >>> x, valid = torch.tensor([[1.0], [3.0], [100.0]]), torch.tensor([True, True, False])
        >>> MaskedBatchNorm(1)(x, valid)[:2].round(decimals=2).flatten().tolist()
        [-1.0, 1.0]
    """

    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def forward(  # type: ignore[override]
        self, x: Tensor, valid: Tensor | None, relu: bool = False
    ) -> Tensor:
        """Normalise.

        Args:
            x: shape (..., channels).
            valid: shape (...): bool, or how often each row counts, such as rows that stand for
                several; None: all do, once.
            relu: rectify what comes out, and make rows that are not valid 0.
        """
        if not self.training:
            scale = self.weight * (self.running_var + self.eps).rsqrt()
            out = (x * scale + (self.bias - self.running_mean * scale)).to(x.dtype)
            return _rectified(out, valid) if relu else out
        with torch.autocast(x.device.type, enabled=False):
            rows = None if valid is None else valid.reshape(-1)
            return self._trained(x.reshape(-1, x.shape[-1]), rows, relu).view(x.shape)

    def _trained(self, x: Tensor, valid: Tensor | None, relu: bool) -> Tensor:
        wide = _wide(x[:0]).dtype
        if valid is None:
            valid = torch.ones(x.shape[0], dtype=wide, device=x.device)
        count = valid.sum()
        share = valid.to(wide) / count.clamp(min=1)
        out: Tensor
        out, mean, variance = _Norm.apply(  # type: ignore[no-untyped-call]
            x, share, self.weight, self.bias, self.eps, relu
        )
        with torch.no_grad():
            rate = (self.momentum or 0.1) * (count > 0)
            unbiased = variance * (count / (count - 1).clamp(min=1))
            self.running_mean.lerp_(mean, rate)
            self.running_var.lerp_(unbiased, rate)
            self.num_batches_tracked += 1
        return out


def _rectified(x: Tensor, valid: Tensor | None) -> Tensor:
    x = functional.relu(x)
    return x if valid is None else x.masked_fill(valid[..., None] == 0, 0)


class _Norm(torch.autograd.Function):
    """Normalise rows by weighted moments, and rectify them, in few passes over memory.

    Autograd alone keeps what is centred, too, in float32, and passes three times over it.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, share: Tensor, weight: Tensor, bias: Tensor, eps: float, relu: bool
    ) -> tuple[Tensor, Tensor, Tensor]:
        # Sums over rows as products with a vector: nothing of the size of x is made for them.
        mean = share @ _wide(x)
        variance = share @ (x - mean).square_()
        root = (variance + eps).rsqrt()
        scale = root * weight
        out = torch.addcmul(bias - mean * scale, x, scale).to(x.dtype)
        if relu:  # masked_fill_ takes eight times as long on a CPU
            out = out.relu_().mul_((share > 0).to(out.dtype)[:, None])
        ctx.save_for_backward(x, share, mean, root, weight, out if relu else None)
        ctx.mark_non_differentiable(mean, variance)
        return out, mean, variance

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, share, mean, root, weight, out = ctx.saved_tensors
        if out is not None:
            grad = torch.ops.aten.threshold_backward(grad, out, 0)
        scale = root * weight
        shift = grad.sum(0, dtype=mean.dtype)
        along = (grad * _wide(x)).sum(0, dtype=mean.dtype) - shift * mean
        # Through the variance, and through the mean, of which each row has its share.
        slope = -along * root.square() * scale
        spread = torch.addcmul(-shift * scale - slope * mean, x, slope).mul_(share[:, None])
        found = spread.addcmul_(grad, scale).to(x.dtype)
        return found, None, along * root, shift, None, None


class MLP(nn.Module):
    """A perceptron; each layer is Linear, or Linear without bias and a batch norm, then ReLU.

    Args:
        channels: of the input and of each layer's output.
        norm: whether layers have a batch norm, over valid rows.
        plain_last: whether the last layer is a Linear alone.
        exact: whether that one computes in float32 in any precision: in bfloat16 a position at
            100 m has steps of half a metre.
        beside: channels of more inputs, which all rows of a set share, behind their own.

    Example:
        >>> MLP([3, 8, 2])(torch.zeros(5, 4, 3), torch.ones(5, 4, dtype=torch.bool)).shape
        torch.Size([5, 4, 2])
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        norm: bool = True,
        plain_last: bool = False,
        exact: bool = False,
        beside: int = 0,
    ) -> None:
        super().__init__()
        self.linears, self.norms = nn.ModuleList(), nn.ModuleList()
        self.plain_last, self.exact = plain_last, exact
        for i, (before, after) in enumerate(pairwise(channels), 2):
            plain = plain_last and i == len(channels)
            self.linears.append(nn.Linear(before, after, bias=plain or not norm))
            if norm and not plain:
                self.norms.append(MaskedBatchNorm(after))
        self.shared = nn.Linear(beside, channels[1], bias=False) if beside else None
        if self.shared is not None:  # both parts begin as those of one layer of all inputs
            whole = nn.Linear(channels[0] + beside, channels[1], bias=False).weight.detach()
            with torch.no_grad():
                self.linears[0].weight.copy_(whole[:, : channels[0]])  # type: ignore[operator]
                self.shared.weight.copy_(whole[:, channels[0] :])

    def forward(
        self, x: Tensor, valid: Tensor | None = None, beside: Tensor | None = None
    ) -> Tensor:
        """Return shape (..., channels[-1]); with batch norms 0 in rows that are not valid.

        Args:
            x: shape (..., rows, channels[0]).
            valid: shape (..., rows): rows that batch norms see, see :class:`MaskedBatchNorm`; None:
                all.
            beside: shape (..., beside): what is beside all rows of a set; None: nothing.

        Raises:
            ValueError: something is beside them and was not announced, or the other way round.
        """
        if (beside is None) != (self.shared is None):
            channels = 0 if self.shared is None else self.shared.in_features
            given = None if beside is None else tuple(beside.shape)
            raise ValueError(f"beside: of shape {given}; {channels} channels were announced")
        for i, linear in enumerate(self.linears):
            last = self.plain_last and i + 1 == len(self.linears)
            x = self._plain(linear, x) if last else linear(x)
            if i == 0 and self.shared is not None:
                # What all rows share is multiplied once, and never copied beside each of them.
                x += self.shared(beside)[..., None, :]
            if not last:
                x = self.norms[i](x, valid, relu=True) if len(self.norms) else functional.relu(x)
        return x

    def _plain(self, linear: nn.Module, x: Tensor) -> Tensor:
        if not (self.exact and torch.is_autocast_enabled(x.device.type)):
            return linear(x)  # type: ignore[no-any-return]
        with torch.autocast(x.device.type, enabled=False):
            return linear(x.float())  # type: ignore[no-any-return]


class PointNet(nn.Module):
    """Encode sets of points: a perceptron, its largest values beside each point, another, largest.

    Args:
        inputs: channels of a point.
        before: channels of the layers before the first pooling.
        after: channels of those after it.
        outputs: channels of two more layers over the pooled set, without norm; None: no such.
        beside: channels of what all points of a set share, behind their own.

    Source: Shi et al. 2022 (MTR), section 3.1; Qi et al. 2017 (PointNet).

    Example:
        >>> net = PointNet(9, [16] * 3, [16] * 2, 32)
        >>> net(torch.zeros(2, 7, 20, 9), torch.ones(2, 7, 20, dtype=torch.bool)).shape
        torch.Size([2, 7, 32])
    """

    def __init__(
        self,
        inputs: int,
        before: Sequence[int],
        after: Sequence[int],
        outputs: int | None,
        *,
        beside: int = 0,
    ) -> None:
        super().__init__()
        self.before = MLP([inputs, *before], beside=beside)
        self.after = MLP([before[-1], *after], beside=before[-1])
        hidden = after[-1]
        self.out = (
            None if outputs is None else MLP([hidden, hidden, outputs], norm=False, plain_last=True)
        )

    def forward(self, points: Tensor, valid: Tensor, beside: Tensor | None = None) -> Tensor:
        """Return shape (..., channels), 0 for sets without valid points.

        Args:
            points: shape (..., points, inputs).
            valid: bool, shape (..., points).
            beside: shape (..., beside).
        """
        # None of the numbers is below 0, and those of points that are not valid are 0.
        x: Tensor = self.before(points, valid, beside)
        x = self.after(x, valid, x.amax(-2)).amax(-2)
        if self.out is not None:
            x = self.out(x) * valid.any(-1, keepdim=True)
        return x


def position_embedding(xy: Tensor, width: int, mtr_compat: bool = False) -> Tensor:
    """Embed positions as sines and cosines of many periods.

    Of channels 2i and 2i+1 of each half, one is the sine and the other the cosine of 2π·y/p (first
    half) and 2π·x/p (second). Periods p go from 4 m to 1,000 m, evenly on a logarithmic scale.

    Args:
        xy: shape (..., 2), in metres.
        width: of the embedding, a multiple of 4.
        mtr_compat: periods as in MTR, from 1 m to 10 km: places a metre apart look alike to the
            shortest, and all of a scene to the longest.

    Returns:
        Float32 or float64, shape (..., width).

    Source: Liu et al. 2022 (DAB-DETR), section 4.4; MTR takes metres for its shares of an image.

    Example:
        >>> position_embedding(torch.tensor([0.5, 0.0]), 4)
        tensor([0.0000, 1.0000, 0.7071, 0.7071])
    """
    half = width // 2
    shortest, longest = (1.0, 10_000.0) if mtr_compat else (4.0, 1000.0)
    steps = torch.arange(0, half, 2, dtype=_wide(xy).dtype, device=xy.device) / half
    turns = (2 * math.pi / shortest) * (longest / shortest) ** -steps
    angles = _wide(xy).flip(-1)[..., None] * turns
    return torch.stack([angles.sin(), angles.cos()], -1).flatten(-3)


def picked(values: Tensor, places: Tensor) -> Tensor:
    """Return values at places along the second dimension: of (n, m, ...) and (n, k), (n, k, ...).

    It is ``take_along_dim``, which an export to ONNX fixes the size of batches at.

    Example:
        >>> picked(torch.tensor([[[1], [2]], [[3], [4]]]), torch.tensor([[1], [0]])).tolist()
        [[[2]], [[3]]]
    """
    index = places.reshape(*places.shape, *[1] * (values.ndim - 2))
    return values.gather(1, index.expand(*places.shape, *values.shape[2:]))


def _wide(x: Tensor) -> Tensor:
    """Return float32 of half precision."""
    return x if x.dtype == torch.float64 else x.float()


def centred(values: Tensor, valid: Tensor) -> Tensor:
    """Return the mean of values over what is valid; 0 where nothing is.

    Args:
        values: shape (..., n, channels).
        valid: bool, shape (..., n).

    Example:
        >>> centred(torch.tensor([[2.0], [4.0], [9.0]]), torch.tensor([True, True, False]))
        tensor([3.])
    """
    kept = values * valid[..., None]
    return kept.sum(-2) / valid.sum(-1, keepdim=True).clamp(min=1)
