"""The claims of the paper, and of its controls, with the rules that decide them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from regrow.lab.claims import Claim, Verdict, above, all_of, within
from regrow.lab.records import Record, Records
from regrow.lab.statistics import averaged, differences
from regrow.studies.corruption_robustness.methods import MOVING
from regrow.studies.corruption_robustness.view import (
    BySeed,
    Measure,
    Task,
    clean,
    effect,
    gain,
    robustness,
    tasks,
    under,
)
from regrow.vision.corruptions import FAMILIES

__all__ = ["CLAIMS", "FEW", "MAIN", "curve_gain", "dst_gain"]

MAIN = (0.9, 0.7, 0.5)  # sparsity of 10 to 50 %
FEW = 0.5  # points of accuracy that matter
_CURVE = 1.0
_LOW_RADII = ("0.2", "0.3", "0.4", "0.5")
_HIGH_RADII = ("0.1", "0.2", "0.3")
_POINTS = "points of accuracy"
_SOURCE = "Wu et al. 2025"
_NOISE = FAMILIES["noise"]
_REST = tuple(name for family, names in FAMILIES.items() if family != "noise" for name in names)


def dst_gain(
    over: str, measure: Measure, densities: Sequence[float] = MAIN
) -> Callable[[Task], dict[int, float]]:
    """Return what computes the gain of SET and RigL together over a control, by seed, of a task."""
    parts = [gain(name, over, measure, densities) for name in ("SET", "RigL")]
    return lambda task: averaged([part(task) for part in parts])


def curve_gain(which: str, radii: Sequence[str]) -> Callable[[Task], dict[int, float]]:
    """Return what computes how much less DST loses than dense where frequencies are taken away.

    Args:
        which: "low_pass" or "high_pass".
        radii: of the curve, over which is averaged.
    """

    def kept(record: Record) -> float:
        curve = record.result[which]
        accuracies = [curve[radius] for radius in radii]
        return 100 * float(sum(accuracies) / len(accuracies) - record.result["accuracy"])

    return dst_gain("dense", kept)


def _judged_each(records: Records) -> Verdict:
    found = {}
    for name in _tried(records):
        try:
            found[name] = effect(records, gain(name, "dense", robustness, MAIN))
        except ValueError:
            continue
    if not found:
        raise ValueError("there are no records of sparse and dense networks to compare")
    weakest_first = sorted(found, key=lambda name: found[name].mean)
    return all_of({name: above(found[name], 0, _POINTS) for name in weakest_first})


def _tried(records: Records) -> list[str]:
    found = {name for task in tasks(records) for name in task.moving}
    return [name for name in MOVING if name in found]


def _over(control: str) -> Callable[[Records], Verdict]:
    return lambda records: above(effect(records, dst_gain(control, robustness)), 0, _POINTS)


def _clean_kept(records: Records) -> Verdict:
    return above(effect(records, dst_gain("dense", clean)), -FEW, _POINTS)


def _beyond_clean(records: Records) -> Verdict:
    return above(effect(records, _contrast(robustness, clean)), 0, _POINTS)


def _contrast(one: Measure, other: Measure) -> Callable[[Task], BySeed]:
    """Return what computes how much larger the gain over dense is in one measure than another."""

    def of(task: Task) -> BySeed:
        gains = (dst_gain("dense", measure)(task) for measure in (one, other))
        return differences(*gains, common=True)

    return of


def _severe(records: Records) -> Verdict:
    contrast = _contrast(under(severities=(4, 5)), under(severities=(1, 2)))
    return above(effect(records, contrast), 0, _POINTS)


def _noisy(records: Records) -> Verdict:
    return above(effect(records, _contrast(under(_NOISE), under(_REST))), 0, _POINTS)


def _high_frequencies(records: Records) -> Verdict:
    return above(effect(records, curve_gain("low_pass", _LOW_RADII)), 0, _POINTS)


def _low_frequencies(records: Records) -> Verdict:
    return within(effect(records, curve_gain("high_pass", _HIGH_RADII)), _CURVE, _POINTS)


def _whole_kernels(records: Records) -> Verdict:
    def gone(record: Record) -> float:
        found = record.result.get("remaining_kernels")
        if found is None:
            raise ValueError("there are no convolutions to look at")
        return 100 * (1 - float(found))

    return above(effect(records, dst_gain("static", gone)), 0, "points of a hundred kernels")


def _lower(records: Records) -> Verdict:
    return above(effect(records, dst_gain("dense", robustness, (0.3,))), 0, _POINTS)


_TOGETHER = "SET and RigL together, mean over tasks and densities 0.9 to 0.5, paired by seed"

CLAIMS: Sequence[Claim] = (
    Claim(
        "Dynamic sparse training is more robust to image corruption than dense training at low "
        "sparsity.",
        f"{_SOURCE}, abstract",
        "Robustness accuracy over dense of each method tried (mean over tasks and densities 0.9 to "
        "0.5, paired by seed): every interval lies above 0. Not supported if one lies below.",
        _judged_each,
    ),
    Claim(
        "It still is at density 0.3.",
        f"{_SOURCE}, figure 2 (sparsity up to 0.7; read in reviews)",
        "SET and RigL together, robustness accuracy over dense at density 0.3, mean over tasks, "
        "paired by seed: the interval lies above 0.",
        _lower,
    ),
    Claim(
        "The gain grows with severity.",
        f"{_SOURCE}, section on severities (read in reviews; unverified)",
        f"{_TOGETHER}: the gain over dense at severities 4 and 5 is larger than at 1 and 2.",
        _severe,
    ),
    Claim(
        "The gain is largest under noise.",
        f"{_SOURCE}, figure 3 (corruptions ordered by frequency; read in reviews)",
        f"{_TOGETHER}: the gain over dense under the three kinds of noise is larger than under the "
        "other twelve corruptions.",
        _noisy,
    ),
    Claim(
        "Taking away high frequencies hurts dynamic sparse training less.",
        f"{_SOURCE}, radius-accuracy curves (read in reviews)",
        f"{_TOGETHER}: what is lost from clean accuracy when only radii up to "
        f"{', '.join(_LOW_RADII)} are kept is less than dense loses.",
        _high_frequencies,
    ),
    Claim(
        "Taking away low frequencies hurts both alike.",
        f"{_SOURCE}, radius-accuracy curves (read in reviews)",
        f"{_TOGETHER}: what is lost from clean accuracy when radii up to "
        f"{', '.join(_HIGH_RADII)} are taken away differs from dense by less than {_CURVE:g} "
        "point, with the whole interval.",
        _low_frequencies,
    ),
    Claim(
        "Dynamic sparse training takes away whole kernels.",
        f"{_SOURCE}, heat maps of kernels (read in reviews)",
        f"{_TOGETHER}: a smaller share of kernels keeps any weight than in a static topology of "
        "the same density.",
        _whole_kernels,
    ),
    Claim(
        "Clean accuracy is not paid for it.",
        "a control of ours",
        f"{_TOGETHER}: accuracy on clean images is above that of dense less {FEW:g} points.",
        _clean_kept,
    ),
    Claim(
        "The gain in robustness is more than the gain in clean accuracy.",
        "a control of ours",
        f"{_TOGETHER}: the gain over dense in robustness accuracy is larger than that on clean "
        "images.",
        _beyond_clean,
    ),
    Claim(
        "It is the moving topology that does it, not sparsity.",
        "a control of ours",
        f"{_TOGETHER}: robustness accuracy is above that of a static random topology of the same "
        "density.",
        _over("static"),
    ),
    Claim(
        "It is not the smaller number of weights that does it.",
        "a control of ours",
        f"{_TOGETHER}: robustness accuracy is above that of a narrower dense network with as many "
        "parameters.",
        _over("small dense"),
    ),
)
