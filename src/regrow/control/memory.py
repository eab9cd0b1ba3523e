"""Whether a replay buffer fits into memory, told before anything is made."""

from __future__ import annotations

import gc

import torch

from regrow.machine import free_memory

__all__ = ["check_memory"]

_SPARED = 0.9  # of the memory that is free, which a buffer may take


def check_memory(replay: int, each: int, device: torch.device | str, runs: int = 1) -> None:
    """Raise ValueError unless a replay buffer fits into the memory that is free.

    Args:
        replay: frames or transitions kept of each run.
        each: bytes of one.
        device: whose memory.
        runs: of which as many are kept.
    """
    device = torch.device(device)
    needed = runs * replay * each
    free = _free(device)
    if free is not None and needed > _SPARED * free:
        gc.collect()  # a training of before may still be there
        free = _free(device)
    if free is None or needed <= _SPARED * free:
        return
    where = "the GPU" if device.type == "cuda" else "this machine"
    of = f" in each of {runs} runs" if runs > 1 else ""
    gib = 1 << 30
    raise ValueError(
        f"replay={replay}: as many times {each:,} bytes{of} take {needed / gib:.1f} GiB, and "
        f"{where} has {free / gib:.1f} GiB free: at most replay="
        f"{int(_SPARED * free) // (runs * each)} fits"
    )


def _free(device: torch.device) -> int | None:
    if device.type != "cuda":
        return free_memory()
    # What torch holds and does not use is free, too.
    held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0]) + held
