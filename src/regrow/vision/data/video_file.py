"""Frames of a video, from its file or from a folder of images."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from regrow.data.pictures import is_image, open_rgb
from regrow.data.video import decoded
from regrow.reading import check_size

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["find_video", "read_frames"]


def find_video(path: Path) -> Path | None:
    """Return a video's file, or the folder of its extracted frames beside it; None: neither is.

    Args:
        path: of the file; the folder has the same name without its ending.

    Example:
        >>> find_video(Path("nowhere.avi")) is None
        True
    """
    if path.is_file():
        return path
    return path.with_suffix("") if path.with_suffix("").is_dir() else None


def read_frames(where: Path, choose: Callable[[int], Sequence[int]]) -> list[Image.Image]:
    """Read some frames of a video, in RGB.

    A file is decoded whole, for its header may count more or fewer frames than it has.

    Args:
        where: a video's file, or a folder of its frames, numbered by the last number in their
            names.
        choose: says which frames, counted from 0, of as many as there are.

    Returns:
        The frames chosen, in their order.

    Raises:
        ValueError: the file or a frame is damaged, or there is no frame; it is named.
        ImportError: PyAV, for files, or Pillow is missing; the message says how to get it.
    """
    return _of_folder(where, choose) if where.is_dir() else _of_file(where, choose)


def _of_folder(where: Path, choose: Callable[[int], Sequence[int]]) -> list[Image.Image]:
    files = sorted((file for file in where.iterdir() if is_image(file.name)), key=_number)
    if not files:
        raise ValueError(f"{where} holds no frame: extract the video's frames again")
    chosen = choose(len(files))
    frames = {i: open_rgb(files[i], str(files[i])) for i in set(chosen)}
    return [frames[i] for i in chosen]


def _number(file: Path) -> tuple[int, str]:
    numbers = re.findall(r"\d+", file.stem)
    return (int(numbers[-1]) if numbers else 0, file.name)


def _of_file(where: Path, choose: Callable[[int], Sequence[int]]) -> list[Image.Image]:
    frames = _decode(where)
    chosen = choose(len(frames))
    pictures: dict[int, Image.Image] = {i: frames[i].to_image() for i in set(chosen)}
    return [pictures[i] for i in chosen]


def _decode(where: Path) -> list[Any]:
    frames: list[Any] = []
    for frame in decoded(where, "avi", extra="video"):
        frames.append(frame)
        check_size(where, 3 * frame.width * frame.height * len(frames), where.stat().st_size)
    return frames
