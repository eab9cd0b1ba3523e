"""The whole network, MTR and with LiDAR LiMTR, in several sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from regrow.motion.decoder import MotionDecoder, Predicted
from regrow.motion.departures import steady
from regrow.motion.encoder import ContextEncoder
from regrow.motion.lidar import LidarShape, LidarToken

__all__ = ["SIZES", "MotionTransformer", "Shape"]


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a network; unless told otherwise those of MTR.

    Args:
        past: steps up to now.
        future: steps to predict.
        width: of the encoder's tokens.
        heads: of all attention.
        layers: of the encoder.
        neighbours: that a token attends to.
        agent_hidden: channels inside the encoder of an agent's states.
        map_hidden: channels inside the encoder of a polyline.
        query_width: of motion queries.
        map_width: of queries in attention to the map.
        decoder_layers: that refine the predictions.
        queries: intention points of a kind of agent.
        base: map polylines that all queries attend to.
        near: map polylines near its path that a query attends to.
        every: only every so many waypoints of a path are looked at for them.
        dropout: of attention layers.
        departs: predict paths as departures: a query's from the straight line to its intention
            point, then from what the layer before predicted; all agents' from going on as they are.
            MTR predicts whole paths, which takes far longer to learn.
        lidar: what is made of LiDAR points; None: nothing.
        mtr_compat: give back what is mended of MTR: the kind of a line as one number and not
            one-hot, periods of position embeddings from 1 m to 10 km. Features and loss have
            switches of this name, too.

    Raises:
        ValueError: widths do not fit heads or embeddings.
    """

    past: int = 11
    future: int = 80
    width: int = 256
    heads: int = 8
    layers: int = 6
    neighbours: int = 16
    agent_hidden: int = 256
    map_hidden: int = 64
    query_width: int = 512
    map_width: int = 256
    decoder_layers: int = 6
    queries: int = 64
    base: int = 256
    near: int = 128
    every: int = 1
    dropout: float = 0.1
    departs: bool = False
    lidar: LidarShape | None = None
    mtr_compat: bool = False

    def __post_init__(self) -> None:
        for name in ("width", "query_width", "map_width"):
            value = getattr(self, name)
            if value < 4 or value % 4 or value % self.heads:
                raise ValueError(
                    f"{name}={value}: must be a multiple of 4 and of heads={self.heads}"
                )
        for name in (
            "past",
            "future",
            "layers",
            "neighbours",
            "decoder_layers",
            "queries",
            "every",
        ):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if self.every > self.future:
            raise ValueError(f"every={self.every}: must be at most future={self.future}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout={self.dropout}: must be at least 0 and below 1")

    @property
    def agent_channels(self) -> int:
        """Channels of an agent's state at a step: 29 with 11 steps."""
        return 18 + self.past


SIZES: Mapping[str, Shape] = {
    "mtr": Shape(),
    "small": Shape(
        queries=32,
        width=96,
        heads=4,
        layers=2,
        agent_hidden=64,
        map_hidden=32,
        query_width=128,
        map_width=96,
        decoder_layers=2,
        base=64,
        near=32,
        every=5,
        dropout=0.0,
        departs=True,
    ),
    "tiny": Shape(
        width=32,
        heads=4,
        layers=1,
        neighbours=8,
        agent_hidden=32,
        map_hidden=16,
        query_width=32,
        map_width=32,
        decoder_layers=1,
        queries=16,
        base=16,
        near=8,
        dropout=0.0,
        departs=True,
    ),
}
"""Networks by name, which are MTR's own, one for a CPU, one for tests."""


class MotionTransformer(nn.Module):
    """Predict the motion of each target in scenes of road users.

    Args:
        shape: sizes.

    Source: Shi et al. 2022, Motion Transformer with global intention localization and local
    movement refinement, arXiv 2209.13508; with LiDAR: LiMTR, arXiv 2410.15819.

    Differs from them: attention to neighbours and to collected polylines is dense attention under
    masks, which computes the same; batch norms see valid points under masks; see ``mtr_compat``.

    Example:
        >>> model = MotionTransformer(Shape(mtr_compat=True))
        >>> sum(p.numel() for p in model.parameters())
        65781334
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = ContextEncoder(
            shape.agent_channels,
            shape.width,
            shape.heads,
            shape.layers,
            shape.neighbours,
            shape.agent_hidden,
            shape.map_hidden,
            shape.dropout,
            mtr_compat=shape.mtr_compat,
        )
        lidar = shape.lidar
        self.lidar = None if lidar is None else LidarToken(lidar, shape.width)
        self.decoder = MotionDecoder(
            shape.width,
            shape.query_width,
            shape.map_width,
            shape.heads,
            shape.decoder_layers,
            shape.queries,
            shape.future,
            shape.base,
            shape.near,
            shape.dropout,
            every=shape.every,
            beside=shape.width if lidar is not None and lidar.centre else 0,
            mtr_compat=shape.mtr_compat,
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> Predicted:
        """Predict.

        Args:
            inputs: of :func:`regrow.motion.batches.collate`: ``agents``, ``agents_valid``, ``map``,
                ``map_valid``, ``centre``, ``kind``, and with LiDAR ``lidar``, ``lidar_valid``.
        """
        token = None if self.lidar is None else self.lidar(inputs)
        shape = self.shape.lidar
        context = self.encoder(
            *(inputs[name] for name in ("agents", "agents_valid", "map", "map_valid", "centre")),
            token if shape is not None and shape.token else None,
        )
        if token is not None and shape is not None:
            token = context.lidar or token
            if shape.centre:
                own = torch.cat([context.centre, token.features[:, 0]], -1)
                context = context._replace(centre=own)
            context = context._replace(lidar=token if shape.keys else None)
        moves = None
        if self.shape.departs:
            moves = steady(*(inputs[name] for name in ("agents", "agents_valid", "centre")))
        predicted: Predicted = self.decoder(context, inputs["kind"], moves)
        return predicted
