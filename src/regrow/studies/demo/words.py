"""The demo's numbers in words and in a table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from regrow.lab.section import Table
from regrow.lab.statistics import Interval, mean_interval, paired_interval
from regrow.studies.demo.trial import DENSE, Cell, TrialResult

__all__ = ["Results", "accuracies", "demo_table", "findings", "mean_training_flops"]

Results = Mapping[Cell, Sequence[TrialResult]]


def demo_table(results: Results) -> Table:
    """Make the table of results, one row a cell.

    Args:
        results: by cell, one result a seed, seeds in the same order everywhere.
    """
    dense = results[DENSE][0]
    rows = []
    for cell, found in results.items():
        one = found[0]
        rows.append(
            (
                str(cell),
                f"{one.parameters:,}",
                _percent(mean_interval(accuracies(found))),
                "" if cell.method in ("Dense", "Static") else _points(_gain(results, cell)),
                f"{one.inference_flops / dense.inference_flops:.3f}",
                f"{mean_training_flops(found) / mean_training_flops(results[DENSE]):.3f}",
                f"{one.bytes_needed / dense.bytes_needed:.3f}",
                f"{one.bytes_allocated / dense.bytes_allocated:.2f}",
            )
        )
    columns = (
        "network",
        "parameters",
        "test accuracy, %",
        "over static, points",
        "FLOPs, inference",
        "FLOPs, training",
        "bytes of nonzeros",
        "bytes held here",
    )
    note = (
        f"Mean and 95 % interval (Student's t) over {len(results[DENSE])} seeds; the difference "
        "to the static topology of the same density is paired over seeds. FLOPs and bytes are "
        "counted, as a fraction of the dense network's. Bytes are those of weights, gradients and "
        "optimizer state: in a format that stores active weights only, and as held in this run, "
        "where every weight is stored densely with a mask beside it."
    )
    return Table(columns, rows, note)


def findings(results: Results) -> list[str]:
    """Say what the numbers show, in sentences, whichever way they turned out."""
    sentences = []
    for density in sorted({cell.density for cell in results} - {1.0}, reverse=True):
        for method in ("SET", "RigL"):
            cell = Cell(method, density)
            against = (
                (Cell("Static", density), "a static random topology"),
                (Cell("Small dense", density), "a dense network with as many parameters"),
                (DENSE, "the full dense network"),
            )
            judged = [f"{_judge(_gain(results, cell, other))} {name}" for other, name in against]
            accuracy = mean_interval(accuracies(results[cell])).mean
            sentences.append(f"{cell}: {100 * accuracy:.1f} %. " + "; ".join(judged) + ".")
    return sentences


def accuracies(found: Sequence[TrialResult]) -> list[float]:
    """Return the test accuracies, one a seed."""
    return [result.accuracy for result in found]


def mean_training_flops(found: Sequence[TrialResult]) -> float:
    """Return the operations of a whole run, averaged over seeds."""
    return statistics.fmean(result.training_flops for result in found)


def _gain(results: Results, cell: Cell, over: Cell | None = None) -> Interval:
    over = over or Cell("Static", cell.density)
    return paired_interval(accuracies(results[cell]), accuracies(results[over]))


def _percent(interval: Interval) -> str:
    mean = f"{100 * interval.mean:.2f}"
    return mean if interval.n == 1 else f"{mean} ± {100 * interval.half_width:.2f}"


def _points(interval: Interval) -> str:
    mean = f"{100 * interval.mean:+.2f}".replace("-", "−")
    return mean if interval.n == 1 else f"{mean} ± {100 * interval.half_width:.2f}"


def _judge(gain: Interval) -> str:
    if gain.n < 3:
        return f"{_points(gain)} points (too few seeds to judge) against"
    verdict = "no clear difference to"
    if gain.excludes(0):
        verdict = "better than" if gain.mean > 0 else "worse than"
    return f"{_points(gain)}, {verdict}"
