"""Formats progress lines and the result table of a training run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from regrow.training.train import WEIGHTS

__all__ = ["epoch_words", "measure_words", "result_words"]

_WRITTEN = {"r2": "R²", "rmse": "RMSE"}
_UNITS = ("", " k", " M", " G", " T", " P", " E", " Z")


def epoch_words(metrics: Mapping[str, Any], epochs: int) -> str:
    """Write an epoch's metrics as a line.

    Args:
        metrics: of the epoch, its number among them.
        epochs: how many there will be.

    Example:
        >>> epoch_words({"epoch": 3, "loss": 0.5, "train_accuracy": 0.75, "density": 0.1}, 20)
        'epoch  3 of 20: loss 0.5000, train accuracy 75.00 %, density 0.1000'
    """
    words = [_measured(name, value) for name, value in metrics.items() if name != "epoch"]
    return f"epoch {metrics['epoch']:{len(str(epochs))}} of {epochs}: {', '.join(words)}"


def result_words(result: Mapping[str, Any], folder: Path, tested: Iterable[str]) -> str:
    """Write a run's result as a small table.

    Args:
        result: of :func:`regrow.training.train.train`.
        folder: the run's record.
        tested: names of what the test found that are shown.

    Example:
        >>> found = {"accuracy": 0.9, "density": 0.1, "nonzeros": 30, "parameters": 200}
        >>> found |= {"bytes_allocated": 2400, "bytes_needed": 500, "train_seconds": 2.0}
        >>> print(result_words(found, Path("runs/1"), ["accuracy"]))
        test accuracy    90.00 %
        density          0.1000 of the sparse weights
        nonzeros         30 of 200 parameters
        memory           2.4 kB for weights, gradients, optimizer; 500 B if active ones only
        training         2.0 seconds
        record           runs/1
    """
    rows = {f"test {measure_words(name)}": _number(name, result[name]) for name in tested}
    rows["density"] = f"{result['density']:.4f} of the sparse weights"
    rows["nonzeros"] = f"{result['nonzeros']:,} of {result['parameters']:,} parameters"
    for what, name in (("inference", "inference FLOPs"), ("training", "training FLOPs")):
        if (dense := result.get(f"dense_{what}_flops")) is not None:
            own = result[f"{what}_flops"]
            rows[name] = f"{_short(own).rstrip()}, {own / dense:.4f} of dense"
    held, needed = (_short(result[f"bytes_{b}"]) for b in ("allocated", "needed"))
    rows["memory"] = f"{held}B for weights, gradients, optimizer; {needed}B if active ones only"
    rows["training"] = f"{result['train_seconds']:.1f} seconds"
    rows["record"] = str(folder)
    if (folder / WEIGHTS).exists():
        rows["weights"] = str(folder / WEIGHTS)
    return "\n".join(f"{name:16} {words}" for name, words in rows.items())


def measure_words(name: str) -> str:
    """Write what is measured for people.

    Example:
        >>> measure_words("validation_r2"), measure_words("train_accuracy")
        ('validation R²', 'train accuracy')
    """
    return " ".join(_WRITTEN.get(word, word) for word in name.split("_"))


def _measured(name: str, value: float) -> str:
    return f"{measure_words(name)} {_number(name, value)}"


def _number(name: str, value: float | None) -> str:
    if value is None:
        return "nothing to measure"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{100 * value:.2f} %" if name.endswith("accuracy") else f"{value:.4f}"


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
