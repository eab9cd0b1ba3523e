"""Images: what would flood the memory, run, or be read wrongly is refused."""

import io
import os

import numpy as np
import pytest

from regrow.data.pictures import open_rgb, read_image_parquet, shorter_side
from tests.malformed import png_chunk, png_that_claims

Image = pytest.importorskip("PIL.Image")


def png(array, **options):
    out = io.BytesIO()
    Image.fromarray(array).save(out, "PNG", **options)
    return out.getvalue()


PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 3), np.uint8)


def test_an_image_of_too_many_pixels_says_how_it_can_be_read(monkeypatch):
    with pytest.raises(
        ValueError, match=r"^a has more pixels .*raise PIL\.Image\.MAX_IMAGE_PIXELS"
    ):
        open_rgb(png_that_claims(10_000, 9_000), "a")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    assert np.array_equal(open_rgb(png(PIXELS), "a"), PIXELS)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 19)
    with pytest.raises(ValueError, match="more pixels"):
        open_rgb(png(PIXELS), "a")


@pytest.mark.parametrize("shape", [(1, 100_000), (100_000, 1)])
def test_an_image_too_narrow_to_be_resized_is_refused(shape):
    picture = Image.fromarray(np.zeros(shape, np.uint8)).convert("RGB")
    with pytest.raises(ValueError, match=r"^thin\.png takes .*REGROW_MAX_UNPACKED"):
        shorter_side(picture, 256, "thin.png")
    assert min(shorter_side(picture.crop((0, 0, 1, 1000)), 8, "a").size) == 8


def test_sixteen_bits_are_not_cut_to_eight():
    deep = png(np.array([[0, 300, 65535]], np.uint16))
    with pytest.raises(ValueError, match=r"^a is damaged \(mode I;16, more than 8 bits"):
        open_rgb(deep, "a")


def test_no_bit_of_a_png_file_is_changed_unseen():
    content = png(PIXELS)
    for i in range(8 * len(content)):
        damaged = bytearray(content)
        damaged[i // 8] ^= 1 << i % 8
        with pytest.raises(ValueError, match=r"^a is damaged"):
            open_rgb(bytes(damaged), "a")


def test_a_checksum_that_is_right_saves_no_wrong_size():
    content = png(PIXELS)
    wrong = (99).to_bytes(4, "big") + content[20:29]
    head = png_chunk(b"IHDR", wrong)
    with pytest.raises(ValueError, match=r"^a is damaged"):
        open_rgb(content[:8] + head + content[8 + len(head) :], "a")


def test_other_formats_are_not_even_tried(tmp_path):
    """Pillow hands PostScript, which is a program, to Ghostscript."""
    for kind in ("EPS", "GIF", "TIFF", "BMP"):
        out = io.BytesIO()
        Image.fromarray(PIXELS).save(out, kind)
        with pytest.raises(ValueError, match=r"a\.png is damaged, or neither a JPEG"):
            open_rgb(out.getvalue(), "a.png")


@pytest.mark.timeout(10)
def test_a_pipe_among_images_blocks_nobody(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png is a pipe, not a file"):
        open_rgb(tmp_path / "a.png", "a.png")


# ---------------------------------------------------------------------- Parquet


def write(path, rows, labels, **more):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"img": rows, "label": labels, **more}), path)


ROW = {"bytes": png(PIXELS), "path": "a.png"}


def test_images_and_labels_come_back(tmp_path):
    write(tmp_path / "a", [ROW] * 130, list(range(130)), other=[[1]] * 130)
    images, labels, kind = read_image_parquet([tmp_path / "a", tmp_path / "a"], "img", "label")
    assert kind == "PNG" and labels.tolist() == [*range(130)] * 2
    assert (images == PIXELS.transpose(2, 0, 1)).all()


@pytest.mark.parametrize(
    ("rows", "labels", "said"),
    [
        ([ROW, {"bytes": None, "path": "b.png"}], [0, 1], "image 1 is damaged .it has no bytes"),
        ([ROW, None], [0, 1], "image 1 is damaged .it has no bytes"),
        ([b"a", b"b"], [0, 1], "column 'img' holds binary, no struct"),
        ([{"path": "a"}] * 2, [0, 1], "no struct with a field 'bytes'"),
        ([{"bytes": "text"}] * 2, [0, 1], "image 0 is damaged"),
        ([ROW, ROW], [0.5, 1.0], "column 'label' holds double, no integers"),
        ([ROW, ROW], [True, False], "column 'label' holds bool, no integers"),
        ([ROW, ROW], [{"a": 1}] * 2, "column 'label' holds struct.*, no integers"),
        ([ROW, ROW], [[1], [2]], "column 'label' holds list.*, no integers"),
        ([ROW, ROW], [1, None], "column 'label' has 1 rows without a class"),
        ([], [], "holds null, no struct"),
    ],
)
def test_what_is_no_image_or_class_is_refused(tmp_path, rows, labels, said):
    write(tmp_path / "a.parquet", rows, labels)
    with pytest.raises(ValueError, match=rf"a\.parquet.*{said}"):
        read_image_parquet([tmp_path / "a.parquet"], "img", "label")


def test_one_image_said_to_be_all_of_them_is_refused(tmp_path):
    rows = [{"bytes": png(np.zeros((3000, 3000), np.uint8)), "path": None}] * 20
    write(tmp_path / "a.parquet", rows, [0] * 20)
    with pytest.raises(ValueError, match=r"a\.parquet, image 0 takes .* unpacks to 540,000,000"):
        read_image_parquet([tmp_path / "a.parquet"], "img", "label")
