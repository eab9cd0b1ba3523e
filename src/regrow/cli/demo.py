"""``regrow demo``."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:  # slow to import
    from rich.console import Console

    from regrow.lab.view import View

__all__ = ["demo"]

# Columns that 80 characters hold, under shorter names.
_IN_TERMINAL = {0: "", 1: "params", 2: "accuracy %", 3: "over static", 5: "FLOPs", 6: "bytes"}


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
    digits. The other data sets take longer and must be on this machine. What is finished in the
    folder is not trained again.

    Args:
        out: Folder for report.html and the records.
        seeds: Repetitions of everything; verdicts need at least three.
        data: What to learn.
        data_dir: Folder that holds the data set's folder; else $REGROW_DATA and the user's cache.
        first_seed: The first seed. The same seeds give the same numbers.
        jobs: Networks trained side by side, one thread each; -1 is one a core.
    """
    from rich.console import Console  # noqa: PLC0415  (keeps --help fast)

    from regrow.cli.checks import check_between, check_jobs  # noqa: PLC0415
    from regrow.lab.files import write_bytes  # noqa: PLC0415
    from regrow.lab.records import Records  # noqa: PLC0415
    from regrow.lab.study_file import Order  # noqa: PLC0415
    from regrow.lab.study_page import find, study_page  # noqa: PLC0415
    from regrow.lab.study_run import run_study  # noqa: PLC0415
    from regrow.studies.demo import demo_study  # noqa: PLC0415
    from regrow.vision.data import load_data  # noqa: PLC0415

    check_between("seeds", seeds, 1, 10_000)
    check_between("first_seed", first_seed, 0, 2**62)
    check_jobs(jobs)
    where = str(data_dir) if data_dir else None
    source = load_data(data, where, download=False).source  # fails before a process starts
    console = Console()
    console.print(f"[bold]regrow demo[/bold]: {source}, {seeds} seeds")
    study, options = demo_study(seeds, first_seed), {"data_dir": where, "device": "cpu"}
    ended = run_study(study, "quick", out, data=data, options=options, jobs=jobs, console=console)
    found = find((out,), lambda _: study)
    order = Order(study.name, "quick", data)
    asked = found.orders[order]  # other seeds and data may be in the folder, too
    records = Records(record for record in found.records if record.identity in asked)
    found = replace(found, records=records, orders={order: asked})
    print_results(found.view, console)
    write_bytes(out / "report.html", study_page(found).encode())
    console.print(f"\nReport with figures: {out / 'report.html'}", soft_wrap=True)
    for words in found.damaged:
        console.print(f"left out: {words}", soft_wrap=True, highlight=False, markup=False)
    if ended.failed or found.damaged:
        sys.exit(1)


def print_results(view: View, console: Console) -> None:
    """Print the table and what it shows, in 80 columns."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from regrow.studies.demo_page import demo_table, findings  # noqa: PLC0415

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, heading in _IN_TERMINAL.items():
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for row in demo_table(view).rows:
        table.add_row(*(row[i] for i in _IN_TERMINAL))
    console.print(table)
    console.print(
        "accuracy: mean ± 95 % interval over seeds; over static: paired difference in points; "
        "FLOPs of training and bytes of active weights, gradients and optimizer state: counted, as "
        "a fraction of the dense network's.\n",
        style="dim",
    )
    for sentence in findings(view):
        console.print(f"• {sentence}")
    console.print(
        "• Masked execution, as here, saves no time and no memory: FLOPs and bytes above are what "
        "active weights alone would take."
    )
