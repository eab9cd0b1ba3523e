"""Cannistraci-Hebb training: growth where the topology itself predicts a link.

A layer is a bipartite network: M is the mask (out × in) after dropping, u an output, t an input. A
new link u-t is predicted by the paths of length three u-w-v-t that join them already: the more
there are, and the less their inner nodes w, v are tied to the rest of the network, the better. No
gradient is read.

Sources: Cannistraci-Hebb training (Zhang et al. 2024, ICLR) and its soft rule (Zhang et al. 2025),
with their released code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from regrow.engine.checks import check_choice, check_type
from regrow.engine.draws import seed_from, uniform
from regrow.engine.dynamic import Dynamic
from regrow.engine.patterns import Pattern
from regrow.engine.schedules import Linear, Schedule
from regrow.engine.scores import Score, Signals
from regrow.engine.selection import bottom_k, top_k
from regrow.engine.update import Exchanges, UpdateView, begin, drop, grow

__all__ = ["CHT", "CHTs", "LinkPrediction", "RelativeImportance", "Soft"]

_FLOOR = 1e-5


@dataclass(frozen=True)
class LinkPrediction(Score):
    """How strongly paths of length three predict a link: CH2 or CH3.

    With D = M Mᵀ and T = Mᵀ M, the inner node v shares i_v = D[u,v] inputs with u, and has
    e_v = deg(v) - i_v others (one of which is t); likewise w with t. A path counts

    * CH2: √((1 + i_w)(1 + i_v) / (e_w · e_v)),
    * CH3: 1 / √(e_w · e_v),

    summed over paths (``by="path"``). ``by="node"`` is an approximation by two matrix products,
    which sums over inner nodes instead: S = A M + (B Mᵀ)ᵀ with A[u,v] = (1 + i_v)/e_v where i_v >
    0 (CH3: 1/e_v), and B alike for the inputs.

    Units of convolutions are taken as links between outputs and fan-in positions, which the
    sources, who leave convolutions dense, do not do.

    Args:
        rule: "CH2" or "CH3".
        by: "path", exact, for layers up to some thousand units; or "node", fast.
        soft: choose at random with probability in proportion to the score, instead of the highest.

    Differs from the released code: an exact number is grown whatever the ties.

    Example:
        >>> mask = torch.tensor([[True, True], [True, False]])
        >>> score = LinkPrediction("CH3", by="path")
        >>> score.worth(Signals(torch.zeros(2, 2), mask=mask)).tolist()[1][1]
        1.0
    """

    elementwise: ClassVar[bool] = False
    joins: ClassVar[bool] = True
    by_keys: ClassVar[bool] = True

    rule: Literal["CH2", "CH3"] = "CH3"
    by: Literal["path", "node"] = "path"
    soft: bool = False

    def __post_init__(self) -> None:
        check_choice(self.rule, ("CH2", "CH3"), "rule")
        check_choice(self.by, ("path", "node"), "by")
        check_type(self.soft, bool, "soft", "True")

    def __call__(self, signals: Signals) -> Tensor:
        """Return the score of every weight's link."""
        return signals.pattern.expand(self.worth(signals), tuple(signals.weight.shape))

    def worth(self, signals: Signals) -> Tensor:
        """Return the score of every unit's link."""
        assert signals.mask is not None
        units = signals.pattern.reduce(signals.mask.float()) > 0
        links = units.flatten(1).float()
        score = self._by_path(links) if self.by == "path" else self._by_node(links)
        return score.reshape(units.shape)

    def check_pattern(self, pattern: Pattern) -> None:
        """Raise ValueError if units have no input."""
        if not pattern.single and len(pattern.grid((4, 4))) < 2:
            raise ValueError(f"pattern={pattern}: a link needs an output and an input")

    def highest(
        self, worth: Tensor, k: int, among: Tensor, n: int, generator: torch.Generator
    ) -> Tensor:
        """Choose the k most strongly predicted links, or draw them in proportion."""
        return top_k(self.keys(worth, generator), k, among)

    def keys(self, worth: Tensor, generator: torch.Generator) -> Tensor:
        """Return the scores; if soft, their logarithms with Gumbel noise: a draw without return."""
        if not self.soft:
            return worth
        # The k highest of log p + Gumbel noise are a draw of k without replacement in proportion to
        # p: one top-k instead of k draws.
        return (worth + _FLOOR).log() + _gumbel(worth, generator)

    def _inner(self, shared: Tensor, degree: Tensor) -> Tensor:
        """Return (1 + i)/e, or 1/e: what an inner node contributes; e is at least 1."""
        tied = (degree - shared).clamp(min=1)
        return (1 + shared) / tied if self.rule == "CH2" else 1 / tied

    def _by_node(self, links: Tensor) -> Tensor:
        outputs, inputs = links @ links.T, links.T @ links
        a = self._inner(outputs, links.sum(1)) * (outputs > 0)
        b = self._inner(inputs, links.sum(0)) * (inputs > 0)
        return a @ links + (b @ links.T).T

    def _by_path(self, links: Tensor) -> Tensor:
        outputs, inputs = links @ links.T, links.T @ links
        f = self._inner(outputs, links.sum(1)).sqrt()
        g = self._inner(inputs, links.sum(0)).sqrt()
        rows = []
        for u, reads in enumerate(links.cpu()):  # the device is asked once, not for every output
            w = reads.nonzero().squeeze(1).to(links.device, non_blocking=True)
            # K[w, t]: over outputs v joined to both w and t
            joined = (links[:, w].T * f[u]) @ links
            rows.append((g[:, w].T * joined).sum(0))
        return torch.stack(rows)


