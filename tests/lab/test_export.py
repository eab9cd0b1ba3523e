"""Records in other formats hold what the records hold."""

import csv
import json
import sys
import warnings

import pytest

from regrow.lab.export import to_csv, to_parquet, to_tensorboard
from regrow.lab.files import append_line, write_json
from regrow.lab.records import Records, flat
from regrow.lab.run import METRICS
from regrow.lab.trackers import run_name
from regrow.lab.trial import identity_of

ONE = {"seed": 6, "method": {"kind": "RigL", "density": 0.1}}
OTHER = {"seed": 3, "method": None}
A, B = map(identity_of, (ONE, OTHER))  # in this order


def record(out, config, result, lines=()):
    folder = out / "trials" / identity_of(config)
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config)
    write_json(folder / "result.json", result)
    write_json(folder / "environment.json", {"cpu": "x, 2 cores"})
    for line in lines:
        append_line(folder / METRICS, line)


@pytest.fixture
def records(tmp_path):
    lines = [{"step": 10, "loss": 0.5, "phase": "a"}, {"step": 20, "loss": 0.25}]
    record(tmp_path, ONE, {"accuracy": 1, "mixed": "x"}, lines)
    epochs = [{"epoch": 1, "loss": 2.0}, {"loss": 3.0}]
    result = {"accuracy": 0.5, "mixed": 2, "curve": [1, 2], 'say "a,b"\n': "ü"}
    record(tmp_path, OTHER, result, epochs)
    return Records.read(tmp_path)


def test_rows_are_flat_and_keep_parts_apart(records):
    first, second = records.rows()
    assert first["config.method.density"] == 0.1
    assert first["environment.cpu"] == "x, 2 cores"
    assert second["config.method"] is None
    assert json.loads(second["result.curve"]) == [1, 2]
    assert flat({}) == {}


def test_csv_reads_back(records, tmp_path):
    to_csv(records, tmp_path / "x.csv")
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    rows = records.rows()
    assert [row["identity"] for row in read] == [A, B]
    for found, row in zip(read, rows, strict=True):
        assert set(found) == set().union(*rows)
        assert found == {key: "" if row.get(key) is None else str(row[key]) for key in found}


def test_parquet_reads_back_with_types(records, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra regrow[parquet]")
    to_parquet(records, tmp_path / "x.parquet")
    read = parquet.read_table(tmp_path / "x.parquet").to_pylist()
    assert [row["result.accuracy"] for row in read] == [1.0, 0.5]
    assert [row["config.seed"] for row in read] == [6, 3]
    assert [row["result.mixed"] for row in read] == ["x", "2"]
    assert [row["config.method.kind"] for row in read] == ["RigL", None]


def test_no_records_are_no_rows(tmp_path):
    to_csv(Records([]), tmp_path / "x.csv")
    assert (tmp_path / "x.csv").read_text() == "\n"


@pytest.mark.parametrize("write", [to_csv, to_parquet])
def test_a_file_that_cannot_be_written_leaves_the_old_one(records, tmp_path, write, monkeypatch):
    pytest.importorskip("pyarrow")
    write(records, tmp_path / "x")
    before = (tmp_path / "x").read_bytes()
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        write(Records([]), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == before
    assert not list(tmp_path.glob(".x*"))


def test_tensorboard_shows_what_trials_logged(records, tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra regrow[tensorboard]")
    out = tmp_path / "board"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        to_tensorboard(records, out)
    names = dict(zip((A, B), (run_name(c, identity_of(c)) for c in (ONE, OTHER)), strict=True))
    assert sorted(path.name for path in out.iterdir()) == sorted(names.values())
    assert names[A] == f"RigL-density=0.1-seed=6-{A[:8]}"

    def read(run, name):
        found = EventAccumulator(str(out / names[run])).Reload().Scalars(name)
        return [(event.step, event.value) for event in found]

    assert read(A, "loss") == [(10, 0.5), (20, 0.25)]
    assert read(B, "loss") == [(1, 2.0), (2, 3.0)]
    assert read(B, "result/accuracy") == [(0, 0.5)]
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*")}
    to_tensorboard(records, out)  # what is there stays
    assert {path: path.stat().st_mtime_ns for path in out.glob("*/*")} == before


def test_a_run_that_cannot_be_exported_is_not_there(records, tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra regrow[tensorboard]")
    (tmp_path / "trials" / B / METRICS).write_text("{\n")
    with pytest.raises(ValueError, match=r"metrics\.jsonl is damaged"):
        to_tensorboard(records, tmp_path / "board")
    assert [path.name for path in (tmp_path / "board").iterdir()] == [run_name(ONE, A)]


@pytest.mark.parametrize(
    ("write", "module", "extra"),
    [(to_parquet, "pyarrow", "parquet"), (to_tensorboard, "tensorboard", "tensorboard")],
)
def test_without_the_extra_the_error_names_it(records, tmp_path, monkeypatch, write, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=rf"pip install {module}, or pip install '\.\[{extra}\]'"):
        write(records, tmp_path / "x")
    assert not (tmp_path / "x").exists()
