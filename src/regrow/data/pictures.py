"""Decodes images, alone or in Parquet files, into arrays of bytes."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from regrow.reading import decoding
from regrow.machine import needed

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Bytes", "decode", "is_image", "open_rgb", "read_image_parquet", "shorter_side"]

Bytes = npt.NDArray[np.uint8]

_ENDINGS = (".jpeg", ".jpg", ".png")


def is_image(name: str) -> bool:
    """Tell whether a file's name is that of a JPEG or PNG image, and not of a hidden file.

    Example:
        >>> is_image("n01/a.JPEG"), is_image("n01/._a.JPEG"), is_image("n01/boxes.txt")
        (True, False, False)
    """
    path = PurePosixPath(name)
    return path.suffix.lower() in _ENDINGS and not path.name.startswith(".")


def open_rgb(content: bytes | Path, of: str) -> Image.Image:
    """Decode an image; grey, CMYK and palette images become RGB.

    Args:
        content: the encoded image, or its file.
        of: what to call it in a message.

    Raises:
        ValueError: it is damaged.
        ImportError: Pillow is missing.
    """
    with needed("pillow", "vision"):
        from PIL import Image  # noqa: PLC0415
    with (
        decoding(of, Image.DecompressionBombError),
        warnings.catch_warnings(),
        Image.open(io.BytesIO(content) if isinstance(content, bytes) else content) as picture,
    ):
        warnings.simplefilter("ignore")  # odd metadata, which are not read
        stored = picture.format
        rgb = picture.convert("RGB")
    rgb.format = stored
    return rgb


def shorter_side(picture: Image.Image, pixels: int) -> Image.Image:
    """Resize an image, bilinear and smoothed, until its shorter side has so many pixels.

    Args:
        picture: any image.
        pixels: of the shorter side; the longer one is rounded down.
    """
    from PIL import Image  # noqa: PLC0415

    shorter = min(picture.size)
    wide, tall = (int(pixels * side / shorter) for side in picture.size)
    return picture.resize((wide, tall), Image.Resampling.BILINEAR)


def decode(images: Iterable[tuple[str, bytes]], count: int) -> tuple[Bytes, str]:
    """Decode images of one size.

    Args:
        images: what to call each in a message, and its encoded content.
        count: how many there are.

    Returns:
        uint8 array of shape (count, 3, height, width), and the format they were stored in.

    Raises:
        ValueError: an image is damaged or of another size than the first.
        ImportError: Pillow is missing.
    """
    decoded = np.zeros((0, 3, 0, 0), np.uint8)
    stored = "nothing"
    for i, (name, content) in enumerate(images):
        picture = open_rgb(content, name)
        if i == 0:
            stored = str(picture.format)
            decoded = np.empty((count, 3, picture.height, picture.width), np.uint8)
        if (picture.height, picture.width) != decoded.shape[2:]:
            size, first = f"{picture.width}×{picture.height}", decoded.shape[:1:-1]
            raise ValueError(f"{name} is {size}, not {first[0]}×{first[1]}: get it again")
        decoded[i] = np.asarray(picture).transpose(2, 0, 1)
    return decoded, stored


def read_image_parquet(
    paths: Sequence[Path], image: str, label: str
) -> tuple[Bytes, npt.NDArray[np.int64], str]:
    """Read Hugging Face's layout: encoded images in ``image.bytes``, classes in ``label``.

    Args:
        paths: the files of one split, in order.
        image: name of the images' column.
        label: name of the classes' column.

    Returns:
        Images as of :func:`decode`, classes, and the format the images were stored in.

    Raises:
        ValueError: a file is damaged or lacks a column.
        ImportError: a package of the extra ``regrow[vision]`` is missing.
    """
    with needed("pyarrow", "vision"):
        from pyarrow import parquet  # noqa: PLC0415
    rows: list[tuple[str, bytes]] = []
    labels: list[int] = []
    for path in paths:
        with decoding(path):
            table = parquet.read_table(path, columns=[image, label])
            columns = table[image].to_pylist(), table[label].to_pylist()
            rows += [(f"{path}, image {i}", row["bytes"]) for i, row in enumerate(columns[0])]
            labels += [int(entry) for entry in columns[1]]
    images, stored = decode(rows, len(rows))
    return images, np.array(labels, np.int64), stored
