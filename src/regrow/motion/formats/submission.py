"""Writes submissions to Waymo's motion prediction challenge."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.formats.wire import field
from regrow.motion.metrics.measured import check_predictions
from regrow.motion.scene import Scene

__all__ = ["About", "encode_submission"]

Array = npt.NDArray[Any]
Predicted = tuple[Scene, Array, Array]

_POINTS, _MODES = 16, 6
_MOTION_PREDICTION = 1


@dataclass(frozen=True)
class About:
    """What a submission says of itself.

    Args:
        account: the e-mail address registered with Waymo.
        method: a short name, one of a kind.
        parameters: of the model, such as "66M": a whole number with K, M, B or T.
        lidar: whether the model uses the motion data set's LiDAR.
        camera: whether it uses its camera data.
        pretraining: whether public language or vision models were used.
        models: names of these.
        authors: their names.
        affiliation: theirs.
        description: of the method, in short.
        link: to a paper or page.

    Raises:
        ValueError: account, method or parameters are not as Waymo takes them.
    """

    account: str
    method: str
    parameters: str
    lidar: bool
    camera: bool = False
    pretraining: bool = False
    models: tuple[str, ...] = ()
    authors: tuple[str, ...] = ()
    affiliation: str = ""
    description: str = ""
    link: str = ""

    def __post_init__(self) -> None:
        if "@" not in self.account:
            raise ValueError(f"account={self.account!r}: must be an e-mail address")
        if not self.method:
            raise ValueError("method='': must be a name")
        if not re.fullmatch(r"[1-9][0-9]*[KMBT]", self.parameters):
            raise ValueError(
                f"parameters={self.parameters!r}: must be a whole number with K, M, B or T, as 66M"
            )
        if self.models and not self.pretraining:
            raise ValueError(f"models={self.models}: set pretraining=True, or name none")


def encode_submission(about: About, predictions: Iterable[Predicted]) -> bytes:
    """Return a message ``MotionChallengeSubmission``; many of them may be packed in a .tar.gz.

    Args:
        about: the submission.
        predictions: of each scene of the test set, once: the scene; trajectories, float, (targets,
            modes, 16, 2), x and y in metres in the frame of the scene, 0.5 s apart; and scores,
            (targets, modes). Six modes at the most.

    Raises:
        ValueError: a scene comes twice or none does, or predictions do not fit.

    Source: Waymo Open Dataset, motion_submission.proto.
    """
    seen: set[str] = set()
    parts = []
    for scene, trajectories, scores in predictions:
        if scene.name in seen:
            raise ValueError(f"scene {scene.name}: comes twice")
        seen.add(scene.name)
        parts.append(field(1, _scenario(scene, np.asarray(trajectories), np.asarray(scores))))
    if not parts:
        raise ValueError("predictions: there are none")
    return b"".join([*parts, _about(about)])


def _about(about: About) -> bytes:
    texts = [(6, about.affiliation), (7, about.description), (8, about.link)]
    return b"".join(
        [
            field(2, _MOTION_PREDICTION),
            field(3, about.account),
            field(4, about.method),
            *(field(5, author) for author in about.authors),
            *(field(number, text) for number, text in texts if text),
            field(9, int(about.lidar)),
            field(10, int(about.camera)),
            field(11, int(about.pretraining)),
            field(12, about.parameters),
            *(field(13, model) for model in about.models),
        ]
    )


def _scenario(scene: Scene, trajectories: Array, scores: Array) -> bytes:
    check_predictions(scene, trajectories, scores, needed=_POINTS)
    if trajectories.shape[1] > _MODES or trajectories.shape[2] != _POINTS:
        raise ValueError(
            f"scene {scene.name}: trajectories has shape {trajectories.shape}; must have at most "
            f"{_MODES} modes and {_POINTS} points, 0.5 s apart"
        )
    objects = b""
    for agent, modes, confidences in zip(scene.targets, trajectories, scores, strict=True):
        content = field(1, int(scene.ids[agent]))
        for points, confidence in zip(modes, confidences, strict=True):
            content += field(2, _scored(points, float(confidence)))
        objects += field(1, content)
    return field(1, scene.name) + field(2, objects)


def _scored(points: Array, confidence: float) -> bytes:
    axes = (points[:, axis].astype("<f4").tobytes() for axis in (0, 1))
    trajectory = b"".join(field(number, axis) for number, axis in zip((2, 3), axes, strict=True))
    return field(1, trajectory) + field(2, confidence, "<f4")
