"""Other people's trackers of experiments, each told what one run logs: TensorBoard, W&B, MLflow."""

from __future__ import annotations

import json
import os
import re
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from regrow.lab.records import flat
from regrow.lab.trial import Trial
from regrow.machine import needed

__all__ = ["Ending", "MLflow", "TensorBoard", "Tracker", "WandB", "run_name", "step_of"]

Ending = Literal["finished", "failed", "stopped"]
"""How a run ended; it was stopped by whoever started it."""

_AXES = ("step", "epoch")  # what a line of metrics may be counted by
_PROJECT = "regrow"  # where the environment names none
_TAG = "regrow.identity"
_EXITS: Mapping[Ending, int] = {"finished": 0, "failed": 1, "stopped": 255}  # 255: "killed"
_STATES: Mapping[Ending, str] = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
_LONGEST = 6000  # characters of a parameter that MLflow takes
_AT_ONCE = 100  # parameters that it takes in one call
_SHORT = 8  # digits of an identity in a name


class Tracker(Protocol):
    """Is told what one run logs."""

    run: str
    """What names the run there; a tracker that is given it goes on in the same one."""

    def log(self, line: Mapping[str, Any], step: int, /) -> None:
        """Take in a line of metrics."""

    def end(self, result: Mapping[str, Any], how: Ending, /) -> None:
        """Take in the result, which is empty unless the run finished."""


def run_name(config: Mapping[str, Any], identity: str) -> str:
    """Return what to call a run: what is learnt, how, its seed, and the begin of its identity.

    Args:
        config: the content of its trial.
        identity: of the trial.

    Example:
        >>> config = {"trial": "Classify", "data": "digits", "model": "mlp-16", "seed": 1}
        >>> run_name(config | {"method": {"kind": "RigL", "density": 0.1}}, "0123456789abcdef")
        'digits-mlp-16-RigL-density=0.1-seed=1-01234567'
    """
    words = [
        str(config[key]) for key in ("task", "data", "model") if isinstance(config.get(key), str)
    ]
    method = config.get("method")
    if isinstance(method, str):
        words.append(method)
    elif isinstance(method, Mapping):
        words.append(str(method.get("kind")))
        words += [f"density={method['density']:g}"] if "density" in method else []
    words = [*(words or [str(config.get("trial", "run"))]), f"seed={config.get('seed')}"]
    return re.sub(r"[^\w.=+-]+", "_", "-".join([*words, identity[:_SHORT]]))


def step_of(line: Mapping[str, Any], number: int) -> int:
    """Return the step of a line of metrics: its step or epoch, else its number.

    Example:
        >>> step_of({"epoch": 3, "loss": 0.1}, 7), step_of({"loss": 0.1}, 7)
        (3, 7)
    """
    return int(next((line[key] for key in _AXES if key in line), number))


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in line.items()
        if isinstance(value, int | float) and name not in _AXES
    }


