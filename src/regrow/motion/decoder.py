"""The motion decoder: a future of all agents, and 64 of each target, refined layer by layer."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.motion.departures import Steady, departed, going_on, likely
from regrow.motion.encoder import Context, Tokens
from regrow.motion.layers import MLP, position_embedding
from regrow.motion.queries import DecoderLayer, collected, nearest_to_any, spread
from regrow.motion.scene import KINDS

__all__ = ["AHEAD", "VALUES", "DenseFuture", "MotionDecoder", "Predicted"]

VALUES = 7
"""Numbers of a predicted step, which are mean x, mean y, log s1, log s2, correlation, vx, vy."""

AHEAD = (30.0, 0.0)
"""The place in a target's frame around which map polylines are taken, in metres."""


class Predicted(NamedTuple):
    """What the network predicts, in the frame of each target.

    Args:
        scores: logits of the futures after each decoder layer, shape (layers, n, queries).
        trajectories: the futures, float32, shape (layers, n, queries, steps, 7), see ``VALUES``.
        dense: one future of every agent, float32, shape (n, agents, steps, 7).
        intentions: the points that queries stand for, shape (n, queries, 2).
    """

    scores: Tensor
    trajectories: Tensor
    dense: Tensor
    intentions: Tensor


class DenseFuture(nn.Module):
    """Predict a future of every agent, and let its feature know of it.

    Args:
        width: of an agent's feature.
        steps: of the future.

    Source: Shi et al. 2022 (MTR), section 3.1, equation 3.

    Example:
        >>> sum(p.numel() for p in DenseFuture(512, 80).parameters())
        3342384
    """

    count: Tensor

    def __init__(self, width: int, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("count", torch.arange(1.0, steps + 1), persistent=False)
        self.position = MLP([2, width, width, width], norm=False, plain_last=True)
        head = [2 * width, width, width, VALUES * steps]
        self.head = MLP(head, plain_last=True, exact=True)
        self.future = MLP([4 * steps, width, width, width], norm=False, plain_last=True)
        self.fusion = MLP([2 * width, width, width, width], norm=False, plain_last=True)

    def forward(self, agents: Tokens, moves: Steady | None = None) -> tuple[Tensor, Tensor]:
        """Return features, 0 where an agent is not valid, and futures (n, agents, steps, 7).

        Args:
            agents: tokens of agents, and of LiDAR behind them.
            moves: how agents move now, from which futures then depart.
        """
        here = agents.positions[..., :2]
        x = torch.cat([self.position(here), agents.features], -1)
        found = self.head(x, agents.valid).unflatten(-1, (self.steps, VALUES))
        future = torch.cat([found[..., :2] + here[..., None, :], found[..., 2:]], -1)
        if moves is not None:
            line, velocity = going_on(moves, here.shape[1], self.count)
            parts = future[..., :2] + line, future[..., 2:5], future[..., 5:] + velocity
            future = torch.cat(parts, -1)
        told = torch.cat([future[..., :2], future[..., 5:]], -1).flatten(-2)
        x = self.fusion(torch.cat([agents.features, self.future(told)], -1))
        return x * agents.valid[..., None], future * agents.valid[..., None, None]


class MotionDecoder(nn.Module):
    """Predict futures of each target: a query an intention point, refined layer by layer.

    Args:
        encoded: width of the encoder's tokens.
        width: of queries and of agents as their keys.
        map_width: of queries and of polylines in attention to the map.
        heads: of attention.
        layers: decoder layers, each with attention to agents and to the map.
        queries: intention points of a kind of agent.
        steps: of the future.
        base: map polylines near a point 30 m ahead that all queries attend to.
        near: map polylines near its last predicted path that a query attends to.
        dropout: of attention layers.
        every: only every so many waypoints of its path are looked at for those.
        beside: width of what is put beside the target's feature, such as its LiDAR token.
        mtr_compat: positions embedded as in MTR.

    Attributes:
        intentions: shape (kinds, queries, 2), in metres, in the target's frame.

    Source: Shi et al. 2022 (MTR), section 3.2.

    Example:
        >>> decoder = MotionDecoder(256, 512, 256, 8, 6, 64, 80, 256, 128, 0.1)
        >>> sum(p.numel() for p in decoder.parameters())
        60662870
    """

    intentions: Tensor
    ahead: Tensor

    def __init__(
        self,
        encoded: int,
        width: int,
        map_width: int,
        heads: int,
        layers: int,
        queries: int,
        steps: int,
        base: int,
        near: int,
        dropout: float,
        *,
        every: int = 1,
        beside: int = 0,
        mtr_compat: bool = False,
    ) -> None:
        super().__init__()
        self.width, self.map_width, self.steps = width, map_width, steps
        self.base, self.near, self.every = base, near, every
        self.dropout, self.mtr_compat = dropout, mtr_compat
        self.centre = MLP([encoded + beside, width, width], norm=False, plain_last=True)
        self.agents = MLP([encoded, width, width], norm=False, plain_last=True)
        self.lines = MLP([encoded, map_width, map_width], norm=False, plain_last=True)
        self.dense = DenseFuture(width, steps)
        self.embed = MLP([width, width, width], plain_last=True)
        narrows = map_width != width
        self.map_embed = nn.Linear(width, map_width) if narrows else nn.Identity()
        self.map_content = nn.ModuleList(
            nn.Linear(width, map_width) if narrows else nn.Identity() for _ in range(layers)
        )
        self.agent_layers, self.map_layers = (
            nn.ModuleList(DecoderLayer(w, heads, dropout, first=i == 0) for i in range(layers))
            for w in (width, map_width)
        )
        self.fusion = nn.ModuleList(
            MLP([width + map_width, width, width], plain_last=True, beside=width)
            for _ in range(layers)
        )
        self.regression, self.classification = (
            nn.ModuleList(
                MLP([width, width, width, outputs], plain_last=True, exact=True)
                for _ in range(layers)
            )
            for outputs in (VALUES * steps, 1)
        )
        self.register_buffer("intentions", torch.zeros(len(KINDS), queries, 2))
        # Made once: a tensor made of numbers in a pass would let the host wait for a GPU.
        self.register_buffer("ahead", torch.tensor(AHEAD), persistent=False)

    def forward(self, context: Context, kind: Tensor, moves: Steady | None = None) -> Predicted:
        """Predict.

        Args:
            context: the encoded scene.
            kind: int64, shape (n,): the kind of each target, its place in ``KINDS``.
            moves: how agents move now: all paths are predicted as departures; None: as in MTR.
        """
        agents = context.agents
        if context.lidar is not None:
            both = zip(context.agents, context.lidar, strict=True)
            agents = Tokens(*(torch.cat(pair, 1) for pair in both))
        agents = agents._replace(features=self.agents(agents.features))
        features, dense = self.dense(agents, moves)
        agents = agents._replace(features=features)
        lines = context.lines._replace(features=self.lines(context.lines.features))
        scores, trajectories = self.refined(
            self.centre(context.centre), agents, lines, self.intentions, kind, moves
        )
        dense = dense[:, : context.agents.features.shape[1]]
        return Predicted(scores, trajectories, dense, self.intentions[kind])

    def refined(
        self,
        centre: Tensor,
        agents: Tokens,
        lines: Tokens,
        intentions: Tensor,
        kind: Tensor,
        moves: Steady | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return scores and trajectories of all layers.

        What hangs on the kind of a target alone is computed once a kind: embeddings of intention
        points, and all that the first layer does before it looks at the scene.

        Args:
            centre: the target's feature, shape (n, width).
            agents: what queries attend to, of this width.
            lines: the same, of the map's width.
            intentions: shape (kinds, queries, 2).
            kind: int64, shape (n,).
            moves: paths depart from straight lines to the intention points, and those of each
                further layer from the layer before, scores from how near a point is to going on;
                None: from nothing.
        """
        kinds = functional.one_hot(kind, len(intentions))
        often = kinds.sum(0)[:, None].expand(intentions.shape[:2])
        embedding = self.embed(self._embedded(intentions, self.width), often)
        map_embedding = self.map_embed(embedding)
        agent_places = self._embedded(agents.positions[..., :2], self.width)
        map_places = self._embedded(lines.positions[..., :2], self.map_width)
        points, base = lines.positions[..., :2], self._base(lines)
        paths = intentions[kind][:, :, None]
        if moves is not None:
            line = paths * (self.dense.count / self.steps)[:, None]
            nearness = likely(moves, paths.squeeze(2), self.steps)
        content, looking = torch.zeros_like(embedding), intentions
        early = not (self.training and self.dropout)  # what is dropped is each target's own
        if not early:
            content, looking = spread(content, kinds), paths.squeeze(2)
        scores, trajectories = [], []
        for i, fusion in enumerate(self.fusion):
            seen = self.agent_layers[i](
                content,
                embedding,
                self._embedded(looking, self.width),
                agents.features,
                agent_places,
                agents.valid[:, None],
                kinds=kinds,
                early=early and i == 0,
            )
            near, some = collected(points, lines.valid, base, paths, self.near)
            map_seen = self.map_layers[i](
                self.map_content[i](content),
                map_embedding,
                self._embedded(looking, self.map_width),
                lines.features,
                map_places,
                near,
                some,
                kinds=kinds,
                early=early and i == 0,
            )
            content = fusion(torch.cat([seen, map_seen], -1), None, centre)
            found = self.regression[i](content).unflatten(-1, (self.steps, VALUES))
            score = self.classification[i](content).squeeze(-1)
            if moves is not None:
                found = departed(found, line, moves.seconds)
                line = found[..., :2].detach()
                score = score + nearness
            scores.append(score)
            trajectories.append(found)
            paths = found[:, :, self.every - 1 :: self.every, :2]
            looking = found[..., -1, :2]
        return torch.stack(scores), torch.stack(trajectories)

    def _embedded(self, xy: Tensor, width: int) -> Tensor:
        return position_embedding(xy, width, self.mtr_compat)

    def _base(self, lines: Tokens) -> Tensor:
        ahead = self.ahead.to(lines.positions.dtype).expand(lines.valid.shape[0], 1, 1, 2)
        return nearest_to_any(lines.positions[..., :2], ahead, lines.valid, self.base)
