"""Selects exactly k of n, by score or at random, inside an allowed set.

Every choice in the house (which weights to drop, which to grow, which samples or features to keep)
ends here, so that a count is right everywhere or nowhere. Two rules hold for all functions:

* the count is exact, whatever the ties;
* among equal scores the lower flat index is selected first, on every device.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.engine import many
from regrow.engine.checks import check_integer
from regrow.engine.draws import permuted, seed_from

__all__ = [
    "bottom_k",
    "key_digest",
    "nth_allowed",
    "random_k",
    "sample",
    "seeded_generator",
    "top_k",
    "top_per_group",
]

Array = npt.NDArray[np.floating[Any]]
BoolArray = npt.NDArray[np.bool_]

_NUMPY_FLOATS = (torch.float16, torch.float32, torch.float64)
# A sample of one in 61 keeps the bound within a few percent of k; in a short array a plain
# partition is as fast.
_STRIDE = 61
_SAMPLED_FROM = 1 << 15
# From here on memory counts more than a few milliseconds.
_IN_PARTS_FROM, _PART = 1 << 22, 1 << 20
# Marking n bytes beats sorting k numbers as long as n is not many times k.
_MARKED_UP_TO = 256


def top_k(scores: Tensor, k: int, allowed: Tensor | None = None) -> Tensor:
    """Select the k highest scores inside the allowed set.

    The k-th highest score is found by partition (CPU) or top-k (GPU), never by a full sort;
    everything above it is taken, then ties with it in order of their flat index.

    Args:
        scores: any shape, any floating dtype, no NaN. Infinite values are compared as numbers.
        k: how many to select, 0 <= k <= number of allowed positions.
        allowed: bool tensor of the same shape; None allows every position.

    Returns:
        Bool tensor of the shape of ``scores`` with exactly k True, all of them allowed.

    Raises:
        ValueError: k is negative or above the number of allowed positions, or a score is NaN.
            On a GPU the last two are the caller's to guarantee: checking would stall the device.

    Example:
        >>> top_k(torch.tensor([3.0, 1.0, 3.0, 3.0]), 2).tolist()
        [True, False, True, False]
        >>> top_k(torch.tensor([3.0, 1.0]), 1, allowed=torch.tensor([False, True])).tolist()
        [False, True]
    """
    return _select(scores, k, allowed, highest=True)


def bottom_k(scores: Tensor, k: int, allowed: Tensor | None = None) -> Tensor:
    """Select the k lowest scores inside the allowed set; otherwise as :func:`top_k`.

    Example:
        >>> bottom_k(torch.tensor([3.0, 1.0, 1.0]), 1).tolist()
        [False, True, False]
    """
    return _select(scores, k, allowed, highest=False)


def random_k(
    k: int, allowed: Tensor, generator: torch.Generator, *, n_allowed: int | None = None
) -> Tensor:
    """Select k of the allowed positions uniformly at random, without replacement.

    Ranks among the allowed positions are drawn by hashes and then looked up, so one generator
    state gives one selection on every device and every rank.

    Args:
        k: how many to select, 0 <= k <= number of allowed positions.
        allowed: bool tensor of any shape.
        generator: a CPU generator.
        n_allowed: the number of allowed positions, where the caller knows it: a GPU then never
            has to be asked.

    Returns:
        Bool tensor of the shape of ``allowed`` with exactly k True, all of them allowed.

    Raises:
        ValueError: k is negative or above the number of allowed positions.

    Example:
        >>> chosen = random_k(2, torch.tensor([True, False, True]), torch.Generator())
        >>> chosen.tolist()
        [True, False, True]
    """
    flat = allowed.reshape(-1)
    n = int(np.count_nonzero(flat.cpu().numpy())) if n_allowed is None else n_allowed
    # Ranks and not positions are drawn: they depend on how many are allowed, not on where a device
    # finds them.
    if many.available(flat.device) and 0 <= k <= n and 0 < flat.numel() < many.LARGEST:
        seed = seed_from(generator)
        drawn = many.draw([flat.numel()], [k], [n], [seed], flat.device, [flat.contiguous()])
        return drawn.flat.reshape(allowed.shape)
    ranks = sample(n, k, generator)
    if allowed.device.type == "cpu":
        selected = torch.zeros_like(flat)
        selected[nth_allowed(ranks, np.flatnonzero(~flat.numpy()))] = True
    else:
        ranked = torch.zeros(max(n, 1), dtype=torch.bool, device=flat.device)
        ranked.index_fill_(0, ranks.to(flat.device, non_blocking=True), True)
        selected = flat & ranked[(flat.cumsum(0) - 1).clamp_(min=0)]
    return selected.reshape(allowed.shape)


def nth_allowed(ranks: Tensor, excluded: npt.NDArray[np.intp]) -> Tensor:
    """Turn ranks among the allowed positions into flat positions, given those that are not allowed.

    Between two excluded positions the shift from rank to position is constant: it is the number of
    excluded positions passed. Time and memory grow with the ranks and the excluded positions only.

    Args:
        ranks: int64 tensor, counted from 0 among the allowed positions.
        excluded: the flat positions that are not allowed, ascending.

    Returns:
        Int64 tensor of flat positions.

    Example:
        >>> nth_allowed(torch.tensor([0, 1, 2]), np.array([0, 2])).tolist()
        [1, 3, 4]
    """
    passed_at = excluded - np.arange(excluded.size)
    passed = np.searchsorted(passed_at, ranks.numpy(), side="right")
    return ranks + torch.from_numpy(passed)


def top_per_group(keys: Tensor, counts: Tensor, allowed: Tensor) -> Tensor:
    """Select in every group its own number of highest keys among the allowed ones.

    Args:
        keys: shape (groups, size); among equal ones the lower index is selected first.
        counts: int64, shape (groups,): how many to select in each group.
        allowed: bool, shape (groups, size); no group may have fewer than its count.

    Returns:
        Bool tensor of shape (groups, size).

    Example:
        >>> keys = torch.tensor([[1.0, 3.0, 2.0], [1.0, 3.0, 2.0]])
        >>> everyone = torch.ones(2, 3, dtype=torch.bool)
        >>> top_per_group(keys, torch.tensor([1, 2]), everyone).tolist()
        [[False, True, False], [False, True, True]]
    """
    order = torch.where(allowed, keys, -torch.inf).argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order)
    rank.scatter_(1, order, torch.arange(keys.shape[1], device=keys.device).expand_as(order))
    return (rank < counts.unsqueeze(1)) & allowed


def sample(n: int, k: int, generator: torch.Generator) -> Tensor:
    """Draw k distinct integers of 0..n-1 uniformly; in time and memory of at most 256 k.

    They are the first k of 0..n-1 in the random order of :func:`regrow.engine.draws.permuted`.
    Above n/2 the complement is drawn.

    Args:
        n: the population's size.
        k: how many to draw, 0 <= k <= n.
        generator: a CPU generator.

    Returns:
        Sorted int64 tensor of shape (k,).

    Raises:
        ValueError: k is outside 0..n.

    Example:
        >>> sample(3, 3, torch.Generator()).tolist()
        [0, 1, 2]
    """
    if not 0 <= k <= n:
        raise ValueError(f"k={k}: must lie in 0..{n}, the number of positions to choose from")
    few = min(k, n - k)
    drawn = permuted(np.arange(few), n, seed_from(generator))
    if few < k or n <= _MARKED_UP_TO * k:
        # Marking among all n instead of sorting.
        marked = np.full(n, few < k)
        marked[drawn] = few == k
        drawn = np.flatnonzero(marked)
    else:
        drawn.sort()
    return torch.from_numpy(drawn)


def seeded_generator(*key: int | str) -> torch.Generator:
    """Make a CPU generator whose stream depends on the key alone.

    Randomness that is a function of (seed, layer, update) needs no stored generator state: a run
    that was resumed, and every rank of a distributed run, draws what the uninterrupted single
    process would have drawn.

    Args:
        *key: strings, and integers of any type: ``np.int64(3)`` is 3.

    Raises:
        TypeError: a part of the key is neither; ``True`` and ``3.0`` are not integers.

    Example:
        >>> a, b = seeded_generator(0, "fc1.weight", 3), seeded_generator(0, "fc1.weight", 3)
        >>> torch.rand(1, generator=a).equal(torch.rand(1, generator=b))
        True
    """
    seed = int.from_bytes(key_digest(key), "little", signed=True)
    return torch.Generator("cpu").manual_seed(seed)


def key_digest(key: Iterable[int | str]) -> bytes:
    """Hash what random numbers depend on, to 8 bytes: equal keys alike, whatever their types.

    Raises:
        TypeError: a part of the key is neither a string nor an integer.

    Example:
        >>> key_digest((np.int64(3), "start")) == key_digest((3, "start"))
        True
    """
    own = tuple(
        p if type(p) in (str, int) else _plain(p)  # asked first: an update hashes many
        for p in key
    )
    # Not hash(), which Python salts anew in every process.
    return hashlib.blake2b(repr(own).encode(), digest_size=8).digest()


def _plain(part: int | str) -> int | str:
    """Return a part of a key as Python's own string or integer."""
    return str(part) if isinstance(part, str) else check_integer(part, "seed or key")


