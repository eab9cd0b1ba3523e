"""Allocations: share the density of the whole model among its layers.

The three rules differ only in a layer's raw density r_l; they share one solver, which finds ε with
Σ_l min(1, ε·r_l)·N_l = d·Σ_l N_l, where N_l is the number of weights of layer l.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from numbers import Real

__all__ = ["ER", "ERK", "Allocation", "Uniform", "explicit"]

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Allocation(ABC):
    """Share one density among layers; call it with the layers' shapes.

    Args:
        dense: glob patterns of layers that stay dense. Their weights count towards the budget, so
            the other layers become sparser. (To leave a layer out of the budget, exclude it from
            :func:`regrow.sparsify`.)
    """

    dense: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if isinstance(self.dense, str):
            raise TypeError(f"dense={self.dense!r}: a tuple of globs, such as ({self.dense!r},)")

    @abstractmethod
    def raw(self, shape: Shape) -> float:
        """Return the layer's density up to the common factor ε."""

    def __call__(self, shapes: Mapping[str, Shape], density: float) -> dict[str, float]:
        """Return each layer's density.

        Layers whose share would exceed 1 are made dense, those of equal raw density together, and
        the rest is solved again, until no share exceeds 1.

        Args:
            shapes: weight shapes (out, in, *kernel) by name.
            density: the fraction of all these weights to keep, 0 < density <= 1.

        Returns:
            Densities in (0, 1] by name, in the order of ``shapes``.

        Raises:
            ValueError: the density lies outside (0, 1], a glob of ``dense`` matches no layer, or
                the dense layers alone exceed the budget.

        Source: the loop of RigL's released code (Evci et al. 2020, arXiv 1911.11134, appendix B).

        Differs from it: counts are rounded to the nearest unit later, not floored here.

        Example:
            >>> ERK()({"wide": (200, 200), "narrow": (50, 200)}, 0.13)
            {'wide': 0.1, 'narrow': 0.25}
        """
        density = check_density(density)
        sizes = {name: math.prod(shape) for name, shape in shapes.items()}
        raw = {name: self.raw(shape) for name, shape in shapes.items()}
        budget = density * sum(sizes.values())
        dense = self._always_dense(shapes)
        spent = sum(sizes[name] for name in dense)
        if spent > budget or (spent == budget and len(dense) < len(shapes)):
            raise ValueError(
                f"density={density}: the layers held dense ({', '.join(sorted(dense))}) have "
                f"{spent} weights and the whole budget is {budget:.0f}: "
                f"raise the density above {spent / sum(sizes.values()):.4g} or hold fewer dense"
            )
        # Making a layer dense gives its surplus to the others, which may push the next one above 1.
        while sparse := [name for name in shapes if name not in dense]:
            left = budget - sum(sizes[name] for name in dense)
            epsilon = left / sum(raw[name] * sizes[name] for name in sparse)
            highest = max(raw[name] for name in sparse)
            if highest * epsilon < 1:
                break
            # Those of equal raw density at once: to pick one of them would make the result depend
            # on the order of layers.
            dense |= {name for name in sparse if raw[name] == highest}
        return {name: 1.0 if name in dense else epsilon * raw[name] for name in shapes}

    def _always_dense(self, shapes: Mapping[str, Shape]) -> set[str]:
        for glob in self.dense:
            if not any(fnmatchcase(name, glob) for name in shapes):
                raise ValueError(f"dense={self.dense}: {glob!r} matches none of {list(shapes)}")
        return {n for n in shapes if any(fnmatchcase(n, glob) for glob in self.dense)}


@dataclass(frozen=True)
class Uniform(Allocation):
    """Give every layer the same density.

    RigL's "uniform" also leaves the first layer out: pass its name as ``exclude``.

    Example:
        >>> Uniform()({"a": (8, 8), "b": (4, 8)}, 0.25)
        {'a': 0.25, 'b': 0.25}
    """

    def raw(self, shape: Shape) -> float:
        """Return 1."""
        return 1.0


@dataclass(frozen=True)
class ER(Allocation):
    """Erdős–Rényi: r_l = (out + in) / (out · in); kernel sizes play no part.

    Source: SET (Mocanu et al. 2018, eq. 1); for convolutions RigL's ``include_kernel=False``.

    Example:
        >>> ER().raw((10, 10, 3, 3))
        0.2
    """

    def raw(self, shape: Shape) -> float:
        """Return (out + in) / (out · in)."""
        return sum(shape[:2]) / math.prod(shape[:2])


@dataclass(frozen=True)
class ERK(Allocation):
    """Erdős–Rényi kernel: r_l = (out + in + Σ kernel sides) / (out · in · Π kernel sides).

    Small layers stay denser than large ones. At densities near 0.5 most layers of a ResNet become
    fully dense and only the deepest ones are sparse: read the plan before training.

    Source: RigL (Evci et al. 2020, arXiv 1911.11134, section 3).

    Example:
        >>> ERK().raw((10, 10, 5, 5))
        0.012
    """

    def raw(self, shape: Shape) -> float:
        """Return Σ shape / Π shape."""
        return sum(shape) / math.prod(shape)


def explicit(names: list[str], rules: Mapping[str, float]) -> dict[str, float]:
    """Give each layer the density of the first glob that matches its name.

    Args:
        names: the layers.
        rules: densities in (0, 1] by glob, tried in order.

    Returns:
        Densities by name.

    Raises:
        ValueError: a density lies outside (0, 1], a layer is matched by no glob, or a glob matches
            no layer.

    Example:
        >>> explicit(["fc1.weight", "fc2.weight"], {"fc1.*": 0.5, "*": 0.1})
        {'fc1.weight': 0.5, 'fc2.weight': 0.1}
    """
    for glob, density in rules.items():
        check_density(density, f"density[{glob!r}]")
        if not any(fnmatchcase(name, glob) for name in names):
            raise ValueError(f"density: the glob {glob!r} matches none of {names}")
    densities = {}
    for name in names:
        matching = [float(density) for glob, density in rules.items() if fnmatchcase(name, glob)]
        if not matching:
            raise ValueError(f"density: no glob of {list(rules)} matches {name!r}: add '*'")
        densities[name] = matching[0]
    return densities


def check_density(density: float, argument: str = "density") -> float:
    """Return a density as Python's own number; raise ValueError unless 0 < density <= 1."""
    if isinstance(density, bool) or not isinstance(density, Real):
        raise TypeError(f"{argument}={density!r}: a number in (0, 1] is needed")
    if not 0 < density <= 1:
        raise ValueError(
            f"{argument}={density}: must lie in (0, 1]; it is the fraction of weights kept, "
            "so 90 % sparsity is density=0.1"
        )
    return float(density)


def units_kept(density: float, units: int) -> int:
    """Round a density to a count: the nearest integer (halves up), at least 1 and at most all.

    This is the one place where densities become counts.

    Example:
        >>> units_kept(0.1, 25), units_kept(0.001, 10)
        (3, 1)
    """
    # Halves go up, where round() would take the even number. At least one unit, since an empty
    # layer cuts the network.
    return min(max(math.floor(density * units + 0.5), 1), units)
