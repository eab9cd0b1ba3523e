"""Processes at a tenth of their price: forked from one that has imported torch and this package.

Starting Python and importing torch takes seconds, a fork milliseconds. What tests of ranks are
about, process groups and what is said and left by each rank, is the same.
"""

from __future__ import annotations

import fcntl
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.distributed import TCPStore

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "torch._dynamo",  # imported by the first step of any optimizer
        "torch.distributed.tensor",
        "tyro.extras",
        "regrow.names",
        "regrow.cli.commands",
        "regrow.lab.executors",
        "regrow.lab.study_run",
        "regrow.studies.control.trial",
        "regrow.studies.distraction_masks.trial",
        "regrow.studies.lidar_motion.predict",
        "regrow.studies.segmentation.segment",
        "regrow.studies.speech.recognise",
        "regrow.studies.supervised.classify",
    ]
)


class Ended(NamedTuple):
    """How a process ended, and what it said."""

    returncode: int | None
    stdout: str
    stderr: str


def on_ranks(
    function: Callable[..., object], *arguments: Any, ranks: int = 2, limit: float = 120
) -> list[Ended]:
    """Call a function of a module in as many processes, with what torchrun tells ranks.

    Args:
        function: is found by its name; the environment says which rank it is on.
        arguments: its own; they are pickled.
        ranks: how many processes.
        limit: seconds, after which those that have not ended are killed.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with tempfile.TemporaryDirectory(prefix="ranks-") as name:
        folder, common = Path(name), _environment(ranks, store.port)
        processes = [
            FORKS.Process(target=_be, args=(common, rank, folder, function, arguments))
            for rank in range(ranks)
        ]
        for process in processes:
            process.start()
        _wait(processes, time.monotonic() + limit)
        said = [[(folder / f"{s}-{r}").read_text() for s in ("out", "err")] for r in range(ranks)]
        return [Ended(one.exitcode, *both) for one, both in zip(processes, said, strict=True)]


def once(tmp_path_factory: Any, name: str, make: Callable[[Path], object]) -> Path:
    """Return a folder that is filled once, by whichever worker of the suite comes first.

    Args:
        tmp_path_factory: of pytest.
        name: of the folder.
        make: is given the folder, and fills it; a failure is not tried twice.
    """
    base = tmp_path_factory.getbasetemp()
    folder: Path = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "done").exists():
            (folder / "done").touch()
            make(folder)
    return folder


def begin(function: Callable[..., object], *arguments: Any, output: Path) -> Any:
    """Call a function in a process that leads a group of its own, and is not waited for.

    Args:
        function: is found by its name.
        arguments: its own; they are pickled.
        output: the folder for what it says, in ``out-0`` and ``err-0``.

    Returns:
        the process, as multiprocessing has it.
    """
    process = FORKS.Process(target=_lead, args=(dict(os.environ), output, function, arguments))
    process.start()
    return process


def _lead(common: Mapping[str, str], folder: Path, function: Any, arguments: tuple[Any]) -> None:
    os.setsid()
    _be(common, 0, folder, function, arguments)


def run_code(code: str, **environment: str) -> Ended:
    """Run Python code in a process of its own; what it imports of torch and us is there already."""
    [ended] = on_ranks(_execute, code, environment, ranks=1)
    return ended


def _execute(code: str, environment: Mapping[str, str]) -> None:
    os.environ.update(environment)
    exec(code, {"__name__": "__main__"})


def command(*words: object) -> None:
    """Do what ``regrow`` and these words do."""
    from regrow.cli import main

    sys.argv = ["regrow", *map(str, words)]
    main()


def _environment(ranks: int, port: int) -> dict[str, str]:
    return {
        **os.environ,
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # no rank keeps the store: any may leave first
        "GLOO_SOCKET_IFNAME": "lo",
        "OMP_NUM_THREADS": "1",
    }


def _wait(processes: list[Any], deadline: float) -> None:
    """Wait for all, and kill those that are late."""
    for process in processes:
        process.join(max(0.1, deadline - time.monotonic()))
    for process in processes:
        if process.exitcode is None:
            process.kill()
            process.join()


def _be(
    common: Mapping[str, str],
    rank: int,
    folder: Path,
    function: Callable[..., object],
    arguments: tuple[Any, ...],
) -> None:
    """Be a rank: its environment, its output, one thread."""
    os.environ.clear()
    os.environ.update(common, RANK=str(rank), LOCAL_RANK=str(rank))
    for number, stream in ((1, "out"), (2, "err")):
        file = os.open(folder / f"{stream}-{rank}", os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(file, number)
    torch.set_num_threads(1)
    function(*arguments)
