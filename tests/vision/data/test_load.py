"""Readers of published formats: right on small files, clear on missing and damaged ones."""

import gzip
import io
import struct

import numpy as np
import pytest
import torch

from regrow.vision.data import load_images, read_idx

pyarrow = pytest.importorskip("pyarrow")


def idx(array: np.ndarray) -> bytes:
    header = struct.pack(">HBB", 0, 8, array.ndim) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def fashion(tmp_path):
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for stem, n in (("train", 6), ("t10k", 4)):
        images, labels = rng.integers(0, 256, (n, 28, 28)), np.arange(n) % 10
        (folder / f"{stem}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{stem}-labels-idx1-ubyte").write_bytes(idx(labels))
    return tmp_path


@pytest.fixture
def cifar(tmp_path):
    from PIL import Image
    from pyarrow import parquet

    folder = tmp_path / "cifar10"
    folder.mkdir()
    for split, n in (("train", 5), ("test", 3)):
        rows = []
        for i in range(n):
            out = io.BytesIO()
            Image.new("RGB", (32, 32), (i, 2 * i, 3 * i)).save(out, "PNG")
            rows.append({"bytes": out.getvalue(), "path": f"{i}.png"})
        table = pyarrow.table({"img": rows, "label": list(range(n))})
        parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
    return tmp_path


def test_idx_files_are_read_plain_and_gzipped(fashion):
    data = load_images("fashion-mnist", fashion)
    assert data.train_images.shape == (6, 1, 28, 28)
    assert data.train_images.dtype == torch.uint8
    assert data.test_labels.tolist() == [0, 1, 2, 3]


def test_parquet_images_are_decoded(cifar):
    data = load_images("cifar10", cifar)
    assert data.train_images.shape == (5, 3, 32, 32)
    assert data.train_images[4, :, 0, 0].tolist() == [4, 8, 12]
    assert data.test_labels.tolist() == [0, 1, 2]
    assert "PNG" in data.source


def test_the_folder_may_come_from_the_environment(fashion, monkeypatch):
    monkeypatch.setenv("REGROW_DATA", str(fashion))
    assert len(load_images("fashion-mnist").train_labels) == 6


def test_a_missing_file_is_named_with_where_and_how(tmp_path, monkeypatch):
    monkeypatch.delenv("REGROW_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(FileNotFoundError) as error:
        load_images("cifar10", tmp_path)
    message = str(error.value)
    for part in (
        "train-00000-of-00001.parquet",
        str(tmp_path / "cifar10"),
        "cache",
        "Hugging Face",
    ):
        assert part in message


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: b"not gzip at all",
        lambda content: gzip.compress(b"\0\0\x0d\x01" + struct.pack(">I", 1) + b"1234"),
        lambda content: gzip.compress(gzip.decompress(content)[:-1]),
    ],
    ids=["truncated", "empty", "no gzip", "floats", "a byte short"],
)
def test_a_damaged_idx_file_is_named(fashion, damage):
    path = fashion / "fashion-mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=path.name):
        read_idx(path)


def test_a_damaged_parquet_file_is_named(cifar):
    path = cifar / "cifar10" / "test-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=path.name):
        load_images("cifar10", cifar)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"data='mnits'.*digits"):
        load_images("mnits")


def test_standardized_images_have_mean_0_and_deviation_1_in_training():
    train, test = load_images("digits").standardized()
    assert float(train.mean()) == pytest.approx(0, abs=1e-5)
    assert float(train.std()) == pytest.approx(1, abs=1e-5)
    assert abs(float(test.mean())) < 0.1


def test_the_digits_are_split_alike_every_time_and_by_class():
    first, second = load_images("digits"), load_images("digits")
    assert torch.equal(first.train_images, second.train_images)
    counts = first.train_labels.bincount() - first.test_labels.bincount()
    assert counts.abs().max() <= 1


@pytest.mark.parametrize(("name", "sizes"), [("cifar10", (50_000, 10_000))])
def test_the_real_files_are_read(real_data, name, sizes):
    data = load_images(name, real_data)
    assert (len(data.train_labels), len(data.test_labels)) == sizes
    assert data.test_labels.bincount().tolist() == [1000] * 10
