"""CIFAR in each of its versions: the same images come back, and damage is named."""

import shutil

import numpy as np
import pytest
import torch

from regrow.vision.data import cifar as module
from regrow.vision.data import load_data

pyarrow = pytest.importorskip("pyarrow")

SETS = {"cifar10": module.CIFAR10, "cifar100": module.CIFAR100}
VERSIONS = ("python", "python loose", "python packed", "binary", "binary packed", "parquet")


def some(n: int, classes: int, seed: int) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (n, 3, 32, 32)).astype(np.uint8), rng.integers(
        0, classes, n
    ).tolist()


def parts(name):
    """Files of a small set: two images each for training, three for testing."""
    spec = SETS[name]
    files = {file: some(2, spec.classes, i) for i, file in enumerate(spec.train)}
    return files | {spec.test: some(3, spec.classes, 99)}


@pytest.fixture
def write(tmp_path, python2_pickle, pack_tar, picture):
    def write(name, version):
        from pyarrow import parquet

        spec, files, folder = SETS[name], parts(name), tmp_path / name
        folder.mkdir()
        kind = 1 if version.startswith("binary") else 0
        coded = {}
        for file, (images, labels) in files.items():
            if kind:
                before = [bytes([7] * (spec.label_bytes - 1) + [label]) for label in labels]
                rows = [a + image.tobytes() for a, image in zip(before, images, strict=True)]
                coded[f"{file}.bin"] = b"".join(rows)
            else:
                content = {"batch_label": "x", spec.key: labels, "data": images.reshape(-1, 3072)}
                coded[file] = python2_pickle(content)
        if version == "parquet":
            for split, names in (("train", spec.train), ("test", (spec.test,))):
                images = np.concatenate([files[file][0] for file in names])
                rows = [{"bytes": picture(i.transpose(1, 2, 0)), "path": None} for i in images]
                labels = [label for file in names for label in files[file][1]]
                table = pyarrow.table({"img": rows, spec.column: labels, "other": labels[::-1]})
                parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet")
        elif version.endswith("packed"):
            pack_tar(folder / spec.remotes[kind].name, coded, spec.folders[kind])
        else:
            where = folder if version.endswith("loose") else folder / spec.folders[kind]
            where.mkdir(exist_ok=True)
            for file, content in coded.items():
                (where / file).write_bytes(content)
        return tmp_path

    return write


@pytest.mark.parametrize("name", SETS)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_gives_the_same_images_and_labels(write, name, version):
    data = load_data(name, write(name, version), download=False)
    files, spec = parts(name), SETS[name]
    images = np.concatenate([files[file][0] for file in spec.train])
    assert np.array_equal(data.train_inputs.numpy(), images)
    labels = [label for file in spec.train for label in files[file][1]]
    assert data.train_labels.tolist() == labels
    assert np.array_equal(data.test_inputs.numpy(), files[spec.test][0])
    assert data.test_labels.tolist() == files[spec.test][1]
    assert (data.name, data.classes) == (name, spec.classes)
    assert data.train_labels.dtype == torch.int64


def test_the_source_tells_lossy_images_from_published_ones(write):
    assert "PNG" in load_data("cifar10", write("cifar10", "parquet")).source


@pytest.mark.parametrize("version", ["python", "binary"])
def test_a_missing_part_is_named(write, version):
    root = write("cifar10", version)
    (path,) = (root / "cifar10").rglob("data_batch_3*")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path} is missing"):
        load_data("cifar10", root)


def test_a_missing_shard_is_named(write):
    root = write("cifar10", "parquet")
    path = root / "cifar10" / "train-00000-of-00001.parquet"
    path.rename(path.with_name("train-00000-of-00002.parquet"))
    with pytest.raises(FileNotFoundError, match="train-00001-of-00002"):
        load_data("cifar10", root)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: b"ab" * 9])
def test_a_damaged_file_is_named(write, version, damage):
    root = write("cifar10", version)
    path = max((p for p in (root / "cifar10").rglob("*") if p.is_file()), key=lambda p: p.name)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path}.* damaged"):
        load_data("cifar10", root)


def test_a_label_that_no_class_has_is_noticed(write):
    root = write("cifar10", "binary")
    (path,) = (root / "cifar10").rglob("test_batch.bin")
    path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    with pytest.raises(ValueError, match=rf"{path} is damaged \(labels \d\.\.10, not 0\.\.9\)"):
        load_data("cifar10", root)


def test_another_set_in_the_folder_is_not_taken_for_this_one(write):
    root = write("cifar100", "parquet")
    shutil.copytree(root / "cifar100", root / "cifar10")
    with pytest.raises(ValueError, match="damaged"):
        load_data("cifar10", root)


def test_images_of_another_size_are_noticed(tmp_path, picture):
    from pyarrow import parquet

    (tmp_path / "cifar10").mkdir()
    small = {"bytes": picture(np.zeros((8, 8, 3), np.uint8)), "path": None}
    for split in ("train", "test"):
        path = tmp_path / "cifar10" / f"{split}-00000-of-00001.parquet"
        parquet.write_table(pyarrow.table({"img": [small], "label": [0]}), path)
    with pytest.raises(ValueError, match=r"\(8, 8\), not 32×32"):
        load_data("cifar10", tmp_path)


def test_what_is_missing_altogether_is_named_with_where_and_how(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load_data("cifar100", tmp_path, download=False)
    for said in ("cifar-100-python.tar.gz", str(tmp_path / "cifar100"), "cache", "fine_label"):
        assert said in str(error.value)


@pytest.mark.long
def test_the_real_files_are_read(real_data):
    data = load_data("cifar10", real_data)
    assert (len(data.train_labels), len(data.test_labels)) == (50_000, 10_000)
    assert data.test_labels.bincount().tolist() == [1000] * 10
