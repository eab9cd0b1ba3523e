"""Files of volumes: what nibabel says of them, exactly back, and whatever is wrong with them."""

import gzip
import itertools
import re
import struct
import sys

import numpy as np
import pytest

from regrow.reading import UnreadableError
from regrow.segmentation.grids import grid_of
from regrow.segmentation.volumes import read_volume, write_volume
from tests.segmentation.phantoms import affine_of, full_disk, phantom, save

nibabel = pytest.importorskip("nibabel", reason="needs the extra regrow[segmentation]")

ORIENTATIONS = [
    (axes, signs)
    for axes in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_any_orientation_is_read_as_one_and_written_back_exactly(tmp_path, axes, signs):
    voxels = np.arange(5 * 6 * 7, dtype=np.int16).reshape(5, 6, 7)
    path = save(tmp_path / "a.nii.gz", voxels, affine_of((0.7, 1.4, 2.1), axes, signs))
    array, grid = read_volume(path)
    canonical = nibabel.as_closest_canonical(nibabel.load(path))
    np.testing.assert_array_equal(array, np.asarray(canonical.dataobj).transpose(2, 1, 0))
    assert grid.shape == array.shape
    assert grid.spacing == pytest.approx(canonical.header.get_zooms()[::-1])

    write_volume(tmp_path / "b.nii", array, grid)
    back = nibabel.load(tmp_path / "b.nii")
    np.testing.assert_array_equal(np.asarray(back.dataobj), voxels)
    np.testing.assert_array_equal(back.affine, nibabel.load(path).affine)


def test_an_oblique_grid_comes_back_exactly(tmp_path):
    turned = np.eye(4)
    turned[:3, :3] = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))[0]
    voxels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
    path = save(tmp_path / "a.nii.gz", voxels, turned @ affine_of((1, 1, 4)))
    write_volume(tmp_path / "b.nii.gz", *read_volume(path))
    back = nibabel.load(tmp_path / "b.nii.gz")
    np.testing.assert_array_equal(np.asarray(back.dataobj), voxels)
    np.testing.assert_array_equal(back.affine, nibabel.load(path).affine)
    # Viewers choose the one or the other of the two ways in which a file says where it is.
    for form in ("get_sform", "get_qform"):
        np.testing.assert_array_equal(getattr(back, form)(), getattr(nibabel.load(path), form)())


@pytest.mark.parametrize("angle", [0.1, 0.3, 0.7, 1.1])
def test_turned_voxels_have_the_sides_that_they_were_given(tmp_path, angle):
    """Files store float32: 1 mm became 1.00000002, beyond a tolerance of 1 mm."""
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    path = save(tmp_path / "a.nii", np.zeros((3, 4, 5), np.uint8), turn @ affine_of((1, 1, 0.7)))
    assert read_volume(path)[1].spacing == (0.7, 1.0, 1.0)


def test_channels_come_last_in_files_and_first_in_arrays(tmp_path):
    voxels = np.random.default_rng(0).normal(size=(4, 5, 6, 2)).astype(np.float32)
    path = save(tmp_path / "a.nii.gz", voxels)
    array, grid = read_volume(path)
    assert array.shape == (2, 6, 5, 4)
    assert grid.shape == (6, 5, 4)
    np.testing.assert_array_equal(array[1], voxels[..., 1].T)
    write_volume(tmp_path / "b.nii.gz", array, grid)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "b.nii.gz").get_fdata(), voxels)
    # NIfTI's own vectors are a fifth dimension, behind one of time.
    array, _ = read_volume(save(tmp_path / "c.nii", voxels[:, :, :, None]))
    assert array.shape == (2, 6, 5, 4)


def test_the_scale_of_a_file_is_applied_to_reading_and_left_off_in_writing(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), affine_of())
    image.header.set_slope_inter(0.5, -3)
    nibabel.save(image, tmp_path / "a.nii.gz")
    content = bytearray((tmp_path / "a.nii.gz").read_bytes())
    stored = bytearray(gzip.decompress(content))
    struct.pack_into("<ff", stored, 112, 0.5, -3.0)  # nibabel has applied it while saving
    stored[352:] = np.arange(24, dtype="<i2").tobytes()
    (tmp_path / "b.nii").write_bytes(stored)
    array, grid = read_volume(tmp_path / "b.nii")
    expected = np.arange(24).reshape((2, 3, 4), order="F") * 0.5 - 3
    np.testing.assert_array_equal(array, expected.T)
    write_volume(tmp_path / "c.nii", (array > 0).astype(int), grid)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "c.nii").get_fdata(), expected > 0)


@pytest.mark.parametrize(
    ("unit", "spacing"), [("mm", 2.0), ("meter", 2000.0), ("micron", 0.002), ("unknown", 2.0)]
)
def test_spacing_is_in_millimetres(tmp_path, unit, spacing):
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.diag([2.0, 2, 2, 1]))
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    assert read_volume(tmp_path / "a.nii")[1].spacing == pytest.approx((spacing,) * 3)


@pytest.mark.parametrize("kind", ["Nifti1Image", "Nifti2Image"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_both_versions_and_byte_orders_are_read(tmp_path, kind, order):
    cls = getattr(nibabel, kind)
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    image = cls(voxels, affine_of(), cls.header_class(endianness=order))
    image.header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))
    nibabel.save(image, tmp_path / "a.nii.gz")
    array, grid = read_volume(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(array, voxels.T)
    write_volume(tmp_path / "b.nii.gz", array, grid)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "b.nii.gz").get_fdata(), voxels)
    np.testing.assert_array_equal(nibabel.load(tmp_path / "b.nii.gz").affine, affine_of())


