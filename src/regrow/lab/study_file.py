"""``study.json``: which study a folder holds, and with which commands its trials were run."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from regrow.lab.files import Damaged, make_folder, read_json, write_json

__all__ = ["Order", "add_order", "command", "is_study", "leave_out", "left_out", "read_orders"]

_FILE = "study.json"


@dataclass(frozen=True)
class Order:
    """What was asked for.

    Args:
        study: its name.
        preset: its name.
        data: a data set's name; None is the preset's own choice.
    """

    study: str
    preset: str
    data: str | None = None


def command(order: Order, only: str | None = None) -> str:
    """Return what to type to run it again, with DIR for a folder.

    Args:
        order: what was asked for.
        only: the identity of a trial; None is all.

    Example:
        >>> command(Order("pruning-criteria", "quick", "digits"))
        'regrow study run pruning-criteria --preset quick --data digits --out DIR'
    """
    said = ["regrow", "study", "run", order.study, "--preset", order.preset]
    for option, value in (("--data", order.data), ("--only", only), ("--out", "DIR")):
        said += [option, value] if value else []
    return shlex.join(said)


def is_study(out: Path) -> bool:
    """Whether a folder says which study it holds; runs by themselves belong to none.

    Example:
        >>> is_study(Path("not there"))
        False
    """
    return os.path.lexists(out / _FILE)


def add_order(order: Order, out: Path) -> None:
    """Note in a folder what was asked for; several presets of one study may share a folder.

    Args:
        order: what was asked for.
        out: the folder, which is made if it is not there.

    Raises:
        ValueError: the folder holds another study, or a damaged ``study.json``.
    """
    make_folder(out, "out")
    with FileLock(out / f".{_FILE}.lock"):
        orders = read_orders(out) if os.path.lexists(out / _FILE) else []
        if other := next((o.study for o in orders if o.study != order.study), None):
            raise ValueError(f"out={out}: holds the study {other!r}; name another folder")
        if order not in orders:
            runs = [
                {"preset": o.preset, "data": o.data, "command": command(o)}
                for o in [*orders, order]
            ]
            # What was left out of other trials says nothing of those that are asked for now.
            write_json(out / _FILE, {"study": order.study, "runs": runs})


def leave_out(why: str, out: Path) -> None:
    """Note that trials which were asked for will not run, and why; claims are judged without them.

    Until more is asked for in the folder.

    Args:
        why: a sentence for the report; it must not hang on what the records say.
        out: the folder.

    Raises:
        FileNotFoundError: no study was run there.
        ValueError: no reason is given.
    """
    if not why.strip():
        raise ValueError("left_out='': say why trials are left out")
    read_orders(out)
    with FileLock(out / f".{_FILE}.lock"):
        content = read_json(out / _FILE, _flaw)
        if content.get("left_out") != why:
            write_json(out / _FILE, content | {"left_out": why})


def left_out(out: Path) -> str:
    """Return why trials of a folder will not run; empty if nobody has said that they will not."""
    return str(read_json(out / _FILE, _flaw).get("left_out", ""))


def read_orders(out: Path) -> list[Order]:
    """Read what was asked for in a folder.

    Raises:
        FileNotFoundError: no study was run there.
        Damaged: the file is.
    """
    path = out / _FILE
    if not os.path.lexists(path):
        raise FileNotFoundError(
            f"{path}: not there; name a folder that was --out of regrow study run"
        )
    try:
        content = read_json(path, _flaw)
    except Damaged as error:
        raise Damaged(f"{error}; remove it and run the study again, which keeps records") from error
    return [Order(content["study"], run["preset"], run["data"]) for run in content["runs"]]


def _flaw(content: Mapping[str, Any]) -> str:
    """Say what is wrong with the content of a study's file; empty if nothing is."""
    runs = content.get("runs")
    if not isinstance(content.get("study"), str):
        return "no name of a study"
    if not isinstance(content.get("left_out", ""), str):
        return "left_out is no text"
    if not isinstance(runs, list) or not runs or not all(isinstance(run, dict) for run in runs):
        return "no list of runs"
    for run in runs:
        if not isinstance(run.get("preset"), str) or not isinstance(run.get("data", 0), str | None):
            return "a run without its preset and data"
    return ""
