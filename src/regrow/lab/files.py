"""Files that are there whole, or not at all; what cannot be read is named with what is wrong."""

from __future__ import annotations

import json
import os
import shutil
import stat
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from regrow.machine import naming

__all__ = [
    "Damaged",
    "append_line",
    "check_finished",
    "check_writable",
    "make_folder",
    "parse_lines",
    "read_json",
    "read_lines",
    "read_object",
    "read_whole",
    "remove",
    "remove_parts",
    "sync",
    "write_bytes",
    "write_json",
]

_PART = ".part"
_DEEPEST = 50  # of lists and objects inside one another: readers of records go down by recursion
_LARGEST = 10**300  # beyond it a whole number is no float


class Damaged(ValueError):
    """A file does not hold what it must; the message names it and says what is wrong."""


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step: whoever reads sees the old one or the new one.

    The new one is on the disk before it takes the old one's place, and in its place on the disk
    when this returns. Its mode follows from the umask.

    Raises:
        OSError: it cannot be written; the old one is still there, and nothing half is left.
        ValueError: the path is that of a device or a pipe, which would be replaced.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path}: is a device or a pipe; name a file")
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}{_PART}")
    try:
        with naming(path), part.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    if path.is_dir() and os.name == "nt":  # Windows keeps names by itself, and opens no folder
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_finished(run: Path, files: Iterable[str], command: str) -> None:
    """Refuse the folder of a run that does not have what a finished one leaves.

    Args:
        run: its folder.
        files: that must be in it.
        command: that makes such runs.

    Raises:
        FileNotFoundError: a file is not there.
    """
    for name in files:
        if not (run / name).is_file():
            raise FileNotFoundError(
                f"{run}: no {name} in it. Give the folder of a finished run of {command}"
            )


def check_writable(path: Path, name: str) -> None:
    """Refuse a file that could not be written later, before much is computed for it.

    Args:
        path: of the file; its folder must be there.
        name: of the argument.

    Raises:
        ValueError: it cannot be written.
    """
    why = ""
    if path.exists() and not path.is_file():
        why = "is no file"
    elif not path.parent.is_dir():
        why = f"there is no folder {path.parent}"
    elif not os.access(path.parent, os.W_OK):
        why = f"nothing may be written to {path.parent}"
    if why:
        raise ValueError(f"{name}={path}: {why}; name a file in a folder that can be written to")


def make_folder(path: Path, name: str) -> None:
    """Make a folder to write to, unless it is there.

    Args:
        path: of the folder.
        name: of the argument.

    Raises:
        ValueError: it cannot be made, is no folder, or nothing may be written to it.
    """
    why = ""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        why = error.strerror or str(error)
    if not why and not os.access(path, os.W_OK):
        why = "nothing may be written to it"
    if why:
        raise ValueError(f"{name}={path}: {why}; name a folder that can be written to")


def remove(path: Path) -> None:
    """Remove a file, or whatever lies in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def remove_parts(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left in a folder."""
    for path in folder.glob(f".*{_PART}"):
        path.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain data as a JSON file in one step."""
    text = json.dumps(content, indent=1, allow_nan=True, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def read_whole(path: Path) -> bytes:
    """Read a file; never wait for a pipe.

    Raises:
        Damaged: it is no regular file, or cannot be read; a file that is not there is missing.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise Damaged(f"{path} is damaged (no regular file)")
        return path.read_bytes()
    except FileNotFoundError as error:
        raise Damaged(f"{path} is missing") from error
    except OSError as error:
        raise Damaged(f"{path} cannot be read ({error.strerror or error})") from error


def read_json(path: Path, flaw: Callable[[dict[str, Any]], str] = lambda _: "") -> dict[str, Any]:
    """Read a JSON file.

    Args:
        path: of the file.
        flaw: says what is wrong with its content; empty if nothing is.

    Raises:
        Damaged: it is no JSON object, or has a flaw; the message names the file.
    """
    try:
        content = read_object(read_whole(path))
        why = flaw(content)
    except Damaged:
        raise
    except ValueError as error:
        why = str(error)
    if why:
        raise Damaged(f"{path} is damaged ({why})")
    return content


def read_object(text: bytes | str) -> dict[str, Any]:
    """Read plain data: a JSON object of which everything can be written and computed with.

    Raises:
        ValueError: it is none, is nested too deep, or holds numbers beyond floats.

    Example:
        >>> read_object('{"accuracy": 0.5}')
        {'accuracy': 0.5}
    """
    try:
        content = json.loads(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise ValueError(f"nested deeper than {_DEEPEST}") from None
    if not isinstance(content, dict):
        raise ValueError("no object")
    _check_plain(content, 0)
    return content


def _check_plain(value: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"nested deeper than {_DEEPEST}")
    if isinstance(value, str):
        value.encode()  # a lone surrogate cannot be written again
    elif isinstance(value, int) and abs(value) > _LARGEST:
        raise ValueError("a number beyond 1e300")
    elif isinstance(value, list):
        for one in value:
            _check_plain(one, depth + 1)
    elif isinstance(value, dict):
        for key, one in value.items():
            key.encode()
            _check_plain(one, depth + 1)


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Add a line of JSON to a file."""
    with naming(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(content, allow_nan=True, ensure_ascii=False) + "\n")


def read_lines(path: Path, *, whole: bool = False) -> list[dict[str, Any]]:
    """Read a file of JSON lines; one that is not there has none.

    Args:
        path: of the file.
        whole: refuse an unfinished last line; else it is left out, being of a run that was killed.

    Raises:
        Damaged: a line is no JSON object; the message names the file and the line.
    """
    if not os.path.lexists(path):
        return []
    return parse_lines(path, read_whole(path), whole=whole)


def parse_lines(path: Path, content: bytes, *, whole: bool) -> list[dict[str, Any]]:
    """Read what a file of JSON lines holds; see :func:`read_lines`."""
    *lines, rest = content.split(b"\n")
    if whole and rest:
        raise Damaged(f"{path} is damaged (line {len(lines) + 1} is unfinished)")
    found: list[dict[str, Any]] = []
    try:
        for line in lines:
            found.append(read_object(line))
    except ValueError as error:
        raise Damaged(f"{path} is damaged (line {len(found) + 1}: {error})") from error
    return found
