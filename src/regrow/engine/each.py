"""Chooses units of many layers by one score, at once where a GPU can."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regrow.engine import many
from regrow.engine.draws import seed_from
from regrow.engine.scores import Random, Score, SignedMagnitude

__all__ = ["highest", "lowest"]


def lowest(
    score: Score,
    worths: Sequence[Tensor],
    ks: Sequence[int],
    among: Sequence[Tensor],
    ns: Sequence[int],
    generators: Sequence[torch.Generator],
) -> list[Tensor]:
    """Choose in every layer as :meth:`Score.lowest` does; all arguments are those, one a layer.

    Example:
        >>> from regrow.engine.scores import Magnitude
        >>> worths, everyone = [torch.tensor([3.0, 1.0])], [torch.tensor([True, True])]
        >>> lowest(Magnitude(), worths, [1], everyone, [2], [torch.Generator()])[0].tolist()
        [False, True]
    """
    kind = type(score).lowest
    worths, among = _contiguous(worths), _contiguous(among)
    if _apt(worths, among):
        if kind is Score.lowest or type(score) is SignedMagnitude:
            by_sign = type(score) is SignedMagnitude
            return many.choose(worths, ks, ns, among, by_sign=by_sign).parts
        if kind is Random.lowest:
            return _drawn(ks, among, ns, generators)
    rows = zip(worths, ks, among, ns, generators, strict=True)
    return [score.lowest(*row) for row in rows]


def highest(
    score: Score,
    worths: Sequence[Tensor],
    ks: Sequence[int],
    among: Sequence[Tensor],
    ns: Sequence[int],
    generators: Sequence[torch.Generator],
) -> list[Tensor]:
    """Choose in every layer as :meth:`Score.highest` does; all arguments are those, one a layer.

    Example:
        >>> from regrow.engine.scores import Gradient
        >>> worths, everyone = [torch.tensor([3.0, 1.0])], [torch.tensor([True, True])]
        >>> highest(Gradient(), worths, [1], everyone, [2], [torch.Generator()])[0].tolist()
        [True, False]
    """
    kind = type(score).highest
    worths, among = _contiguous(worths), _contiguous(among)
    if kind is Random.highest and _apt(worths, among):
        return _drawn(ks, among, ns, generators)
    if (kind is Score.highest or score.by_keys) and _apt(worths, among):
        keys = _contiguous([score.keys(w, g) for w, g in zip(worths, generators, strict=True)])
        if many.fits(keys, among):
            return many.choose(keys, ks, ns, among, highest=True).parts
    rows = zip(worths, ks, among, ns, generators, strict=True)
    return [score.highest(*row) for row in rows]


def _contiguous(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]


def _apt(worths: Sequence[Tensor], among: Sequence[Tensor]) -> bool:
    return bool(worths) and many.available(worths[0].device) and many.fits(worths, among)


def _drawn(
    ks: Sequence[int],
    among: Sequence[Tensor],
    ns: Sequence[int],
    generators: Sequence[torch.Generator],
) -> list[Tensor]:
    sizes, seeds = [one.numel() for one in among], [seed_from(g) for g in generators]
    parts = many.draw(sizes, ks, ns, seeds, among[0].device, among).parts
    return [part.view(one.shape) for part, one in zip(parts, among, strict=True)]
