"""IDX: what is written comes back, and no damage passes."""

import gzip
import struct

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.data.idx import read_idx


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


CONTENT = idx(np.arange(24).reshape(2, 3, 4))


@given(st.lists(st.integers(0, 5), min_size=1, max_size=4))
def test_what_is_written_is_read(tmp_path_factory, shape):
    folder = tmp_path_factory.mktemp("idx")
    array = np.random.default_rng(0).integers(0, 256, shape)
    (folder / "a").write_bytes(idx(array))
    (folder / "a.gz").write_bytes(gzip.compress(idx(array)))
    for name in ("a", "a.gz"):
        read = read_idx(folder / name)
        assert read.dtype == torch.uint8 and np.array_equal(read.numpy(), array)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"not gzip at all",
        lambda content: gzip.compress(b"\0\0\x0d\x01" + struct.pack(">I", 1) + b"1234"),
        lambda content: gzip.compress(gzip.decompress(content)[:-1]),
        lambda content: gzip.compress(b"\0\0\x08\x03" + struct.pack(">I", 1)),
    ],
    ids=["truncated", "empty", "no gzip", "floats", "a byte short", "a head cut off"],
)
def test_a_damaged_file_is_named(tmp_path, damage):
    path = tmp_path / "images-idx3-ubyte.gz"
    path.write_bytes(damage(gzip.compress(CONTENT)))
    with pytest.raises(ValueError, match=rf"{path.name} is damaged"):
        read_idx(path)


def test_a_missing_file_is_not_called_damaged(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        read_idx(tmp_path / "none")