def _select(scores: Tensor, k: int, allowed: Tensor | None, *, highest: bool) -> Tensor:
    if not 0 <= k <= scores.numel():
        raise ValueError(f"k={k}: must lie in 0..{scores.numel()}, the number of scores")
    if k == 0:
        return torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    flat = scores.detach().reshape(-1)
    inside = None if allowed is None else allowed.reshape(-1)
    if scores.device.type == "cpu":
        selected = _select_on_host(flat, k, inside, highest)
    elif many.available(flat.device) and many.fits([flat := flat.contiguous()]):
        allowing = None if inside is None else [inside.contiguous()]
        selected = many.choose([flat], [k], [-1], allowing, highest=highest).flat
    else:
        selected = _select_on_device(flat if highest else -flat, k, inside)
    return selected.reshape(scores.shape)


def _select_on_host(flat: Tensor, k: int, inside: Tensor | None, highest: bool) -> Tensor:
    values = flat.numpy() if flat.dtype in _NUMPY_FLOATS else flat.double().numpy()
    allowed = None if inside is None else inside.numpy()
    if np.isnan(values.max()):  # one pass; whether an allowed one is, is asked only then
        bad = np.isnan(values) if allowed is None else np.isnan(values) & allowed
        if n_bad := np.count_nonzero(bad):
            raise ValueError(f"{n_bad} scores are NaN: make every score a number")
    n = values.size if allowed is None else int(np.count_nonzero(allowed))
    if k > n:
        raise ValueError(f"cannot select k={k} of {n} allowed positions: allow at least k")
    if 2 * k <= n:
        return torch.from_numpy(_select_positions(values, k, allowed, highest))
    # Of two halves the smaller is looked for; of equal scores, those at the end are left out.
    selected = _select_positions(values, n - k, allowed, not highest, last=True)
    np.logical_not(selected, out=selected)
    if allowed is not None:
        selected &= allowed
    return torch.from_numpy(selected)


