"""What the study of LiDAR runs: arms, sweeps, presets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache, partial
from typing import Any

import torch

import regrow
from regrow.lab.design import Arm, Label, Labelled, grid
from regrow.lab.study import Preset
from regrow.measure.widths import largest_width
from regrow.motion.lidar import PointNetLinear, TemporalPointNet
from regrow.motion.network import SIZES
from regrow.studies.lidar_motion.predict import Predict

__all__ = ["ARMS", "DENSITY", "ENCODER", "PRESETS", "narrow_hidden"]

DENSITY = 0.1
ENCODER = ("lidar.encoder.*",)
"""Weights of the LiDAR encoder, which may become sparse."""

_LIDAR: Mapping[str, Any] = {"lidar": "temporal", "fusion": ("token", "centre", "keys")}
_FAITHFUL: Mapping[str, Any] = {**_LIDAR, "lidar": "pointnet-linear"}


def _lidar(**fields: Any) -> dict[str, Any]:
    """Return the arm that is called LiDAR, changed in some fields."""
    return {**_LIDAR, **fields}


def _sparse(method: regrow.Method) -> dict[str, Any]:
    return {**_FAITHFUL, "method": method, "include": ENCODER}


def _around(distance: float) -> dict[str, Any]:
    """Return fields of scenes in which all to predict are within 10 m of a distance."""
    return {"near": distance - 10.0, "far": distance + 10.0}


@cache
def narrow_hidden(size: str, frames: int) -> int:
    """Return how many channels a dense temporal encoder has with a sparse one's parameters.

    Args:
        size: of the network.
        frames: of the past.
    """
    width = SIZES[size].width
    with torch.device("meta"):
        whole = _parameters(PointNetLinear(9, width, frames))
        most = round(DENSITY * whole)
        return 4 * largest_width(
            lambda n: _parameters(TemporalPointNet(9, width, 4 * n)) <= most, least=2
        )


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


ARMS: dict[str, Arm] = {
    "MTR": lambda: {"lidar": "none"},
    "LiDAR": lambda: _LIDAR,
    "token": lambda: _lidar(fusion=("token",)),
    "centre": lambda: _lidar(fusion=("centre",)),
    "keys": lambda: _lidar(fusion=("keys",)),
    "faithful": lambda: _FAITHFUL,
    "sparse": lambda every: _sparse(regrow.RigL(density=DENSITY, update_every=every)),
    "static": lambda: _sparse(regrow.Static(density=DENSITY)),
    "narrow": lambda size, frames: _lidar(lidar_hidden=narrow_hidden(size, frames)),
    "zeroed": lambda: _lidar(control="zeroed"),
    "shuffled": lambda: _lidar(control="shuffled"),
    "chance": lambda: _lidar(reliability=0.0),
    "fewer points": lambda points: _lidar(lidar_points=points),
    "fewer frames": lambda few: _lidar(lidar_frames=few),
    "less reliable": lambda reliability: _lidar(reliability=reliability),
    "MTR at a range": lambda distance: {"lidar": "none", **_around(distance)},
    "LiDAR at a range": lambda distance: _lidar(**_around(distance)),
}
"""One recipe; an arm changes the LiDAR and its encoder only, those at a range the scenes, too."""

_CROWDS = ("MTR", "LiDAR", "zeroed", "shuffled")
_AXES: Mapping[str, tuple[Label, ...]] = {
    "points": (4, 16, 64),
    "few": (1, 3),
    "reliability": (0.5, 0.7, 1.0),
    "distance": (15, 35, 55),
}


def _trials(
    arms: Mapping[str, Arm], seeds: int, sweeps: bool, **setting: Any
) -> Iterator[Labelled]:
    base = Predict(seed=0, method=regrow.Dense(), **setting)
    steps = base.epochs * -(-base.scenes_learnt // base.batch)
    given = {"every": max(1, steps // 100), "size": base.size, "frames": base.lidar_frames}
    axes = _AXES if sweeps else {}
    yield from grid(base, arms, seeds=seeds, labels={"task": base.data}, given=given, **axes)


def _some(*names: str) -> dict[str, Arm]:
    return {name: ARMS[name] for name in names}


_SMOKE = {
    "size": "tiny",
    "epochs": 2,
    "batch": 8,
    "scenes_learnt": 40,
    "scenes_tested": 16,
    "polylines": 96,
    "lidar_frames": 3,
    "lidar_points": 48,
}
_QUICK = {
    "size": "small",
    "epochs": 12,
    "batch": 16,
    "scenes_learnt": 2000,
    "scenes_tested": 500,
    "polylines": 192,
    "lidar_points": 128,
    "learning_rate": 2e-3,
    "warmup": 0.4,
    "precision": "bfloat16",
}
_WHOLE = {
    **_QUICK,
    "epochs": 30,
    "scenes_learnt": 100_000,
    "scenes_tested": 5000,
    "polylines": 768,
    "lidar_points": 256,
    "workers": 4,
}
_TRACKS = {"data": "crowds", "past": 8, "future": 12, "lidar_frames": 8}

PRESETS = {
    "smoke": Preset(
        "a minute on two CPU cores",
        {"simulator": partial(_trials, _some("MTR", "LiDAR", "shuffled"), 2, False, **_SMOKE)},
        judges=False,
    ),
    "quick": Preset(
        "three quarters of an hour of an H200 and 16 cores with --jobs 16 (an estimate)",
        {
            "simulator": partial(_trials, ARMS, 3, True, **_QUICK),
            "crowds": partial(_trials, _some(*_CROWDS), 3, False, **{**_QUICK, **_TRACKS}),
        },
        default="simulator",
    ),
    "paper": Preset(
        "days of an H200: 100,000 made-up scenes (an estimate)",
        {"simulator": partial(_trials, ARMS, 3, True, **_WHOLE)},
    ),
}