@dataclass(frozen=True)
class RelativeImportance(Score):
    """|w|/Σ over its input's weights + |w|/Σ over its output's weights.

    Source: CHT's removal rule (Zhang et al. 2024).

    Example:
        >>> RelativeImportance()(Signals(torch.tensor([[1.0, 3.0]]))).tolist()
        [[1.25, 1.75]]
    """

    elementwise: ClassVar[bool] = False
    joins: ClassVar[bool] = True
    grows: ClassVar[bool] = False

    def __call__(self, signals: Signals) -> Tensor:
        """Return the relative importance of every weight."""
        magnitude = signals.weight.abs().flatten(1)
        by_input = magnitude.sum(0, keepdim=True).clamp(min=1e-12)
        by_output = magnitude.sum(1, keepdim=True).clamp(min=1e-12)
        return (magnitude / by_input + magnitude / by_output).reshape(signals.weight.shape)


@dataclass(frozen=True)
class Soft(Score):
    """Drop at random: a unit is kept with probability in proportion to its scoreᵀ.

    Args:
        score: what is made soft; at least 0.
        power: T as a function of progress; the larger, the closer to the hard rule.

    Source: the soft removal of CHTs, where T goes from 1 to 3 or to 9.

    Example:
        >>> from regrow.engine.scores import Magnitude
        >>> everyone = torch.ones(4, dtype=torch.bool)
        >>> worth = Soft(Magnitude()).worth(Signals(torch.tensor([1.0, 2.0, 3.0, 4.0])))
        >>> int(Soft(Magnitude()).lowest(worth, 3, everyone, 4, torch.Generator()).sum())
        3
    """

    score: Score
    power: Schedule = Linear(1.0, 3.0)

    elementwise: ClassVar[bool] = False
    grows: ClassVar[bool] = False

    @property
    def joins(self) -> bool:  # type: ignore[override]
        """Whether the score depends on which outputs and inputs weights join."""
        return self.score.joins

    @property
    def drops(self) -> bool:  # type: ignore[override]
        """Whether the score can choose which units to drop."""
        return self.score.drops

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """What the score needs."""
        return self.score.needs

    @property
    def observes(self) -> frozenset[str] | None:  # type: ignore[override]
        """What the score follows."""
        return self.score.observes

    def average(self, running: Tensor | None, signals: Signals) -> Tensor:
        """Return the score's own average."""
        return self.score.average(running, signals)

    def __call__(self, signals: Signals) -> Tensor:
        """Return the score."""
        return self.score(signals)

    def worth(self, signals: Signals) -> Tensor:
        """Return T · log score, unit by unit."""
        score = self.score.worth(signals).double()
        return self.power(signals.progress) * (score + 1e-30).log()

    def lowest(
        self, worth: Tensor, k: int, among: Tensor, n: int, generator: torch.Generator
    ) -> Tensor:
        """Draw who is kept; choose the others."""
        return bottom_k(worth + _gumbel(worth, generator), k, among)


