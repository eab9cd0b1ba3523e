"""``study.json``: which study a folder holds, and with which commands its trials were run."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from regrow.lab.files import read_json, write_json

__all__ = ["Order", "add_order", "command", "read_orders"]

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


def add_order(order: Order, out: Path) -> None:
    """Note in a folder what was asked for; several presets of one study may share a folder.

    Args:
        order: what was asked for.
        out: the folder, which is made if it is not there.

    Raises:
        ValueError: the folder holds another study, or a damaged ``study.json``.
    """
    out.mkdir(parents=True, exist_ok=True)
    with FileLock(out / f".{_FILE}.lock"):
        orders = read_orders(out) if (out / _FILE).exists() else []
        if other := next((o.study for o in orders if o.study != order.study), None):
            raise ValueError(f"out={out}: holds the study {other!r}; name another folder")
        if order not in orders:
            runs = [
                {"preset": o.preset, "data": o.data, "command": command(o)}
                for o in [*orders, order]
            ]
            write_json(out / _FILE, {"study": order.study, "runs": runs})


def read_orders(out: Path) -> list[Order]:
    """Read what was asked for in a folder.

    Raises:
        FileNotFoundError: no study was run there.
        ValueError: the file is damaged.
    """
    path = out / _FILE
    if not path.exists():
        raise FileNotFoundError(
            f"{path}: not there; name a folder that was --out of regrow study run"
        )
    content = read_json(path)
    try:
        return [Order(content["study"], run["preset"], run["data"]) for run in content["runs"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({error!r})") from error
