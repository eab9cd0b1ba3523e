"""Tells other people's trackers of experiments what a run logs: TensorBoard, W&B, MLflow."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from regrow.lab.records import flat
from regrow.lab.trial import Trial
from regrow.machine import needed

__all__ = [
    "LOGGERS",
    "Logger",
    "MLflow",
    "TensorBoard",
    "Told",
    "WandB",
    "open_loggers",
    "run_name",
]

logger = logging.getLogger(__name__)

_FOLDER = "tensorboard"  # in the folder of the records
_PROJECT = "regrow"  # where the environment names none
_STEPS = ("step", "epoch")
_TAG = "regrow.identity"
_LONGEST = 500  # characters of a parameter that every version of MLflow takes
_SHORT = 8  # digits of an identity in a name


class Logger(Protocol):
    """Is told what one run logs."""

    def log(self, line: Mapping[str, Any], /) -> None:
        """Take in a line of metrics."""

    def end(self, result: Mapping[str, Any] | None, /) -> None:
        """Take in the result; None: there is none, for the run failed or was cut off."""


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


def _step(line: Mapping[str, Any], number: int) -> int:
    return int(next((line[key] for key in _STEPS if key in line), number))


def _numbers(line: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in line.items()
        if isinstance(value, int | float) and name not in _STEPS
    }


class TensorBoard:
    """Writes a run for TensorBoard.

    Args:
        config: the content of the trial.
        folder: of the run. One that was cut off goes on in it: what was logged after the point at
            which it goes on is hidden.

    Raises:
        ImportError: TensorBoard is not installed.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path) -> None:
        with needed("tensorboard", "tensorboard"):
            import tensorboard  # noqa: F401, PLC0415
        self._config, self._folder, self._lines = config, folder, 0
        self._writer: Any = None

    def _open(self, step: int) -> Any:
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415  (an extra)

        if self._writer is None:
            went_on = self._folder.is_dir() and any(self._folder.iterdir())
            self._writer = SummaryWriter(str(self._folder), purge_step=step if went_on else None)
            text = json.dumps(dict(self._config), indent=1)
            self._writer.add_text("config", f"```\n{text}\n```", 0)
        return self._writer

    def log(self, line: Mapping[str, Any]) -> None:
        """Write a scalar for each number of a line."""
        self._lines += 1
        step = _step(line, self._lines)
        writer = self._open(step)
        for name, value in _numbers(line).items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def end(self, result: Mapping[str, Any] | None) -> None:
        """Write the numbers of the result, and close the file."""
        if result is not None:
            for name, value in _numbers(flat(result)).items():
                self._open(0).add_scalar(f"result/{name}", value, 0)
        if self._writer is not None:
            self._writer.close()


class WandB:
    """Logs a run to Weights & Biases, or for ``wandb sync`` where ``WANDB_MODE`` is "offline".

    The project is ``$WANDB_PROJECT``, else "regrow"; a run that was cut off goes on in its own.

    Args:
        trial: which.
        out: where its own files go.

    Raises:
        ImportError: wandb is not installed.

    Source: wandb's Python library, ``wandb.init``, ``Run.log``, ``Run.define_metric``.
    """

    def __init__(self, trial: Trial, out: Path) -> None:
        with needed("wandb", "wandb"):
            import wandb  # noqa: PLC0415
        out.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=run_name(trial.content, trial.identity),
            id=trial.identity,
            resume="allow",
            config=trial.content,
            dir=str(out),
        )
        self._known: set[str] = set()

    def log(self, line: Mapping[str, Any]) -> None:
        """Log the numbers of a line, with its epoch or step as the axis."""
        axis = next((key for key in _STEPS if key in line), None)
        numbers = _numbers(line)
        if axis is not None:
            for name in sorted(numbers.keys() - self._known):
                self._run.define_metric(name, step_metric=axis)
            self._known |= numbers.keys()
            numbers[axis] = line[axis]
        self._run.log(numbers)

    def end(self, result: Mapping[str, Any] | None) -> None:
        """Put the result into the run's summary, and finish it."""
        if result is not None:
            self._run.summary.update({f"result/{n}": v for n, v in _numbers(flat(result)).items()})
        self._run.finish(exit_code=0 if result is not None else 1)