@dataclass(frozen=True, kw_only=True)
class CHT(Dynamic):
    """Cannistraci-Hebb training: drop by magnitude, grow the links the topology predicts.

    After dropping, chains are removed: links into a unit that reads nothing or that nobody reads
    any more. They are regrown elsewhere. That is done between layers that follow one another in an
    ``nn.Sequential``, with nothing but activations, norms and dropout between them; of others it is
    not known who reads whom.

    Source: Zhang et al. 2024 (ICLR), the recipe for multilayer perceptrons: CH3-L3 by paths, 30 %
    exchanged along a cosine, no update after 75 % of the run.

    Differs from the released code: an exact number is grown whatever the ties; layers start from
    random links (there, optionally, from input correlations); the update does not replace the
    optimizer step; convolutions may be included.

    Args:
        chain_removal: whether links of units that lost all inputs or all outputs are removed, where
            the model's structure tells them.

    Example:
        >>> CHT(density=0.05).grow
        LinkPrediction(rule='CH3', by='path', soft=False)
    """

    grow: Score = LinkPrediction("CH3", by="path")
    chain_removal: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_type(self.chain_removal, bool, "chain_removal", "False")

    def propose(self, view: UpdateView) -> dict[str, Tensor]:
        """Drop, remove chains, grow."""
        exchanges = begin(view)
        to_grow = drop(self, view, exchanges)
        if self.chain_removal:
            most = {
                name: one.n if self.regrow_dropped else one.room(regrow_dropped=False) - k
                for (name, one), k in zip(exchanges.items(), to_grow.values(), strict=True)
            }
            for name, count in _remove_chains(view, exchanges, most).items():
                to_grow[name] += count
        return grow(self, view, exchanges, to_grow)


@dataclass(frozen=True, kw_only=True)
class CHTs(CHT):
    """CHT with the soft rule: dropped and grown at random, in proportion to the scores.

    Links are kept in proportion to |w|ᵀ with T from 1 to 3, and grown in proportion to CH2-L3 by
    nodes. CHTss, its variant with falling density, is ``CHTs(initial_density=0.5,
    density_path=Sigmoid(1.0))``.

    Source: Zhang et al. 2025, the recipe for Transformers.

    Differs from the released code, where growth under the soft flag is deterministic in one of two
    versions.

    Example:
        >>> CHTs(density=0.05).grow.soft
        True
    """

    drop: Score = Soft(RelativeImportance())
    grow: Score = LinkPrediction("CH2", by="node", soft=True)


def _remove_chains(
    view: UpdateView, exchanges: Exchanges, most: Mapping[str, int]
) -> dict[str, int]:
    """Drop the links of units without inputs or outputs; return how many, by layer.

    A layer that has more of them than could be grown elsewhere keeps them.
    """
    kept = {name: one.kept for name, one in exchanges.items()}
    pairs = [
        (layer.planned.after, layer.name)
        for layer in view.layers
        if layer.planned.after in kept
        and kept[layer.name].ndim == kept[layer.planned.after].ndim == 2
        and len(kept[layer.planned.after]) == kept[layer.name].shape[1]
    ]
    # Backwards for outputs that nobody reads, then forwards for inputs that nothing feeds: so each
    # removal is seen by the next layer, and one pass either way is enough.
    for first, second in reversed(pairs):
        kept[first] = kept[first] & kept[second].any(0).unsqueeze(1)
    for first, second in pairs:
        kept[second] = kept[second] & kept[first].any(1).unsqueeze(0)
    chains = {name: one.kept & ~kept[name] for name, one in exchanges.items()}
    counts = torch.stack([chain.sum() for chain in chains.values()]).tolist()
    gone = dict(zip(chains, counts, strict=True))
    for name, one in exchanges.items():
        if gone[name] > most[name]:
            gone[name] = 0
        else:
            one.strike(chains[name], gone[name])
    return gone


def _gumbel(reference: Tensor, generator: torch.Generator) -> Tensor:
    seed, shape = seed_from(generator), tuple(reference.shape)
    # Two words: of 24 bits alone the largest of many would often be equal.
    fine = uniform(shape, ~seed, reference.device).double() * 2.0**-24
    drawn = uniform(shape, seed, reference.device).double() + fine
    noise = -(-drawn.clamp(min=1e-300).log()).log()
    return noise.to(reference.dtype)
