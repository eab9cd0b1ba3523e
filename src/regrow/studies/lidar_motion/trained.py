"""Trained networks: loaded from the folder of a run, and asked about scenes."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

import regrow
from regrow.lab.files import check_finished, read_json
from regrow.motion.decoder import Predicted
from regrow.motion.features import Featurer
from regrow.motion.forecast import forecast
from regrow.motion.formats.submission import About, encode_submission
from regrow.motion.network import MotionTransformer
from regrow.motion.scene import Scene
from regrow.reading import decoding
from regrow.studies.lidar_motion.birds_eye import Forecast
from regrow.studies.lidar_motion.predict import Predict
from regrow.studies.lidar_motion.results import in_scene
from regrow.studies.lidar_motion.scenes import alike, seconds_of
from regrow.training.run import device_of
from regrow.training.train import WEIGHTS

__all__ = ["Trained", "forecast_of", "load_trained", "save_forecasts", "save_submission"]

_EVERY = 5  # steps of 0.1 s from one point of a submission to the next
_SHAPED = (
    "size", "past", "future", "polylines", "lidar", "fusion", "lidar_frames", "lidar_points",
    "turn", "keep_angle", "measured", "null", "mtr_compat", "lidar_layers", "lidar_hidden",
)  # fmt: skip


class Trained(NamedTuple):
    """A trained network and what makes arrays for it.

    Args:
        model: in evaluation mode, on its device.
        featurer: makes arrays of scenes.
        device: where the network is.
        step: seconds from one step to the next of what it has learnt from; None: not known.
    """

    model: MotionTransformer
    featurer: Featurer
    device: torch.device
    step: float | None = None

    def predict(self, scenes: Sequence[Scene], batch: int = 8) -> dict[str, npt.NDArray[Any]]:
        """Predict the targets of scenes, see :func:`regrow.motion.forecast.forecast`.

        Args:
            scenes: all with a target.
            batch: scenes predicted together.

        Raises:
            ValueError: a scene has steps of another length than those that were learnt from.
        """
        for scene in scenes:
            step = seconds_of(scene)
            if self.step and not alike(self.step, step):
                raise ValueError(
                    f"scene {scene.name}: has a step each {step:g} s; the network has learnt from "
                    f"scenes with one each {self.step:g} s, and predicts such only"
                )
        return forecast(self._outputs(), scenes, self.featurer, range(len(scenes)), batch=batch)

    def _outputs(self) -> Callable[[Mapping[str, Tensor]], Predicted]:
        @torch.no_grad()
        def outputs(inputs: Mapping[str, Tensor]) -> Predicted:
            found: Predicted = self.model({n: x.to(self.device) for n, x in inputs.items()})
            return found

        return outputs


def load_trained(run: Path, device: str = "auto") -> Trained:
    """Build a trained network and load its weights.

    Args:
        run: folder of a finished run of ``regrow motion train``.
        device: "auto", "cpu" or "cuda".

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or of another kind of run.
    """
    check_finished(run, ("config.json", "result.json", WEIGHTS), "regrow motion train")
    config = read_json(run / "config.json")
    if config.get("trial") != Predict.__name__:
        raise ValueError(
            f"{run}: its network predicts no motion. Give a run of regrow motion train"
        )
    with decoding(run / "config.json"):
        told = {name: config[name] for name in _SHAPED if name in config}
        told |= {n: tuple(value) for n, value in told.items() if isinstance(value, list)}
        trial = Predict(seed=0, method=regrow.Dense(), epochs=1, **told)
        shape = trial.shape()
        # Until version 2 all networks predicted whole paths, of the same parameters.
        whole = config.get("version", 1) < 2
        model = MotionTransformer(replace(shape, departs=shape.departs and not whole))
    with decoding(run / WEIGHTS):
        saved = torch.load(run / WEIGHTS, map_location="cpu", weights_only=True)
        model.load_state_dict(saved["model"])
    where = device_of({"device": device})
    step = read_json(run / "result.json").get("step")
    return Trained(model.eval().to(where), trial.featurer(), where, step)


def forecast_of(found: Mapping[str, npt.NDArray[Any]], row: int) -> Forecast:
    """Return the forecast of one target, in its scene.

    Args:
        found: of many targets.
        row: which of them.
    """
    rows = slice(row, row + 1)
    paths = in_scene(found["paths"][rows], found["origin"][rows])[0]
    return Forecast(paths, found["probabilities"][row])


def save_forecasts(
    path: Path, found: Mapping[str, npt.NDArray[Any]], scenes: Sequence[Scene]
) -> None:
    """Write forecasts to a file of arrays, a row a target.

    It holds ``scene``, names; ``id``, of the agent in its scene; ``kind``; ``paths``, (n, futures,
    steps, 2), x and y in metres in the frame of the scene; ``probabilities``, (n, futures).

    Args:
        path: the file, .npz.
        found: forecasts of all scenes.
        scenes: in their order.
    """
    ids = [scene.ids[scene.targets] for scene in scenes]
    names = [np.full(len(scene.targets), scene.name) for scene in scenes]
    np.savez_compressed(
        path,
        scene=np.concatenate(names),
        id=np.concatenate(ids),
        kind=found["kind"],
        paths=in_scene(found["paths"], found["origin"]),
        probabilities=found["probabilities"],
    )


def save_submission(
    path: Path,
    found: Mapping[str, npt.NDArray[Any]],
    scenes: Sequence[Scene],
    trained: Trained,
    account: str,
    name: str,
) -> None:
    """Write forecasts as a submission to Waymo's challenge, packed as its server takes it.

    Args:
        path: the file, .tar.gz.
        found: forecasts of all scenes.
        scenes: in their order.
        trained: what made the forecasts.
        account: the e-mail address registered with Waymo.
        name: of the method, short, one of a kind.

    Raises:
        ValueError: the scenes are not Waymo's, of 10 Hz and 8 s to come, or one comes twice.
    """
    steps = found["paths"].shape[2]
    if steps != 16 * _EVERY or not all(alike(0.1, seconds_of(scene)) for scene in scenes):
        raise ValueError(
            f"out={path}: a submission is of 80 steps of 0.1 s; these forecasts are of {steps} of "
            f"{seconds_of(scenes[0]):g} s: write an .npz"
        )
    weights = sum(p.numel() for p in trained.model.parameters())
    unit, size = ("M", 1_000_000) if weights >= 1_000_000 else ("K", 1000)
    about = About(
        account,
        name,
        parameters=f"{max(1, round(weights / size))}{unit}",
        lidar=trained.model.lidar is not None,
    )
    paths = in_scene(found["paths"], found["origin"])[:, :, _EVERY - 1 :: _EVERY]
    ends = np.cumsum([len(scene.targets) for scene in scenes])[:-1]
    parts = (np.split(values, ends) for values in (paths, found["probabilities"]))
    content = encode_submission(about, zip(scenes, *parts, strict=True))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        told = tarfile.TarInfo("submission.binproto")
        told.size = len(content)
        tar.addfile(told, io.BytesIO(content))
    path.write_bytes(packed.getvalue())
