"""``regrow train``."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regrow.cli.checks import check_threads
from regrow.cli.fields import takes_fields
from regrow.cli.trial import run_trial
from regrow.cli.values import read_value
from regrow.lab.files import make_folder
from regrow.machine import expanded
from regrow.spelling import did_you_mean

if TYPE_CHECKING:
    from regrow.engine.method import Method
    from regrow.studies.supervised.classify import Classify

__all__ = ["make_method", "train"]


_NO_OPTIONS = ("method", "nesterov", "milestones", "narrow", "digest")
_DEFAULTS: dict[str, Any] = {
    "data": "digits",
    "model": "mlp-300-100",
    "epochs": 30,
    "batch": 32,
    "schedule": "cosine",
    "seed": 0,
}


@takes_fields(
    "regrow.studies.supervised.classify:Classify", leave_out=_NO_OPTIONS, defaults=_DEFAULTS
)
def train(
    *,
    method: str = "RigL",
    density: float | None = None,
    option: tuple[str, ...] = (),
    regression: bool = False,
    data_dir: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    execution: Literal["masked", "csr", "block", "2:4", "auto"] = "masked",
    threads: int | None = None,
    log: tuple[Literal["tensorboard", "wandb", "mlflow"], ...] = (),
    out: Path = Path("train-results"),
    **fields: Any,
) -> None:
    """Train one network, sparse or dense, and test it once at the end.

    The same command goes on where it was cut off, and shows the result again once there is one.
    The folder takes any number of runs, as records that can be read and exported together. On
    several GPUs, or machines: torchrun --nproc-per-node N -m -- regrow train ...

    Args:
        method: How it is kept sparse: a name from "regrow methods", or how one begins.
        density: The share of weights kept; else 0.1, or as the method has it.
        option: More arguments of the method: update_every=50 "pattern=Block(32)" ...
        regression: Learn the numbers of --target, such as prices, by the squared error, of data of
            your own; R² and RMSE are reported. Else classes are learnt.
        data_dir: Folder that holds the data set's folder; else $REGROW_DATA and the user's cache.
        device: Where to train; "auto" takes a GPU if there is one.
        execution: How sparse layers are computed; all but "masked" store active weights only.
        threads: Of torch; else as torch has it.
        log: Tell other trackers, too: tensorboard (files in the folder "tensorboard" of --out),
            wandb (project $WANDB_PROJECT, else "regrow"), mlflow (experiment
            $MLFLOW_EXPERIMENT_NAME, else "regrow").
        out: Folder for the records of runs.
        **fields: Of the trial.
    """
    from regrow.studies.supervised.classify import Classify  # noqa: PLC0415
    from regrow.studies.supervised.regress import Regress  # noqa: PLC0415
    from regrow.studies.supervised.source import check_data  # noqa: PLC0415
    from regrow.vision.data import digest_of  # noqa: PLC0415
    from regrow.vision.models import check_model  # noqa: PLC0415

    check_threads(threads)
    fields = _DEFAULTS | fields
    check_model(fields["model"])
    path = _own_path(fields["data"])
    if path is None:
        check_data(fields["data"])
    else:
        fields |= {"data": path.name, "digest": digest_of(path)}
    if fields.get("momentum") == 0:
        fields["nesterov"] = False  # which is a kind of momentum
    kind = Regress if regression else Classify
    trial = kind(**fields, method=make_method(method, density, option))
    make_folder(out, "out")
    _say_if_untrained(trial)
    options = {
        "data_dir": str(data_dir) if data_dir else None,
        "device": device,
        "execution": execution,
        "keep_weights": True,
    }
    if path is not None:
        options["path"] = str(path)
    run_trial(
        trial, out, options, threads, ["r2", "rmse"] if regression else ["accuracy"], loggers=log
    )


def _own_path(data: str) -> Path | None:
    """Return the path that data of one's own are at; None: it is a name, or nothing is there."""
    from regrow.studies.supervised.source import known_data  # noqa: PLC0415

    path = expanded(data)
    if data in known_data() or not ("/" in data or os.sep in data or path.exists()):
        return None
    return Path(os.path.realpath(path))  # resolve() raises where links go in circles


def make_method(name: str, density: float | None, options: Sequence[str]) -> Method:
    """Make a method of words: its name, its density, further arguments as key=value.

    Raises:
        ValueError: there is none of this name, or an argument is wrong or missing.
    """
    from regrow.catalogue import find_method  # noqa: PLC0415

    kind = find_method(name)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    given = _once([*([] if density is None else [("density", density)]), *map(_argument, options)])
    if "density" in fields and fields["density"].default is dataclasses.MISSING:
        given.setdefault("density", 0.1)
    for key, value in given.items():
        if key not in fields:
            raise ValueError(
                f"{key}={value!r}: {kind.__name__} has no such argument; it has "
                f"{', '.join(sorted(fields))}{did_you_mean(key, fields)}"
            )
    missing = dataclasses.MISSING
    for key, field in fields.items():
        if key not in given and field.default is missing and field.default_factory is missing:
            raise ValueError(
                f"method={kind.__name__} needs {key}, which cannot be written here: train it from "
                "Python, by regrow.sparsify"
            )
    try:
        return kind(**given)
    except (TypeError, LookupError, ArithmeticError, AttributeError) as error:
        raise ValueError(f"method={kind.__name__}: {error}") from error  # other than can be meant


def _once(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Gather arguments; two values for one of them contradict each other, or are one too many."""
    given: dict[str, Any] = {}
    for key, value in pairs:
        if key in given:
            raise ValueError(f"{key} is given twice, as {given[key]!r} and {value!r}: give it once")
        given[key] = value
    return given


def _say_if_untrained(trial: Classify) -> None:
    """Say that a start which goes by magnitude finds nothing learnt in a fresh network."""
    from regrow.engine.saliency import LargestWeights  # noqa: PLC0415

    if isinstance(trial.method.start, LargestWeights):
        print(
            f"{trial.method.name} keeps the largest weights of a trained network, and this one is "
            "not trained: it keeps the largest of the random weights. GMP prunes while it trains; "
            "from Python, train first (docs/dense-to-sparse.md)",
            file=sys.stderr,
        )


def _argument(text: str) -> tuple[str, Any]:
    """Read key=value."""
    key, found, value = text.partition("=")
    if not found:
        raise ValueError(f"option {text!r}: must be KEY=VALUE, such as update_every=50")
    return key, read_value(value)
