"""``regrow demo``."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # slow to import
    from rich.console import Console

    from regrow.lab.attempt import Outcome
    from regrow.lab.design import Labels
    from regrow.lab.study_page import Found

__all__ = ["demo"]

_IN_TERMINAL = ("", "weights", "accuracy %", "CPU s", "MiB", "faster", "smaller")  # 80 columns


def demo(out: Path = Path("demo-results"), seeds: int = 5, first_seed: int = 5) -> None:
    """Train one wide network dense and sparse, and write a report.

    Digits hidden among pixels of others, which are made on this machine; the dense network, the
    sparse one, and its controls: about two minutes on two cores. What is finished in the folder is
    not trained again.

    Args:
        out: Folder for report.html and the records.
        seeds: Repetitions of everything; verdicts need at least three.
        first_seed: The first seed. The same seeds give the same networks; 0 to 4 were looked at
            while the demo was made.
    """
    from functools import partial  # noqa: PLC0415

    from rich.console import Console  # noqa: PLC0415  (keeps --help fast)

    from regrow.cli.checks import check_between  # noqa: PLC0415
    from regrow.lab.design import labels_by_identity  # noqa: PLC0415
    from regrow.lab.files import write_bytes  # noqa: PLC0415
    from regrow.lab.records import Records  # noqa: PLC0415
    from regrow.lab.study_file import Order  # noqa: PLC0415
    from regrow.lab.study_page import find, study_page  # noqa: PLC0415
    from regrow.lab.study_run import run_study  # noqa: PLC0415
    from regrow.studies.demo import demo_study  # noqa: PLC0415

    check_between("seeds", seeds, 1, 10_000)
    check_between("first_seed", first_seed, 0, 2**62)
    console = Console()
    study = demo_study(seeds, first_seed)
    console.print("[bold]regrow demo[/bold]: one wide network, trained dense and sparse\n")
    # Two at a time on any machine: more would wait for memory, the dense one most of all.
    ended = run_study(
        study,
        "quick",
        out,
        options={"device": "cpu"},
        jobs=2,
        console=console,
        tell=partial(_say_trial, console, out, labels_by_identity(study.trials("quick"))),
    )
    found = find((out,), lambda _: study)
    order = Order(study.name, "quick", None)
    asked = found.orders[order]  # other seeds may be in the folder, too
    records = Records(record for record in found.records if record.identity in asked)
    found = replace(found, records=records, orders={order: asked})
    print_results(found, console)
    write_bytes(out / "report.html", study_page(found).encode())
    page = out / "report.html"
    console.print(f"\nThe page, and ten systems to go on with: {page}", soft_wrap=True)
    for words in found.damaged:
        console.print(f"left out: {words}", soft_wrap=True, highlight=False, markup=False)
    if ended.failed or found.damaged:
        sys.exit(1)


def _say_trial(
    console: Console, out: Path, labels: Mapping[str, Sequence[Labels]], outcome: Outcome
) -> None:
    """Say what a training has found and taken, as soon as it has ended."""
    from regrow.lab.files import read_json  # noqa: PLC0415
    from regrow.lab.record_files import RESULT  # noqa: PLC0415
    from regrow.lab.records import TRIALS  # noqa: PLC0415

    if outcome.status != "finished":
        return
    found = read_json(out / TRIALS / outcome.trial.identity / RESULT)
    memory = f"{found['peak_bytes'] / 2**20:5.0f} MiB" if found["peak_bytes"] else ""
    (own,) = labels[outcome.trial.identity]
    who = f"{own['arm']:11} seed {outcome.trial.seed:<2} {found['weights']:>10,} weights"
    took = f"{found['accuracy']:6.1%} {found['cpu_seconds']:6.1f} s {memory}"
    console.print(f"{who} {took}", highlight=False, soft_wrap=True)


def print_results(found: Found, console: Console) -> None:
    """Print the table and the answer, in 80 columns."""
    from rich import box  # noqa: PLC0415
    from rich.table import Table  # noqa: PLC0415

    from regrow.studies.demo_page import demo_table  # noqa: PLC0415

    made = demo_table(found.view)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for i, heading in enumerate(_IN_TERMINAL):
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for row in made.rows:
        table.add_row(*row)
    console.print(table)
    console.print(found.answer, style="bold", highlight=False)
