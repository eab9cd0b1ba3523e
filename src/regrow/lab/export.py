"""Records in other people's formats: CSV, Parquet, TensorBoard."""

from __future__ import annotations

import csv
import io
import shutil
import uuid
from pathlib import Path
from typing import Any

from regrow.lab.files import write_bytes
from regrow.lab.records import Record, Records
from regrow.lab.trackers import TensorBoard, run_name, step_of
from regrow.machine import needed

__all__ = ["to_csv", "to_parquet", "to_tensorboard"]


def to_csv(records: Records, path: Path) -> None:
    """Write a row a record, with a column for every field that one of them has.

    Args:
        records: what to write.
        path: the file; it is written in one step.
    """
    rows = records.rows()
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_bytes(path, out.getvalue().encode())


def to_parquet(records: Records, path: Path) -> None:
    """Write the same as :func:`to_csv` with types; a column of mixed ones is text.

    Args:
        records: what to write.
        path: the file; it is written in one step.

    Raises:
        ImportError: pyarrow is not installed.
    """
    with needed("pyarrow", "parquet"):
        import pyarrow  # noqa: PLC0415
        from pyarrow import parquet  # noqa: PLC0415
    rows = records.rows()
    columns = {}
    for name in _columns(rows):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pyarrow.array(values)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError):
            columns[name] = pyarrow.array([None if v is None else str(v) for v in values])
    out = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), out)
    write_bytes(path, out.getvalue())


def to_tensorboard(records: Records, folder: Path) -> None:
    """Write what trials logged, a run a trial, named for people; runs that are there stay.

    A name ends in the beginning of the trial's identity, see :func:`regrow.lab.trackers.run_name`.
    The step is the field ``step`` of a line, else ``epoch``, else the number of the line.

    Args:
        records: what to write.
        folder: for ``tensorboard --logdir``; each run appears in it in one step.

    Raises:
        ImportError: TensorBoard is not installed.
    """
    with needed("tensorboard", "tensorboard"):
        import tensorboard  # noqa: F401, PLC0415
    folder.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in folder.iterdir()}
    for record in records:
        name = run_name(record.config, record.identity)
        if there & {name, record.identity}:
            continue
        made = folder / f".{record.identity}.{uuid.uuid4().hex[:8]}"
        made.mkdir()
        try:
            _write_run(record, made)
            made.rename(folder / name)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise


def _write_run(record: Record, folder: Path) -> None:
    log = TensorBoard(record.config, folder)
    for number, line in enumerate(record.metrics(), start=1):
        log.log(line, step_of(line, number))
    log.end(record.result, "finished")


def _columns(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))
