"""``regrow demo``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

__all__ = ["demo"]


def demo(
    out: Path = Path("demo-results"),
    seeds: int = 10,
    data: Literal["digits", "fashion-mnist", "cifar10"] = "digits",
    data_dir: Path | None = None,
    first_seed: int = 0,
    jobs: int = -1,
) -> None:
    """Train sparse networks beside dense ones, and write a report.

    A dense network, dense networks with as many parameters as the sparse ones, static sparse
    networks, SET and RigL at densities 0.1 and 0.05: about two minutes on two cores with the
    digits. The other data sets take longer and must be on this machine.

    Args:
        out: Folder for report.html and results.json.
        seeds: Repetitions of everything; verdicts need at least three.
        data: What to learn.
        data_dir: Folder that holds the data set's folder; else $REGROW_DATA and the user's cache.
        first_seed: The first seed. The same seeds give the same numbers.
        jobs: Networks trained side by side, one thread each; -1 is one a core.
    """
    from rich.console import Console  # noqa: PLC0415  (keeps --help fast)

    from regrow.studies.demo.run import run_demo  # noqa: PLC0415

    if seeds < 1:
        raise ValueError(f"seeds={seeds}: must be at least 1")
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    chosen = range(first_seed, first_seed + seeds)
    run = run_demo(data, chosen, str(data_dir) if data_dir else None, jobs, console)
    (out / "results.json").write_text(json.dumps(run.record(), indent=1) + "\n")
    (out / "report.html").write_text(run.page(), "utf-8")
    console.print(f"\nReport with figures: {out / 'report.html'}", soft_wrap=True)