class TensorBoard:
    """Writes a run for TensorBoard.

    Args:
        config: the content of the trial.
        folder: of the run. One that was cut off goes on in it: what is there from the step on at
            which it goes on is hidden.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        with needed("tensorboard", "tensorboard"):
            import tensorboard  # noqa: F401, PLC0415
        self.run, self._config, self._folder = folder.name, config, folder
        self._writer: Any = None

    def _open(self, step: int) -> Any:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (an extra)

        if self._writer is None:
            went_on = self._folder.is_dir() and any(self._folder.iterdir())
            self._writer = SummaryWriter(str(self._folder), purge_step=step if went_on else None)
            if not went_on:
                text = json.dumps(dict(self._config), indent=1)
                self._writer.add_text("config", f"```\n{text}\n```", 0)
        return self._writer

    def log(self, line: Mapping[str, Any], step: int) -> None:
        """Write a scalar for each number of a line."""
        writer = self._open(step)
        for name, value in _numbers(line).items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def end(self, result: Mapping[str, Any], how: Ending) -> None:
        """Write the numbers of the result, and close the file."""
        for name, value in _numbers(flat(result)).items():
            self._open(0).add_scalar(f"result/{name}", value, 0)
        if self._writer is not None:
            self._writer.close()


class WandB:
    """Logs a run to Weights & Biases, or for ``wandb sync`` where ``WANDB_MODE`` is "offline".

    The project is ``$WANDB_PROJECT``, else "regrow". Steps of W&B are those of the run, so that
    what one part of it has told is not told by the next.

    Args:
        trial: which.
        out: where its own files go.
        before: the run to go on in, if it is of this project.

    Raises:
        ImportError: wandb is not installed.

    Source: wandb's Python library, ``wandb.init``, ``Run.log``, ``Run.define_metric``,
    ``Run.finish``.
    """

    def __init__(self, trial: Trial, out: Path, before: str | None = None) -> None:
        with needed("wandb", "wandb"):
            import wandb  # noqa: PLC0415
        project = os.environ.get("WANDB_PROJECT", _PROJECT)
        was, _, name = (before or "").rpartition("/")
        if was != project:  # a run of its own, though others may have made the same trial there
            name = f"{trial.identity[:_SHORT]}-{uuid.uuid4().hex[:_SHORT]}"
        self.run = f"{project}/{name}"
        out.mkdir(parents=True, exist_ok=True)
        # Its own process writes every 15 seconds, and loses the rest where both are killed.
        os.environ.setdefault("WANDB_X_TRANSACTION_LOG_FLUSH_INTERVAL", "1")
        self._run = wandb.init(
            project=project,
            name=run_name(trial.content, trial.identity),
            id=name,
            resume="allow",
            config=trial.content | {_TAG: trial.identity},
            dir=str(out),
        )
        self._known: set[str] = set()

    def log(self, line: Mapping[str, Any], step: int) -> None:
        """Log the numbers of a line, with its epoch or step as the axis."""
        axis = next((key for key in _AXES if key in line), None)
        numbers = _numbers(line)
        if axis is not None:
            for name in sorted(numbers.keys() - self._known):
                self._run.define_metric(name, step_metric=axis)
            self._known |= numbers.keys()
            numbers[axis] = line[axis]
        self._run.log(numbers, step=step)

    def end(self, result: Mapping[str, Any], how: Ending) -> None:
        """Put the result into the run's summary, and finish it."""
        self._run.summary.update({f"result/{n}": v for n, v in _numbers(flat(result)).items()})
        self._run.finish(exit_code=_EXITS[how])


class MLflow:
    """Logs a run to MLflow's tracking: ``$MLFLOW_TRACKING_URI``, else as MLflow has it.

    The experiment is ``$MLFLOW_EXPERIMENT_NAME``, else "regrow". A line is one call.

    Args:
        trial: which.
        before: the run to go on in, if it is there still.

    Raises:
        ImportError: mlflow is not installed.

    Source: ``mlflow.MlflowClient``, ``mlflow.entities``.
    """

    def __init__(self, trial: Trial, before: str | None = None) -> None:
        with needed("mlflow", "mlflow"):
            from mlflow import MlflowClient, entities  # noqa: PLC0415
        self._entities = entities
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        try:
            self._client = MlflowClient()
            experiment = self._client.get_experiment_by_name(name)
        except ModuleNotFoundError as error:
            raise ImportError(
                f"mlflow's client alone tells a server, and no database here ({error}): set "
                "MLFLOW_TRACKING_URI, or pip install mlflow"
            ) from error
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        if before is not None and self._is_there(before, place):
            self.run = before
            self._client.update_run(before, status="RUNNING")
            return
        name, tags = run_name(trial.content, trial.identity), {_TAG: trial.identity}
        self.run = self._client.create_run(place, run_name=name, tags=tags).info.run_id
        parameters = [
            entities.Param(key, str(value)[:_LONGEST]) for key, value in flat(trial.content).items()
        ]
        for first in range(0, len(parameters), _AT_ONCE):
            self._client.log_batch(self.run, params=parameters[first : first + _AT_ONCE])

    def _is_there(self, run: str, place: str) -> bool:
        """Whether a run is in an experiment still: not deleted, nor of another server."""
        found = self._client.search_runs([place], f"attributes.run_id = '{run}'")
        return bool(found)

    def _log(self, numbers: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        metrics = [self._entities.Metric(n, v, now, step) for n, v in numbers.items()]
        self._client.log_batch(self.run, metrics=metrics)

    def log(self, line: Mapping[str, Any], step: int) -> None:
        """Log the numbers of a line."""
        self._log(_numbers(line), step)

    def end(self, result: Mapping[str, Any], how: Ending) -> None:
        """Log the numbers of the result, and end the run."""
        if result:
            self._log({f"result/{n}": v for n, v in _numbers(flat(result)).items()}, 0)
        self._client.set_terminated(self.run, _STATES[how])
