"""Trials that fail on some ranks: ``torchrun ... rank_trials.py FOLDER`` sweeps over them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import distributed

from regrow.engine.ranks import rank_and_ranks
from regrow.lab.ranks import all_ranks, ranks_at_hand, run_on_all
from regrow.lab.run import Run
from regrow.lab.sweep import sweep
from regrow.lab.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Sum(Trial):
    """Adds numbers up over the ranks, step by step; some ranks leave in the middle."""

    failing: tuple[int, ...] = ()

    def run(self, run):
        rank, ranks = rank_and_ranks()
        total = torch.zeros(1)
        for step in range(4):
            if step == 2 and rank in self.failing:
                raise ZeroDivisionError(f"rank {rank} has had enough")
            found = torch.tensor([float(step + 10 * rank)])
            if ranks > 1:
                distributed.all_reduce(found)
            total += found
            run.log(step=step, total=float(total))
        (run.options["folder"] / f"{self.seed}-{rank}").write_text(str(torch.get_num_threads()))
        return {"total": float(total), "ranks": ranks}


TRIALS = [
    Sum(seed=0),
    Sum(seed=1, failing=(0, 1)),
    Sum(seed=2, failing=(0,)),
    Sum(seed=3, failing=(1,)),
    Sum(seed=4),
]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    with all_ranks() as first:
        if first:
            assert ranks_at_hand() == 2
            sweep(TRIALS, folder / "out", options={"folder": folder}, executor="inline")
            assert run_on_all(TRIALS[0], Run(folder, {"folder": folder}))["ranks"] == 2
            print("the first rank alone says this")
    assert ranks_at_hand() == 1
