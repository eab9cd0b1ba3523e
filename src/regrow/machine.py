"""The user's machine: its cache folder, and packages that need not be installed."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

__all__ = ["cache_folder", "expanded", "free_memory", "how_to_install", "naming", "needed"]


def cache_folder() -> Path:
    """Return the user's cache folder; it need not exist, nor be one in which files can be written.

    Example:
        >>> cache_folder().name
        'regrow'
    """
    found = expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    # A user of a container may have no home: in this folder nothing can be written, nor planted.
    return (Path(os.devnull) if found.parts[:1] == ("~",) else found) / "regrow"


def expanded(path: str | Path) -> Path:
    """Return a path with ~ as the user's home folder, or as it is where there is none.

    Example:
        >>> str(expanded("~nobody-of-this-name/data"))
        '~nobody-of-this-name/data'
    """
    return Path(os.path.expanduser(path))  # noqa: PTH111 Path.expanduser raises RuntimeError


_GROUPS = {  # of Linux's control groups, version 2 and 1: folder, limit, usage, what is not in use
    "": ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
    "memory": (
        "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
        "total_inactive_file",
    ),
}  # fmt: skip


def free_memory(root: Path = Path("/")) -> int | None:
    """Return how many bytes of memory may still be taken: files that are kept in it give way.

    Limits of containers count, too.

    Args:
        root: of the file system.

    Returns:
        None: the system does not tell; Linux does.
    """
    found = []
    with contextlib.suppress(OSError, ValueError, KeyError):
        found.append(1024 * _numbers(root / "proc/meminfo")["MemAvailable"])
    with contextlib.suppress(OSError, ValueError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            _, kind, place = line.split(":", 2)
            if kind in _GROUPS:
                found += _left(root, *_GROUPS[kind], place)
    return min(found, default=None)


def _left(
    root: Path, folder: str, limit: str, usage: str, unused: str, place: str
) -> Iterator[int]:
    """Yield what the limits of a group, and of those around it that one sees, leave."""
    whole = root / folder
    here = whole / place.lstrip("/")
    for group in (here, *here.parents):
        with contextlib.suppress(OSError, ValueError, KeyError):
            used = int((group / usage).read_text()) - _numbers(group / "memory.stat")[unused]
            yield max(0, int((group / limit).read_text()) - used)
        if group == whole:
            return


def _numbers(path: Path) -> dict[str, int]:
    """Read a file of lines such as "MemAvailable:  100 kB"."""
    lines = (line.split() for line in path.read_text().splitlines())
    return {words[0].rstrip(":"): int(words[1]) for words in lines if len(words) > 1}


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error of what is written inside, such as that the disk is full, name the file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def needed(package: str, extra: str) -> Iterator[None]:
    """Import an optional package inside; if it cannot be, say how it is installed.

    Args:
        package: as ``pip`` knows it.
        extra: of regrow, which brings it along.

    Raises:
        ImportError: the package, or one that it imports, is missing.

    Example:
        >>> with needed("lightgbm", "selectors"):
        ...     import no_such_module
        Traceback (most recent call last):
        ImportError: lightgbm cannot be imported (No module named 'no_such_module'): \
pip install lightgbm, or pip install '.[selectors]' in a checkout of regrow
    """
    try:
        yield
    except ImportError as error:
        said = f"{package} cannot be imported ({error}): {how_to_install(package, extra)}"
        raise ImportError(said) from error


def how_to_install(package: str, extra: str) -> str:
    """Return the commands that install a package, as a part of a sentence.

    Args:
        package: as ``pip`` knows it.
        extra: of regrow, which brings it along.
    """
    if package == "dm_control" and sys.version_info >= (3, 13):
        return "labmaze, which it needs, has no wheel for Python 3.13: take 3.11 or 3.12"
    if wheel := _wheel():
        return f"pip install {package}, or pip install '{wheel}[{extra}]'"
    return f"pip install {package}, or pip install '.[{extra}]' in a checkout of regrow"


def _wheel() -> Path | None:
    """Return the wheel that regrow was installed from, if it was one and is still there."""
    try:
        origin = distribution("regrow").read_text("direct_url.json")
        address = urlsplit(json.loads(origin or "{}").get("url", ""))
    except (PackageNotFoundError, ValueError, OSError):
        return None
    path = Path(url2pathname(address.path))
    return path if address.scheme == "file" and path.is_file() else None
