"""Decodes videos, frame by frame, and encodes films."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from regrow.machine import needed
from regrow.reading import damaged, decoding, open_file

__all__ = ["decoded", "encoded"]

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


def encoded(pictures: Sequence[Any], rate: Fraction, *, extra: str) -> bytes:
    """Return a film of pictures, an MP4 in H.264 as browsers show it.

    Args:
        pictures: uint8, (h, w, 3), at least one, all of one shape. The film has even sides only: a
            last row and column may be shown twice.
        rate: pictures a second.
        extra: of regrow, which brings PyAV along.

    Raises:
        ImportError: PyAV is missing.
    """
    with needed("av", extra):
        import av  # noqa: PLC0415
    height, width = pictures[0].shape[:2]
    odd, out = ((0, height % 2), (0, width % 2), (0, 0)), io.BytesIO()
    with av.open(out, "w", format="mp4") as film:
        stream = film.add_stream("h264", rate=rate, options={"crf": "17"})
        stream.height, stream.width = height + height % 2, width + width % 2
        stream.pix_fmt = "yuv420p"  # what browsers show
        for picture in pictures:
            even = np.ascontiguousarray(np.pad(picture, odd, mode="edge"))
            film.mux(stream.encode(av.VideoFrame.from_ndarray(even, format="rgb24")))
        film.mux(stream.encode())
    return out.getvalue()
