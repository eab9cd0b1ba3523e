"""Decodes videos, frame by frame."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from regrow.machine import needed
from regrow.reading import damaged, decoding, open_file

__all__ = ["decoded"]

_WHOLE = 0.9  # the share of the frames a header promises that must be there


def decoded(path: Path, kind: str, *, extra: str) -> Iterator[Any]:
    """Yield the frames of a video's file, ``av.VideoFrame``.

    Args:
        path: of the file.
        kind: its format, as FFmpeg calls it, such as "avi" or "mp4"; it is read as no other, since
            some formats are lists of other files, which would be read, too.
        extra: of regrow, which brings PyAV along.

    Raises:
        UnreadableError: the file is damaged, or breaks off.
        ImportError: PyAV is missing.
    """
    with needed("av", extra):
        import av  # noqa: PLC0415
    count = 0
    with decoding(path), open_file(path) as file, av.open(file, "r", format=kind) as container:
        if not container.streams.video:
            raise damaged(path, "it has no pictures")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"  # other processes read beside this one
        promised = stream.frames
        for frame in container.decode(stream):
            count += 1
            yield frame
    if not count or count < _WHOLE * promised:
        raise damaged(path, f"{count} frames, its header says {promised}")
