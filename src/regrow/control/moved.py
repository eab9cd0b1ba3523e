"""Which features actions move, directly or through others: found by regression, without rewards."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["LEAST", "enough", "fewest", "moved"]

_MARGIN = 2.0  # times the normal quantile: what is not linear leaves residuals that are not normal
_LEVEL = 0.01  # chance that a test of all pairs finds anything where nothing is, were they normal
LEAST = 5000
"""So few transitions are enough; with fewer, one run of eight missed links of a swinging pole."""

_ROUNDING = 1e-10  # of a feature's variance: what is left beyond it may be rounding
_MEMBERS = 64  # products are looked at of so many features at most


def fewest(features: int, actions: int) -> int:
    """Return how many transitions are needed to tell which of so many features are moved."""
    return max(LEAST, 4 * (features + actions + 1))


def enough(transitions: int, features: int, actions: int) -> bool:
    """Return whether so many transitions are enough to tell what is moved."""
    return transitions >= fewest(features, actions)


def moved(now: Tensor, actions: Tensor, following: Tensor) -> Tensor:
    """Find the features that actions move, and those that these move or are moved by; bool (d,).

    A feature follows on all features and actions: y_j = Σ b_ij x_i + Σ c_kj a_k + e_j, by least
    squares. Actions move j if some |t| of c_kj is large, or if a product of an action and a feature
    i explains e_j: then i is one of them, too. From there links are followed, b_ij both ways and
    products x_i x_k, until nothing is added. "Large" is twice the two-sided normal quantile at
    0.01 over the number of pairs; where a regressor and a residual both follow on themselves, a
    value counts for less than one: n (1 - r r') / (1 + r r'), r and r' their autocorrelations.

    Noise of any kind is left out, for it follows on itself alone. So is what matters but is never
    moved, such as a goal.

    Args:
        now: observations, (n, d), in the order of time.
        actions: taken then, (n, a).
        following: the next observations, (n, d).

    Returns:
        bool, (d,).

    Source: ours; the correction for autocorrelation is Bartlett's (1935).

    Example:
        >>> draw = torch.Generator().manual_seed(0)
        >>> a = torch.randn(4001, 1, generator=draw)
        >>> pushed = a.cumsum(0).roll(1, 0) * 0.01
        >>> noise = torch.randn(4001, 1, generator=draw).cumsum(0) * 0.01
        >>> seen = torch.cat([pushed, noise], 1)
        >>> moved(seen[1:-1], a[1:-1], seen[2:]).tolist()
        [True, False]
    """
    x, y, a = _standard(now, following, actions)
    (n, d), m = x.shape, a.shape[1]
    z = torch.cat([torch.ones_like(a[:, :1]), x, a], 1)
    inverse: Tensor = torch.linalg.pinv(z.mT @ z, hermitian=True)
    weights = inverse @ (z.mT @ y)
    left = y - z @ weights
    # Each regressor, less what the others say of it.
    own = (z @ inverse) / inverse.diagonal().clamp(min=1e-12)
    free = n - z.shape[1]
    size = own.square().sum(0)[:, None]
    shared = weights.square() * size
    share = shared / (shared + left.square().sum(0) + _ROUNDING * n)
    strength = _strength(share, own, left, free)

    def rest(products: Tensor) -> Tensor:
        return products - z @ (inverse @ (z.mT @ products))

    by_action = rest((a[:, :, None] * x[:, None, :]).flatten(1))
    with_action = _explained(by_action, left, free).unflatten(0, (m, d)).amax(0)
    together = with_action > _large(m * d * d)
    links = (strength[1 : d + 1] > _large(d * d)) | together
    found: Tensor = (strength[d + 1 :] > _large(m * d)).any(0) | together.any(0) | together.any(1)
    while True:
        after = found | links[found].any(0) | links[:, found].any(1)
        after |= _by_products(x, left, after, rest, free)
        if bool((after == found).all()):
            return found & (now.std(0) > 1e-9)
        found = after


def _by_products(
    x: Tensor, left: Tensor, found: Tensor, rest: Callable[[Tensor], Tensor], free: int
) -> Tensor:
    """Return the features that a product with one of those found links to them."""
    members = found.nonzero()[:_MEMBERS, 0]
    links = torch.zeros(len(found), len(found), dtype=torch.bool, device=x.device)
    for i in members.tolist():
        strength = _explained(rest(x[:, i, None] * x), left, free)
        links |= strength > _large(len(members) * len(found) ** 2)
    return links[found].any(0) | links[:, found].any(1)


def _standard(now: Tensor, following: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return features in units of their own spread, and all in float64."""
    x, y, a = (values.double() for values in (now, following, actions))
    mean, spread = x.mean(0), x.std(0).clamp(min=1e-9)
    return (x - mean) / spread, (y - mean) / spread, a


def _explained(causes: Tensor, left: Tensor, free: int) -> Tensor:
    """Return how strongly causes (n, k) explain what is left (n, d); (k, d)."""
    causes = causes - causes.mean(0)
    least = _ROUNDING * len(left)
    sizes = (causes.square().sum(0)[:, None] + least) * (left.square().sum(0) + least)
    share = (causes.mT @ left).square() / sizes
    return _strength(share, causes, left, free)


def _strength(share: Tensor, causes: Tensor, left: Tensor, free: int) -> Tensor:
    """Return |t| of a share that is explained, of as many values as count."""
    share = share.clamp(max=1 - 1e-9)
    both = (_autocorrelation(causes)[:, None] * _autocorrelation(left)).clamp(-0.98, 0.98)
    count = free * ((1 - both) / (1 + both)).clamp(max=1)
    return (share / (1 - share) * count).sqrt()


def _autocorrelation(values: Tensor) -> Tensor:
    return (values[1:] * values[:-1]).sum(0) / values.square().sum(0).clamp(min=1e-12)


def _large(tests: int) -> float:
    level = torch.tensor(_LEVEL / (2 * tests), dtype=torch.float64)
    return _MARGIN * math.sqrt(2) * float(torch.erfinv(1 - 2 * level))
