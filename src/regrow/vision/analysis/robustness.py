"""Robustness to corruptions: mean accuracy, mean corruption errors, gains."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeAlias

__all__ = [
    "gains",
    "mean_corruption_error",
    "relative_mean_corruption_error",
    "robustness_accuracy",
]

BySeverity: TypeAlias = Mapping[str, Mapping[int, float]]

_ALL = (1, 2, 3, 4, 5)


def robustness_accuracy(accuracies: BySeverity, *, severities: Iterable[int] = _ALL) -> float:
    """Return the mean accuracy over corruptions and severities.

    RA = 1 / (|C| |S|) Σ_c Σ_s accuracy[c][s]

    Source: Wu et al., ICLR 2025 (arXiv 2410.03030), figure 2; read in reviews of the paper, not in
    the paper itself.

    Args:
        accuracies: by corruption and severity, as fractions or per cent.
        severities: those that every corruption must have; the published measure has all five.

    Returns:
        The mean, in the unit given.

    Raises:
        ValueError: there is no corruption, one has other severities, or a value is negative or not
            finite.

    Example:
        >>> robustness_accuracy({"fog": {1: 0.75, 5: 0.5}, "snow": {1: 0.5, 5: 0.25}},
        ...                     severities=(1, 5))
        0.5
    """
    wanted = _check("accuracies", accuracies, severities)
    means = [math.fsum(values.values()) / len(wanted) for values in accuracies.values()]
    return math.fsum(means) / len(means)


def mean_corruption_error(
    errors: BySeverity, reference: BySeverity, *, severities: Iterable[int] = _ALL
) -> float:
    """Return the mean corruption error (mCE): errors in units of those of a reference.

    CE_c = Σ_s E[c][s] / Σ_s E_ref[c][s],  mCE = mean_c CE_c

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.2 (the section was not verified).

    Differs from the source: the reference is given, not always AlexNet; the result is a ratio, not
    per cent.

    Args:
        errors: by corruption and severity, as fractions or per cent.
        reference: errors of the reference on the same, in the same unit.
        severities: those that every corruption must have.

    Returns:
        1 for a network as good as the reference; lower is better.

    Raises:
        ValueError: as :func:`robustness_accuracy`, or corruptions differ, or the reference makes no
            error under one of them.

    Example:
        >>> errors = {"fog": {1: 0.1, 5: 0.2}, "snow": {1: 0.2, 5: 0.4}}
        >>> reference = {"fog": {1: 0.2, 5: 0.4}, "snow": {1: 0.4, 5: 0.2}}
        >>> round(mean_corruption_error(errors, reference, severities=(1, 5)), 6)
        0.75
    """
    return _mean_ratio(errors, 0.0, reference, 0.0, severities)


def relative_mean_corruption_error(
    errors: BySeverity,
    clean: float,
    reference: BySeverity,
    reference_clean: float,
    *,
    severities: Iterable[int] = _ALL,
) -> float:
    """Return the relative mCE: what corruption adds to the clean error, beside a reference.

    CE_c = Σ_s (E[c][s] - E_clean) / Σ_s (E_ref[c][s] - E_ref,clean), averaged over c

    Source: Hendrycks and Dietterich, ICLR 2019, section 4.2 (the section was not verified).

    Differs from the source: as :func:`mean_corruption_error`.

    Args:
        errors: by corruption and severity.
        clean: error on clean images, in the same unit.
        reference: errors of the reference.
        reference_clean: its error on clean images.
        severities: those that every corruption must have.

    Returns:
        A ratio; below 0 where corruption makes a network better.

    Raises:
        ValueError: as :func:`mean_corruption_error`, or a clean error is negative or not finite, or
            a corruption does not raise the reference's error, so that nothing can be told by it.

    Example:
        >>> relative_mean_corruption_error(
        ...     {"fog": {3: 0.5}}, 0.25, {"fog": {3: 1.0}}, 0.5, severities=(3,)
        ... )
        0.5
    """
    for name, value in (("clean", clean), ("reference_clean", reference_clean)):
        _check_value(name, value)
    return _mean_ratio(errors, clean, reference, reference_clean, severities)


def gains(
    one: BySeverity,
    other: BySeverity,
    *,
    relative: bool = False,
    order: Sequence[str] | None = None,
) -> dict[str, dict[int, float]]:
    """Subtract accuracies, corruption by corruption and severity by severity.

    gain[c][s] = one - other, or (one - other) / other

    Source: Wu et al., ICLR 2025 (arXiv 2410.03030), figure 3 (relative, of sparse over dense); read
    in reviews of the paper, not in the paper itself.

    Args:
        one: accuracies by corruption and severity.
        other: accuracies of what it is compared with.
        relative: divide by the other's.
        order: all corruptions in the order in which they are returned, such as
            :func:`~regrow.vision.analysis.spectral.order_by_frequency` gives; None: as in ``one``.

    Returns:
        Gains by corruption, in order, and severity, ascending.

    Raises:
        ValueError: corruptions or severities differ, the order has not each once, a value is
            negative or not finite, or a gain is relative to 0.

    Example:
        >>> one, other = {"fog": {1: 0.75}, "snow": {1: 0.5}}, {"fog": {1: 0.5}, "snow": {1: 0.5}}
        >>> gains(one, other, relative=True, order=["snow", "fog"])
        {'snow': {1: 0.0}, 'fog': {1: 0.5}}
    """
    wanted = _check("one", one, next(iter(one.values()), ()))
    _check("other", other, wanted)
    _check_same("one", one, "other", other)
    order = list(one) if order is None else list(order)
    if sorted(order) != sorted(one):
        raise ValueError(f"order={order}: must name each of {', '.join(one)} once")
    if relative:
        _check_divisors(other)
    return {
        name: {
            s: (one[name][s] - other[name][s]) / (other[name][s] if relative else 1) for s in wanted
        }
        for name in order
    }


def _mean_ratio(
    errors: BySeverity,
    clean: float,
    reference: BySeverity,
    reference_clean: float,
    severities: Iterable[int],
) -> float:
    wanted = _check("errors", errors, severities)
    _check("reference", reference, wanted)
    _check_same("errors", errors, "reference", reference)
    ratios = []
    for name, values in errors.items():
        below = math.fsum(value - reference_clean for value in reference[name].values())
        if below <= 0:
            raise ValueError(
                f"reference[{name!r}] is on average not above {reference_clean:g}: errors cannot "
                "be told in units of it; leave this corruption out of both"
            )
        ratios.append(math.fsum(value - clean for value in values.values()) / below)
    return math.fsum(ratios) / len(ratios)


def _check(argument: str, values: BySeverity, severities: Iterable[int]) -> list[int]:
    """Return the severities, ascending, if every corruption has them and only finite values."""
    wanted = sorted(set(severities))
    if not values or not wanted:
        raise ValueError(f"{argument} is empty: it must hold a number a corruption and severity")
    for name, by_severity in values.items():
        if sorted(by_severity) != wanted:
            raise ValueError(
                f"{argument}[{name!r}] has the severities {sorted(by_severity)}: must be {wanted}"
            )
        for severity, value in by_severity.items():
            _check_value(f"{argument}[{name!r}][{severity}]", value)
    return wanted


def _check_value(what: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{what} is {value}: must be a number, at least 0")


def _check_same(a: str, one: BySeverity, b: str, other: BySeverity) -> None:
    if apart := one.keys() ^ other.keys():
        raise ValueError(f"{a} and {b} differ in {', '.join(sorted(apart))}: both must have each")


def _check_divisors(other: BySeverity) -> None:
    for name, by_severity in other.items():
        for severity, value in by_severity.items():
            if not value:
                raise ValueError(
                    f"other[{name!r}][{severity}] is 0: no gain is relative to it; take "
                    "relative=False"
                )
