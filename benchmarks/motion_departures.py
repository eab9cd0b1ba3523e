"""How much sooner a network learns paths as departures than whole paths, as MTR's are.

    python benchmarks/motion_departures.py --json results/motion/departures.json

The tiny network, without LiDAR, on a CPU: a few hundred steps on made-up scenes, tested on others.
Whole paths at two learning rates. Printed is minADE of six futures over 8 s, in metres.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import torch

import regrow
from regrow.lab.environment import environment
from regrow.lab.run import Run
from regrow.lab.statistics import mean_interval
from regrow.motion import Shape
from regrow.studies.lidar_motion.predict import Predict, keep_all

ARMS = {
    "departures": (True, 3e-3),
    "whole paths": (False, 3e-3),
    "whole paths, a third of the rate": (False, 1e-3),
}


@dataclass(frozen=True, kw_only=True)
class Learn(Predict):
    """The trial, with or without departures.

    Args:
        departs: whether paths are learnt as departures.
    """

    departs: bool

    def shape(self) -> Shape:
        """Return the sizes of the network."""
        return replace(super().shape(), departs=self.departs)


def learn(departs: bool, rate: float, seed: int, given: argparse.Namespace) -> dict[str, float]:
    """Train and test; return errors."""
    trial = Learn(
        departs=departs,
        seed=seed,
        method=regrow.Dense(),
        size="tiny",
        epochs=given.epochs,
        batch=8,
        scenes_learnt=given.scenes,
        scenes_tested=given.scenes // 4,
        polylines=96,
        warmup=0.4,
        learning_rate=rate,
    )
    options = {"device": "cpu"}
    keep_all([trial], options, print)
    with tempfile.TemporaryDirectory() as folder:
        found = trial.run(Run(Path(folder), dict(options)))
    return {"min_ade": found["min_ade"], "likeliest": found["ade_1"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--scenes", type=int, default=1000)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for seed in range(given.seeds):
        for arm, (departs, rate) in ARMS.items():
            row = {"arm": arm, "seed": seed} | learn(departs, rate, seed, given)
            rows.append(row)
            print(row, flush=True)
    for arm in ARMS:
        told = mean_interval({r["seed"]: r["min_ade"] for r in rows if r["arm"] == arm})
        print(f"{arm:34} {told.mean:.2f} ± {told.half_width:.2f} m")
    if given.json:
        setting = {"scenes": given.scenes, "epochs": given.epochs, "batch": 8}
        record = {"environment": environment(), "setting": setting, "rows": rows}
        given.json.write_text(json.dumps(record, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
