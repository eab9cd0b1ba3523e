"""What is learnt: to predict where the targets of scenes go."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, distributed, nn

from regrow.engine.ranks import rank_and_ranks
from regrow.motion.batches import SceneBatches, collate
from regrow.motion.clouds import LidarFeatures
from regrow.motion.decoder import Predicted
from regrow.motion.features import Featurer
from regrow.motion.forecast import displacements, forecast
from regrow.motion.intentions import intention_points
from regrow.motion.lidar import LidarShape
from regrow.motion.loss import motion_losses
from regrow.motion.modes import modes
from regrow.motion.network import SIZES, MotionTransformer, Shape
from regrow.motion.scene import KINDS, Scene
from regrow.training.batch import Batch, Source
from regrow.training.problem import Problem
from regrow.training.run import RunLike, device_of
from regrow.training.setting import Setting
from regrow.training.trainer import Trainer

__all__ = ["MotionSource", "PredictMotion", "Scenes"]

_FUSIONS = ("token", "centre", "keys")


@dataclass(frozen=True, eq=False)
class Scenes:
    """Scenes to learn from and to test on; each may be read when it is asked for.

    Args:
        training: to learn from.
        test: to test on.
        validation: to watch after each epoch.
        told: plain data that lead from a run's record back to the scenes.
    """

    training: Sequence[Scene]
    test: Sequence[Scene] = ()
    validation: Sequence[Scene] = ()
    told: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MotionSource(Source):
    """Scenes, opened for training.

    Args:
        scenes: what they are.
        featurer: makes arrays of them.
        intentions: where targets end, shape (kinds, queries, 2).
    """

    scenes: Scenes
    featurer: Featurer
    intentions: Tensor


@dataclass(frozen=True, kw_only=True)
class PredictMotion(Problem[MotionSource]):
    """Learn to predict the motion of targets, and test on other scenes.

    A subclass opens the scenes. The loss of a batch is a mean over its targets.

    Args:
        size: of the network: "mtr", "small" or "tiny".
        past: steps up to now that are seen.
        future: steps that are predicted.
        polylines: of the map, at most.
        lidar: encoder of LiDAR points: "temporal", LiMTR's "pointnet-linear", or "none".
        fusion: where the LiDAR token enters: "token" among those of the encoder, "centre" beside
            the target's feature, "keys" among what queries attend to.
        lidar_frames: of the past, evenly spread.
        lidar_points: of a frame, at most.
        turn: the frame of a cloud of points: that of its "box" or of the line of "sight".
        keep_angle: give sine and cosine of that turn to every point.
        measured: which of "range", "intensity", "elongation" points have.
        hide: share of targets whose points are hidden in training.
        null: whether a learnt token stands for "no points".
        classification: weight of choosing the right query.
        velocity: weight of the target's velocity.
        dense: weight of the futures of all agents.
        intention_scenes: scenes whose targets' ends become intention points, at most.
        watched: validation scenes that are predicted after each epoch, at most.
        workers: processes that make arrays of scenes.
        mtr_compat: give back what is mended of MTR, in features, network and loss; the weight of
            classification is then 1 unless another is given.
    """

    size: str = "small"
    past: int = 11
    future: int = 80
    polylines: int = 768
    lidar: Literal["none", "temporal", "pointnet-linear"] = "none"
    fusion: tuple[str, ...] = _FUSIONS
    lidar_frames: int = 11
    lidar_points: int = 256
    turn: Literal["box", "sight"] = "box"
    keep_angle: bool = True
    measured: tuple[str, ...] = ("intensity",)
    hide: float = 0.0
    null: bool = True
    classification: float | None = None
    velocity: float = 0.5
    dense: float = 1.0
    intention_scenes: int = 5000
    watched: int = 256
    workers: int = 0
    mtr_compat: bool = False

    def check(self) -> None:
        """Refuse what is out of range.

        Raises:
            ValueError: the message names the argument.
        """
        if self.size not in SIZES:
            raise ValueError(f"size={self.size!r}: must be one of {', '.join(SIZES)}")
        if self.lidar not in ("none", "temporal", "pointnet-linear"):
            raise ValueError(f"lidar={self.lidar!r}: must be none, temporal or pointnet-linear")
        if unknown := set(self.fusion) - set(_FUSIONS):
            raise ValueError(f"fusion: {sorted(unknown)}; must be of {', '.join(_FUSIONS)}")
        if self.lidar != "none" and not self.fusion:
            raise ValueError(
                f"fusion: is empty; must be some of {', '.join(_FUSIONS)}. Without LiDAR lidar is "
                "none"
            )
        for name in ("velocity", "dense"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be at least 0")
        for name in ("intention_scenes", "lidar_frames", "lidar_points", "watched", "workers"):
            least = 0 if name in ("watched", "workers") else 1
            if (value := getattr(self, name)) < least:
                raise ValueError(f"{name}={value}: must be at least {least}")
        self.shape()
        self.featurer()

    @abstractmethod
    def scenes(self, run: RunLike) -> Scenes:
        """Open the scenes."""

    def featurer(self) -> Featurer:
        """Return what makes arrays of scenes."""
        lidar = LidarFeatures(
            frames=self.lidar_frames,
            points=self.lidar_points,
            turn=self.turn,
            keep_angle=self.keep_angle,
            measured=self.measured,
        )
        return Featurer(
            past=self.past,
            future=self.future,
            polylines=self.polylines,
            lidar=None if self.lidar == "none" else lidar,
            mtr_compat=self.mtr_compat,
        )

    def shape(self) -> Shape:
        """Return the sizes of the network."""
        shape = dataclasses.replace(
            SIZES[self.size], past=self.past, future=self.future, mtr_compat=self.mtr_compat
        )
        features = self.featurer().lidar
        if features is None or self.lidar == "none":
            return shape
        lidar = LidarShape(
            encoder=self.lidar,
            channels=features.channels,
            frames=self.lidar_frames,
            hidden=max(32, shape.width // 2),
            token="token" in self.fusion,
            centre="centre" in self.fusion,
            keys="keys" in self.fusion,
            null=self.null,
            hide=self.hide,
        )
        return dataclasses.replace(shape, lidar=lidar)

    def open(self, setting: Setting, run: RunLike) -> MotionSource:
        """Open the scenes, and find the intention points of those that are learnt from.

        Raises:
            ValueError: passes were to be captured as CUDA graphs.
        """
        if device_of(run.options).type == "cuda" and run.options.get("graphs", True):
            raise ValueError(
                "graphs: batches of scenes differ in size, which CUDA graphs do not allow; run "
                "with the option graphs=False"
            )
        scenes, featurer = self.scenes(run), self.featurer()
        rank, ranks = rank_and_ranks()
        batches = SceneBatches(
            scenes.training,
            featurer,
            batch=setting.batch,
            seed=setting.seed,
            rank=rank,
            ranks=ranks,
            workers=self.workers,
        )
        chosen = _spread(len(scenes.training), self.intention_scenes)
        points = intention_points(
            (scenes.training[i] for i in chosen),
            SIZES[self.size].queries,
            future=self.future,
            seed=setting.seed,
        )
        first = featurer(scenes.training[0])
        return MotionSource(
            batches=batches,
            example=lambda n: collate([first] * n)[0],
            scenes=scenes,
            featurer=featurer,
            intentions=points,
        )

    def build(self, source: MotionSource) -> nn.Module:
        """Build the network."""
        model = MotionTransformer(self.shape())
        model.decoder.intentions.copy_(source.intentions)
        return model

    def losses(self, outputs: Predicted, batch: Batch) -> dict[str, Tensor]:
        """Return the losses of each target, by name."""
        weight = 1.0 if self.mtr_compat else 50.0
        return motion_losses(
            outputs,
            batch.targets,
            classification=weight if self.classification is None else self.classification,
            velocity=self.velocity,
            dense=self.dense,
            mtr_compat=self.mtr_compat,
        )

    def loss(self, outputs: Predicted, batch: Batch) -> Tensor:
        """Compute the mean loss of targets."""
        return self.losses(outputs, batch)["total"].mean()

    def counts(self, outputs: Predicted, batch: Batch) -> Mapping[str, Tensor]:
        """Return the parts of the loss and ``min_ade`` of six futures, times scenes."""
        parts = self.losses(outputs, batch)
        found = {name: parts[name].mean() for name in ("nll", "classification")}
        paths, _ = modes(outputs)
        ade, _ = displacements(paths, batch.targets["future"], batch.targets["future_valid"])
        found["min_ade"] = ade.amin(1).nan_to_num(0).mean()
        return {name: value * len(batch) for name, value in found.items()}

    def validate(self, trainer: Trainer[MotionSource]) -> Mapping[str, float]:
        """Return ``min_ade`` and ``min_fde`` of some validation scenes, in metres."""
        scenes = trainer.source.scenes.validation
        if not len(scenes) or not self.watched:
            return {}
        found = self.forecasts(trainer, scenes, _spread(len(scenes), self.watched))
        return {name: value for name, value in errors(found).items() if value is not None}

    def forecasts(
        self, trainer: Trainer[MotionSource], scenes: Sequence[Scene], places: Sequence[int]
    ) -> dict[str, Any]:
        """Return forecasts of scenes, see :func:`regrow.motion.forecast.forecast`; ranks share."""
        rank, ranks = rank_and_ranks()
        if ranks > 1:  # the statistics of batch norms are each rank's own, of its own scenes
            for buffer in trainer.model.buffers():
                distributed.broadcast(buffer, 0)
        own = places[rank::ranks]
        found = forecast(
            trainer.outputs,
            scenes,
            trainer.source.featurer,
            own,
            batch=max(1, trainer.setting.batch // ranks),
            workers=self.workers,
        )
        if ranks == 1:
            return found
        parts: list[dict[str, Any]] = [{} for _ in range(ranks)]
        distributed.all_gather_object(parts, found)
        parts = [part for part in parts if part]
        whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        order = np.lexsort((whole["agent"], whole["scene"]))
        return {name: values[order] for name, values in whole.items()}

    def test(self, trainer: Trainer[MotionSource], run: RunLike) -> Mapping[str, Any]:
        """Predict the targets of the test scenes, and write forecasts to ``forecasts.npz``.

        Returns:
            ``min_ade`` and ``min_fde`` of six futures, in metres; the same ``by_kind``, and with
            LiDAR for targets ``with_points`` and ``without_points``; how many ``targets`` there
            were; the network's ``shape``, and what the scenes tell.
        """
        scenes = trainer.source.scenes
        told = {"shape": dataclasses.asdict(self.shape()), **scenes.told}
        if not len(scenes.test):
            return {"targets": 0, **told}
        found = self.forecasts(trainer, scenes.test, range(len(scenes.test)))
        if run.writes:
            np.savez_compressed(run.folder / "forecasts.npz", **found)
        by_kind = {
            name: errors(found, found["kind"] == kind)
            for kind, name in enumerate(KINDS)
            if (found["kind"] == kind).any()
        }
        some = found["points"] > 0
        parts = {"with_points": errors(found, some), "without_points": errors(found, ~some)}
        return {
            **errors(found),
            "targets": len(found["kind"]),
            "by_kind": by_kind,
            **({} if self.lidar == "none" else parts),
            **told,
        }

    def describe(self, source: MotionSource) -> str:
        """Name network and scenes."""
        scenes = source.scenes
        lidar = "no LiDAR" if self.lidar == "none" else f"LiDAR ({self.lidar})"
        return (
            f"motion transformer of size {self.size}, {lidar}, {len(scenes.training):,} scenes to "
            f"learn from, {len(scenes.test):,} to test on"
        )


def errors(found: Mapping[str, Any], which: Any = None) -> dict[str, float | None]:
    """Return mean ``min_ade`` and ``min_fde`` of forecasts; None where there are none."""
    keys = ("paths", "future", "future_valid")
    paths, future, valid = (
        torch.from_numpy(found[key] if which is None else found[key][which]) for key in keys
    )
    some = valid.any(1)
    if not some.any():
        return {"min_ade": None, "min_fde": None}
    both = displacements(paths[some], future[some], valid[some])
    ade, fde = (float(error.amin(1).double().mean()) for error in both)
    return {"min_ade": ade, "min_fde": fde}


def _spread(n: int, most: int) -> Sequence[int]:
    """Return up to so many of n places, evenly spread."""
    if n <= most:
        return range(n)
    return [i * n // most for i in range(most)]
