"""A decoder layer: motion queries attend to each other, then to agents or to the map."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.motion.attention import attend, heads_of, squared_distances

__all__ = ["DecoderLayer", "collected", "nearest_to_any", "spread"]

_CHUNK = 8  # waypoints whose distances are held at a time


class DecoderLayer(nn.Module):
    """Self-attention over queries, cross-attention to keys, a feed-forward layer.

    In cross-attention a query is [content; where it looks] and a key [content; where it is], side
    by side in each head, so that its logits are a sum of both products.

    Args:
        width: of queries and keys.
        heads: of attention.
        dropout: of all layers.
        first: whether it is the first of its stack, in which positions are added to contents, too.

    Source: Liu et al. 2022 (DAB-DETR), section 4; Shi et al. 2022 (MTR), section 3.2.

    Example:
        >>> layer = DecoderLayer(512, 8, 0.1, first=True)
        >>> sum(p.numel() for p in layer.parameters())
        5517312
    """

    def __init__(self, width: int, heads: int, dropout: float, *, first: bool) -> None:
        super().__init__()
        self.heads, self.rate, self.first = heads, dropout, first
        self.self_query, self.self_query_position = _square(width), _square(width)
        self.self_key, self.self_key_position = _square(width), _square(width)
        self.self_value, self.self_out = _square(width), _square(width)
        self.query, self.query_position, self.query_place = (_square(width) for _ in range(3))
        self.key, self.key_place = _square(width), _square(width)
        self.value, self.out = _square(width), _square(width)
        self.widen, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm_self, self.norm_cross, self.norm = (nn.LayerNorm(width) for _ in range(3))
        self.dropout = nn.Dropout(dropout)
        # Later layers have it in MTR, too, and do not use it: training on several ranks would wait
        # for its gradient.
        self.query_position.requires_grad_(first)

    def forward(
        self,
        content: Tensor,
        embedding: Tensor,
        looking: Tensor,
        keys: Tensor,
        places: Tensor,
        allowed: Tensor,
        some: Tensor | None = None,
        *,
        kinds: Tensor | None = None,
        early: bool = False,
    ) -> Tensor:
        """Return the queries' content, shape (n, queries, width).

        Args:
            content: of queries, shape (n, queries, width).
            embedding: of their intention points, of the same shape.
            looking: embeddings of the positions where they look, of the same shape.
            keys: shape (n, keys, width).
            places: embeddings of the keys' positions, of the same shape.
            allowed: bool, shape (n, queries or 1, keys): which a query attends to, one at least.
            some: bool, shape (n,): False where a query attends to nothing at all, whatever is
                allowed; None: nowhere.
            kinds: one-hot, shape (n, kinds): of which kind each target is; ``embedding`` then has a
                row a kind and not one a target. None: it has one a target.
            early: ``content`` and ``looking`` have a row a kind, too: what is the same for all
                targets of a kind is computed once.
        """
        among = self.among(content, embedding, None if early else kinds)
        x = self.norm_self(content + self.dropout(among))
        query, place = self.query(x), self.query_place(looking)
        if self.first:
            own = self.query_position(embedding)
            query = query + (own if early else spread(own, kinds))
        if early:
            x, query, place = (spread(part, kinds) for part in (x, query, place))
        seen = self.across(query, place, keys, places, allowed)
        if some is not None:
            seen = seen * some[:, None, None]
        x = self.norm_cross(x + self.dropout(self.out(seen)))
        inner = self.dropout(functional.relu(self.widen(x)))
        return self.norm(x + self.dropout(self.narrow(inner)))  # type: ignore[no-any-return]

    @property
    def _rate(self) -> float:
        return self.rate if self.training else 0.0

    def among(self, content: Tensor, embedding: Tensor, kinds: Tensor | None = None) -> Tensor:
        """Return what queries attend to among themselves."""
        query, key = (
            part(content) + spread(position(embedding), kinds)
            for part, position in (
                (self.self_query, self.self_query_position),
                (self.self_key, self.self_key_position),
            )
        )
        parts = (heads_of(x, self.heads) for x in (query, key, self.self_value(content)))
        query, key, value = parts
        return self.self_out(attend(query, key, value, None, self._rate))  # type: ignore[no-any-return]

    def across(
        self, query: Tensor, place: Tensor, keys: Tensor, places: Tensor, allowed: Tensor
    ) -> Tensor:
        """Return what queries attend to among the keys, before the output's projection.

        Args:
            query: projected contents, shape (n, queries, width).
            place: projected embeddings of where queries look, of the same shape.
            keys: shape (n, keys, width).
            places: embeddings of the keys' positions, of the same shape.
            allowed: bool, shape (n, queries or 1, keys).
        """
        key, own = self.key(keys), self.key_place(places)
        if self.first:
            key = key + own
        query = torch.cat([heads_of(x, self.heads) for x in (query, place)], -1)
        key = torch.cat([heads_of(x, self.heads) for x in (key, own)], -1)
        return attend(query, key, heads_of(self.value(keys), self.heads), allowed, self._rate)


def spread(rows: Tensor, kinds: Tensor | None) -> Tensor:
    """Return for each target the row of its kind; of None, the rows as they are.

    Args:
        rows: shape (kinds, ...).
        kinds: one-hot, shape (n, kinds).

    Example:
        >>> spread(torch.tensor([[1.0], [2.0]]), torch.tensor([[0, 1], [1, 0], [0, 1]])).tolist()
        [[2.0], [1.0], [2.0]]
    """
    if kinds is None:
        return rows
    # A product: backward of an index adds up row by row, on a GPU in no order.
    with torch.autocast(rows.device.type, enabled=False):
        found: Tensor = kinds.to(rows.dtype) @ rows.flatten(1)
    return found.view(-1, *rows.shape[1:])


def _square(width: int) -> nn.Linear:
    return nn.Linear(width, width)


@torch.no_grad()
def nearest_to_any(points: Tensor, paths: Tensor, valid: Tensor, number: int) -> Tensor:
    """Return which points are the nearest ones to any waypoint of a path.

    Args:
        points: shape (n, points, 2).
        paths: shape (n, paths, waypoints, 2).
        valid: bool, shape (n, points): which there are.
        number: how many a path has at most.

    Returns:
        bool, shape (n, paths, points).

    Example:
        >>> points = torch.tensor([[[0.0, 1.0], [5.0, 0.0], [99.0, 0.0]]])
        >>> path, valid = torch.tensor([[[[0.0, 0.0], [98.0, 0.0]]]]), torch.ones(1, 3).bool()
        >>> nearest_to_any(points, path, valid, 2)
        tensor([[[ True, False,  True]]])
    """
    n, lines = paths.shape[:2]
    if number >= points.shape[1]:
        return valid[:, None].expand(-1, lines, -1)
    best = paths.new_full((n, lines, points.shape[1]), torch.inf)
    for chunk in paths.split(_CHUNK, 2):  # all at once they are 1.4 GB in MTR's own size
        distances = squared_distances(chunk.flatten(1, 2), points)
        best = torch.minimum(best, distances.unflatten(1, (lines, -1)).amin(2))
    places = best.masked_fill(~valid[:, None], torch.inf).topk(number, largest=False).indices
    none = torch.zeros(best.shape, dtype=torch.bool, device=best.device)
    return none.scatter(-1, places, True) & valid[:, None]


def collected(
    points: Tensor, valid: Tensor, base: Tensor, paths: Tensor, number: int
) -> tuple[Tensor, Tensor]:
    """Return the map polylines that each query attends to: those of the base, and near its path.

    Args:
        points: centres of polylines, shape (n, polylines, 2).
        valid: bool, shape (n, polylines).
        base: bool, shape (n, 1, polylines): those that all queries see.
        paths: predicted ones, shape (n, queries, waypoints, 2).
        number: of polylines near the path.

    Returns:
        bool, shape (n, queries or 1, polylines), and bool, shape (n,): False where there is no map;
        queries are allowed everything there, so that no softmax is empty.
    """
    some = valid.any(-1)
    if number < points.shape[1]:
        base = base | nearest_to_any(points, paths, valid, number)
    else:
        base = valid[:, None]
    return base | ~some[:, None, None], some
