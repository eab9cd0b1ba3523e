"""The list of GPU records: its commands exist, and a job that fails or hangs is told."""

import shlex
from pathlib import Path

import pytest

from benchmarks import records
from benchmarks.records import JOBS, Job, run
from regrow.studies.registry import load_study

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("name", JOBS)
def test_what_a_job_runs_and_records_is_there(name):
    words = shlex.split(JOBS[name].command.format(out=name))
    if words[0] != "-m":
        assert (ROOT / words[0]).is_file()
    elif words[1] == "regrow":
        study, data = words[4], words[words.index("--data") + 1]
        assert data in load_study(study).presets["quick"].designs
    else:
        assert all((ROOT / word).exists() for word in words if word.startswith("tests/"))
    if JOBS[name].record:
        assert name in words[-1] and (ROOT / "results" / JOBS[name].record).parent.parent.is_dir()


@pytest.mark.parametrize(
    ("command", "minutes", "said"),
    [
        ("-c 'print(3 * 7)'", 1, ""),
        ("-c 'print(3 * 7); raise SystemExit(4)'", 1, "ended with status 4"),
        (
            "-c 'import time; print(3 * 7); time.sleep(60)'",
            1 / 60,
            "stopped after 2 s, twice what it should take",
        ),
    ],
)
def test_how_a_job_ended_is_told_and_what_it_printed_is_kept(
    tmp_path, monkeypatch, command, minutes, said
):
    monkeypatch.setitem(records.JOBS, "one", Job(command, minutes))
    assert run("one", tmp_path) == said
    assert (tmp_path / "one.log").read_text() == "21\n"
