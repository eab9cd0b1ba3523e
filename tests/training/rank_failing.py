"""Trials that fail on one rank alone in the middle of what ranks do together, or tell where."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import distributed

from regrow.engine.ranks import rank_and_ranks
from regrow.lab.ranks import all_ranks, run_on_all
from regrow.lab.run import Run
from regrow.lab.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Sums(Trial):
    """Adds ones up over the ranks, twice; one of them may leave in between."""

    wrong: int | None = None
    sleeps: float = 0.0

    def run(self, run):
        rank, _ = rank_and_ranks()
        total = torch.ones(1, device=run.options["device"])
        for step in range(2):
            if step and rank == self.wrong:
                raise ZeroDivisionError("this rank has had enough")
            if step and self.sleeps:  # in place of what it would do with the other
                time.sleep(self.sleeps)
                continue
            distributed.all_reduce(total)
            if run.options["device"] == "cuda":
                torch.cuda.synchronize()
        return {"total": float(total)}


@dataclass(frozen=True, kw_only=True)
class Where(Trial):
    """Tells on which GPU it computes, and takes long enough that others run beside it."""

    def run(self, run):
        x = torch.ones(8, device="cuda")
        time.sleep(1)
        assert rank_and_ranks() == (0, 1)
        return {"gpu": x.device.index, "sum": float(x.sum())}


def failing(folder, device, wrong, sleeps=0.0):
    """Run a trial that fails on one rank, and then one that does not.

    Args:
        folder: where the first rank leaves what it found.
        device: "cpu" or "cuda".
        wrong: the rank that fails.
        sleeps: seconds for which the other does so, and asks for nothing of the first.
    """
    with all_ranks() as first:
        if not first:
            return
        run = Run(folder, {"device": device})
        try:
            run_on_all(Sums(seed=0, wrong=wrong, sleeps=sleeps), run)
        except Exception as error:
            notes = "".join(getattr(error, "__notes__", []))
            (folder / "said").write_text(f"{type(error).__name__}: {error}\n{notes}")
        (folder / "next").write_text(str(run_on_all(Sums(seed=1), run)["total"]))
