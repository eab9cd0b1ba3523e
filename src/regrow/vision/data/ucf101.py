"""UCF101: videos of actions, read clip by clip, as they are needed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from regrow.data.pictures import shorter_side
from regrow.data.places import Places
from regrow.engine.selection import seeded_generator
from regrow.reading import damaged, decoding, read_file
from regrow.vision.data.video_file import find_video, read_frames

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["UCF101", "clip_frames"]

_VIDEOS, _LISTS = "UCF-101", "ucfTrainTestlist"
_ADVICE = (
    "get UCF101.rar and UCF101TrainTestSplits-RecognitionTask.zip of crcv.ucf.edu/data/UCF101.php "
    f"and unpack them there, into {_VIDEOS} and {_LISTS}"
)


def clip_frames(total: int, frames: int, step: int, start: float) -> list[int]:
    """Say which frames of a video make a clip; a video that is too short begins again.

    Args:
        total: frames of the video, at least 1.
        frames: of the clip.
        step: every which frame is taken.
        start: where the clip begins: 0 is as early as can be, 1 as late as can be.

    Returns:
        Places in the video, counted from 0.

    Example:
        >>> clip_frames(10, 3, 2, 0.5), clip_frames(3, 5, 1, 1.0)
        ([3, 5, 7], [0, 1, 2, 0, 1])
    """
    room = max(0, total - (frames - 1) * step - 1)
    first = min(room, int(start * (room + 1)))
    return [(first + i * step) % total for i in range(frames)]


class UCF101(Dataset[tuple[Tensor, int]]):
    """Clips of UCF101; its videos need not fit into memory.

    Read are ``UCF-101/CLASS/VIDEO.avi`` as published, or in a video's place a folder of its frames
    (JPEG or PNG), ``UCF-101/CLASS/VIDEO/`` or ``UCF-101/VIDEO/``; and the lists of
    ``ucfTrainTestlist``. A clip to train on begins anywhere in its video; every frame is resized
    to ``resize`` pixels on its shorter side, the same square is cut out of all frames, anywhere,
    and all are flipped or none. Of a video to test on there are ``clips``, which begin at equal
    distances (one clip: in the middle), and show the middle of the frames.

    Args:
        root: the folder that holds ``UCF-101`` and ``ucfTrainTestlist``.
        split: ``"train"`` or ``"test"``.
        fold: which of the three published splits, 1 to 3.
        frames: of a clip.
        step: every which frame of the video is taken.
        size: side of a frame, in pixels.
        resize: shorter side before a square is cut out, at least ``size``.
        clips: of a video to test on; clip i is of video i // clips. To train on it is one.
        seed: of what is random; it depends on seed, epoch and video alone.

    Raises:
        FileNotFoundError: a list or a video is missing; it is named.
        ValueError: a list is damaged, or an argument is out of range.

    Source: Soomro et al. 2012 (arXiv 1212.0402).
    """

    def __init__(
        self,
        root: str | Path,
        split: Literal["train", "test"] = "train",
        *,
        fold: int = 1,
        frames: int = 16,
        step: int = 1,
        size: int = 112,
        resize: int = 128,
        clips: int = 1,
        seed: int = 0,
    ) -> None:
        if split not in ("train", "test"):
            raise ValueError(f"split={split!r}: must be 'train' or 'test'")
        if fold not in (1, 2, 3):
            raise ValueError(f"fold={fold}: must be 1, 2 or 3")
        if not 1 <= size <= resize:
            raise ValueError(f"size={size}, resize={resize}: must be 1 <= size <= resize")
        for name, value in (("frames", frames), ("step", step), ("clips", clips)):
            if value < 1:
                raise ValueError(f"{name}={value}: must be at least 1")
        if split == "train" and clips != 1:
            raise ValueError(f"clips={clips}: must be 1 in training, or split='test'")
        self.root, self.split, self.seed = Path(root), split, seed
        self.frames, self.step, self.clips = frames, step, clips
        self.size, self.resize = size, resize
        self.classes = _read_classes(self.root / _LISTS / "classInd.txt")
        videos, labels = _read_list(self.root / _LISTS / f"{split}list0{fold}.txt", self.classes)
        where = [_find(self.root / _VIDEOS, video) for video in videos]
        self._where = np.array(where, np.str_)  # one array: see ImageFolder
        self.labels = np.array(labels, np.int64).repeat(clips)

    @classmethod
    def find(
        cls,
        split: Literal["train", "test"] = "train",
        data_dir: str | Path | None = None,
        **options: int,
    ) -> UCF101:
        """Make one of the first folder ``ucf101`` that :func:`load_data` would look in.

        Args:
            split: as of the class.
            data_dir: the folder that holds ``ucf101``; None: only the usual places do.
            **options: as of the class: ``fold``, ``frames``, ``size`` and so on.

        Raises:
            FileNotFoundError: there is none; the message says where it was looked for.
        """
        root = Places("ucf101", data_dir).find(
            lambda folder: folder if (folder / _VIDEOS).is_dir() else None,
            f"a folder {_VIDEOS!r}",
            _ADVICE,
        )
        return cls(root, split, **options)

    def __len__(self) -> int:
        """Return how many clips there are."""
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Return a clip as it is in epoch 0, and its label."""
        return self.read(index, 0)

    def path(self, index: int) -> Path:
        """Return the file, or the folder of frames, of a clip's video.

        Args:
            index: of the clip.
        """
        return self.root / _VIDEOS / str(self._where[index // self.clips])

    def read(self, index: int, epoch: int) -> tuple[Tensor, int]:
        """Return a clip as it is in an epoch, and its label.

        Args:
            index: of the clip.
            epoch: its number; it makes no difference in testing.

        Returns:
            uint8, shape (3, frames, size, size), and the label.

        Raises:
            ValueError: the video is damaged; its file is named.
        """
        start, down, across, flip = (index % self.clips + 0.5) / self.clips, 0.5, 0.5, 0.0
        if self.split == "train":
            generator = seeded_generator(self.seed, "clip", epoch, index)
            start, down, across, flip = torch.rand(4, generator=generator).tolist()
        pictures = read_frames(
            self.path(index), lambda total: clip_frames(total, self.frames, self.step, start)
        )
        of = self.path(index)
        pixels = np.stack([self._cut(picture, down, across, of) for picture in pictures])
        if flip > 0.5:
            pixels = pixels[:, :, ::-1]
        return torch.from_numpy(pixels.transpose(3, 0, 1, 2).copy()), int(self.labels[index])

    def _cut(self, picture: Image.Image, down: float, across: float, of: Path) -> np.ndarray:
        resized = shorter_side(picture, self.resize, of)
        left, top = (
            int(share * (side - self.size + 1))
            for share, side in zip((across, down), resized.size, strict=True)
        )
        return np.asarray(resized.crop((left, top, left + self.size, top + self.size)))


def _lines(path: Path) -> list[str]:
    try:
        with decoding(path):
            text = read_file(path).decode("ascii")
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing: {_ADVICE}") from None
    return [line.strip() for line in text.splitlines() if line.strip()]


def _read_classes(path: Path) -> list[str]:
    """Read lines ``NUMBER NAME``, numbered from 1."""
    matches = [re.fullmatch(r"(\d+)\s+([\w-]+)", line) for line in _lines(path)]
    numbers = [int(match[1]) if match else None for match in matches]
    if not matches or numbers != list(range(1, len(matches) + 1)):
        raise damaged(path, "no list of numbered classes")
    return [match[2] for match in matches if match]


def _read_list(path: Path, classes: list[str]) -> tuple[list[str], list[int]]:
    """Read lines ``CLASS/VIDEO.avi``, followed in training lists by the class's number."""
    number = {name: i for i, name in enumerate(classes)}
    videos, labels = [], []
    for line in _lines(path):
        match = re.fullmatch(r"(([\w-]+)/[\w-]+\.avi)(?:\s+(\d+))?", line)
        label = number.get(match[2]) if match else None
        if match is None or label is None or match[3] not in (None, str(label + 1)):
            raise damaged(path, f"line {line!r}")
        videos.append(match[1])
        labels.append(label)
    if not videos:
        raise damaged(path, "no video")
    return videos, labels


def _find(videos: Path, name: str) -> str:
    """Return where a video lies under ``videos``."""
    where = find_video(videos / name) or find_video(videos / Path(name).name)
    if where is None:
        raise FileNotFoundError(
            f"{videos / name} is missing, and so is a folder of its frames: {_ADVICE}"
        )
    return str(where.relative_to(videos))
