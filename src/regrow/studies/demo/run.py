"""Runs the demo: all networks side by side, then timing, then what a reader sees."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from joblib import Parallel, delayed
from rich import box
from rich.console import Console
from rich.table import Table as RichTable

from regrow.lab.environment import environment
from regrow.lab.progress import follow
from regrow.studies.demo.page import demo_page
from regrow.studies.demo.trial import (
    CELLS,
    Cell,
    Hyperparameters,
    TrialResult,
    run_trial,
    step_ratios,
)
from regrow.studies.demo.words import demo_table, findings
from regrow.vision.data import load_data

__all__ = ["DemoRun", "run_demo"]

# Columns that 80 characters hold, under shorter names.
_IN_TERMINAL = {0: "", 1: "params", 2: "accuracy %", 3: "over static", 5: "FLOPs", 6: "bytes"}
_TIMED = tuple(cell for cell in CELLS if cell.density in (1.0, 0.1))


@dataclass(frozen=True)
class DemoRun:
    """What a run of the demo found.

    Args:
        command: how to run it again.
        source: what the data are.
        results: by cell, one result a seed.
        ratios: by cell, seconds a step over the dense network's, one a round.
    """

    command: str
    source: str
    results: Mapping[Cell, Sequence[TrialResult]]
    ratios: Mapping[str, Sequence[float]]

    def record(self) -> dict[str, Any]:
        """Return everything as plain data; all but environment and timing repeats exactly."""
        return {
            "command": self.command,
            "data": self.source,
            "trials": [asdict(result) for found in self.results.values() for result in found],
            "timing": {"environment": environment(), "step_ratios": self.ratios},
        }

    def page(self) -> str:
        """Return the HTML report."""
        where = ", ".join(f"{name} {value}" for name, value in environment().items())
        footer = f"Made by “{self.command}”. {where}."
        return demo_page(self.results, self.ratios, self.source, footer)


def run_demo(
    data: str,
    seeds: Sequence[int],
    data_dir: str | None = None,
    jobs: int = -1,
    console: Console | None = None,
    chosen: Hyperparameters | None = None,
) -> DemoRun:
    """Train every network of the demo, time their steps, and print what was found.

    Args:
        data: a data set's name.
        seeds: repetitions.
        data_dir: where the data lies, if not in the usual places.
        jobs: networks trained side by side; -1 is one a core.
        console: where to print.
        chosen: how to train; None is the data set's own.
    """
    console = console or Console()
    source = load_data(data, data_dir, download=False).source  # fails before a process starts
    console.print(f"[bold]regrow demo[/bold]: {source}, {len(seeds)} seeds")
    wanted = [(cell, seed) for seed in seeds for cell in CELLS]
    jobs = min(jobs if jobs > 0 else os.cpu_count() or 1, len(wanted))
    train = delayed(run_trial)
    finished = Parallel(n_jobs=jobs, return_as="generator_unordered")(
        train(data, cell, seed, data_dir, chosen) for cell, seed in wanted
    )
    found = {}
    with follow("training", len(wanted), console) as tell:
        for result in finished:
            found[result.cell, result.seed] = result
            tell(_in_words(result))
    results = {cell: [found[cell, seed] for seed in seeds] for cell in CELLS}
    console.print("timing steps of all methods in turn …")
    ratios = step_ratios(data, _TIMED, data_dir, chosen)
    run = DemoRun(_command(data, seeds, data_dir), source, results, ratios)
    _print_results(run, console)
    return run


def _in_words(result: TrialResult) -> str:
    return f"{result.cell}, seed {result.seed}: {100 * result.accuracy:.1f} %"


def _command(data: str, seeds: Sequence[int], data_dir: str | None) -> str:
    command = f"regrow demo --data {data} --seeds {len(seeds)} --first-seed {seeds[0]}"
    return command if data_dir is None else f"{command} --data-dir DIR"


def _print_results(run: DemoRun, console: Console) -> None:
    content = demo_table(run.results)
    table = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for i, heading in _IN_TERMINAL.items():
        table.add_column(heading, justify="right" if i else "left", no_wrap=True)
    for row in content.rows:
        table.add_row(*(row[i] for i in _IN_TERMINAL))
    console.print(table)
    console.print(
        f"accuracy: mean ± 95 % interval over {len(run.results[CELLS[0]])} seeds; over static: "
        "paired difference in points; FLOPs of training and bytes of active weights, gradients and "
        "optimizer state: counted, as a fraction of the dense network's.\n",
        style="dim",
    )
    for sentence in findings(run.results):
        console.print(f"• {sentence}")
    console.print(
        "• Masked execution, as here, saves no time and no memory: FLOPs and bytes above are what "
        "active weights alone would take."
    )
