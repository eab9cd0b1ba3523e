"""Two ranks of gloo, brought together by the real torchrun."""

import subprocess
import sys
from pathlib import Path

import pytest
from rank_trials import TRIALS

from regrow.lab.failures import headline, read_failures
from regrow.lab.files import read_lines
from regrow.lab.records import Records
from regrow.lab.run import METRICS
from tests.ranks import on_ranks
from tests.training.rank_failing import failing

LIMIT = 120  # seconds; a rank that waits for another would wait for ten minutes


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    script = str(Path(__file__).parent / "rank_trials.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", script, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.mark.slow
def test_trials_run_on_all_ranks_and_the_first_one_records(ran):
    folder, said = ran
    assert said == "the first rank alone says this\n"
    records = {record.config["seed"]: record for record in Records.read(folder / "out")}
    assert sorted(records) == [0, 4]
    for record in records.values():
        assert record.result == {"total": 52.0, "ranks": 2}
        assert len(record.metrics()) == 4
    # All ranks compute with as many threads as the first was given.
    assert [(folder / f"4-{rank}").read_text() for rank in (0, 1)] == ["1", "1"]
    assert len(read_lines(folder / METRICS)) == 4


@pytest.mark.slow
def test_a_trial_that_fails_on_any_rank_is_recorded_with_that_rank_s_reason(ran):
    """What one rank had half sent would have been taken for the next trial by the others."""
    failures = read_failures(ran[0] / "out", damaged=pytest.fail)
    errors = {failure.identity: failure.error for failure in failures}
    assert set(errors) == {trial.identity for trial in TRIALS[1:4]}
    both, first, second = (errors[trial.identity] for trial in TRIALS[1:4])
    assert headline(both).endswith("has had enough")
    assert headline(first) == "ZeroDivisionError: rank 0 has had enough"
    assert headline(second) == "ZeroDivisionError: rank 1 has had enough"
    assert "on rank 1:" in second


@pytest.mark.slow
def test_a_rank_that_waits_for_nobody_learns_that_another_failed(tmp_path):
    """What it has found by then counts for nothing, and the next trial runs on both."""
    first, second = on_ranks(failing, tmp_path, "cpu", 1, 2.0)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    said = (tmp_path / "said").read_text()
    assert said.startswith("RuntimeError: another rank failed")
    assert "on rank 1:" in said and "ZeroDivisionError: this rank has had enough" in said
    assert (tmp_path / "next").read_text() == "4.0"
