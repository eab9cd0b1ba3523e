"""Environments by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from regrow.control.environments.base import Environments
from regrow.control.environments.cartpole import Cartpole
from regrow.control.environments.planar import Cheetah, Walker
from regrow.control.environments.point_mass import PointMass
from regrow.control.environments.pool import Pool
from regrow.control.environments.spread import Spread
from regrow.control.environments.suite import Suite
from regrow.engine.checks import check_choice

__all__ = ["TASKS", "Engine", "make", "repeat_of"]

Engine = Literal["own", "envpool"]

_REPEAT = {
    "cartpole-swingup": 4, "cartpole-balance": 4, "walker-walk": 1, "cheetah-run": 1,
    "quadruped-walk": 1, "humanoid-stand": 1,
}  # fmt: skip
TASKS = ("point-mass", *_REPEAT)
"""Names of tasks; those of the DeepMind Control Suite need the extra ``control``."""


def repeat_of(task: str, repeat: int | None = None) -> int:
    """Return the control steps of a step of the agent: those given, or those that are usual."""
    return repeat or _REPEAT.get(task, 1)


def make(
    task: str,
    seeds: Sequence[int],
    *,
    repeat: int | None = None,
    workers: int = 1,
    engine: Engine = "own",
) -> Environments:
    """Make the environment of a task for each run.

    Args:
        task: its name.
        seeds: of the runs.
        repeat: control steps of a step of the agent; None: 4 on cartpoles, else 1.
        workers: that step: threads of mujoco and of EnvPool, or processes, where Python calls each
            step.
        engine: what steps: mujoco and dm_control ("own"), or EnvPool ("envpool"), whose episodes
            begin elsewhere and which cannot be saved.

    Raises:
        ValueError: there is no such task, or a number is below 1.
        ImportError: mujoco or dm_control is missing.

    Example:
        >>> make("point-mass", [0]).observations
        4
    """
    check_choice(task, TASKS, "task")
    check_choice(engine, get_args(Engine), "engine")
    for name, number in (("repeat", repeat), ("workers", workers)):
        if number is not None and number < 1:
            raise ValueError(f"{name}={number}: must be at least 1")
    if task == "point-mass":
        return PointMass(seeds)
    repeat = repeat_of(task, repeat)
    if engine == "envpool":
        return Pool(seeds, task, repeat=repeat, threads=workers)
    if task.startswith("cartpole"):
        swingup, threads = task.endswith("swingup"), workers if workers > 1 else None
        return Cartpole(seeds, swingup=swingup, repeat=repeat, threads=threads)
    if min(workers, len(seeds)) > 1:
        return Spread(make, seeds, processes=workers, task=task, repeat=repeat)
    planar = {"walker-walk": Walker, "cheetah-run": Cheetah}
    if task in planar:
        return planar[task](seeds, repeat=repeat)
    return Suite(seeds, *task.split("-"), repeat=repeat)
