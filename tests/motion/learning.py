"""A small problem of motion, and its training on ranks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed

import regrow
from regrow.engine.ranks import rank_and_ranks
from regrow.lab.run import Run
from regrow.motion.problem import PredictMotion, Scenes
from regrow.training import Setting, start, train
from tests.motion.made import scene


@dataclass(frozen=True, kw_only=True)
class Learn(Setting, PredictMotion):
    """Scenes made up anew; every third target has no points."""

    size: str = "tiny"
    future: int = 20
    polylines: int = 16
    points: int = 12

    def scenes(self, run):
        made = [
            scene(i, points=self.points * (i % 3 > 0), steps=31, missing=0.1) for i in range(20)
        ]
        return Scenes(training=made[:12], validation=made[12:15], test=made[15:])


class Killed(Exception):
    """What ends a run of :class:`Kill`."""


class Kill(Run):
    """A run that ends as soon as its state is saved."""

    def save(self, state):
        super().save(state)
        raise Killed


def learn(**changes):
    """Return the problem, with its setting."""
    usual = {
        "seed": 0,
        "method": regrow.RigL(density=0.5, update_every=2),
        "epochs": 3,
        "batch": 4,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "schedule": "cosine",
        "clip": 1000.0,
        "lidar": "temporal",
        "lidar_frames": 3,
        "hide": 0.2,
    }
    return Learn(**usual | changes)


def run(problem, folder, kind=Run, **options):
    """Train, and return the result and the trainer."""
    folder.mkdir(exist_ok=True, parents=True)
    given = kind(folder, {"device": "cpu"} | options, save_every=0.0)
    trainer = start(problem, problem, given)
    return train(problem, trainer, given), trainer


def on_rank(folder):
    """Train on all ranks there are, and leave what each holds in a folder."""
    distributed.init_process_group("gloo")
    rank, ranks = rank_and_ranks()
    result, trainer = run(
        learn(method=regrow.Dense(), hide=0.0, epochs=1), Path(folder) / f"run-{rank}"
    )
    state = {"weights": trainer.model.state_dict(), "ade": result["min_ade"]}
    torch.save(state, Path(folder) / f"{ranks}-{rank}.pt")
    distributed.destroy_process_group()
