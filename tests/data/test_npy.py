"""NPY: what numpy writes is mapped, and a header that lies is refused."""

import numpy as np
import pytest

from regrow.data.npy import map_npy


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.zeros((0, 3), "u1"),
        np.float32(3),
        np.array(["tea", "é"]),
        np.zeros(2, [("a", "u1"), ("b", ">f8")]),
    ],
    ids=str,
)
def test_what_numpy_writes_is_read(tmp_path, array):
    path = tmp_path / "a.npy"
    np.save(path, array)
    before = path.read_bytes()
    found = map_npy(path)
    assert found.dtype == array.dtype and np.array_equal(found, array)
    found[...] = np.zeros((), found.dtype)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "shape", ["(-2, -3)", "(-1,)", "(7,)", "(5,)", "(6, 10**9)", "'6'", "(6.0,)", "(True, 6)"]
)
def test_a_header_that_lies_is_refused(tmp_path, shape):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(6, np.uint8))
    magic, header = path.read_bytes()[:8], path.read_bytes()[10:-6].strip()
    lie = header.replace(b"(6,)", shape.encode()) + b"\n"
    path.write_bytes(magic + len(lie).to_bytes(2, "little") + lie + bytes(6))
    with pytest.raises(ValueError, match=r"a\.npy is damaged"):
        map_npy(path)


def test_a_type_that_is_an_array_is_refused(tmp_path):
    path = tmp_path / "a.npy"
    np.save(path, np.zeros(6, np.uint8))
    magic, header = path.read_bytes()[:8], path.read_bytes()[10:-6].strip()
    lie = header.replace(b"'|u1'", b"('|u1', (1,))") + b"\n"
    path.write_bytes(magic + len(lie).to_bytes(2, "little") + lie + bytes(6))
    with pytest.raises(ValueError, match=r"a\.npy is damaged"):
        map_npy(path)


def test_a_name_that_is_not_utf8_is_no_hindrance(tmp_path):
    path = tmp_path / "a\udcff.npy"
    np.save(path, np.arange(6.0))
    before = path.read_bytes()
    found = map_npy(path)
    assert found.tolist() == list(range(6))
    found[...] = 0
    assert path.read_bytes() == before


def test_an_archive_of_arrays_is_not_taken_for_one(tmp_path):
    np.savez(tmp_path / "a.npz", np.zeros(2))
    with pytest.raises(ValueError, match=r"a\.npz is damaged"):
        map_npy(tmp_path / "a.npz")
