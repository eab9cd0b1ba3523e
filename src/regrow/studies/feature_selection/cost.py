"""What a fit costs in this process: seconds, and the peak of resident memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from regrow.execution.heap import give_back

__all__ = ["Cost", "measured"]

T = TypeVar("T")
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


@dataclass(frozen=True)
class Cost(Generic[T]):
    """What a call returned, and took.

    Args:
        result: of the call.
        seconds: on the wall.
        cpu_seconds: of this process, all threads together.
        peak_bytes: how far resident memory rose above what it was before; None where the system
            does not tell (it is read from Linux's /proc).
    """

    result: T
    seconds: float
    cpu_seconds: float
    peak_bytes: int | None


def measured(call: Callable[[], T]) -> Cost[T]:
    """Call a function and measure it.

    The peak is VmHWM, set back before the call, less VmRSS before the call; memory that was freed
    is given back to the system first. It holds all that is mapped, libraries loaded by the call as
    well, so call once before if they should not count.

    Example:
        >>> measured(lambda: 6 * 7).result
        42
    """
    gc.collect()
    give_back()
    before = _kilobytes("VmRSS") if _reset() else None
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    after = _kilobytes("VmHWM") if before is not None else None
    known = before is not None and after is not None
    peak = 1024 * max(after - before, 0) if known else None  # type: ignore[operator]
    return Cost(result, wall, cpu, peak)


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
