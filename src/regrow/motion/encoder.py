"""The context encoder: agents, map polylines and LiDAR become tokens that see their neighbours."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.motion.attention import EncoderLayer, nearest
from regrow.motion.layers import PointNet, centred, picked, position_embedding
from regrow.motion.scene import LINES

__all__ = ["Context", "ContextEncoder", "Tokens", "last_valid"]

_KIND = 6  # the channel of a map point that holds the kind of its line


class Tokens(NamedTuple):
    """Tokens of one kind.

    Args:
        features: shape (n, tokens, width).
        positions: shape (n, tokens, 3), in metres.
        valid: bool, shape (n, tokens).
    """

    features: Tensor
    positions: Tensor
    valid: Tensor


class Context(NamedTuple):
    """An encoded scene around each target.

    Args:
        agents: tokens of agents.
        lines: tokens of map polylines.
        lidar: the token of the target's LiDAR points; None: there is no such branch.
        centre: the target's own feature, shape (n, width).
    """

    agents: Tokens
    lines: Tokens
    lidar: Tokens | None
    centre: Tensor


def last_valid(values: Tensor, valid: Tensor) -> Tensor:
    """Return the last valid value of each series; 0 where none is.

    Args:
        values: shape (..., steps, channels), 0 where not valid.
        valid: bool, shape (..., steps).

    Example:
        >>> values, valid = torch.tensor([[1.0], [2.0], [0.0]]), torch.tensor([True, True, False])
        >>> last_valid(values, valid)
        tensor([2.])
    """
    steps = torch.arange(valid.shape[-1], device=valid.device)
    last = torch.where(valid, steps, 0).amax(-1)
    index = last[..., None, None].expand(*last.shape, 1, values.shape[-1])
    return values.gather(-2, index).squeeze(-2)


class ContextEncoder(nn.Module):
    """Encode the scene around each target.

    Args:
        agent_channels: of an agent's state at a step, without its validity.
        width: of a token.
        heads: of attention.
        layers: of attention.
        neighbours: that a token attends to.
        agent_hidden: channels inside the agents' encoder.
        map_hidden: channels inside the map's encoder.
        dropout: of attention layers.
        mtr_compat: kinds of lines as one number, not one-hot; positions embedded as in MTR.

    Source: Shi et al. 2022 (MTR), section 3.1.

    Example:
        >>> encoder = ContextEncoder(29, 256, 8, 6, 16, 256, 64, 0.1, mtr_compat=True)
        >>> sum(p.numel() for p in encoder.parameters())
        5118464
    """

    def __init__(
        self,
        agent_channels: int,
        width: int,
        heads: int,
        layers: int,
        neighbours: int,
        agent_hidden: int,
        map_hidden: int,
        dropout: float,
        *,
        mtr_compat: bool = False,
    ) -> None:
        super().__init__()
        self.neighbours, self.mtr_compat = neighbours, mtr_compat
        self.agents = PointNet(agent_channels + 1, [agent_hidden], [agent_hidden] * 2, width)
        own, kinds = (9, 0) if mtr_compat else (8, len(LINES))
        self.lines = PointNet(own, [map_hidden] * 3, [map_hidden] * 2, width, beside=kinds)
        self.layers = nn.ModuleList(EncoderLayer(width, heads, dropout) for _ in range(layers))
        self.register_buffer("line_kinds", _places_of_kinds(), persistent=False)

    line_kinds: Tensor

    def forward(
        self,
        agents: Tensor,
        agents_valid: Tensor,
        lines: Tensor,
        lines_valid: Tensor,
        centre: Tensor,
        lidar: Tokens | None = None,
    ) -> Context:
        """Encode.

        Args:
            agents: shape (n, agents, steps, channels).
            agents_valid: bool, shape (n, agents, steps).
            lines: shape (n, polylines, points, 9).
            lines_valid: bool, shape (n, polylines, points).
            centre: int64, shape (n,): the target's place among the agents.
            lidar: one token a target.
        """
        parts = [self.agent_tokens(agents, agents_valid), self.line_tokens(lines, lines_valid)]
        if lidar is not None:
            parts.append(lidar)
        tokens = self.mixed(parts)
        own = picked(tokens[0].features, centre[:, None]).squeeze(1)
        return Context(tokens[0], tokens[1], tokens[2] if lidar is not None else None, own)

    def agent_tokens(self, agents: Tensor, valid: Tensor) -> Tokens:
        """Return a token an agent, where it was last."""
        states = torch.cat([agents, valid[..., None].to(agents.dtype)], -1)
        last = last_valid(agents[..., :3], valid)
        return Tokens(self.agents(states, valid), last, valid.any(-1))

    def line_tokens(self, lines: Tensor, valid: Tensor) -> Tokens:
        """Return a token a polyline, at the mean of its points."""
        centre = centred(lines[..., :3], valid)
        if self.mtr_compat:
            features = self.lines(lines, valid)
        else:
            points = torch.cat([lines[..., :_KIND], lines[..., _KIND + 1 :]], -1)
            features = self.lines(points, valid, self._kinds(lines, valid))
        return Tokens(features, centre, valid.any(-1))

    def _kinds(self, lines: Tensor, valid: Tensor) -> Tensor:
        """Return the kind of each polyline, that of its first valid point, one-hot."""
        first = valid.to(torch.uint8).argmax(-1, keepdim=True)
        numbers = lines[..., _KIND].gather(-1, first).squeeze(-1).long()
        kinds = self.line_kinds[(numbers + 1).clamp(0, len(self.line_kinds) - 1)]
        return functional.one_hot(kinds, len(LINES)).to(lines.dtype)

    def mixed(self, parts: list[Tokens]) -> list[Tokens]:
        """Let all tokens attend to their nearest ones, and return them as they came."""
        features, positions, valid = (torch.cat(x, 1) for x in zip(*parts, strict=True))
        near = nearest(positions, valid, self.neighbours)
        places = position_embedding(positions[..., :2], features.shape[-1], self.mtr_compat)
        places = places.to(features.dtype)
        for layer in self.layers:
            features = layer(features, places, near)
        features = features * valid[..., None]
        sizes = [part.features.shape[1] for part in parts]
        return [
            Tokens(x, part.positions, part.valid)
            for x, part in zip(features.split(sizes, 1), parts, strict=True)
        ]


def _places_of_kinds() -> Tensor:
    """Return, for a line's number plus 1, its place among the kinds; unknown numbers: unknown."""
    places = torch.zeros(max(LINES.values()) + 2, dtype=torch.int64)
    for place, number in enumerate(LINES.values()):
        places[number + 1] = place
    return places
