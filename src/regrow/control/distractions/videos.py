"""Videos that distract: a folder of the user's clips, decoded when first needed, and kept."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from regrow.data.pictures import is_image, open_rgb
from regrow.data.video import decoded
from regrow.engine.checks import check_integer
from regrow.machine import expanded
from regrow.reading import damaged, refused

__all__ = ["Frames", "Videos"]

Frames = npt.NDArray[np.uint8]
_KINDS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mp4", ".avi": "avi", ".mkv": "matroska",
          ".webm": "matroska"}  # fmt: skip
_FEWEST = 8  # frames of a clip: of fewer, a picture that flickers is made


class Videos:
    """A folder of clips, each resized to a square of a size.

    A clip is a video's file (mp4, m4v, mov, avi, mkv, webm), a folder of its frames (JPEG or PNG,
    in the order of the numbers in their names), or an image, which stands still. Clips are in the
    order of their names, numbers by value.

    Args:
        folder: of the clips, or one clip.
        size: pixels of a frame's side.
        frames: the most that are read of a clip; None: all.
        keep: bytes of decoded clips that are kept; beyond, those not used for longest are dropped.

    Raises:
        ValueError: the folder holds no clip, or one has too few frames or pixels, or one of its
            first frames cannot be read.
        FileNotFoundError: there is no such folder.
        ImportError: PyAV or Pillow is missing.

    Example:
        >>> Videos("/nowhere", 84)
        Traceback (most recent call last):
        FileNotFoundError: videos=/nowhere: no such folder
    """

    def __init__(
        self, folder: str | Path, size: int, *, frames: int | None = None, keep: int = 2 << 30
    ) -> None:
        self.folder, self.size = expanded(folder), check_integer(size, "size", 1)
        self.frames = None if frames is None else check_integer(frames, "frames", 1)
        self._keep, self._kept = keep, OrderedDict[int, Frames]()
        if not self.folder.exists():
            raise FileNotFoundError(f"videos={folder}: no such folder")
        one = self.folder.is_file()
        there = [self.folder] if one else sorted(self.folder.iterdir(), key=_order)
        self.clips = [path for path in there if _is_clip(path)]
        if not self.clips:
            endings = ", ".join([*_KINDS, ".jpg", ".png"])
            raise ValueError(
                f"videos={folder} holds no clip: files in {endings} are needed, or folders of "
                "images, one for each clip"
            )
        for clip in self.clips:
            self._decode(clip, min(_FEWEST, frames or _FEWEST))  # now, not after hours of training

    def __len__(self) -> int:
        """Return how many clips there are."""
        return len(self.clips)

    def __getitem__(self, number: int) -> Frames:
        """Return a clip: uint8, (frames, size, size, 3).

        Raises:
            UnreadableError: it is damaged, has too few frames or too few pixels; it is named.
            ImportError: PyAV or Pillow is missing.
        """
        number = range(len(self.clips))[number]
        if number not in self._kept:
            self._kept[number] = self._decode(self.clips[number], self.frames)
        self._kept.move_to_end(number)
        while len(self._kept) > 1 and sum(clip.nbytes for clip in self._kept.values()) > self._keep:
            self._kept.popitem(last=False)
        return self._kept[number]

    def _decode(self, path: Path, most: int | None) -> Frames:
        frames = []
        for frame in self._read(path):
            frames.append(frame)
            if len(frames) == most:
                break
        if len(frames) < _FEWEST and len(frames) != self.frames and not is_image(path.name):
            raise refused(
                path,
                f"has {len(frames)} frames, of which a clip needs at least {_FEWEST}",
                "give a longer clip; images in the folder of clips itself stand still",
            )
        return np.stack(frames)

    def _read(self, path: Path) -> Iterator[Frames]:
        if path.is_dir():
            yield from (_image(file, self.size) for file in _images(path))
            return
        if is_image(path.name):
            yield _image(path, self.size)
            return
        for frame in decoded(path, _KINDS[path.suffix.lower()], extra="pixels"):
            if frame.is_corrupt:
                raise damaged(path, f"its frame at {frame.time} s")
            _check_pixels(path, frame.width, frame.height, self.size)
            side = {"width": self.size, "height": self.size}
            yield frame.to_ndarray(format="rgb24", interpolation="AREA", **side)


def _images(path: Path) -> list[Path]:
    return sorted((file for file in path.iterdir() if is_image(file.name)), key=_order)


def _is_clip(path: Path) -> bool:
    if path.is_dir():
        return bool(_images(path))
    named = path.suffix.lower() in _KINDS and not path.name.startswith(".")
    return named or is_image(path.name)


def _order(path: Path) -> list[tuple[int, str]]:
    """Order names by the numbers in them, so that video10 comes after video9."""
    parts = re.findall(r"\d+|\D+", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def _image(path: Path, size: int) -> Frames:
    picture = open_rgb(path, str(path))
    from PIL import Image  # noqa: PLC0415  an extra

    _check_pixels(path, picture.width, picture.height, size)
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR))


def _check_pixels(path: Path, width: int, height: int, size: int) -> None:
    if min(width, height) < size / 2:
        raise refused(
            path,
            f"has {width}×{height} pixels, for frames of {size}×{size}",
            f"give a clip of at least {-(-size // 2)} pixels on either side",
        )
