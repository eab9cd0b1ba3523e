"""The library of kernels in the user's cache: compiled by one process, waited for by the others.

Beside each library lies `build.json`: what compiled it, how long that took and the library's hash,
or why it could not be compiled. A library is loaded only if it is whole, and nobody else may write
it.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regrow.execution.csr import build
from regrow.execution.csr.build import NoLibraryError
from regrow.machine import cache_folder

__all__ = ["cached_library"]

logger = logging.getLogger("regrow")

_NOTE = "build.json"
_REMEMBERED = 24 * 3600.0  # seconds that a failure counts; its cause may have gone
_PATIENCE = 900.0  # seconds to wait for another process: longer than its compiler may take
_ROOM = 16 << 20  # bytes free; a compiler that fills a disk says so in many ways


def cached_library(openmp: bool, *, again: bool = False) -> Path:
    """Return a library of the present sources, compiled if there is none in the user's cache.

    Where the cache cannot be written, or others may write to it, a folder for temporary files
    takes its place.

    Args:
        openmp: False: for one thread.
        again: try even if it failed within the last day.

    Raises:
        NoLibraryError: there is none and none can be made; the message says why.
    """
    if sys.platform == "win32":
        raise NoLibraryError("the kernels are not compiled on Windows")
    reasons = []
    for top in (cache_folder, _temporary):
        try:
            folder = top() / build.source_hash() / ("openmp" if openmp else "plain")
            return _ready(folder) or _compiled(folder, openmp, again=again)
        except (OSError, RuntimeError) as error:
            if isinstance(error, NoLibraryError):
                raise
            reasons.append(str(error))
            logger.info("the kernels cannot be kept there: %s", error)
    raise NoLibraryError("; ".join(reasons))


def _temporary() -> Path:
    return Path(tempfile.gettempdir()) / f"regrow-{os.getuid()}"


def _ready(folder: Path) -> Path | None:
    """Return the library of a folder if it is there, whole, and ours.

    Raises:
        PermissionError: somebody else may have written it.
    """
    path, made = folder / build.library_name(), _note(folder).get("sha256")
    if made is None or not path.exists():
        return None
    _require_ours(path)
    return path if hashlib.sha256(path.read_bytes()).hexdigest() == made else None


def _require_ours(path: Path) -> None:
    """Raise PermissionError if other users may have written a library, or may put one in its place.

    Checked are the file, and the folders up to the cache's own.
    """
    for place in (path, *list(path.parents)[:3]):
        if not place.exists():
            continue
        found = place.stat()
        if found.st_uid not in (os.getuid(), 0):
            raise PermissionError(
                f"{place} belongs to user {found.st_uid}, not to you, so that no library in it is "
                "run: delete it, or name a folder of yours in the environment variable "
                "XDG_CACHE_HOME"
            )
        # File and folder are made so that not even their group may write; folders above may be
        # the group's, as is usual where each user has a group of its own.
        others = stat.S_IWOTH | (stat.S_IWGRP if place in (path, path.parent) else 0)
        if found.st_mode & others and not found.st_mode & stat.S_ISVTX:
            raise PermissionError(
                f"other users may write to {place}, so that no library in it is run: "
                f"chmod go-w {place}"
            )


def _compiled(folder: Path, openmp: bool, *, again: bool) -> Path:
    """Compile the library of a folder, or wait for the process that does."""
    compiler = build.chosen_compiler()
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = folder / build.library_name()
    _require_ours(path)
    with _lock(folder):
        if (found := _ready(folder)) is not None:  # compiled while this process waited
            return found
        described = _described(compiler)
        if not again:
            _raise_known_failure(folder, described)
        if shutil.disk_usage(folder).free < _ROOM:
            raise OSError(errno.ENOSPC, "no room for the kernels", str(folder))
        start, note = time.monotonic(), {"compiler": described, "time": time.time()}
        try:
            build.compile_library(path, openmp)
        except NoLibraryError as error:
            _write_note(folder, note | {"reason": str(error), "refused": error.refused})
            raise
        seconds = round(time.monotonic() - start, 1)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        _write_note(folder, note | {"seconds": seconds, "sha256": digest})
        logger.info("compiled the kernels with %s in %s s: %s", compiler[0], seconds, path)
        return path


def _described(compiler: list[str]) -> str:
    """Return a compiler's command, with what an update of its file changes."""
    found = Path(compiler[0]).stat()
    return f"{' '.join(compiler)} ({found.st_size} bytes of {found.st_mtime:.0f})"


def _raise_known_failure(folder: Path, compiler: str) -> None:
    """Raise NoLibraryError if this compiler failed here within the last day."""
    note = _note(folder)
    reason, then = note.get("reason"), note.get("time")
    if not reason or note.get("compiler") != compiler or not isinstance(then, float | int):
        return
    ago = time.time() - then
    if 0 <= ago < _REMEMBERED:
        raise NoLibraryError(
            f"{reason} (it failed {ago / 60:.0f} minutes ago, and is tried again a day after that, "
            f"with another compiler, or once {folder / _NOTE} is deleted)",
            refused=bool(note.get("refused")),
        )


def _note(folder: Path) -> dict[str, Any]:
    """Return what is known of a folder's library; nothing if that cannot be read."""
    try:
        read = json.loads((folder / _NOTE).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _write_note(folder: Path, note: dict[str, Any]) -> None:
    part = folder / f".{_NOTE}"
    part.write_text(json.dumps(note, indent=1))
    part.replace(folder / _NOTE)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Let one process at a time compile; the lock of one that dies is free.

    Raises:
        NoLibraryError: another process has held it for too long.
    """
    import fcntl  # noqa: PLC0415 not on Windows

    with (folder / "lock").open("a") as file:
        end, waits = time.monotonic() + _PATIENCE, False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waits:
                    logger.info("waiting for the process that compiles the kernels in %s", folder)
                waits = True
                if time.monotonic() > end:
                    raise NoLibraryError(
                        f"another process has held {folder / 'lock'} for {_PATIENCE:g} s: end it"
                    ) from None
                time.sleep(0.05)
                continue
            except OSError as error:
                # Some network file systems have no locks. A library is renamed into place, so that
                # compiling it twice costs time only.
                logger.info("%s cannot be locked (%s)", folder, error)
                yield
                return
            break
        # What processes that were killed have left; under the lock nobody works in them.
        for left in folder.glob("part-*"):
            shutil.rmtree(left, ignore_errors=True)
        try:
            yield
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)  # a process forked meanwhile holds the file, too