def _select_positions(
    values: Array, k: int, allowed: BoolArray | None, highest: bool, *, last: bool = False
) -> BoolArray:
    if values.size >= _IN_PARTS_FROM:
        return _select_in_parts(values, k, allowed, highest, last)
    positions = _candidates(values, k, allowed, highest)
    if positions is None:
        return _select_values(values, k, highest, last)
    selected = np.zeros(values.size, dtype=np.bool_)
    selected[positions[_select_values(values[positions], k, highest, last)]] = True
    return selected


def _candidates(
    values: Array, k: int, allowed: BoolArray | None, highest: bool
) -> npt.NDArray[np.intp] | None:
    """Return positions among which the k highest (lowest) surely are; None for all.

    In a long array a regular sample gives a bound, and only what is beyond it is looked at. Too few
    beyond the bound (a misleading sample): all allowed ones are.
    """
    if (bound := _bound(values, k, allowed, highest)) is not None:
        beyond = values >= bound if highest else values <= bound
        if allowed is not None:
            beyond &= allowed
        if np.count_nonzero(beyond) >= k:
            return np.flatnonzero(beyond)
    return None if allowed is None else np.flatnonzero(allowed)


def _bound(values: Array, k: int, allowed: BoolArray | None, highest: bool) -> float | None:
    """Return a bound that a little more than k values pass, most likely; None in a short array."""
    if values.size <= _SAMPLED_FROM:
        return None
    seen = values[::_STRIDE] if allowed is None else values[::_STRIDE][allowed[::_STRIDE]]
    rank = int(1.1 * k / _STRIDE) + 32
    return _ranked(seen, rank, highest) if rank < seen.size else None


