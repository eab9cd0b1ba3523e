"""MTR's own way to compute its network: what is valid is picked out, keys are gathered by index.

It is the oracle of tests and the rival of ``benchmarks/motion.py``. MTR's CUDA operators compute
the same from the same indices, in float32 only, without gathered copies of keys and values; they do
not build with today's torch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional

from regrow.motion import MotionTransformer, decoder
from regrow.motion.attention import EncoderLayer
from regrow.motion.decoder import MotionDecoder
from regrow.motion.departures import Steady
from regrow.motion.encoder import ContextEncoder, Tokens
from regrow.motion.layers import MLP, position_embedding
from regrow.motion.queries import DecoderLayer


class _MLP(MLP):
    def forward(
        self, x: Tensor, valid: Tensor | None = None, beside: Tensor | None = None
    ) -> Tensor:
        if beside is not None:
            x = torch.cat([x, beside[..., None, :].expand(*x.shape[:-1], -1)], -1)
        if valid is None:
            return self._rows(x.flatten(0, -2)).unflatten(0, x.shape[:-1])
        valid = valid != 0  # a row that counts is there once, as each target has a kind of its own
        rows = self._rows(x[valid])
        whole = rows.new_zeros(*valid.shape, rows.shape[-1])
        whole[valid] = rows
        return whole

    def _rows(self, x: Tensor) -> Tensor:
        for i, linear in enumerate(self.linears):
            if i + 1 == len(self.linears) and self.plain_last:
                return self._plain(linear, x)
            if i == 0 and self.shared is not None:
                x = functional.linear(x, torch.cat([linear.weight, self.shared.weight], 1))
            else:
                x = linear(x)
            if len(self.norms):
                x = nn.BatchNorm1d.forward(self.norms[i], x)
            x = functional.relu(x)
        return x


def _weighed(query: Tensor, key: Tensor, value: Tensor, places: Tensor, rate: float) -> Tensor:
    """Attend to keys that are gathered by place, -1 being none.

    query: (rows, heads, d); key, value: (all keys, heads, d or e); places: (rows, k).
    """
    logits = torch.einsum("rhd,rkhd->rkh", query * query.shape[-1] ** -0.5, key[places])
    weights = logits.masked_fill((places < 0)[..., None], -torch.inf).softmax(1)
    weights = functional.dropout(weights, rate)
    return torch.einsum("rkh,rkhe->rhe", weights.to(value.dtype), value[places]).flatten(1)


class _EncoderLayer(EncoderLayer):
    def attention(self, x: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
        query, key = self.query_key(x + positions).chunk(2, -1)
        parts = [y.unflatten(-1, (self.heads, -1)) for y in (query, key, self.value(x))]
        return self.out(_weighed(*parts, allowed, self.rate if self.training else 0.0))


class _Encoder(ContextEncoder):
    def mixed(self, parts: list[Tokens]) -> list[Tokens]:
        whole, positions, valid = (torch.cat(x, 1) for x in zip(*parts, strict=True))
        places = self._places(positions, valid)
        x = whole[valid]
        embedded = position_embedding(positions[valid][:, :2], x.shape[-1], self.mtr_compat)
        for layer in self.layers:
            x = layer(x, embedded, places)
        out = x.new_zeros(*valid.shape, x.shape[-1])
        out[valid] = x
        sizes = [part.features.shape[1] for part in parts]
        split = zip(out.split(sizes, 1), parts, strict=True)
        return [Tokens(y, part.positions, part.valid) for y, part in split]

    @torch.no_grad()
    def _places(self, positions: Tensor, valid: Tensor) -> Tensor:
        """Return each valid token's nearest ones, counted among all that are valid."""
        far = torch.cdist(positions, positions, compute_mode="donot_use_mm_for_euclid_dist")
        far = far.masked_fill(~valid[:, None], torch.inf)
        found = far.topk(min(self.neighbours, far.shape[-1]), largest=False)
        number = valid.flatten().cumsum(0).view(valid.shape) - 1
        rows = torch.arange(len(valid), device=valid.device)[:, None, None]
        return number[rows, found.indices].masked_fill(found.values.isinf(), -1)[valid]


class _Decoder(MotionDecoder):
    def refined(
        self,
        centre: Tensor,
        agents: Tokens,
        lines: Tokens,
        intentions: Tensor,
        kind: Tensor,
        moves: Steady | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Compute all for each target, as if it were the only one of its kind."""
        alone = torch.arange(len(kind), device=kind.device)
        return super().refined(centre, agents, lines, intentions[kind], alone, moves)


class _MapLayer(DecoderLayer):
    def across(
        self, query: Tensor, place: Tensor, keys: Tensor, places: Tensor, allowed: Tensor
    ) -> Tensor:
        key, own = self.key(keys), self.key_place(places)
        if self.first:
            key = key + own

        def pair(x: Tensor, y: Tensor) -> Tensor:
            parts = [z.unflatten(-1, (self.heads, -1)) for z in (x, y)]
            return torch.cat(parts, -1).flatten(0, 1)

        value = self.value(keys).unflatten(-1, (self.heads, -1)).flatten(0, 1)
        first = torch.arange(len(keys), device=keys.device)[:, None, None] * keys.shape[1]
        index = torch.where(allowed < 0, -1, allowed + first).flatten(0, 1)
        out = _weighed(pair(query, place), pair(key, own), value, index, self._rate)
        return out.view(query.shape)


@torch.no_grad()
def collected_places(
    points: Tensor, valid: Tensor, base: int, paths: Tensor, number: int
) -> tuple[Tensor, Tensor]:
    """Return places of both choices, sorted, duplicates and what is not there as -1."""
    far = points.masked_fill(~valid[..., None], 1e7)
    ahead = far.new_tensor(decoder.AHEAD)
    first = (far - ahead).norm(dim=-1).topk(min(base, far.shape[1]), largest=False).indices
    lines = (paths[:, :, None] - far[:, None, :, None]).norm(dim=-1).amin(-1)
    near = lines.topk(min(number, far.shape[1]), largest=False).indices
    both = torch.cat([first[:, None].expand(-1, paths.shape[1], -1), near], -1).sort(-1).values
    again = torch.zeros_like(both, dtype=torch.bool)
    again[..., 1:] = both[..., 1:] == both[..., :-1]
    there = valid[torch.arange(len(valid), device=valid.device)[:, None, None], both]
    some = valid.any(-1)
    return both.masked_fill((again | ~there) & some[:, None, None], -1), some


@contextlib.contextmanager
def gathered(model: MotionTransformer) -> Iterator[MotionTransformer]:
    """Let a model compute in MTR's own way, inside the block."""
    base, whole = model.decoder.base, decoder.collected
    changed: list[tuple[nn.Module, type[nn.Module]]] = []

    def become(module: nn.Module, kind: type[nn.Module]) -> None:
        changed.append((module, type(module)))
        module.__class__ = kind

    for module in model.modules():
        if isinstance(module, MLP):
            become(module, _MLP)
        elif isinstance(module, EncoderLayer):
            become(module, _EncoderLayer)
    become(model.encoder, _Encoder)
    become(model.decoder, _Decoder)
    for layer in model.decoder.map_layers:
        become(layer, _MapLayer)
    decoder.collected = lambda points, valid, _, paths, number: collected_places(
        points, valid, base, paths, number
    )
    try:
        yield model
    finally:
        decoder.collected = whole
        for module, kind in changed:
            module.__class__ = kind
