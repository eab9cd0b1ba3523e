"""Reads scenarios of the Argoverse 2 motion forecasting data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from regrow.motion.formats.argoverse_map import read_map
from regrow.motion.formats.columns import read_columns
from regrow.motion.scene import KINDS, STATE, Scene, plausible
from regrow.reading import check_size, damaged, decoding

__all__ = ["NOW", "SIZES", "read_forecasting"]

Array = npt.NDArray[Any]

NOW = 49
"""The last step that is seen, of 110 at 10 Hz."""

# Kind of road user, and length, width and height in metres, which the data set does not have.
SIZES = {
    "vehicle": ("vehicle", (4.5, 2.0, 1.6)),
    "bus": ("vehicle", (11.0, 2.6, 3.2)),
    "pedestrian": ("pedestrian", (0.7, 0.7, 1.75)),
    "cyclist": ("cyclist", (1.8, 0.7, 1.75)),
    "motorcyclist": ("cyclist", (2.0, 0.8, 1.7)),
    "riderless_bicycle": ("other", (1.8, 0.6, 1.2)),
}
_OTHER = ("other", (1.0, 1.0, 1.0))
_COLUMNS = (
    *("track_id", "object_type", "object_category", "timestep", "num_timestamps", "scenario_id"),
    *("position_x", "position_y", "heading", "velocity_x", "velocity_y"),
)
_SCORED, _FOCAL = 2, 3


def read_forecasting(folder: Path, targets: Literal["focal", "scored"] = "focal") -> Scene:
    """Return a scenario as a scene: 110 steps at 10 Hz, 50 of them seen.

    The data set has neither sizes nor heights: sizes are typical ones of each kind, and the scene
    is flat, its map too. The vehicle that carries the sensors has the id -1. Agents that are no
    road users are "other".

    Args:
        folder: of the scenario, with ``scenario_*.parquet`` and ``log_map_archive_*.json``.
        targets: "focal": the one agent that the benchmark asks for; "scored": those that its
            multi-agent benchmark asks for, too.

    Raises:
        FileNotFoundError: a file is missing.
        ImportError: pyarrow is missing.
        UnreadableError: a file is damaged.
        ValueError: ``targets`` is something else.

    Source: Argoverse 2, arXiv 2301.00493.
    """
    if targets not in ("focal", "scored"):
        raise ValueError(f"targets={targets!r}: must be 'focal' or 'scored'")
    path = _only(folder, "scenario_*.parquet")
    columns = read_columns(path, _COLUMNS)
    points, lengths, kinds = read_map(_only(folder, "log_map_archive_*.json"))
    with decoding(path):
        return Scene(
            **_tracks(columns, _FOCAL if targets == "focal" else _SCORED, path),
            line_points=points * [1.0, 1.0, 0.0],
            line_lengths=lengths,
            line_kinds=kinds,
        )


def _only(folder: Path, pattern: str) -> Path:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    found = sorted(folder.glob(pattern))
    if not found:
        raise FileNotFoundError(f"{folder}: has no file {pattern}: give a scenario's folder")
    if len(found) > 1:
        raise damaged(folder, f"has {len(found)} files {pattern}, not one")
    return found[0]


def _tracks(columns: dict[str, Array], least: int, path: Path) -> dict[str, Any]:
    names, first, agent = np.unique(columns["track_id"], return_index=True, return_inverse=True)
    steps, step = int(columns["num_timestamps"][0]), columns["timestep"]
    if not NOW < steps <= 1000 or step.min() < 0 or step.max() >= steps:
        raise ValueError(f"has {steps} steps, and states at {step.min()} to {step.max()}")
    check_size(path, len(names) * steps * len(STATE) * 8, path.stat().st_size)
    states = np.zeros((len(names), steps, len(STATE)))
    valid = np.zeros((len(names), steps), bool)
    moving = ("position_x", "position_y", "heading", "velocity_x", "velocity_y")
    rows = np.stack([columns[name] for name in moving], axis=1).astype(float)
    kinds = [SIZES.get(kind, _OTHER) for kind in columns["object_type"][first]]
    sizes = np.array([size for _, size in kinds])[agent]
    good = plausible(rows)
    states[agent[good], step[good]] = np.concatenate(
        [rows[:, :2], np.zeros((len(rows), 1)), sizes, rows[:, 2:]], axis=1
    )[good]
    valid[agent[good], step[good]] = True
    return {
        "name": str(columns["scenario_id"][0]),
        "times": np.arange(steps) * 0.1,
        "now": NOW,
        "ids": np.array([-1 if name == "AV" else int(name) for name in names]),
        "kinds": np.array([KINDS.index(kind) for kind, _ in kinds]),
        "states": states,
        "valid": valid,
        "targets": np.flatnonzero(columns["object_category"][first] >= least),
        "ego": int(np.flatnonzero(names == "AV")[0]) if "AV" in names else None,
    }
