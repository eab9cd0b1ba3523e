"""The named dynamic methods, each a setting of :class:`regrow.Dynamic`, and all methods by name.

All take keyword arguments only, and ``dataclasses.replace`` makes variants. Where a default is not
the paper's own, "Differs" says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from regrow.engine.allocation import Allocation, Uniform
from regrow.engine.checks import check_type
from regrow.engine.criteria import LegacySign, MagnitudePlusGradient
from regrow.engine.dynamic import Dynamic, Scope
from regrow.engine.links import CHT, CHTs
from regrow.engine.method import Dense, Method, Static
from regrow.engine.moments import OnGrow
from regrow.engine.oneshot import LTH, OMP, SNIP, GraSP, SynFlow
from regrow.engine.schedules import Constant, Cosine, Cubic, Early, Schedule, Steps
from regrow.engine.scores import Momentum, Random, Score, SignedMagnitude
from regrow.engine.srigl import SRigL
from regrow.engine.structured import DynamicBlock, DynamicNM
from regrow.engine.topkast import TopKAST

__all__ = [
    "ACDC",
    "GMP",
    "MEST",
    "METHODS",
    "SET",
    "SETITOP",
    "SNFS",
    "GraNet",
    "RandomWalk",
    "RigL",
    "RigLITOP",
]


# ---------------------------------------------------------------------- constant density


@dataclass(frozen=True, kw_only=True)
class RandomWalk(Dynamic):
    """Drop at random, grow at random: the control that shows what choosing is worth.

    Example:
        >>> RandomWalk(density=0.1).drop
        Random()
    """

    drop: Score = Random()
    grow: Score = Random()


@dataclass(frozen=True, kw_only=True)
class SET(Dynamic):
    """Sparse evolutionary training: drop the smallest of each sign, grow at random.

    Source: Mocanu et al. 2018 (arXiv 1707.04780): ζ = 0.3 of each sign at the end of every epoch,
    to the end of training.

    Differs from the paper: an update falls every ``update_every`` steps instead of every epoch;
    layer densities follow ERK (for linear layers the same as ER), the output layer included; grown
    weights start at zero.

    Args:
        legacy: drop by the sign rule that public codes ship under this name, which removes nearly
            all negative weights (:class:`regrow.engine.criteria.LegacySign`), in place of the
            default; another ``drop`` does not go with it.

    Example:
        >>> SET(density=0.1).drop, SET(density=0.1, legacy=True).drop
        (SignedMagnitude(), LegacySign())
    """

    drop: Score = SignedMagnitude()
    grow: Score = Random()
    drop_fraction: Schedule | float = Constant(0.3)
    stop_at: int | float = 1.0
    legacy: bool = False

    def __post_init__(self) -> None:
        check_type(self.legacy, bool, "legacy", "True")
        if not self.legacy and self.drop == LegacySign():
            raise ValueError(
                f"drop={self.drop!r} with legacy=False: for that rule say legacy=True, for another "
                "name it"
            )
        if self.legacy and self.drop not in (SignedMagnitude(), LegacySign()):
            raise ValueError(
                f"legacy=True drops by LegacySign(), not by drop={self.drop!r}: use one"
            )
        if self.legacy:
            object.__setattr__(self, "drop", LegacySign())
        super().__post_init__()


@dataclass(frozen=True, kw_only=True)
class RigL(Dynamic):
    """Rigged lottery: drop by magnitude, grow where the loss's gradient is largest.

    The share exchanged falls along a cosine from 0.3 to 0 at 75 % of the run. An update replaces
    the optimizer step it falls on. A unit just dropped competes for growth; if it wins, it stays
    as it was.

    Source: Evci et al. 2020 (arXiv 1911.11134), section 3 and algorithm 1.

    Differs from the released TensorFlow code: no noise is added to magnitudes, so an inactive
    weight can never outrank an active one; there is no update at step 0; progress counts from
    ``start_at``; the output layer and the first layer are sparse unless excluded.

    Example:
        >>> RigL(density=0.1).next_update(0, 1000)
        100
    """

    replaces_step: bool = True


@dataclass(frozen=True, kw_only=True)
class SETITOP(Dynamic):
    """SET with rare, large updates to the end of the run, so that new weights have time to grow.

    Source: in-time over-parameterization (Liu et al. 2021, arXiv 2102.02887): magnitude, random
    growth, updates 1500 steps apart, half of the weights at first, along a cosine to 0.5 %.

    Differs from the released code: exact counts, where growth there is right only on average.

    Example:
        >>> SETITOP(density=0.1).update_every
        1500
    """

    grow: Score = Random()
    drop_fraction: Schedule | float = Cosine(0.5, 0.005)
    update_every: int = 1500
    stop_at: int | float = 1.0


@dataclass(frozen=True, kw_only=True)
class RigLITOP(Dynamic):
    """RigL with rare, large updates to the end of the run, so that new weights have time to grow.

    Source: in-time over-parameterization (Liu et al. 2021, arXiv 2102.02887): updates 4000 steps
    apart at batch 128, half of the weights at first, along a cosine to 0.5 %.

    Differs from the released code: exact counts, where its threshold drops ties together.

    Example:
        >>> RigLITOP(density=0.1).update_every
        4000
    """

    drop_fraction: Schedule | float = Cosine(0.5, 0.005)
    update_every: int = 4000
    stop_at: int | float = 1.0


@dataclass(frozen=True, kw_only=True)
class SNFS(Dynamic):
    """Sparse networks from scratch (sparse momentum): units move between layers by their momentum.

    Drop by magnitude; what all layers dropped is shared in proportion to the mean momentum of
    their active weights and grown where momentum is largest. Momentum is gathered densely and
    never reset.

    Source: Dettmers & Zettlemoyer 2019 (arXiv 1907.04840): density 0.05 in every layer, half of
    the weights at first, along a cosine to 0.5 % over the whole run.

    Differs from the released code: updates every ``update_every`` steps (there, epochs); counts
    are exact, so none of its corrections for drift are needed; layers are filled to the last unit
    (there to 99 %); almost dense layers have no rule of their own.

    Example:
        >>> SNFS(density=0.05).redistribute
        'momentum'
    """

    allocation: Allocation = Uniform()
    grow: Score = Momentum()
    redistribute: Literal["momentum", "gradient"] | None = "momentum"
    drop_fraction: Schedule | float = Cosine(0.5, 0.005)
    stop_at: int | float = 1.0
    on_grow: OnGrow = "keep"


@dataclass(frozen=True, kw_only=True)
class MEST(Dynamic):
    """Memory-economic sparse training: drop by |w| + γ|g|, grow at random, fewer and fewer.

    With a soft memory bound b the network trains at density·(1 + b) between updates, and every
    update first drops down to ``density``; b halves at 9/16 of the run and is 0 from 3/4 on.
    Without, 20 % of the weights are exchanged, 10 % from 9/16 on, none from 3/4 on.

    Source: Yuan et al. 2021 (arXiv 2110.14032), EM and EM&S, with the bounds of its released code
    for 160 epochs (90 and 120).

    Differs from the code: γ is 0 there, and gradients are empty when they are read; updates every
    ``update_every`` steps instead of every five epochs; layers follow ERK. The paper's own γ could
    not be verified.

    Args:
        gamma: weight of the gradient in the drop score.
        soft_memory: b, at least 0; the paper's EM&S has 0.5.

    Example:
        >>> MEST(density=0.1, soft_memory=0.5).initial_densities({"w": (10, 10)})
        {'w': 0.15000000000000002}
    """

    gamma: float = 0.01
    soft_memory: float = 0.0
    drop: Score = field(default=MagnitudePlusGradient(), init=False)
    grow: Score = Random()
    drop_fraction: Schedule | float = field(default=0.0, init=False)
    density_path: Schedule = field(
        default=Steps(((0.0, 1.0), (0.5625, 0.5), (0.75, 0.0))), init=False
    )
    initial_density: float | None = field(default=None, init=False)
    stop_at: int | float = 1.0

    def __post_init__(self) -> None:
        check_type(self.soft_memory, (int, float), "soft_memory", "0.5")
        check_type(self.gamma, (int, float), "gamma", "0.01")
        if not 0 <= self.soft_memory < math.inf:
            raise ValueError(f"soft_memory={self.soft_memory}: must be at least 0, and finite")
        b = self.soft_memory
        shares = (b / (1 + b), b / (2 + b)) if b else (0.2, 0.1)
        moments = ((0.0, shares[0]), (0.5625, shares[1]), (0.75, 0.0))
        object.__setattr__(self, "drop", MagnitudePlusGradient(self.gamma))
        object.__setattr__(self, "drop_fraction", Steps(moments))
        if b and not isinstance(self.density, Mapping):
            object.__setattr__(self, "initial_density", min(self.density * (1 + b), 1.0))
        elif b:
            raise ValueError("soft_memory needs one density for all layers, not densities by glob")
        super().__post_init__()


# ---------------------------------------------------------------------- moving density


@dataclass(frozen=True, kw_only=True)
class GMP(Dynamic):
    """Gradual magnitude pruning: from dense to sparse along a cubic, nothing is regrown.

    Each layer keeps its largest weights (or all layers together, with ``shrink="global"``); density
    falls as d + (1 - d)(1 - p)³ over the window.

    Source: Zhu & Gupta 2017 (arXiv 1710.01878), eq. 1, with the same density in every layer.

    Differs from the paper: a weight once dropped stays zero (there, masked weights go on being
    compared at the value they had); the window 10–80 % of the run is from later comparisons.

    Example:
        >>> method = GMP(density=0.1)
        >>> round(method.density_at(0.5, 1.0, 0.1), 4)
        0.2125
    """

    allocation: Allocation = Uniform()
    drop_fraction: Schedule | float = 0.0
    start_at: int | float = 0.1
    stop_at: int | float = 0.8
    initial_density: float | None = 1.0


@dataclass(frozen=True, kw_only=True)
class GraNet(Dynamic):
    """Gradual pruning with neuroregeneration: prune a little over all layers, then exchange.

    At an update the smallest weights of all layers together go until the density is on its cubic;
    then each layer drops its smallest and grows by gradient.

    Source: Liu et al. 2021 (arXiv 2106.10404): from density 0.5 along a cubic to the end of 55 %
    of the run, updates 1000 steps apart, half of the weights exchanged at first, along a cosine.

    Differs from the released code: exact counts, where its thresholds take ties together; no layer
    can lose its last weight.

    Example:
        >>> GraNet(density=0.05).initial_density
        0.5
    """

    drop_fraction: Schedule | float = Cosine(0.5)
    update_every: int = 1000
    stop_at: int | float = 1.0
    initial_density: float | None = 0.5
    density_path: Schedule = Early(Cubic(1.0), until=0.55)
    shrink: Scope = "global"


_PHASES = ((0.0, 1.0), *(((10 + 5 * i) / 100, float(i % 2)) for i in range(14)), (0.85, 0.0))


@dataclass(frozen=True, kw_only=True)
class ACDC(Dynamic):
    """Alternating compressed and decompressed phases: sparse, dense, sparse …, sparse at the end.

    A compressed phase keeps the largest weights of all layers together; at its end all come back,
    at zero and with fresh optimizer state.

    Source: Peste et al. 2021 (arXiv 2106.12379), its ImageNet recipe of 100 epochs in fractions of
    the run: dense to 10 %, then phases of 5 % each up to 75 %, dense to 85 %, sparse to the end.

    Differs from the released code: phases change at the first multiple of ``update_every``.

    Example:
        >>> path = ACDC(density=0.1).density_path
        >>> [path(p) for p in (0.05, 0.12, 0.17, 0.8, 0.9)]
        [1.0, 0.0, 1.0, 1.0, 0.0]
    """

    allocation: Allocation = Uniform()
    grow: Score = Random()  # all come back: there is nothing to choose, nor any gradient to read
    drop_fraction: Schedule | float = 0.0
    stop_at: int | float = 1.0
    initial_density: float | None = 1.0
    density_path: Schedule = Steps(_PHASES)
    shrink: Scope = "global"


METHODS: dict[str, type[Method]] = {
    method.__name__: method
    for method in (
        Dense,
        Static,
        RandomWalk,
        SET,
        RigL,
        SETITOP,
        RigLITOP,
        SNFS,
        MEST,
        TopKAST,
        SRigL,
        DynamicNM,
        DynamicBlock,
        CHT,
        CHTs,
        GMP,
        GraNet,
        ACDC,
        SNIP,
        GraSP,
        SynFlow,
        OMP,
        LTH,
    )
}
