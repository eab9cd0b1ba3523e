"""``regrow train``."""

from __future__ import annotations

import dataclasses
import functools
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regrow.cli.checks import check_threads
from regrow.cli.fields import takes_fields
from regrow.cli.values import read_value
from regrow.lab.files import make_folder
from regrow.machine import expanded

if TYPE_CHECKING:
    from regrow.engine.method import Method
    from regrow.studies.vision.classify import Classify

__all__ = ["make_method", "run_trial", "train"]


_NO_OPTIONS = ("method", "nesterov", "milestones", "narrow", "digest")
_DEFAULTS: dict[str, Any] = {
    "data": "digits",
    "model": "mlp-300-100",
    "epochs": 30,
    "batch": 32,
    "schedule": "cosine",
    "seed": 0,
}


@takes_fields("regrow.studies.vision.classify:Classify", leave_out=_NO_OPTIONS, defaults=_DEFAULTS)
def train(
    *,
    method: str = "RigL",
    density: float | None = None,
    option: tuple[str, ...] = (),
    data_dir: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    execution: Literal["masked", "csr", "block", "auto"] = "masked",
    threads: int | None = None,
    out: Path = Path("train-results"),
    **fields: Any,
) -> None:
    """Train one network, sparse or dense, and test it once at the end.

    The same command goes on where it was cut off, and shows the result again once there is one.
    The folder takes any number of runs, as records that can be read and exported together. On
    several GPUs, or machines: torchrun --nproc-per-node N -m regrow train ...

    Args:
        method: How it is kept sparse: a name from "regrow methods", or how one begins.
        density: The share of weights kept; else 0.1, or as the method has it.
        option: More arguments of the method: update_every=50 "pattern=Block(32)" ...
        data_dir: Folder that holds the data set's folder; else $REGROW_DATA and the user's cache.
        device: Where to train; "auto" takes a GPU if there is one.
        execution: How sparse layers are computed; all but "masked" store active weights only.
        threads: Of torch; else as torch has it.
        out: Folder for the records of runs.
        **fields: Of the trial.
    """
    from regrow.studies.vision.classify import Classify  # noqa: PLC0415
    from regrow.studies.vision.source import check_data  # noqa: PLC0415
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
    trial = Classify(**fields, method=make_method(method, density, option))
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
    run_trial(trial, out, options, threads, ["accuracy"])


def _own_path(data: str) -> Path | None:
    """Return the path that data of one's own are at; None: it is a name, or nothing is there."""
    from regrow.studies.vision.source import known_data  # noqa: PLC0415

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
                f"{', '.join(sorted(fields))}"
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


def run_trial(
    trial: Any,
    out: Path,
    options: Mapping[str, Any],
    threads: int | None,
    tested: Sequence[str],
    line: Callable[[Mapping[str, Any]], str] | None = None,
    table: Callable[[Mapping[str, Any], Path], str] | None = None,
) -> Path:
    """Run a trial that trains in this process; print progress and the result.

    Args:
        trial: a setting of training, too.
        out: folder for the records of runs.
        options: of the run.
        threads: of torch; None: as torch has it.
        tested: names of what the test found that are shown.
        line: writes a line of metrics; None: as that of an epoch.
        table: writes the result, which is in a folder; None: as that of a network.

    Returns:
        The folder of its record.
    """
    import torch  # noqa: PLC0415
    from rich.console import Console  # noqa: PLC0415

    from regrow.lab.attempt import attempt, is_finished, shares, words  # noqa: PLC0415
    from regrow.lab.failures import failure_file, headline  # noqa: PLC0415
    from regrow.lab.progress import follow  # noqa: PLC0415
    from regrow.lab.records import Records  # noqa: PLC0415
    from regrow.training.words import epoch_words, result_words  # noqa: PLC0415

    console = Console()
    say = functools.partial(console.print, soft_wrap=True, highlight=False, markup=False)
    say(str(trial))
    if is_finished(trial, out):
        say("it was finished before:")
    else:
        look = functools.partial(shares, [trial], out, time.time())
        told = functools.partial(words, trial, out)
        with echo_log(say), follow("training", 1, console, shares=look, words=told):
            write = line or (lambda values: epoch_words(values, trial.epochs))
            show = lambda values: say(write(values))  # noqa: E731
            outcome = attempt(trial, out, options, threads or torch.get_num_threads(), show)
        if outcome.status == "busy":
            sys.exit("regrow: another process is at this very run: wait for it")
        if outcome.status == "failed":
            kept = failure_file(trial, out)
            sys.exit(f"regrow: {headline(outcome.error)}; traceback in {kept}")
    damaged: list[str] = []
    found = [r for r in Records.read(out, damaged=damaged.append) if r.identity == trial.identity]
    if not found:
        raise ValueError("; ".join(damaged))
    result, folder = found[0].result, found[0].folder
    say(table(result, folder) if table else result_words(result, folder, tested))
    return found[0].folder


@contextmanager
def echo_log(say: Callable[[str], None]) -> Iterator[None]:
    """Also print log messages of training."""
    handler, logger = logging.Handler(logging.INFO), logging.getLogger("regrow.training")
    handler.emit = lambda record: say(record.getMessage())  # type: ignore[method-assign]
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
