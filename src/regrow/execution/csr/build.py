"""Compiles the C kernels, with the standard library only, so that the build hook can use it."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["SOURCES", "compile_library", "library_name", "source_hash"]

SOURCES = Path(__file__).parent / "kernels"


def library_name() -> str:
    """Return the file name of the shared library on this platform."""
    return "libregrow.dylib" if sys.platform == "darwin" else "libregrow.so"


def source_hash(sources: Path = SOURCES) -> str:
    """Return a hash of all kernel sources; a library is used only if it was made of these."""
    digest = hashlib.sha256(sys.platform.encode())
    # A library made of other sources may have other signatures: calling it could crash.
    for path in sorted(sources.iterdir()):
        if path.suffix in (".c", ".h", ".inc"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def compile_library(target: Path, openmp: bool = True, sources: Path = SOURCES) -> bool:
    """Compile the kernels to `target`, in one step: other processes see all of it or nothing.

    OpenMP's functions stay unresolved: the loader binds them to the runtime torch brings.

    Args:
        target: the file to write; its folder is made.
        openmp: False compiles for one thread.
        sources: the folder with `kernels.c`.

    Returns:
        Whether there is a library now; False without a compiler, or when it failed.
    """
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc")
    if not compiler or sys.platform == "win32":
        return False
    options = ["-O3", "-std=gnu11", "-fPIC", "-fvisibility=hidden"]
    options += [f'-DREGROW_SOURCES="{source_hash(sources)}"', *(["-fopenmp"] if openmp else [])]
    link = ["-shared"] + (["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else [])
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # In the target's folder, so that the rename stays within one file system and is atomic.
        with tempfile.TemporaryDirectory(dir=target.parent) as folder:
            unit, library = Path(folder) / "kernels.o", Path(folder) / target.name
            for command in (
                [*compiler.split(), *options, "-c", str(sources / "kernels.c"), "-o", str(unit)],
                [*compiler.split(), *link, str(unit), "-o", str(library), "-lm"],
            ):
                subprocess.run(command, check=True, capture_output=True, timeout=120)
            library.replace(target)
    except (OSError, subprocess.SubprocessError):
        return False
    return True
