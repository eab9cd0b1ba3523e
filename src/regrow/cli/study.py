"""``regrow study`` and ``regrow report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Literal

from regrow.cli.checks import check_jobs
from regrow.cli.listed import kept_list, study_text

__all__ = ["report", "study_list", "study_run"]


def study_list() -> None:
    """List the studies, with the presets of each and what they take."""
    from regrow.studies.registry import STUDIES, load_study  # noqa: PLC0415

    kept = kept_list().studies
    for name in sorted(STUDIES):  # one that was added since the list was written is imported
        print(kept[name] if name in kept else study_text(load_study(name)))


def study_run(
    name: str,
    /,
    preset: Literal["smoke", "quick", "paper"] = "quick",
    data: str | None = None,
    data_dir: Path | None = None,
    executor: Literal["inline", "local", "ray"] = "local",
    jobs: int = -1,
    out: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    only: str | None = None,
) -> None:
    """Run a study and write its report.

    Trials that are finished are skipped and those that were cut off go on, so the same command
    after an interruption, or beside this one, loses nothing. A trial that fails is recorded with
    its traceback, a file that is damaged is named, the others go on, and the exit status is 1.
    Under torchrun trials run one after another, each on all ranks.

    Args:
        name: A study's name, from "regrow study list".
        preset: Its size: seconds, minutes, or as in the paper.
        data: What to learn; else the preset's own choice.
        data_dir: Folder that holds the data set's folder; else $REGROW_DATA and the user's cache.
        executor: One after another in this process, in local processes, or on a Ray cluster.
        jobs: Trials side by side, one thread each; -1 is one a core.
        out: Folder for records and report.html; else study-results/NAME-PRESET. Presets of one
            study may share a folder.
        device: Where to train; "auto" takes a GPU if there is one.
        only: Run the one trial whose identity begins so; the report lists them.
    """
    from rich.console import Console  # noqa: PLC0415  (keeps --help fast)

    from regrow.lab.ranks import ranks_at_hand  # noqa: PLC0415
    from regrow.lab.study_run import run_study  # noqa: PLC0415
    from regrow.studies.registry import load_study  # noqa: PLC0415

    check_jobs(jobs)
    study = load_study(name)
    console = Console()
    folder = out or Path("study-results") / f"{name}-{preset}"
    found = run_study(
        study,
        preset,
        folder,
        data=data,
        only=only,
        options={"data_dir": str(data_dir) if data_dir else None, "device": device},
        executor=executor if ranks_at_hand() == 1 else "inline",
        jobs=jobs,
        console=console,
    )
    report((folder,))  # exits if something is damaged
    if found.failed:
        sys.exit(1)


def report(
    folders: tuple[Path, ...],
    /,
    page: Path | None = None,
    csv: Path | None = None,
    parquet: Path | None = None,
    tensorboard: Path | None = None,
    pack: Path | None = None,
    left_out: str | None = None,
) -> None:
    """Judge a study's claims by its records and make its page again; or make a page of runs.

    Runs of "regrow train" and the other training commands belong to no study: their page holds a
    table of settings, the best first, and curves. A file that is damaged is named and left out, and
    the exit status is 1.

    Args:
        folders: Where the study was run, or networks were trained; the records of several add up.
        page: Where the page goes; else report.html in the first folder.
        csv: Write the records to this CSV file, a row a trial.
        parquet: Write them to this Parquet file.
        tensorboard: Write what trials logged to this folder, a run a trial.
        pack: Write everything to this folder in two files, of which "regrow report" can make the
            page again: for keeping and passing on.
        left_out: Why trials that have not run will not run, a sentence for the report; claims that
            need them are judged without, where they would else be called unfinished.
    """
    from rich.console import Console  # noqa: PLC0415  (keeps --help fast)

    from regrow.lab import export  # noqa: PLC0415
    from regrow.lab.files import check_writable, make_folder, write_bytes  # noqa: PLC0415
    from regrow.lab.records import PACKED  # noqa: PLC0415
    from regrow.lab.runs_page import Runs, find_runs, runs_page  # noqa: PLC0415
    from regrow.lab.study_file import add_order, is_study, leave_out  # noqa: PLC0415
    from regrow.lab.study_page import Found, find, study_page  # noqa: PLC0415
    from regrow.lab.study_run import say_found  # noqa: PLC0415
    from regrow.studies.registry import load_study  # noqa: PLC0415

    console = Console()
    for name, file in (("page", page), ("csv", csv), ("parquet", parquet)):
        if file:
            check_writable(file, name)
    for folder in folders if left_out is not None else ():
        leave_out(left_out or "", folder)
    found: Found | Runs
    if not folders or any(map(is_study, folders)):
        found = find(folders, load_study)
    else:
        found = find_runs(folders)
    study = found if isinstance(found, Found) else None
    for name, place in (("tensorboard", tensorboard), ("pack", pack)):
        if place:
            make_folder(place, name)
    if study:
        say_found(study, console)
    else:
        for words in found.damaged:
            console.print(f"left out: {words}", soft_wrap=True, highlight=False, markup=False)
    if csv:
        export.to_csv(found.records, csv)
    if parquet:
        export.to_parquet(found.records, parquet)
    if tensorboard:
        export.to_tensorboard(found.records, tensorboard)
    if pack:
        for order in study.orders if study else ():
            add_order(order, pack)
        if study and study.left_out:
            leave_out(study.left_out, pack)
        found.records.pack(pack / PACKED)
    page = page or folders[0] / "report.html"
    html = study_page(found) if isinstance(found, Found) else runs_page(found)
    write_bytes(page, html.encode())
    console.print(f"Report with figures: {page}", soft_wrap=True, highlight=False, markup=False)
    if found.damaged:
        sys.exit(1)
