"""Trials for tests of the lab; a module of its own, so that other processes can import it."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from regrow.lab.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Walk(Trial):
    """A random walk, whose every step is logged and saved."""

    name: str = "a"
    steps: int = 6
    pause: float = 0.0
    ends: str = "well"

    version: ClassVar[int] = 1

    def run(self, run):
        state = run.load() or {"step": 0, "place": torch.zeros(2)}
        step, place = state["step"], state["place"]
        while step < self.steps:
            generator = torch.Generator().manual_seed(1000 * self.seed + step)
            place = place + torch.randn(2, generator=generator)
            step += 1
            run.log(step=step, x=float(place[0]))
            run.save({"step": step, "place": place})
            run.tell(step / self.steps, f"step {step}")
            time.sleep(self.pause)
            self._mishap(run)
        return {"x": float(place[0]), "y": float(place[1]), "name": self.name}

    def _mishap(self, run):
        if self.ends == "raises":
            raise ZeroDivisionError(f"{self.name} went wrong")
        if self.ends == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.ends == "keeps":
            _kept.append(b"1" * 160_000_000)
        if self.ends == "full":
            raise OSError(28, "No space left on device")
        if self.ends == "memory":
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        if self.ends == "mends" and not (mended := Path(run.options["mended"])).exists():
            mended.touch()
            raise RuntimeError("only once")


_kept = []  # by the process, for trials to come


def walks(n, **options):
    return [Walk(seed=seed, **options) for seed in range(n)]
