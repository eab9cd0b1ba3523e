"""Decodes images, alone or in Parquet files, into arrays of bytes."""

from __future__ import annotations

import contextlib
import io
import math
import struct
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from regrow.data.tables import read_in_parts
from regrow.machine import needed
from regrow.reading import check_size, damaged, decoding, open_file, read_file, refused

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Bytes", "decode", "is_image", "open_rgb", "read_image_parquet", "shorter_side"]

Bytes = npt.NDArray[np.uint8]

_ENDINGS, _FORMATS = (".jpeg", ".jpg", ".png"), ("JPEG", "PNG")
_AT_ONCE = 64  # images of a Parquet file
_PNG = b"\x89PNG\r\n\x1a\n"


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
        from PIL import Image, UnidentifiedImageError  # noqa: PLC0415
    with decoding(of), contextlib.ExitStack() as stack:
        whole = read_file(content) if isinstance(content, Path) else content
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # odd metadata, which are not read
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            # No other format: some of them are programs, or name other files.
            picture = stack.enter_context(Image.open(io.BytesIO(whole), formats=_FORMATS))
        except UnidentifiedImageError:
            why = "is damaged, or neither a JPEG nor a PNG image"
            raise refused(of, why, "get it again, or write it as one of them") from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            why = f"has more pixels than are allowed ({error})"
            raise refused(
                of, why, "if it is no mistake, raise PIL.Image.MAX_IMAGE_PIXELS"
            ) from None
        if picture.mode.startswith(("I", "F")):  # of which Pillow would cut off what is above 255
            raise ValueError(f"mode {picture.mode}, more than 8 bits a pixel: write it with 8")
        if picture.format == "PNG":
            _check_png(whole)
        rgb = picture.convert("RGB")
        rgb.format = picture.format
    return rgb


def _check_png(content: bytes) -> None:
    """Refuse a PNG file with a wrong checksum, which Pillow does not look at in all chunks."""
    place = len(_PNG)
    while place < len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        stated = content[place + 8 + length : place + 12 + length]
        if zlib.crc32(content[place + 4 : place + 8 + length]).to_bytes(4, "big") != stated:
            raise ValueError(f"the checksum of its part {kind!r} at byte {place} is wrong")
        place += 12 + length
        if kind == b"IEND":
            return
    raise ValueError("it breaks off")


def shorter_side(picture: Image.Image, pixels: int, of: object) -> Image.Image:
    """Resize an image, bilinear and smoothed, until its shorter side has so many pixels.

    Args:
        picture: any image.
        pixels: of the shorter side; the longer one is rounded down.
        of: what to call it in a message.

    Raises:
        UnreadableError: it is so narrow that it would become far too long.
    """
    from PIL import Image  # noqa: PLC0415

    shorter = min(picture.size)
    wide, tall = (int(pixels * side / shorter) for side in picture.size)
    check_size(of, 3 * wide * tall, 3 * math.prod(picture.size))
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
            pixels = picture.height * picture.width
            check_size(name, 3 * count * pixels, count * len(content))
            decoded = np.empty((count, 3, picture.height, picture.width), np.uint8)
        if (picture.height, picture.width) != decoded.shape[2:]:
            size, first = f"{picture.width}×{picture.height}", decoded.shape[:1:-1]
            raise damaged(name, f"{size} pixels, not {first[0]}×{first[1]} as the first")
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
        pass
    tables = [_image_table(path, image, label) for path in paths]
    labels = np.concatenate([table[label].to_numpy() for table in tables]).astype(np.int64)
    images, stored = decode(_encoded(paths, tables, image), len(labels))
    return images, labels, stored


def _image_table(path: Path, image: str, label: str) -> Any:
    """Read the columns, after a look at what they hold and how much."""
    from pyarrow import parquet, types  # noqa: PLC0415

    with decoding(path), open_file(path) as file:
        schema = parquet.ParquetFile(file).schema_arrow
        for name in (image, label):
            if schema.names.count(name) != 1:
                there = ", ".join(schema.names)
                raise ValueError(f"one column {name!r} is needed; it has {there}")
        kind = schema.field(image).type
        if not types.is_struct(kind) or kind.get_field_index("bytes") < 0:
            raise ValueError(f"column {image!r} holds {kind}, no struct with a field 'bytes'")
        if not types.is_integer(schema.field(label).type):
            raise ValueError(f"column {label!r} holds {schema.field(label).type}, no integers")
        table = read_in_parts(path, [f"{image}.bytes", label], _AT_ONCE)
        if table[label].null_count:
            raise ValueError(f"column {label!r} has {table[label].null_count} rows without a class")
        return table


def _encoded(
    paths: Sequence[Path], tables: Sequence[Any], image: str
) -> Iterator[tuple[str, bytes]]:
    """Yield what to call each image in a message, and its content."""
    for path, table in zip(paths, tables, strict=True):
        for i, row in enumerate(table[image]):
            content = row["bytes"].as_py() if row.is_valid else None
            if not isinstance(content, bytes):
                raise damaged(f"{path}, image {i}", "it has no bytes")
            yield f"{path}, image {i}", content