def test_one_slice_and_an_image_of_two_dimensions_are_one_slice(tmp_path):
    for shape in ((6, 5, 1), (6, 5)):
        voxels = np.arange(30, dtype=np.float32).reshape(shape)
        array, grid = read_volume(save(tmp_path / "a.nii.gz", voxels))
        assert array.shape == grid.shape == (1, 5, 6)
        np.testing.assert_array_equal(array[0], voxels.reshape(6, 5).T)
        write_volume(tmp_path / "b.nii.gz", array.astype(int), grid)
        assert nibabel.load(tmp_path / "b.nii.gz").shape[:2] == (6, 5)


@pytest.mark.parametrize("cut", [0, 3, 100, 400, -200, -9, -1])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, cut):
    path = save(tmp_path / "case_7.nii.gz", phantom(0)[0])
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(UnreadableError, match=r"case_7\.nii\.gz is damaged"):
        read_volume(path)


def test_a_flipped_bit_is_noticed(tmp_path):
    path = save(tmp_path / "a.nii.gz", np.random.default_rng(0).normal(size=(9, 9, 9)))
    content = bytearray(path.read_bytes())
    content[-8] ^= 1  # gzip's checksum, which is read last
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match="is damaged"):
        read_volume(path)


def test_a_file_that_claims_to_be_huge_is_refused_before_memory_is_taken(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((2, 2, 2), np.float32))
    content = bytearray(path.read_bytes())
    struct.pack_into("<3h", content, 42, 30000, 30000, 30000)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content))
    with pytest.raises(UnreadableError, match="REGROW_MAX_UNPACKED"):
        read_volume(tmp_path / "b.nii.gz")


def test_what_is_no_volume_of_numbers_is_refused(tmp_path):
    colours = np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    for array, said in (
        (colours, "one number a channel"),
        (np.zeros((2, 2, 2), np.complex64), "one number a channel"),
        (np.zeros((2, 2, 2, 3, 2), np.float32), "has 5 dimensions"),
    ):
        with pytest.raises(UnreadableError, match=said):
            read_volume(save(tmp_path / "a.nii", array))
    (tmp_path / "a.nrrd").write_text("NRRD0004")
    with pytest.raises(UnreadableError, match="convert it"):
        read_volume(tmp_path / "a.nrrd")
    (tmp_path / "text.nii").write_text("not a volume" * 100)
    with pytest.raises(UnreadableError, match="is damaged"):
        read_volume(tmp_path / "text.nii")


def test_a_grid_without_inverse_is_refused(tmp_path):
    path = save(tmp_path / "a.nii", np.zeros((2, 2, 2), np.float32))
    content = bytearray(path.read_bytes())
    content[280:328] = bytes(48)  # all of sform
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match="affine has no inverse"):
        read_volume(path)


def test_what_does_not_fit_is_not_written(tmp_path):
    grid = grid_of((2, 3, 4))
    with pytest.raises(ValueError, match=r"shape \(4, 3, 2\), but the grid is \(2, 3, 4\)"):
        write_volume(tmp_path / "a.nii", np.zeros((4, 3, 2), int), grid)
    with pytest.raises(ValueError, match=r"must end in .nii.gz or .nii"):
        write_volume(tmp_path / "a.png", np.zeros((2, 3, 4), int), grid)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("largest", "stored"), [(1, "u1"), (255, "u1"), (256, "u2"), (70000, "u4"), (-1, "i2")]
)
def test_labels_take_the_fewest_bytes_that_hold_them(tmp_path, largest, stored):
    labels = np.zeros((2, 3, 4), np.int64)
    labels[0, 1, 2] = largest
    write_volume(tmp_path / "a.nii.gz", labels, grid_of((2, 3, 4)))
    assert nibabel.load(tmp_path / "a.nii.gz").get_data_dtype() == np.dtype(stored)
    np.testing.assert_array_equal(read_volume(tmp_path / "a.nii.gz")[0], labels)


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path):
    path = tmp_path / "a.nii"
    write_volume(path, np.ones((2, 3, 4), int), grid_of((2, 3, 4)))
    before = path.read_bytes()
    with full_disk(300), pytest.raises(OSError, match=re.escape(str(path))):
        write_volume(path, np.zeros((2, 3, 4), int), grid_of((2, 3, 4)))
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.nii"]


def test_what_nibabel_would_mend_by_a_guess_is_refused_without_a_word(tmp_path, capfd, caplog):
    path = save(tmp_path / "a.nii", np.zeros((2, 2, 2), np.float32))
    content = bytearray(path.read_bytes())
    struct.pack_into("<h", content, 254, 512)  # sform_code: it would take another affine
    path.write_bytes(content)
    with pytest.raises(UnreadableError, match=r"a\.nii is damaged \(sform_code 512 not valid"):
        read_volume(path)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_without_nibabel_one_is_told_how_to_install_it(tmp_path, monkeypatch):
    path = save(tmp_path / "a.nii", np.zeros((2, 2, 2), np.float32))
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(
        ImportError, match=r"pip install nibabel, or pip install '\.\[segmentation\]'"
    ):
        read_volume(path)
