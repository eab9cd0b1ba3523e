"""Arrays that took long to make, kept in the user's cache and mapped into memory the next time."""

from __future__ import annotations

import contextlib
import glob
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.data.npy import map_npy
from regrow.machine import cache_folder, needed

__all__ = ["Arrays", "kept"]

Arrays = Mapping[str, npt.NDArray[Any]]

_LAYOUT = 1  # raised when what is kept changes its meaning
_LIST = "names"  # of all arrays: who cleans a cache may not take all of a folder


def kept(
    name: str,
    sources: Sequence[object],
    make: Callable[[], Arrays],
    *,
    folder: str = "decoded",
    alone: bool = False,
) -> Arrays:
    """Return arrays from the cache, or make and keep them.

    They are kept under what all sources say of themselves, as a rule name, size and time of change
    of files, so that another source, or a changed one, is decoded anew. Where the cache cannot be
    written, or what lies there cannot be read, the arrays are made each time.

    Args:
        name: of the data set.
        sources: all that decides the arrays; their ``repr`` counts.
        make: makes them; no arrays of objects.
        folder: of the cache.
        alone: of several processes one makes them, and the others wait for it.

    Returns:
        Arrays by name; those from the cache are mapped into memory, copied where written to.
    """
    digest = hashlib.blake2b(repr((_LAYOUT, name, list(sources))).encode(), digest_size=10)
    place = cache_folder() / folder / f"{name}-{digest.hexdigest()}"
    if (cached := _load(place)) is not None:
        return cached
    with _locked(place.with_name(f".{place.name}.lock")) if alone else contextlib.nullcontext():
        if alone and (cached := _load(place)) is not None:
            return cached
        for part in place.parent.glob(f".{glob.escape(place.name)}.*/") if alone else ():
            shutil.rmtree(part, ignore_errors=True)  # of a process that was killed
        made = make()
        with contextlib.suppress(OSError):
            _save(place, made)
    return _load(place) or made


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with needed("filelock", "lab"):
        from filelock import FileLock  # noqa: PLC0415
    lock = FileLock(path)
    with contextlib.suppress(OSError):  # nothing can be written there: nothing to wait for
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _load(folder: Path) -> Arrays | None:
    try:
        files = sorted(folder.glob("*.npy"))
        arrays = {file.stem: map_npy(file) for file in files}
    except (OSError, ValueError):
        return None
    listed = arrays.pop(_LIST, np.array([""]))
    return arrays if sorted(listed) == sorted(arrays) else None


def _save(folder: Path, arrays: Arrays) -> None:
    """Write a folder in one step; another process may have been quicker, with the same."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name, array in {**arrays, _LIST: np.array(list(arrays))}.items():
            np.save(part / f"{name}.npy", array, allow_pickle=False)
        if folder.exists() and _load(folder) is None:
            shutil.rmtree(folder)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
