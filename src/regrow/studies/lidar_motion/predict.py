"""The trial: a network learns to predict made-up road users, with or without LiDAR on them."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from regrow.lab.run import Run
from regrow.lab.trial import Trial
from regrow.motion.datasets import CachedScenes
from regrow.motion.formats.pedestrians import SECONDS
from regrow.motion.network import Shape
from regrow.motion.problem import MotionSource, PredictMotion, Scenes
from regrow.motion.scene import Scene
from regrow.motion.simulator import World
from regrow.motion.simulator.simulate import STEP
from regrow.motion.simulator.stored import Lot, story_of, truths_of
from regrow.studies.lidar_motion.results import results
from regrow.studies.lidar_motion.scenes import (
    Changed,
    Control,
    cached_scenes,
    check_once,
    crowd_scenes,
    has_lidar,
    keep,
    lot_of,
    step_of,
)
from regrow.training.run import RunLike
from regrow.training.setting import Setting
from regrow.training.train import start, train
from regrow.training.trainer import Trainer

__all__ = ["FORECASTS", "Predict", "keep_all"]

FORECASTS = "forecasts.npz"
"""Futures of all test targets, in a run's folder."""

_TOLD = 20  # so many files at a time
_TEST_SEEDS = 1_000_000_000  # seeds of test scenes begin here, far from those that are learnt from


