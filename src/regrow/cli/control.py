"""``regrow control train`` with a method of agents that learn from preferences."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from regrow.cli.checks import check_between, check_threads
from regrow.cli.fields import takes_fields

__all__ = ["control_train"]

_DEFAULTS: dict[str, Any] = {"seed": 0, "task": "cartpole-swingup"}


@takes_fields("regrow.studies.control.trial:LearnFromPreferences", leave_out=(), defaults=_DEFAULTS)
def control_train(
    *,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    workers: int = 1,
    people: Path | None = None,
    out: Path = Path("control-results"),
    **fields: Any,
) -> None:
    """Train agents on a task from a simulated teacher's preferences, among noise features.

    Prints a line after every feedback: the training return, how well the learned reward follows
    the true one, how many real and noise features the critics read, and by how many connections
    each. The same command goes on where it was cut off. Tasks but point-mass need
    pip install '.[control]' in a checkout of regrow.

    Args:
        device: Where networks learn; "auto" takes a GPU if there is one.
        threads: Of torch; else as torch has it.
        workers: Threads, or processes, that step environments.
        people: File of questions and answers, for --teacher people; regrow preferences serve FILE
            shows them, and training waits for the answers.
        out: Folder for the records of runs.
        **fields: Of the trial.
    """
    from regrow.cli.trial import run_trial  # noqa: PLC0415
    from regrow.control.environments import make  # noqa: PLC0415
    from regrow.lab.files import make_folder  # noqa: PLC0415
    from regrow.studies.control.page import write_page  # noqa: PLC0415
    from regrow.studies.control.trial import REWARDS, LearnFromPreferences  # noqa: PLC0415

    check_threads(threads)
    check_between("workers", workers, 1, 256)
    trial = LearnFromPreferences(**(_DEFAULTS | fields))
    make(
        trial.task, [trial.seed], repeat=trial.repeat, engine=trial.engine
    )  # what is missing is told before a run
    if trial.teacher == "people" and people is None:
        raise ValueError("--teacher people needs a file of questions and answers: --people FILE")
    make_folder(out, "out")
    options: dict[str, Any] = {"device": device, "threads": workers, "keep_weights": True}
    if people is not None:
        options["people"] = str(people.resolve())
    folder = run_trial(trial, out, options, threads, [], _line(trial.steps), _table)
    if (folder / REWARDS).is_file():  # else the record is a study's
        print(f"{'page':16} {write_page(folder)}")


def _line(steps: int) -> Any:
    def line(values: Mapping[str, Any]) -> str:
        words = [f"step {values['step']:{len(str(steps))}} of {steps}"]
        for name, form in _SHOWN.items():
            if name in values:
                words.append(f"{name.replace('_', ' ')} {values[name]:{form}}")
        return ", ".join(words)

    return line


_SHOWN = {
    "return": ".1f",
    "reward_accuracy": ".2f",
    "reward_correlation": ".2f",
    "real_features": ".1f",
    "noise_features": ".1f",
    "real_connections": ".1f",
    "noise_connections": ".1f",
}


def _table(result: Mapping[str, Any], folder: Path) -> str:
    from regrow.studies.control.trial import FILM  # noqa: PLC0415

    def listed(name: str) -> str:
        return " ".join("none" if v is None else f"{v:.4g}" for v in result[name])

    rows = {
        "return": f"{result['return']:.1f} on average of {len(result['returns'])} runs",
        "by run": listed("returns"),
        "in training": listed("late_returns"),
        "learned reward": f"{listed('reward_correlations')} correlation with the true one",
        "features read": f"{listed('real_features')} real, {listed('noise_features')} noise",
        "comparisons": listed("comparisons"),
        "film": str(folder / FILM) if (folder / FILM).is_file() else "none: there is no drawing",
        "record": str(folder),
    }
    return "\n".join(f"{name:16} {words}" for name, words in rows.items())
