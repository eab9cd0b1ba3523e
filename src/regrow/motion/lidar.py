"""LiDAR points on a target become one token: encoders, presence, what stands for no points."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.motion.attention import attend, heads_of
from regrow.motion.encoder import Tokens
from regrow.motion.layers import MLP, PointNet, centred, picked

__all__ = ["LIMTR", "LidarShape", "LidarToken", "PointNetLinear", "TemporalPointNet"]


@dataclass(frozen=True, kw_only=True)
class LidarShape:
    """What is made of LiDAR points, and where it enters the network.

    Args:
        encoder: "temporal", a small one for any number of frames, or "pointnet-linear", LiMTR's.
        channels: of a point.
        frames: of "pointnet-linear", at most; where there are fewer, the older ones are missing.
        hidden: channels inside "temporal".
        layers: of "pointnet-linear", in each of its three parts.
        token: whether the token is among those of the encoder.
        centre: whether the target's feature has it beside it.
        keys: whether queries attend to it, among agents.
        null: whether a token of its own, learnt, stands for "no points"; without it zeros do, and
            nothing attends to them.
        hide: share of targets whose points are hidden in training.

    Raises:
        ValueError: it enters nowhere, or a number is out of its range.
    """

    encoder: Literal["temporal", "pointnet-linear"] = "temporal"
    channels: int = 9
    frames: int = 11
    hidden: int = 128
    layers: int = 12
    token: bool = True
    centre: bool = True
    keys: bool = True
    null: bool = True
    hide: float = 0.0

    def __post_init__(self) -> None:
        if not (self.token or self.centre or self.keys):
            raise ValueError("token, centre, keys: one must be True; lidar=None leaves LiDAR out")
        if self.encoder not in ("temporal", "pointnet-linear"):
            raise ValueError(f"encoder={self.encoder!r}: must be 'temporal' or 'pointnet-linear'")
        if self.channels < 3 or self.frames < 1 or self.hidden < 8 or self.layers < 1:
            raise ValueError(
                f"channels={self.channels}, frames={self.frames}, hidden={self.hidden}, "
                f"layers={self.layers}: must be at least 3, 1, 8 and 1"
            )
        if self.hidden % 4:
            raise ValueError(f"hidden={self.hidden}: must be a multiple of 4")
        if not 0 <= self.hide < 1:
            raise ValueError(f"hide={self.hide}: must be at least 0 and below 1")


LIMTR = LidarShape(
    encoder="pointnet-linear", channels=7, token=True, centre=True, keys=True, null=False
)
"""LiMTR's encoder with its fusions."""


class PointNetLinear(nn.Module):
    """LiMTR's encoder: a PointNet of each frame, then a perceptron over all frames side by side.

    Args:
        channels: of a point.
        outputs: of the token.
        frames: at most; missing older ones are zeros, as frames without points are.
        layers: in each part: before and after the pooling of points, over time.

    Source: LiMTR, arXiv 2410.15819, and its code: ``lidar_encoder: pointnet-linear``. The number of
    points it was trained with is not published.

    Example:
        >>> sum(p.numel() for p in PointNetLinear(7, 256).parameters())
        21475584
    """

    def __init__(self, channels: int, outputs: int, frames: int = 11, layers: int = 12) -> None:
        super().__init__()
        self.frames = frames
        self.points = PointNet(channels, [256] * layers, [512] * layers, None)
        self.time = MLP([512 * frames, *[1024] * layers, outputs])

    def forward(self, points: Tensor, valid: Tensor) -> Tensor:
        """Return shape (n, outputs).

        Args:
            points: shape (n, frames, points, channels), the last frame is now.
            valid: bool, shape (n, frames, points).

        Raises:
            ValueError: there are more frames than it was built for.
        """
        missing = self.frames - points.shape[1]
        if missing < 0:
            raise ValueError(
                f"lidar: has {points.shape[1]} frames; this encoder takes {self.frames} at most"
            )
        frames = functional.pad(self.points(points, valid), (0, 0, missing, 0))
        found: Tensor = self.time(frames.flatten(1))
        return found


