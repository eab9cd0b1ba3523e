"""Tells trackers of experiments what a run logs; none of them stands in its way."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from regrow.lab.files import Damaged, read_json, read_lines, write_json
from regrow.lab.records import RUNNING
from regrow.lab.run import METRICS, TOLD
from regrow.lab.trackers import (
    Ending,
    MLflow,
    TensorBoard,
    Tracker,
    WandB,
    run_name,
    step_of,
)
from regrow.lab.trial import Trial
from regrow.machine import needed

__all__ = ["LOGGERS", "Told", "open_loggers"]

logger = logging.getLogger(__name__)

_FOLDER = "tensorboard"  # in the folder of the records

LOGGERS: Mapping[str, Callable[[Trial, Path, str | None], Tracker]] = {
    "tensorboard": lambda trial, out, _: TensorBoard(
        trial.content, out / _FOLDER / run_name(trial.content, trial.identity)
    ),
    "wandb": WandB,
    "mlflow": lambda trial, _, before: MLflow(trial, before),
}
"""Makes each, of a trial, the folder for records, and the run there to go on in, if any."""


class Told:
    """Tells several loggers; one that fails is left out from then on, and training goes on.

    Which run each has, and up to which step it was told, is kept beside the run's checkpoint: one
    that was cut off goes on in the same, and tells no step twice.

    Args:
        names: of :data:`LOGGERS`.
        trial: which.
        out: the folder for records.
    """

    def __init__(self, names: Sequence[str], trial: Trial, out: Path) -> None:
        self._names, self._trial, self._out = names, trial, out
        self._folder = out / RUNNING / trial.identity
        self._loggers: dict[str, Tracker] = {}
        self._state: dict[str, Any] = {}
        self._lines = 0
        self.result: Mapping[str, Any] | None = None

    def open(self) -> None:
        """Open the loggers, once the run is sure to begin; tell what it logged before.

        Raises:
            ValueError: a logger cannot be opened; the message says which and why.
            ImportError: its package is not installed.
        """
        for name in self._names:
            known = self._known().get(name, {})
            try:
                opened = LOGGERS[name](self._trial, self._out, known.get("run"))
            except ImportError:
                raise
            except Exception as error:  # of many kinds, such as a missing key
                raise ValueError(f"log={name}: {error}") from error
            self._loggers[name] = opened
            step = known["step"] if known.get("run") == opened.run else 0
            self._state[name] = {"run": opened.run, "step": step}
        if self._names and (self._folder / METRICS).exists():
            for line in read_lines(self._folder / METRICS):
                self.log(line)

    def _known(self) -> dict[str, Any]:
        try:
            found = read_json(self._folder / TOLD)
        except Damaged:
            return {}
        right = {"run": str, "step": int}
        return {
            name: one
            for name, one in found.items()
            if isinstance(one, dict) and all(isinstance(one.get(k), t) for k, t in right.items())
        }

    def log(self, line: Mapping[str, Any]) -> None:
        """Tell all of a line of metrics, whom it was not told before."""
        self._lines += 1
        step = step_of(line, self._lines)

        def tell(name: str, one: Tracker) -> None:
            if step > self._state[name]["step"]:
                one.log(line, step)
                self._state[name]["step"] = step

        self._each(tell)
        if self._state:
            write_json(self._folder / TOLD, self._state)

    def end(self, how: Ending) -> None:
        """Tell all how the run has ended, with the result if there is one."""
        self._each(lambda _, one: one.end(self.result or {}, how))

    def _each(self, tell: Callable[[str, Tracker], None]) -> None:
        for name, one in [*self._loggers.items()]:
            try:
                tell(name, one)
            except Exception as error:
                del self._loggers[name]
                logger.warning("%s is told no more of this run: %s", name, error)


@contextmanager
def open_loggers(names: Sequence[str], trial: Trial, out: Path) -> Iterator[Told]:
    """Make loggers ready for a run; they are closed when the block ends, however it does.

    Args:
        names: of :data:`LOGGERS`.
        trial: which.
        out: the folder for records.

    Yields:
        What is opened when the run begins, told of lines of metrics, and whose ``result`` is told
        in the end.

    Raises:
        ImportError: a package is not installed.
    """
    names = [*dict.fromkeys(names)]
    for name in names:
        with needed(name, name):
            __import__(name)
    told = Told(names, trial, out)
    how: Ending = "failed"
    try:
        yield told
    except KeyboardInterrupt:
        how = "stopped"
        raise
    finally:
        told.end("finished" if told.result is not None else how)
