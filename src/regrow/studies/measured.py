"""What a call costs in this process, or in one of its own: seconds, peak of resident memory."""

from __future__ import annotations

import gc
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, TypeVar

from regrow.engine.heap import give_back

__all__ = ["alone", "measured"]

T = TypeVar("T")
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measured(call: Callable[[], T], *, fresh: bool = False) -> tuple[T, dict[str, float | None]]:
    """Call a function and measure it.

    The peak is VmHWM, set back before the call, less VmRSS before the call; memory that was freed
    is given back to the system first. It holds all that is mapped, libraries loaded by the call as
    well, so call once before if they should not count.

    Args:
        call: is called.
        fresh: this process was started for the call: where its peak cannot be set back, what it
            was before is about what is held before.

    Returns:
        What it returned; and ``seconds`` on the wall, ``cpu_seconds`` of this process, all threads
        together, and ``peak_bytes``: how far resident memory rose above what it was before, None
        where the system does not tell.

    Example:
        >>> measured(lambda: 6 * 7)[0]
        42
    """
    gc.collect()
    give_back()
    before = _kilobytes("VmRSS") if _reset() else _highest() if fresh else None
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = None if before is None else _highest()
    peak = None if before is None or after is None else 1024 * max(after - before, 0)
    return result, {"seconds": wall, "cpu_seconds": cpu, "peak_bytes": peak}


def alone(call: Callable[..., T], *arguments: Any, imported: Sequence[str] = ()) -> T:
    """Call a function in a process of its own, which ends after it.

    Args:
        call: a function of a module.
        arguments: of it; they and the result are pickled.
        imported: modules that need not be imported for each call: where the system can fork, one
            process that has done nothing else imports them and is forked each time.

    Raises:
        MemoryError: the process died without a word. What the function raises is raised here.

    Example:
        >>> alone(abs, -1)
        1
    """
    forks = imported and "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forks else "spawn")
    if forks:
        context.set_forkserver_preload(list(imported))
    with ProcessPoolExecutor(1, mp_context=context, initializer=_end_with_parent) as process:
        try:
            return process.submit(call, *arguments).result()
        except BrokenProcessPool:
            raise MemoryError(
                f"{call.__name__}: its process died without a word: killed, or too little memory"
            ) from None


def _end_with_parent() -> None:
    """Let this process end when the one that waits for it was killed."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        wait([parent.sentinel])  # type: ignore[union-attr]
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _reset() -> bool:
    try:
        _RESET.write_text("5")  # sets the high-water mark back
    except OSError:
        return False
    return True


def _kilobytes(field: str) -> int | None:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1])
    return None


def _highest() -> int | None:
    """Return the largest resident memory of this process, in kilobytes, since it was set back.

    Linux's getrusage would count the parent's, too, from before this program took its place.
    """
    if _STATUS.exists():
        return _kilobytes("VmHWM")
    try:
        import resource  # noqa: PLC0415 (not on every system)
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak
