"""Where a result came from: versions, hardware, commit."""

from __future__ import annotations

import functools
import os
import platform
import subprocess
from pathlib import Path

import numpy as np
import torch

import regrow

__all__ = ["environment"]


def environment() -> dict[str, str]:
    """Describe this process's surroundings, as short strings by name.

    Example:
        >>> sorted(environment())[:4]
        ['commit', 'cpu', 'gpu', 'numpy']
    """
    return {
        "regrow": regrow.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "system": platform.system(),
        "cpu": f"{_cpu()}, {os.cpu_count()} cores",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


@functools.cache  # the code that runs is the code that was loaded
def _commit() -> str:
    """Return the commit of the source tree, marked if it has uncommitted changes."""
    source = Path(regrow.__file__).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(source), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", str(source / "__init__.py")):
            return "unknown"
        changed = "+changes" if git("status", "--porcelain", "--", str(source)) else ""
        return git("rev-parse", "--short=12", "HEAD") + changed
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
