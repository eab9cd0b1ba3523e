"""What a finished run of a recogniser left: its size, its units, its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from regrow.lab.files import check_finished, read_json
from regrow.machine import expanded
from regrow.reading import decoding
from regrow.speech.recogniser import SIZES
from regrow.speech.units import Units, units_from
from regrow.training.train import WEIGHTS

__all__ = ["Finished", "open_finished", "weights_digest"]


@dataclass(frozen=True, eq=False)
class Finished:
    """A recogniser that was learnt.

    Args:
        size: of the network, such as "5m".
        units: that it writes.
        weights: its state, on the CPU.
    """

    size: str
    units: Units
    weights: Mapping[str, Tensor]


def open_finished(run: Path) -> Finished:
    """Open the recogniser of a finished run.

    Args:
        run: its folder, with ``result.json`` and ``weights.pt``.

    Raises:
        FileNotFoundError: one of the files is missing.
        ValueError: a file is damaged.
    """
    run = _there(run)
    result = read_json(run / "result.json", _flaw)
    with decoding(run / "result.json"):
        units = units_from(result["written"])
    with decoding(run / WEIGHTS):
        saved = torch.load(run / WEIGHTS, map_location="cpu", weights_only=True)
        return Finished(result["size"], units, saved["model"])


def weights_digest(run: Path) -> str:
    """Return 16 hexadecimal digits that change with the weights of a finished run.

    Raises:
        FileNotFoundError: the run is not finished.
    """
    with (_there(run) / WEIGHTS).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _there(run: Path) -> Path:
    run = expanded(run)
    check_finished(run, ("result.json", WEIGHTS), "regrow speech train")
    return run


def _flaw(result: dict[str, Any]) -> str:
    written = result.get("written")
    right = result.get("size") in SIZES and isinstance(written, dict) and bool(written)
    return "" if right else "no size and units: give a run of regrow speech train"