@dataclass(frozen=True, kw_only=True)
class Predict(Setting, PredictMotion, Trial):
    """Train a network on some scenes and test it on others.

    Args:
        data: "simulator"; "crowds": recordings of UCY with made-up bodies that tell nothing; or
            "cache": what ``regrow motion prepare`` wrote.
        digest: of a cache's scenes: a cache of the same name and other scenes is another trial.
        scenes_learnt: scenes to learn from, at most.
        scenes_tested: scenes to test on, at most; the same in all trials.
        reliability: how often a body tells the intent; 0: at chance.
        near: metres from the LiDAR to those who are predicted, at least.
        far: metres at most.
        control: what is done to the LiDAR, in training and in the test: "none", "zeroed",
            "shuffled" between road users of a kind.
        lidar_layers: of each part of "pointnet-linear".
        lidar_hidden: channels inside "temporal"; None: half of the network's width.
        batch: scenes a step, over all ranks.

    Raises:
        ValueError: a choice is unknown or a number out of its range; the message says which.
    """

    version: ClassVar[int] = 2  # since small networks predict paths as departures

    data: Literal["simulator", "crowds", "cache"] = "simulator"
    digest: str = ""
    scenes_learnt: int = 1000
    scenes_tested: int = 200
    reliability: float = 0.9
    near: float = 5.0
    far: float = 50.0
    control: Control = "none"
    lidar_layers: int = 12
    lidar_hidden: int | None = None
    batch: int = 16
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    schedule: Literal["steps", "cosine", "poly"] = "cosine"
    clip: float | None = 1000.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check()
        if self.data not in ("simulator", "crowds", "cache"):
            raise ValueError(f"data={self.data!r}: must be simulator, crowds or cache")
        if self.control not in ("none", "zeroed", "shuffled"):
            raise ValueError(f"control={self.control!r}: must be none, zeroed or shuffled")
        for name in ("scenes_learnt", "scenes_tested"):
            if (count := getattr(self, name)) < 2:
                raise ValueError(f"{name}={count}: must be at least 2")
        self.world()

    def world(self) -> World:
        """Return what scenes are made of."""
        return World(reliability=self.reliability, near=self.near, far=self.far)

    def shape(self) -> Shape:
        """Return the sizes of the network, those of the LiDAR encoder included."""
        shape = super().shape()
        if shape.lidar is None:
            return shape
        lidar = dataclasses.replace(
            shape.lidar,
            layers=self.lidar_layers,
            hidden=shape.lidar.hidden if self.lidar_hidden is None else self.lidar_hidden,
        )
        return dataclasses.replace(shape, lidar=lidar)

    def scenes(self, run: RunLike) -> Scenes:
        """Open the scenes, and make those that lack."""
        data_dir = run.options.get("data_dir")
        if self.data == "cache":
            learnt, tested = (
                cached_scenes(Path(run.options[name]), most, self.control)
                for name, most in (("learnt", self.scenes_learnt), ("tested", self.scenes_tested))
            )
            if self.lidar != "none" and not has_lidar(learnt.scenes):
                raise ValueError(
                    f"lidar={self.lidar!r}: no scene of {run.options['learnt']} has LiDAR; lidar "
                    "must be none"
                )
            check_once(tested.scenes)
            step = step_of(learnt.scenes, tested.scenes)
            both = len(set(learnt.names()) & set(tested.names()))
            return Scenes(learnt, tested, told={"data": self.data, "step": step, "in_both": both})
        if self.data == "crowds":
            parts = {
                part: crowd_scenes(part, most, self.control, data_dir)
                for part, most in (("training", self.scenes_learnt), ("test", self.scenes_tested))
            }
            return Scenes(**parts, told={"data": self.data, "step": SECONDS})
        lots = self.lots(data_dir)
        keep(lots, lambda said: run.tell(0.0, said))
        learnt, tested = (
            Changed(CachedScenes(lot.folder), lot.count, self.control) for lot in lots
        )
        return Scenes(learnt, tested, told={"data": self.data, "step": STEP})

    def lots(self, data_dir: str | None) -> tuple[Lot, Lot]:
        """Return what is made up to learn from, and to test on.

        Args:
            data_dir: the folder in which scenes are kept; None: the user's cache.
        """
        return (
            lot_of(self.scenes_learnt, self.world(), 0, data_dir),
            lot_of(self.scenes_tested, self.world(), _TEST_SEEDS, data_dir),
        )

    def test(self, trainer: Trainer[MotionSource], run: RunLike) -> Mapping[str, Any]:
        """Predict the test scenes, write ``forecasts.npz``, and say what forecasts are worth.

        Returns:
            See :func:`regrow.studies.lidar_motion.results.results`; and, of caches, how many scenes
            of the test were learnt from as ``in_both``.
        """
        scenes = trainer.source.scenes.test
        found = self.forecasts(trainer, scenes, range(len(scenes)))
        if run.writes:
            np.savez_compressed(run.folder / FORECASTS, **found)
        told = trainer.source.scenes.told
        shape = dataclasses.asdict(self.shape())
        return {**results(found, list(scenes), _stories(scenes)), "shape": shape, **told}

    def run(self, run: Run) -> Mapping[str, Any]:
        """Train, resuming from the run's checkpoint if there is one, and test.

        Options of the run: ``data_dir``, ``device``, ``keep_weights``, ``graphs`` (False on a GPU);
        for a cache ``learnt`` and ``tested``, its folders.
        """
        run.options.setdefault("graphs", False)
        return train(self, start(self, self, run), run)


def _stories(scenes: Sequence[Scene]) -> list[str] | None:
    if not isinstance(scenes, Changed) or not scenes.made_up:
        return None
    truths, count = truths_of(scenes.scenes), len(scenes)
    return [story_of(truth) for i in range(count) for truth in truths[i * len(truths) // count]]


def keep_all(
    trials: Sequence[Trial], options: Mapping[str, Any], tell: Callable[[str], object]
) -> None:
    """Make the scenes of all trials, before the first one is trained.

    Args:
        trials: of this study.
        options: of the run.
        tell: called with what is going on.
    """
    own = [one for one in trials if isinstance(one, Predict) and one.data == "simulator"]
    if lots := {lot for one in own for lot in one.lots(options.get("data_dir"))}:
        tell(f"{sum(lot.count for lot in lots):,} scenes are made, as far as they lack")
        files = itertools.count(1)

        def count(_: str) -> None:
            if (made := next(files)) % _TOLD == 0:
                tell(f"{made} files of scenes are made")

        keep(lots, count)
