"""Compiles the C kernels, with the standard library only, so that the build hook can use it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = [
    "SOURCES",
    "WHY_NOT",
    "NoLibraryError",
    "chosen_compiler",
    "compile_library",
    "library_name",
    "source_hash",
]

SOURCES = Path(__file__).parent / "kernels"
WHY_NOT = "not-built.txt"  # beside the sources, in a wheel without a library: why it has none
_LIMIT = 300.0  # seconds for one command; it takes three, and more on a machine that is busy
_SHOWN = 600  # characters at the end of what a compiler said


class NoLibraryError(RuntimeError):
    """There is no library of the kernels; the message says why.

    Attributes:
        refused: a compiler or the loader refused it, which other options may avoid.
    """

    def __init__(self, reason: str, *, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


def library_name() -> str:
    """Return the file name of the shared library on this platform."""
    return "libregrow.dylib" if sys.platform == "darwin" else "libregrow.so"


def source_hash(sources: Path = SOURCES) -> str:
    """Return a hash of all kernel sources; a library is used only if it was made of these."""
    # With the kind of processor: machines of several kinds may share a user's home.
    digest = hashlib.sha256(f"{sys.platform} {platform.machine()}".encode())
    # A library made of other sources may have other signatures: calling it could crash.
    for path in sorted(sources.iterdir()):
        if path.suffix in (".c", ".h", ".inc"):
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def chosen_compiler() -> list[str]:
    """Return the command that calls the C compiler: `$CC`, else `cc` or `gcc` of the PATH.

    Raises:
        NoLibraryError: there is none.
    """
    if sys.platform == "win32":
        raise NoLibraryError("the kernels are not compiled on Windows")
    named = shlex.split(os.environ.get("CC", ""))
    wanted = named[:1] or ["cc", "gcc"]
    found = next(filter(None, map(shutil.which, wanted)), None)
    if found is None:
        raise NoLibraryError(
            f"there is no C compiler ({' or '.join(wanted)} was looked for in the PATH): install "
            "one, or name one in the environment variable CC"
        )
    return [found, *named[1:]]


def compile_library(
    target: Path, openmp: bool = True, sources: Path = SOURCES, limit: float = _LIMIT
) -> None:
    """Compile the kernels to `target`, in one step: other processes see all of it or nothing.

    OpenMP's functions stay unresolved: the loader binds them to the runtime torch brings.

    Args:
        target: the file to write; its folder is made.
        openmp: False compiles for one thread.
        sources: the folder with `kernels.c`.
        limit: seconds that a call of the compiler may take.

    Raises:
        NoLibraryError: there is no compiler, or it failed, hung or was killed.
        OSError: the folder cannot be written, or is full.
    """
    compiler = chosen_compiler()
    options = ["-O3", "-std=gnu11", "-fPIC", "-fvisibility=hidden"]
    options += [f'-DREGROW_SOURCES="{source_hash(sources)}"', *(["-fopenmp"] if openmp else [])]
    link = ["-shared"] + (["-undefined", "dynamic_lookup"] if sys.platform == "darwin" else [])
    target.parent.mkdir(parents=True, exist_ok=True)
    # In the target's folder, so that the rename stays within one file system and is atomic.
    with tempfile.TemporaryDirectory(dir=target.parent, prefix="part-") as folder:
        unit, library = Path(folder) / "kernels.o", Path(folder) / target.name
        for command in (
            [*compiler, *options, "-c", str(sources / "kernels.c"), "-o", str(unit)],
            [*compiler, *link, str(unit), "-o", str(library), "-lm"],
        ):
            _call(command, Path(folder), limit)
        library.chmod(0o755)  # whatever the umask: what others may write is not loaded
        _to_disk(library)
        library.replace(target)


def _call(command: list[str], folder: Path, limit: float) -> None:
    """Run a compiler to its end, or end it and all that it has started."""
    # Into a file: a pipe would be waited for as long as anything that the compiler started lives.
    with (folder / "said").open("w+b") as said:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            raise NoLibraryError(f"{command[0]} cannot be run: {error}") from error
        try:
            code = process.wait(limit)
        except BaseException as error:  # an interrupted wait, too: nothing goes on behind
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise NoLibraryError(f"{command[0]} had not ended after {limit:g} s") from error
            raise
        said.seek(0)
        text = said.read().decode(errors="replace").strip()[-_SHOWN:]
    if code < 0:
        raise NoLibraryError(f"{command[0]} was killed by signal {-code}; it said: {text!r}")
    if code:
        raise NoLibraryError(f"{command[0]} failed (exit {code}): {text}", refused=True)


def _to_disk(path: Path) -> None:
    """Write a file out before it is renamed: after a power cut it might be there, and empty."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
