"""Training of which every rank tells what it holds."""

from __future__ import annotations

from dataclasses import dataclass

import torch

import regrow
from regrow.engine.ranks import rank_and_ranks
from regrow.lab.ranks import all_ranks
from regrow.lab.sweep import sweep
from regrow.studies.vision.classify import Classify


@dataclass(frozen=True, kw_only=True)
class Told(Classify):
    """Trains, and leaves weights and masks of every rank in a folder."""

    def run(self, run):
        training = self.start(run)
        losses = [training.run_epoch()["loss"] for _ in range(self.epochs)]
        rank, ranks = rank_and_ranks()
        found = {"weights": training.model.state_dict(), "masks": training.sparse.masks}
        noise = torch.rand(1)
        torch.save(
            {**found, "losses": losses, "noise": noise},
            run.folder.parents[1] / f"{self.method.name}-{ranks}-{rank}.pt",
        )
        return {"updates": len(training.sparse.history)}


SETTING = {"data": "digits", "model": "mlp-30-20", "epochs": 3, "batch": 64, "augment": False}
METHODS = [
    regrow.RigL(density=0.2, update_every=4),
    regrow.SET(density=0.2, update_every=4),
    regrow.GMP(density=0.2, update_every=4),
]
TRIALS = [Told(seed=1, method=method, **SETTING) for method in METHODS]


def train(folder):
    """Train on all ranks there are, and leave what each holds in a folder."""
    with all_ranks() as first:
        if first:
            found = sweep(TRIALS, folder, options={"device": "cpu"}, executor="inline")
            assert not found.failed, found.failed[0].error