class MLflow:
    """Logs a run to MLflow's tracking: ``$MLFLOW_TRACKING_URI``, else as MLflow has it.

    The experiment is ``$MLFLOW_EXPERIMENT_NAME``, else "regrow"; a run that was cut off goes on.

    Args:
        trial: which.

    Raises:
        ImportError: mlflow is not installed.

    Source: ``mlflow.MlflowClient``.
    """

    def __init__(self, trial: Trial) -> None:
        with needed("mlflow", "mlflow"):
            from mlflow import MlflowClient  # noqa: PLC0415
        self._client = MlflowClient()
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        place = experiment.experiment_id if experiment else self._client.create_experiment(name)
        there = self._client.search_runs([place], f"tags.`{_TAG}` = '{trial.identity}'")
        if there:
            self._run = there[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
        else:
            tags = {_TAG: trial.identity}
            name = run_name(trial.content, trial.identity)
            self._run = self._client.create_run(place, run_name=name, tags=tags).info.run_id
            for key, value in flat(trial.content).items():
                self._client.log_param(self._run, key, str(value)[:_LONGEST])
        self._lines = 0

    def log(self, line: Mapping[str, Any]) -> None:
        """Log the numbers of a line."""
        self._lines += 1
        for name, value in _numbers(line).items():
            self._client.log_metric(self._run, name, value, step=_step(line, self._lines))

    def end(self, result: Mapping[str, Any] | None) -> None:
        """Log the numbers of the result, and end the run."""
        for name, value in _numbers(flat(result or {})).items():
            self._client.log_metric(self._run, f"result/{name}", value)
        self._client.set_terminated(self._run, "FAILED" if result is None else "FINISHED")


LOGGERS: Mapping[str, Callable[[Trial, Path], Logger]] = {
    "tensorboard": lambda trial, out: TensorBoard(
        trial.content, out / _FOLDER / run_name(trial.content, trial.identity)
    ),
    "wandb": WandB,
    "mlflow": lambda trial, _: MLflow(trial),
}
"""Makes each, of a trial and the folder for records."""


class Told:
    """Tells several loggers; one that fails is left out from then on, and training goes on.

    Args:
        loggers: by name; more may come.
    """

    def __init__(self, loggers: dict[str, Logger]) -> None:
        self._loggers = loggers
        self.result: Mapping[str, Any] | None = None

    def log(self, line: Mapping[str, Any]) -> None:
        """Tell all of a line of metrics."""
        self._each(lambda one: one.log(line))

    def end(self) -> None:
        """Tell all that the run has ended, with the result if there is one."""
        self._each(lambda one: one.end(self.result))

    def _each(self, tell: Callable[[Logger], None]) -> None:
        for name, one in [*self._loggers.items()]:
            try:
                tell(one)
            except Exception as error:
                del self._loggers[name]
                logger.warning("%s is told no more of this run: %s", name, error)


@contextmanager
def open_loggers(names: Sequence[str], trial: Trial, out: Path) -> Iterator[Told]:
    """Open loggers for a run; they are closed when the block ends, however it does.

    Args:
        names: of :data:`LOGGERS`.
        trial: which.
        out: the folder for records.

    Yields:
        What is told of lines of metrics, and whose ``result`` is told in the end.

    Raises:
        ValueError: a logger cannot be opened; the message says which and why.
        ImportError: its package is not installed.
    """
    opened: dict[str, Logger] = {}
    told = Told(opened)
    try:
        for name in dict.fromkeys(names):
            try:
                opened[name] = LOGGERS[name](trial, out)
            except ImportError:
                raise
            except Exception as error:  # of many kinds, such as a missing key
                raise ValueError(f"log={name}: {error}") from error
        yield told
    finally:
        told.end()
