"""Downloads, accepted only if their checksum is the published one."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import tempfile
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["Remote", "fetch"]

_TIMEOUT = 60.0  # seconds without a byte
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Remote:
    """A file on the net.

    Args:
        url: where it is.
        checksum: hexadecimal, as published.
        algorithm: what the checksum is, a name in ``hashlib``.

    Example:
        >>> Remote("https://example.org/a/b.gz", "d41d8cd98f00b204e9800998ecf8427e").name
        'b.gz'
    """

    url: str
    checksum: str
    algorithm: str = "md5"

    @property
    def name(self) -> str:
        """The file's name."""
        return self.url.rpartition("/")[2]


def fetch(remote: Remote, folder: Path, advice: str) -> Path:
    """Download a file; it is there whole and checked, or not at all.

    One line on standard error says what is going on.

    Args:
        remote: what to download.
        folder: where to put it, under the name it has in its URL; made if need be.
        advice: how to get it by hand.

    Returns:
        The file's path.

    Raises:
        OSError: it cannot be reached, breaks off, or cannot be written.
        ValueError: its checksum is wrong; nothing is left of it.
    """
    target = folder / remote.name
    by_hand = f"To get it by hand: put {remote.url} into {folder}, or {advice}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder, prefix=f".{remote.name}.")
    except OSError as error:
        raise OSError(f"{target} cannot be written ({error}). {by_hand}") from error
    part = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            checksum = _copy(remote, file)
        if checksum != remote.checksum:
            raise ValueError(
                f"{remote.url} is not the file that was published: {remote.algorithm} is "
                f"{checksum}, must be {remote.checksum}; {target} was not written. {by_hand}"
            )
        part.replace(target)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        raise OSError(
            f"{remote.url} could not be downloaded to {target} ({error}). {by_hand}"
        ) from error
    finally:
        part.unlink(missing_ok=True)
    return target


def _copy(remote: Remote, file: IO[bytes]) -> str:
    """Copy the content; return its checksum."""
    digest = hashlib.new(remote.algorithm, usedforsecurity=False)
    with urllib.request.urlopen(remote.url, timeout=_TIMEOUT) as response:
        size = int(response.headers.get("Content-Length") or 0)
        told = f" ({size / 1e6:.0f} MB)" if size else ""
        print(f"Downloading {remote.url}{told}", file=sys.stderr, flush=True)
        read = 0
        while chunk := response.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
            read += len(chunk)
    if size and read != size:
        raise OSError(f"it broke off after {read} of {size} bytes")
    return digest.hexdigest()