def _select_in_parts(
    values: Array, k: int, allowed: BoolArray | None, highest: bool, last: bool
) -> BoolArray:
    """Select the same in half the memory: the values beyond a bound are kept, not their places."""
    if not k:
        return np.zeros(values.size, dtype=np.bool_)
    bound = _bound(values, k, allowed, highest)
    beyond = _beyond(values, bound, allowed, highest)
    if beyond.size < k:
        beyond = _beyond(values, None, allowed, highest)
    place = beyond.size - k if highest else k - 1
    beyond.partition(place)  # in place, where torch's kthvalue takes three times the memory
    limit = beyond[place]
    selected = values > limit if highest else values < limit
    ties = values == limit
    if allowed is not None:
        selected &= allowed
        ties &= allowed
    return _filled_up(selected, np.flatnonzero(ties), k, last)


def _beyond(values: Array, bound: float | None, allowed: BoolArray | None, highest: bool) -> Array:
    """Return the allowed values that pass a bound, or all of them."""
    parts = []
    for at in range(0, values.size, _PART):
        part = values[at : at + _PART]
        inside = np.ones(part.size, np.bool_) if allowed is None else allowed[at : at + _PART]
        if bound is not None:
            inside = inside & (part >= bound if highest else part <= bound)
        parts.append(part[np.flatnonzero(inside)])
    return np.concatenate(parts)


def _select_values(values: Array, k: int, highest: bool, last: bool) -> BoolArray:
    if not k:
        return np.zeros(values.size, dtype=np.bool_)
    limit = _ranked(values, k, highest)
    selected = values > limit if highest else values < limit
    return _filled_up(selected, np.flatnonzero(values == limit), k, last)


def _filled_up(selected: BoolArray, ties: npt.NDArray[np.intp], k: int, last: bool) -> BoolArray:
    """Select what is missing to k, in order of position.

    A threshold alone keeps too many or too few where scores tie, as all-zero gradients do.
    """
    missing = k - np.count_nonzero(selected)
    selected[ties[ties.size - missing :] if last else ties[:missing]] = True
    return selected


def _ranked(values: Array, k: int, highest: bool) -> float:
    """Return the k-th highest (lowest) of at least k values.

    By torch's quickselect: numpy's partition is several times slower where many values are equal.
    """
    return float(torch.from_numpy(values).kthvalue(values.size - k + 1 if highest else k).values)


def _select_on_device(flat: Tensor, k: int, inside: Tensor | None) -> Tensor:
    """Select the highest without a value crossing to the host, so the device never waits.

    A stable sort puts the lower of two equal positions first, and it takes fewer launches than
    finding a threshold and counting the ties with it.
    """
    lowest_first = -flat if inside is None else torch.where(inside, -flat, torch.nan)  # last: NaN
    order = lowest_first.sort(stable=True).indices
    selected = torch.zeros(len(flat), dtype=torch.bool, device=flat.device)
    return selected.index_fill_(0, order[:k], value=True)
