"""What a fit costs in this process: seconds, and the peak of resident memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from regrow.execution.heap import give_back

__all__ = ["measured"]

T = TypeVar("T")
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def measured(call: Callable[[], T]) -> tuple[T, dict[str, float | None]]:
    """Call a function and measure it.

    The peak is VmHWM, set back before the call, less VmRSS before the call; memory that was freed
    is given back to the system first. It holds all that is mapped, libraries loaded by the call as
    well, so call once before if they should not count.

    Returns:
        What it returned; and ``seconds`` on the wall, ``cpu_seconds`` of this process, all threads
        together, and ``peak_bytes``: how far resident memory rose above what it was before, None
        where the system does not tell (it is read from Linux's /proc).

    Example:
        >>> measured(lambda: 6 * 7)[0]
        42
    """
    gc.collect()
    give_back()
    before = _kilobytes("VmRSS") if _reset() else None
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = None if before is None else _kilobytes("VmHWM")
    peak = None if before is None or after is None else 1024 * max(after - before, 0)
    return result, {"seconds": wall, "cpu_seconds": cpu, "peak_bytes": peak}


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
