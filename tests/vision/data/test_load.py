"""Readers of published formats: right on small files, clear on missing and damaged ones."""

import gzip
import struct

import numpy as np
import pytest
import torch

from regrow.vision.data import DataSet, load_data


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


def test_idx_files_are_read_plain_and_gzipped(fashion):
    data = load_data("fashion-mnist", fashion)
    assert data.train_inputs.shape == (6, 1, 28, 28)
    assert data.train_inputs.dtype == torch.uint8
    assert data.test_labels.tolist() == [0, 1, 2, 3]


def test_the_folder_may_come_from_the_environment(fashion, monkeypatch):
    monkeypatch.setenv("REGROW_DATA", str(fashion))
    assert len(load_data("fashion-mnist").train_labels) == 6


def test_a_missing_file_is_named_with_where_and_how(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_data("fashion-mnist", tmp_path, download=False)
    message = str(error.value)
    for part in ("train-images", str(tmp_path / "fashion-mnist"), "cache", "Debian"):
        assert part in message


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"data='mnits'.*digits"):
        load_data("mnits")


def test_standardized_images_have_mean_0_and_deviation_1_in_training():
    train, test = load_data("digits").standardized()
    assert float(train.mean()) == pytest.approx(0, abs=1e-5)
    assert float(train.std()) == pytest.approx(1, abs=1e-5)
    assert abs(float(test.mean())) < 0.1


def test_the_digits_are_split_alike_every_time_and_by_class():
    first, second = load_data("digits"), load_data("digits")
    assert torch.equal(first.train_inputs, second.train_inputs)
    counts = first.train_labels.bincount() - first.test_labels.bincount()
    assert counts.abs().max() <= 1


def test_labels_without_an_image_are_noticed(fashion):
    path = fashion / "fashion-mnist" / "train-labels-idx1-ubyte"
    path.write_bytes(idx(np.arange(7)))
    with pytest.raises(ValueError, match=rf"{path.name} is damaged \(7 labels for 6\)"):
        load_data("fashion-mnist", fashion)


def test_standardizing_leaves_a_constant_channel_whole_and_the_data_alone():
    inputs = torch.stack([torch.full((7,), 0.1), torch.arange(7.0)], 1)
    labels = torch.zeros(7, dtype=torch.int64)
    data = DataSet("features", inputs.clone(), labels, inputs.clone(), labels, 2, "")
    train, test = data.standardized()
    assert train[:, 0].tolist() == [0.0] * 7
    assert float(train[:, 1].std()) == pytest.approx(1)
    assert torch.equal(train, test)
    assert torch.equal(data.train_inputs, inputs)


def test_test_inputs_are_standardized_by_what_was_trained_on():
    train = torch.tensor([[0.0], [2.0]])
    labels = torch.zeros(2, dtype=torch.int64)
    data = DataSet("features", train, labels, train + 10, labels, 2, "")
    standard, test = data.standardized()
    torch.testing.assert_close(test - standard, torch.full((2, 1), 10 / 2**0.5))
