"""Films of what an agent sees: the observation, its mask, and what the mask leaves of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.control.distractions.videos import Frames
from regrow.data.video import encoded
from regrow.machine import needed

__all__ = ["side_by_side", "write_film"]

_COLOURS = 192  # of a GIF's frame, which are taken from it


def side_by_side(frames: Frames, masks: npt.NDArray[np.floating[Any]]) -> Frames:
    """Return frames, masks and masked frames beside each other.

    Args:
        frames: uint8, (n, h, w, 3).
        masks: (n, h, w), in 0..1; white is 1.

    Returns:
        uint8, (n, h, 3w, 3).

    Raises:
        ValueError: shapes do not fit, or a mask is not in 0..1.

    Example:
        >>> frames, masks = np.full((2, 4, 4, 3), 200, np.uint8), np.full((2, 4, 4), 0.5)
        >>> side_by_side(frames, masks)[0, 0, ::4, 0].tolist()
        [200, 128, 100]
    """
    _check_frames(frames)
    if masks.shape != frames.shape[:3]:
        raise ValueError(f"masks of shape {masks.shape}: {frames.shape[:3]} is needed")
    if not ((masks >= 0) & (masks <= 1)).all():
        raise ValueError(f"masks in {masks.min()}..{masks.max()}: they must be in 0..1")
    white = np.repeat(masks[..., None], 3, -1)
    parts = [frames, _bytes(255 * white), _bytes(frames * white)]
    return np.concatenate(parts, 2)


def write_film(path: str | Path, frames: Frames, *, fps: int = 25, enlarged: int = 1) -> None:
    """Write a film: GIF, or MP4 in H.264.

    Args:
        path: ends in ``.gif`` or ``.mp4``.
        frames: uint8, (n, h, w, 3).
        fps: frames a second.
        enlarged: how many pixels wide and high each pixel becomes. MP4 has even sides only: a last
            row and column may be shown twice.

    Raises:
        ValueError: the ending is another, or there are no frames.
        ImportError: Pillow, for GIF, or PyAV, for MP4, is missing.
    """
    path = Path(path)
    writers: dict[str, Callable[[Path, Frames, int], None]] = {".gif": _gif, ".mp4": _mp4}
    if path.suffix.lower() not in writers:
        raise ValueError(f"path={path}: films end in {' or '.join(writers)}")
    _check_frames(frames)
    for name, number in (("fps", fps), ("enlarged", enlarged)):
        if number < 1:
            raise ValueError(f"{name}={number}: must be at least 1")
    large = frames.repeat(enlarged, 1).repeat(enlarged, 2)
    part = path.with_name(f"{path.stem}.{os.getpid()}.part{path.suffix.lower()}")
    try:
        writers[path.suffix.lower()](part, large, fps)
        part.replace(path)  # whole, or not there
    finally:
        part.unlink(missing_ok=True)


def _gif(path: Path, frames: Frames, fps: int) -> None:
    with needed("pillow", "pixels"):
        from PIL import Image  # noqa: PLC0415
    first, *others = [_few_colours(Image.fromarray(frame)) for frame in frames]
    # Of a GIF's frames the length is in hundredths of a second.
    length = max(10 * round(100 / fps), 20)
    first.save(path, save_all=True, append_images=others, duration=length, loop=0)


def _few_colours(picture: Any) -> Any:
    """Return a picture of 256 colours, a quarter of them greys: else rare greys become colours."""
    pixels, few = np.asarray(picture), picture.quantize(_COLOURS)
    colours = few.getpalette()[: 3 * _COLOURS]
    greys = np.linspace(0, 255, 256 - _COLOURS).round().astype(int)
    nearest = _COLOURS + np.rint(pixels[..., 0] / 255 * (len(greys) - 1))
    is_grey = (pixels == pixels[..., :1]).all(-1)
    few.putdata(np.where(is_grey, nearest, np.asarray(few)).astype(np.uint8).ravel())
    few.putpalette(colours + [0] * (3 * _COLOURS - len(colours)) + greys.repeat(3).tolist())
    return few


def _mp4(path: Path, frames: Frames, fps: int) -> None:
    path.write_bytes(encoded(list(frames), Fraction(fps), extra="pixels"))


def _check_frames(frames: Frames) -> None:
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[3] != 3 or not frames.size:
        raise ValueError(
            f"frames of {frames.dtype}, shape {frames.shape}: uint8, (n, h, w, 3) is needed, n of "
            "at least 1"
        )


def _bytes(numbers: npt.NDArray[Any]) -> Frames:
    rounded: Frames = np.rint(numbers).astype(np.uint8)
    return rounded
