"""Training on two ranks of gloo is training on one with the same batches."""

import subprocess
import sys

import pytest
import torch
from torch.testing import assert_close

from regrow.lab.failures import read_failures
from regrow.lab.records import Records
from tests.ranks import command, on_ranks
from tests.training.rank_training import train

TRAIN = ["train", "--data", "digits", "--model", "mlp-30-20", "--no-augment"]
TRAIN += ["--device", "cpu", "--epochs", "3"]


def torchrun(*words):
    """Call the command as users do."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    line += ["--nproc-per-node", "2", "-m", "regrow", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_two_ranks_hold_the_same_topology_and_find_what_one_finds(tmp_path):
    alone = tmp_path / "alone"
    for rank in (*on_ranks(train, tmp_path), *on_ranks(train, alone, ranks=1)):
        assert rank.returncode == 0, rank.stderr
    for method in ("RigL", "SET", "GMP"):
        one = torch.load(alone / f"{method}-1-0.pt")
        first, second = (torch.load(tmp_path / f"{method}-2-{rank}.pt") for rank in (0, 1))
        for name, mask in first["masks"].items():
            assert mask.equal(second["masks"][name])
            # The order of sums differs, which may decide between two that are nearly alike.
            assert (mask == one["masks"][name]).float().mean() > 0.99
        for name, weight in first["weights"].items():
            assert weight.equal(second["weights"][name])
        assert first["losses"] == second["losses"]
        assert_close(first["losses"], one["losses"], rtol=1e-4, atol=0)
        assert not first["noise"].equal(second["noise"])  # each draws its own dropout


@pytest.mark.slow
def test_the_command_trains_on_two_ranks_as_on_one(tmp_path):
    done = torchrun(*TRAIN, "--batch", "64", "--out", tmp_path / "two")
    assert done.returncode == 0, done.stderr
    assert "42 steps of 64 samples, cpu on 2 ranks" in done.stdout
    assert done.stdout.count("test accuracy") == 1
    words = [*TRAIN, "--batch", "64", "--out"]
    again = on_ranks(command, *words, tmp_path / "two")
    assert [rank.returncode for rank in again] == [0, 0], again
    assert ["was finished before" in rank.stdout for rank in again] == [True, False]
    [alone] = on_ranks(command, *words, tmp_path / "one", ranks=1)
    assert alone.returncode == 0, alone.stderr
    [two], [one] = Records.read(tmp_path / "two"), Records.read(tmp_path / "one")
    assert two.identity == one.identity
    assert_close(two.result["loss"], one.result["loss"], rtol=1e-4, atol=0)
    assert two.result["nonzeros"] == one.result["nonzeros"]
    assert len(two.metrics()) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--learning-rate", "1e9"), "FloatingPointError: the loss is"),
        (("--execution", "csr"), "execution='csr' trains on one rank"),
    ],
)
def test_a_run_that_fails_on_two_ranks_is_a_line_and_a_record(tmp_path, arguments, reason):
    done = on_ranks(command, *TRAIN, *arguments, "--out", tmp_path)
    assert done[0].returncode == 1
    said = "".join(rank.stderr for rank in done).splitlines()
    lines = [line for line in said if line.startswith("regrow: ")]
    assert len(lines) == 1 and reason in lines[0]
    [failure] = read_failures(tmp_path, damaged=pytest.fail)
    assert reason in failure.error
