"""The published sets are read as they are laid out; damaged and missing files say so."""

import io

import numpy as np
import pytest
import torch

from regrow.vision.corruptions import CorruptedFolder, load_corrupted


@pytest.fixture(autouse=True)
def _alone(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("REGROW_DATA", raising=False)
    monkeypatch.setattr("regrow.data.places._SYSTEM", "/nowhere")


def write_arrays(folder, corruption="fog", per_severity=3):
    folder.mkdir(parents=True, exist_ok=True)
    count = 5 * per_severity
    images = np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8)
    np.save(folder / f"{corruption}.npy", images)
    np.save(folder / "labels.npy", np.tile(np.arange(per_severity, dtype=np.uint8), 5))
    return images


def write_image(path, pixels):
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    path.write_bytes(out.getvalue())


@pytest.mark.parametrize("inside", ["cifar10-c", "CIFAR-10-C", "cifar10-c/CIFAR-10-C"])
def test_severities_lie_one_after_another(tmp_path, inside):
    images = write_arrays(tmp_path / inside)
    for severity in range(1, 6):
        found, labels = load_corrupted("cifar10-c", "fog", severity, tmp_path)
        wanted = images[3 * (severity - 1) : 3 * severity].transpose(0, 3, 1, 2)
        assert found.dtype == torch.uint8 and np.array_equal(found.numpy(), wanted)
        assert labels.dtype == torch.int64 and labels.tolist() == [0, 1, 2]


def test_a_hundred_classes_are_read_and_data_is_found_by_the_environment(tmp_path, monkeypatch):
    write_arrays(tmp_path / "CIFAR-100-C", "jpeg_compression", per_severity=70)
    monkeypatch.setenv("REGROW_DATA", str(tmp_path))
    _, labels = load_corrupted("cifar100-c", "jpeg_compression", 5)
    assert labels.tolist() == list(range(70))


def test_writing_to_what_was_read_does_not_change_the_file(tmp_path):
    images = write_arrays(tmp_path / "cifar10-c")
    load_corrupted("cifar10-c", "fog", 1, tmp_path)[0].zero_()
    assert np.array_equal(np.load(tmp_path / "cifar10-c" / "fog.npy"), images)


@pytest.mark.parametrize(
    "given, said",
    [
        (("cifar", "fog", 1), "name='cifar': .*cifar10-c"),
        (("cifar10-c", "rain", 1), "corruption='rain'"),
        (("cifar10-c", "fog", 0), "severity=0"),
    ],
)
def test_unknown_names_are_refused(tmp_path, given, said):
    with pytest.raises(ValueError, match=said):
        load_corrupted(*given, tmp_path)


def test_missing_files_say_where_they_were_looked_for(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=rf"fog.npy not found; looked in {tmp_path}.*zenodo"
    ):
        load_corrupted("cifar10-c", "fog", 1, tmp_path)
    write_arrays(tmp_path / "cifar10-c")
    (tmp_path / "cifar10-c" / "labels.npy").unlink()
    with pytest.raises(FileNotFoundError, match=r"labels.npy is missing"):
        load_corrupted("cifar10-c", "fog", 1, tmp_path)


@pytest.mark.parametrize(
    "damage, said",
    [
        (lambda f: f.joinpath("fog.npy").write_bytes(b"\x93NUMPY"), "fog.npy is damaged"),
        (lambda f: f.joinpath("fog.npy").write_bytes(b""), "fog.npy is damaged"),
        (lambda f: np.save(f / "fog.npy", np.zeros((5, 8, 8, 3), np.uint8)), "not uint8 of n×32"),
        (lambda f: np.save(f / "fog.npy", np.zeros((15, 32, 32, 3))), "holds float64"),
        (lambda f: np.save(f / "fog.npy", np.zeros((14, 32, 32, 3), np.uint8)), "labels.npy"),
        (lambda f: np.save(f / "labels.npy", np.full(15, 10, np.uint8)), "labels 10..10, not 0..9"),
        (lambda f: np.save(f / "labels.npy", np.zeros(14, np.uint8)), "not uint8 of 15"),
        (
            lambda f: np.save(f / "labels.npy", np.array([{}] * 15), allow_pickle=True),
            "labels.npy is damaged",
        ),
    ],
)
def test_damaged_files_are_named(tmp_path, damage, said):
    write_arrays(folder := tmp_path / "cifar10-c")
    damage(folder)
    with pytest.raises(ValueError, match=said):
        load_corrupted("cifar10-c", "fog", 1, tmp_path)


def test_a_file_must_hold_five_severities(tmp_path):
    write_arrays(folder := tmp_path / "cifar10-c")
    np.save(folder / "fog.npy", np.zeros((14, 32, 32, 3), np.uint8))
    np.save(folder / "labels.npy", np.zeros(14, np.uint8))
    with pytest.raises(ValueError, match="holds 14 images"):
        load_corrupted("cifar10-c", "fog", 1, tmp_path)


def test_folders_are_read_class_by_class(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), np.uint8)
    root = tmp_path / "Tiny-ImageNet-C"
    for i, place in enumerate(["n02/a.JPEG", "n02/b.jpg", "n01/c.png", "n01/notes.txt"]):
        write_image(root / "snow" / "2" / place, pixels[i])
    folder = CorruptedFolder.find("tiny-imagenet-c", "snow", 2, tmp_path)
    assert len(folder) == 3 and folder.classes == ["n01", "n02"]
    image, label = folder[0]
    assert label == 0 and np.array_equal(image.numpy(), pixels[2].transpose(2, 0, 1))
    batches = list(folder.batches(2))
    assert [labels.tolist() for _, labels in batches] == [[0, 1], [1]]
    read = torch.cat([images for images, _ in batches]).numpy()
    assert np.array_equal(read, pixels[[2, 0, 1]].transpose(0, 3, 1, 2))
    ordered = CorruptedFolder(root, "snow", 2, classes=["n09", "n02", "n01"])
    assert ordered.labels.tolist() == [2, 1, 1]


def test_folders_that_are_not_there_or_no_class_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"fog/3 not found.*imagenet-c.*zenodo"):
        CorruptedFolder.find("imagenet-c", "fog", 3, tmp_path)
    with pytest.raises(ValueError, match="name='cifar10-c'"):
        CorruptedFolder.find("cifar10-c", "fog", 3, tmp_path)
    with pytest.raises(FileNotFoundError, match="is missing"):
        CorruptedFolder(tmp_path, "fog", 3)
    (tmp_path / "fog" / "3" / "n01").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="holds no image"):
        CorruptedFolder(tmp_path, "fog", 3)
    with pytest.raises(ValueError, match="n01 is none of the 1 classes"):
        CorruptedFolder(tmp_path, "fog", 3, classes=["n02"])
    write_image(tmp_path / "fog" / "3" / "n01" / "a.png", np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match="size=0"):
        next(CorruptedFolder(tmp_path, "fog", 3).batches(0))
    (tmp_path / "fog" / "3" / "n01" / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a.png is damaged"):
        CorruptedFolder(tmp_path, "fog", 3)[0]
