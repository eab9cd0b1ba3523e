"""Files that are there whole, or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["append_line", "read_json", "read_lines", "remove_parts", "write_bytes", "write_json"]

_PART = ".part"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file in one step: whoever reads sees the old one or the new one.

    Raises:
        OSError: it cannot be written; the old one is still there, and nothing half is left.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_PART)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def remove_parts(folder: Path) -> None:
    """Remove what a process that was killed while it wrote has left in a folder."""
    for path in folder.glob(f".*{_PART}"):
        path.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain data as a JSON file in one step."""
    text = json.dumps(content, indent=1, allow_nan=True, ensure_ascii=False)
    write_bytes(path, (text + "\n").encode())


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file.

    Raises:
        ValueError: it is no JSON object; the message names the file.
    """
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} is damaged (no object)")
    return content


def append_line(path: Path, content: Mapping[str, Any]) -> None:
    """Add a line of JSON to a file."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(content, allow_nan=True, ensure_ascii=False) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines; an unfinished last line, of a run that was killed, is left out.

    Raises:
        ValueError: another line is no JSON; the message names the file.
    """
    if not path.exists():
        return []
    try:
        return [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error})") from error
