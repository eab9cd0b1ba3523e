"""Timing on a GPU: what is compared runs in turn, from CUDA graphs or launched as training does."""

from __future__ import annotations

import platform
import statistics
import time
from collections.abc import Callable

import torch
import triton
from torch import Tensor

Call = Callable[[], object]


def captured(call: Call) -> torch.cuda.CUDAGraph:
    """Record one call, after some that let compilers and allocators settle."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph


def elapsed(call: Call, times: int) -> float:
    """Return milliseconds of a call on the GPU, the mean of some times in a row."""
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    for _ in range(times):
        call()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / times


def timed(calls: dict[str, Call], rounds: int = 15, window: float = 8.0) -> dict[str, list[float]]:
    """Return milliseconds of every call, one value a round; a value averages ``window`` ms."""
    graphs: dict[str, Call] = {name: captured(call).replay for name, call in calls.items()}
    times = {name: max(1, round(window / elapsed(graph, 3))) for name, graph in graphs.items()}
    return in_turn(graphs, times, rounds)


def launched(
    calls: dict[str, Call], rounds: int = 15, window: float = 8.0
) -> dict[str, list[float]]:
    """Return milliseconds of every call as it is launched: host and GPU, whichever is slower."""
    for call in calls.values():
        elapsed(call, 3)  # what compiles does
    times = {name: max(4, round(window / elapsed(call, 3))) for name, call in calls.items()}
    return in_turn(calls, times, rounds)


def in_turn(calls: dict[str, Call], times: dict[str, int], rounds: int) -> dict[str, list[float]]:
    """Return milliseconds of every call, one value a round, the mean of its times in a row."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(elapsed(call, times[name]))
    return found


def on_host(calls: dict[str, Call], rounds: int = 15, times: int = 20) -> dict[str, float]:
    """Return the median microseconds that the host takes to launch each call, without waiting."""
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            torch.cuda.synchronize()
            begin = time.perf_counter()
            for _ in range(times):
                call()
            found[name].append((time.perf_counter() - begin) / times * 1e6)
    torch.cuda.synchronize()
    return {name: statistics.median(values) for name, values in found.items()}


def ratio(dense: list[float], sparse: list[float]) -> dict[str, float]:
    """Return dense time over sparse time, round by round: its median and quartiles."""
    ratios = [a / b for a, b in zip(dense, sparse, strict=True)]
    low, _, high = statistics.quantiles(ratios, n=4)
    return {"ratio": statistics.median(ratios), "low": low, "high": high}


def error(found: Tensor, expected: Tensor) -> float:
    found, expected = found.detach().float(), expected.detach().float()
    return float((found - expected).norm() / expected.norm())


def must_agree(what: str, found: Tensor, expected: Tensor, tolerance: float) -> None:
    if not error(found, expected) < tolerance:
        raise SystemExit(f"{what}: relative error {error(found, expected):.1e} against dense")


def environment() -> dict[str, object]:
    return {
        "gpu": torch.cuda.get_device_name(),
        "processors": torch.cuda.get_device_properties(0).multi_processor_count,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "triton": triton.__version__,
    }