class TemporalPointNet(nn.Module):
    """A small encoder: a PointNet of each frame, then attention over the frames that have points.

    A frame's feature knows its age, as sines and cosines; a learnt query attends to all frames, so
    that their number is free.

    Args:
        channels: of a point.
        outputs: of the token.
        hidden: channels of the PointNet; twice as many after its pooling.
        heads: of attention.

    Example:
        >>> net = TemporalPointNet(9, 256)
        >>> sum(p.numel() for p in net.parameters())
        497280
        >>> net(torch.zeros(2, 5, 30, 9), torch.zeros(2, 5, 30, dtype=torch.bool)).shape
        torch.Size([2, 256])
    """

    def __init__(self, channels: int, outputs: int, hidden: int = 128, heads: int = 4) -> None:
        super().__init__()
        width, self.heads = 2 * hidden, heads
        self.points = PointNet(channels, [hidden] * 3, [width] * 3, None)
        self.query = nn.Parameter(torch.randn(width) * width**-0.5)
        self.key, self.value = nn.Linear(width, width), nn.Linear(width, width)
        self.norm, self.norm_seen = nn.LayerNorm(width), nn.LayerNorm(width)
        self.out = MLP([width, width, outputs], norm=False, plain_last=True)

    def forward(self, points: Tensor, valid: Tensor) -> Tensor:
        """Return shape (n, outputs).

        Args:
            points: shape (n, frames, points, channels), the last frame is now.
            valid: bool, shape (n, frames, points).
        """
        frames = self.norm(self.points(points, valid))
        frames = frames + _ages(points.shape[1], frames)
        there = valid.any(-1)
        some = there.any(-1, keepdim=True)
        allowed = there | ~some  # no softmax may be empty; what it gives is not used
        query = self.query.to(frames.dtype).expand(frames.shape[0], 1, -1)
        key, value = self.key(frames), self.value(frames)
        query, key, value = (heads_of(x, self.heads) for x in (query, key, value))
        seen = attend(query, key, value, allowed[:, None]).squeeze(1)
        found: Tensor = self.out(self.norm_seen(seen * some))
        return found


def _ages(frames: int, like: Tensor) -> Tensor:
    """Return embeddings of the ages of frames, shape (frames, width), the last one being 0 old."""
    dtype = torch.promote_types(like.dtype, torch.float32)  # in half precision angles are coarse
    width, device = like.shape[-1], like.device
    ages = torch.arange(frames - 1, -1, -1, device=device, dtype=dtype)
    turns = 1000.0 ** (-torch.arange(0, width, 2, device=device, dtype=dtype) / width)
    angles = ages[:, None] * turns
    return torch.cat([angles.sin(), angles.cos()], -1)


class LidarToken(nn.Module):
    """The token of each target's LiDAR points, at the mean of where it was.

    Args:
        shape: sizes and choices.
        width: of the token.
    """

    def __init__(self, shape: LidarShape, width: int) -> None:
        super().__init__()
        self.shape = shape
        self.encoder: nn.Module
        if shape.encoder == "temporal":
            self.encoder = TemporalPointNet(shape.channels, width, shape.hidden)
        else:
            self.encoder = PointNetLinear(shape.channels, width, shape.frames, shape.layers)
        self.null = nn.Parameter(torch.zeros(width)) if shape.null else None

    def forward(self, inputs: Mapping[str, Tensor]) -> Tokens:
        """Return one token a target, shape (n, 1, width).

        Args:
            inputs: of the network. Without ``lidar`` all targets are taken to have no points.

        Raises:
            ValueError: points have other channels.
        """
        points, valid = self._points(inputs)
        if points.shape[-1] != self.shape.channels:
            raise ValueError(
                f"lidar: points have {points.shape[-1]} channels; the network was built for "
                f"{self.shape.channels}"
            )
        if self.training and self.shape.hide:
            shown = torch.rand(valid.shape[0], device=valid.device) >= self.shape.hide
            valid = valid & shown[:, None, None]
        present = valid.flatten(1).any(-1)
        # Values that are not valid may be anything, and 0 · NaN is NaN.
        points = points.masked_fill(~valid[..., None], 0)
        found = self.encoder(points, valid)
        absent = torch.zeros_like(found) if self.null is None else self.null.to(found.dtype)
        token = torch.where(present[:, None], found, absent)
        own = inputs["centre"][:, None]
        states, steps = (picked(inputs[name], own)[:, 0] for name in ("agents", "agents_valid"))
        seen = present if self.null is None else torch.ones_like(present)
        return Tokens(token[:, None], centred(states[..., :3], steps)[:, None], seen[:, None])

    def _points(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        if "lidar" in inputs:
            return inputs["lidar"], inputs["lidar_valid"]
        agents = inputs["agents"]
        points = agents.new_zeros(agents.shape[0], 1, 1, self.shape.channels)
        return points, torch.zeros(points.shape[:-1], dtype=torch.bool, device=points.device)
