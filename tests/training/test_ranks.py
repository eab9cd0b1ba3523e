"""Training on two ranks of gloo is training on one with the same batches, in every system."""

import functools
import shutil
import subprocess
import sys
import time

import pytest
import torch
from torch.testing import assert_close

from regrow.lab.failures import read_failures
from regrow.lab.records import Records
from regrow.lab.run import CHECKPOINT, METRICS, PROGRESS
from tests.ranks import command, on_ranks, once
from tests.training.rank_training import ALIKE, FIRST, SYSTEMS, train

TRAIN = ["train", "--data", "digits", "--model", "mlp-30-20", "--no-augment"]
TRAIN += ["--device", "cpu", "--epochs", "3"]
WHOLE = "classification by RigL"
pytestmark = pytest.mark.slow


def torchrun(*words, module="regrow", limit=120):
    """Call the command as users do."""
    line = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    line += ["--nproc-per-node", "2", "-m", module, *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=limit, check=False)


def fill(folder, device, on_two):
    """Run everything alone and on two ranks.

    Args:
        folder: where all that ranks tell is left.
        device: "cpu" or "cuda".
        on_two: runs some on two ranks, without those that die; returns what was said.
    """
    train(folder, device, *SYSTEMS, "stopped")
    (folder / "stopped").rename(folder / "from one")
    said = on_two(folder, device, *SYSTEMS, "stopped", "from one")
    assert not said, said
    (folder / "stopped").rename(folder / "from two")
    shutil.copytree(folder / "from two", folder / "begun")
    train(folder, device, "from two")


def by_torchrun(folder, device, *names):
    """Run trainings on two ranks as users do; return what was said if they failed."""
    done = torchrun(folder, device, *names, module="tests.training.rank_training", limit=200)
    return done.stderr if done.returncode else ""


def forked(folder, device, *names):
    """Run trainings on two ranks; return what those said that failed."""
    done = on_ranks(train, folder, device, *names)
    return "".join(rank.stderr for rank in done if rank.returncode)


@pytest.fixture(scope="session")
def told(tmp_path_factory):
    return once(tmp_path_factory, "training-ranks", lambda folder: fill(folder, "cpu", forked))


def read(folder, name, ranks):
    """Return what each of so many ranks told of a run."""
    files = [folder / f"{name}-{ranks}-{rank}.pt" for rank in range(ranks)]
    return [torch.load(file, map_location="cpu") for file in files]


def check_alike(folder, name, updates=2):
    """Ranks have the same masks after every update and the same weights; each its own noise."""
    first, second = read(folder, name, 2)
    assert list(first["trail"]) == list(second["trail"]) == list(range(len(first["trail"])))
    assert len(first["trail"]) > updates
    for update, masks in first["trail"].items():
        for weight, mask in masks.items():
            assert mask.equal(second["trail"][update][weight]), (update, weight)
        before = first["trail"].get(update - 1, {})
        assert not before or any(not mask.equal(before[weight]) for weight, mask in masks.items())
    for weight, values in first["weights"].items():
        if "running" not in weight and "tracked" not in weight:
            assert values.equal(second["weights"][weight]), weight
    assert first["loss"] == second["loss"]
    assert not first["noise"].equal(second["noise"])


def check_one(folder, name, other, ranks):
    """Two ranks find what one process finds, but for the order of sums.

    Args:
        folder: where it was told.
        name: of the run on one process.
        other: that of the same run on ranks, or resumed.
        ranks: on which that was.
    """
    [one], two = read(folder, name, 1), read(folder, other, ranks)[0]
    assert_close(two["loss"], one["loss"], rtol=1e-3, atol=0)
    for weight, mask in one["masks"].items():
        # Which may decide between two that are nearly alike.
        assert (mask == two["masks"][weight]).float().mean() > 0.98, weight
        assert mask.count_nonzero() == two["masks"][weight].count_nonzero()


def check_killed(told, folder, name, kill, go_on):
    """A rank that is killed leaves nothing half there; what goes on is as if it never was stopped.

    Args:
        told: where all others told what they hold.
        folder: an empty one.
        name: of the run of which a rank dies in mid-update.
        kill: does it.
        go_on: trains by name in the folder; returns what was said if that failed.
    """
    run = shutil.copytree(told / "begun", folder / name)
    before = (run / CHECKPOINT).read_bytes()
    kill()
    assert not list(folder.glob("*.pt"))  # nobody came to the end
    assert (run / CHECKPOINT).read_bytes() == before
    assert {p.name for p in run.iterdir()} <= {CHECKPOINT, METRICS, PROGRESS}
    run.rename(folder / "resumed")
    assert not (said := go_on("resumed")), said
    for resumed, whole in zip(read(folder, "resumed", 2), read(told, WHOLE, 2), strict=True):
        assert resumed["loss"] == whole["loss"]
        for key in ("weights", "masks"):
            for weight, values in whole[key].items():
                assert values.equal(resumed[key][weight]), weight


def check_torchrun_ends_the_others(told, folder, device, name):
    """Where a rank is killed, torchrun ends what would wait for it."""

    def kill():
        began = time.monotonic()
        assert "Signal 9 (SIGKILL)" in by_torchrun(folder, device, name)
        assert time.monotonic() - began < 100

    check_killed(told, folder, name, kill, lambda name: by_torchrun(folder, device, name))


@pytest.mark.parametrize("name", SYSTEMS)
def test_two_ranks_have_the_same_masks_after_every_update(told, name):
    check_alike(told, name)


@pytest.mark.parametrize("name", ALIKE)
def test_two_ranks_find_what_one_process_finds(told, name):
    check_one(told, name, name, 2)


@pytest.mark.parametrize(("resumed", "ranks"), [("from one", 2), ("from two", 1)])
def test_a_checkpoint_of_one_number_of_ranks_goes_on_on_another(told, resumed, ranks):
    check_one(told, WHOLE, resumed, ranks)
    found = read(told, resumed, ranks)[0]
    assert list(found["trail"]) == list(read(told, WHOLE, 1)[0]["trail"])[FIRST:]


def test_a_rank_killed_in_an_update_leaves_what_goes_on(told, tmp_path):
    def kill():
        first, second = on_ranks(train, tmp_path, "cpu", "second dies", limit=60)
        assert second.returncode == -9
        assert first.returncode == 1 and " by peer" in first.stderr.splitlines()[-1]

    go_on = functools.partial(forked, tmp_path, "cpu")
    check_killed(told, tmp_path, "second dies", kill, go_on)


@pytest.mark.long
@pytest.mark.parametrize("name", ["first dies", "second dies"])
def test_torchrun_ends_the_ranks_that_are_left(told, tmp_path, name):
    check_torchrun_ends_the_others(told, tmp_path, "cpu", name)


@pytest.mark.long
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
    # What is refused before a first step has tried nothing, and leaves nothing.
    tried = [reason] if reason.startswith("FloatingPointError") else []
    failures = read_failures(tmp_path, damaged=pytest.fail)
    assert [reason in failure.error for failure in failures] == [True for _ in tried]
