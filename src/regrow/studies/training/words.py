"""What a training run says of itself: a line an epoch, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regrow.lab.records import Records
from regrow.studies.training.trial import WEIGHTS

__all__ = ["epoch_words", "model_on_data", "result_words"]

_UNITS = ("", " k", " M", " G", " T", " P", " E", " Z")


def epoch_words(values: Mapping[str, Any], epochs: int) -> str:
    """Write what an epoch found as a line.

    Args:
        values: the line of metrics.
        epochs: how many there will be.

    Example:
        >>> epoch_words({"epoch": 3, "loss": 0.5, "train_accuracy": 0.75, "density": 0.1}, 20)
        'epoch  3 of 20: loss 0.5000, train accuracy 75.00 %, density 0.1000'
    """
    said = [f"loss {values['loss']:.4f}"]
    for part in ("train", "validation"):
        if (accuracy := values.get(f"{part}_accuracy")) is not None:
            said.append(f"{part} accuracy {accuracy:.2%}".replace("%", " %"))
    said.append(f"density {values['density']:.4f}")
    return f"epoch {values['epoch']:{len(str(epochs))}} of {epochs}: {', '.join(said)}"


def result_words(result: Mapping[str, Any], folder: Path) -> str:
    """Write what a run found as a small table.

    Args:
        result: of :class:`regrow.studies.training.trial.Classify`.
        folder: the run's record.

    Example:
        >>> found = {"accuracy": 0.9, "density": 0.1, "nonzeros": 30, "parameters": 200}
        >>> found |= {"bytes_allocated": 2400, "bytes_needed": 500, "train_seconds": 2.0}
        >>> print(result_words(found, Path("runs/1")))
        test accuracy    90.00 %
        density          0.1000 of the sparse weights
        nonzeros         30 of 200 parameters
        memory           2.4 kB for weights, gradients, optimizer; 500 B if active ones only
        training         2.0 seconds
        record           runs/1
    """
    rows = {
        "test accuracy": f"{100 * result['accuracy']:.2f} %",
        "density": f"{result['density']:.4f} of the sparse weights",
        "nonzeros": f"{result['nonzeros']:,} of {result['parameters']:,} parameters",
    }
    for what, name in (("inference", "inference FLOPs"), ("training", "training FLOPs")):
        if (dense := result.get(f"dense_{what}_flops")) is not None:
            own = result[f"{what}_flops"]
            rows[name] = f"{_short(own)}, {own / dense:.4f} of dense"
    held, needed = (_short(result[f"bytes_{b}"]) for b in ("allocated", "needed"))
    rows["memory"] = f"{held}B for weights, gradients, optimizer; {needed}B if active ones only"
    rows["training"] = f"{result['train_seconds']:.1f} seconds"
    rows["record"] = str(folder)
    if (folder / WEIGHTS).exists():
        rows["weights"] = str(folder / WEIGHTS)
    return "\n".join(f"{name:16} {words}" for name, words in rows.items())


def _short(number: float) -> str:
    """Write a number to three digits with a unit: thousands, millions and so on.

    Example:
        >>> _short(950), _short(1234567.0), _short(0)
        ('950 ', '1.23 M', '0 ')
    """
    power = 0
    while number >= 999.5 and power < len(_UNITS) - 1:
        number, power = number / 1000, power + 1
    return f"{number:.3g}{_UNITS[power] or ' '}"


def model_on_data(group: Records) -> str:
    """Name a group of runs of one model on one data set."""
    return f"{group.all[0].get('model')} on {group.all[0].get('data')}"
