"""Tiny-ImageNet as published, packed, and laid out anew by those who use image folders."""

import os
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from regrow.machine import cache_folder
from regrow.vision.data import load_data, tiny_imagenet

pytest.importorskip("PIL")

IDS = ["n02", "n01", "n03"]  # wnids.txt is not sorted
PUBLISHED = "tiny-imagenet/tiny-imagenet-200"


def colour(part: str, label: int, i: int) -> np.ndarray:
    """A plain image of its own: JPEG keeps plain colours, but for a rounding."""
    return np.full(
        (64, 64, 3), (30 * label + 5, 100 * i + 20, 200 if part == "train" else 90), np.uint8
    )


@pytest.fixture
def tiny(tmp_path, picture):
    """The published folders: two images a class to train on, one to test on."""
    root = tmp_path / PUBLISHED
    (root / "val" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(IDS) + "\n")
    (root / "words.txt").write_text("n01\tgoldfish\n")
    lines = []
    for i, wnid in enumerate(IDS):
        label = sorted(IDS).index(wnid)
        folder = root / "train" / wnid / "images"
        folder.mkdir(parents=True)
        for k in range(2):
            image = picture(colour("train", label, k), "JPEG")
            (folder / f"{wnid}_{k}.JPEG").write_bytes(image)
        (folder.parent / f"{wnid}_boxes.txt").write_text(f"{wnid}_0.JPEG\t0\t0\t9\t9\n")
        image = picture(colour("val", label, 0), "JPEG")
        (root / "val" / "images" / f"val_{i}.JPEG").write_bytes(image)
        lines.append(f"val_{i}.JPEG\t{wnid}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "test" / "images").mkdir(parents=True)
    (root / "test" / "images" / "test_0.JPEG").write_bytes(image)
    return tmp_path


def pack(root: Path) -> None:
    folder = root / PUBLISHED
    with zipfile.ZipFile(root / "tiny-imagenet" / "tiny-imagenet-200.zip", "w") as archive:
        for path in [folder, *folder.rglob("*")]:
            archive.write(path, path.relative_to(folder.parent))
    shutil.rmtree(folder)


def loosen(root: Path) -> None:
    for path in list((root / PUBLISHED).iterdir()):
        path.rename(root / "tiny-imagenet" / path.name)


def by_class(root: Path, inner: str) -> None:
    val = root / PUBLISHED / "val"
    for line in (val / "val_annotations.txt").read_text().splitlines():
        image, wnid = line.split("\t")[:2]
        (val / wnid / inner).mkdir(parents=True)
        (val / "images" / image).rename(val / wnid / inner / image)
    (val / "images").rmdir()


LAYOUTS = {
    "published": lambda root: None,
    "packed": pack,
    "loose": loosen,
    "val by class": lambda root: by_class(root, "images"),
    "val by class, flat": lambda root: by_class(root, ""),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_images_and_labels(tiny, layout):
    LAYOUTS[layout](tiny)
    data = load_data("tiny-imagenet", tiny, download=False)
    assert data.train_inputs.shape == (6, 3, 64, 64)
    assert data.train_inputs.dtype == torch.uint8
    assert data.classes == 3
    for part, inputs, labels, each in (
        ("train", data.train_inputs, data.train_labels, 2),
        ("val", data.test_inputs, data.test_labels, 1),
    ):
        assert labels.bincount().tolist() == [each] * 3
        seen = dict.fromkeys(range(3), 0)
        for image, label in zip(inputs, labels.tolist(), strict=True):
            wanted = colour(part, label, seen[label]).transpose(2, 0, 1).astype(int)
            assert np.abs(image.numpy() - wanted).max() <= 3
            seen[label] += 1


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_images_of_other_modes_become_rgb(tiny, picture, mode):
    path = tiny / PUBLISHED / "train" / "n01" / "images" / "n01_0.JPEG"
    path.write_bytes(picture(np.full((64, 64, 3), 120, np.uint8), "JPEG", mode))
    data = load_data("tiny-imagenet", tiny)
    first = data.train_inputs[data.train_labels == 0][0].int()
    assert (first - 120).abs().max() <= 3


def test_a_damaged_image_is_named(tiny):
    path = tiny / PUBLISHED / "train" / "n01" / "images" / "n01_0.JPEG"
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        load_data("tiny-imagenet", tiny)


def test_a_missing_image_is_named(tiny):
    path = tiny / PUBLISHED / "val" / "images" / "val_1.JPEG"
    path.unlink()
    with pytest.raises(FileNotFoundError, match=f"{path} is missing"):
        load_data("tiny-imagenet", tiny)


def test_a_class_without_images_is_named(tiny):
    shutil.rmtree(tiny / PUBLISHED / "train" / "n02")
    with pytest.raises(FileNotFoundError, match="any image of class n02 in train is missing"):
        load_data("tiny-imagenet", tiny)


@pytest.mark.parametrize("line", ["val_0.JPEG\tn99\n", "val_0.JPEG\n", "\n"])
def test_a_damaged_line_is_shown(tiny, line):
    with (tiny / PUBLISHED / "val" / "val_annotations.txt").open("a") as file:
        file.write(line)
    with pytest.raises(ValueError, match=r"val_annotations\.txt is damaged"):
        load_data("tiny-imagenet", tiny)


def test_annotations_cannot_lead_out_of_the_folder(tiny, picture):
    (tiny / "secret.JPEG").write_bytes(picture(np.zeros((64, 64, 3), np.uint8), "JPEG"))
    with (tiny / PUBLISHED / "val" / "val_annotations.txt").open("a") as file:
        file.write("../../../../secret.JPEG\tn01\n")
    with pytest.raises(FileNotFoundError, match="secret"):
        load_data("tiny-imagenet", tiny)


@pytest.fixture
def decodings(monkeypatch):
    """Counts the calls of the decoder."""
    calls, decode = [], tiny_imagenet.decode

    def counted(images, count):
        calls.append(count)
        return decode(images, count)

    monkeypatch.setattr(tiny_imagenet, "decode", counted)
    return calls


def same(a, b):
    return torch.equal(a.train_inputs, b.train_inputs) and torch.equal(a.test_labels, b.test_labels)


def test_images_are_decoded_once(tiny, decodings):
    first = load_data("tiny-imagenet", tiny)
    assert decodings == [6, 3]
    again = load_data("tiny-imagenet", tiny)
    assert decodings == [6, 3]
    assert same(first, again)
    again.train_inputs.zero_()  # what is kept does not change with what was loaded from it
    assert same(first, load_data("tiny-imagenet", tiny))


def test_a_changed_image_is_decoded_anew(tiny, decodings, picture):
    load_data("tiny-imagenet", tiny)
    path = tiny / PUBLISHED / "train" / "n01" / "images" / "n01_0.JPEG"
    path.write_bytes(picture(np.full((64, 64, 3), 7, np.uint8), "JPEG"))
    os.utime(path, (1, 1))  # and even if it became older by it
    data = load_data("tiny-imagenet", tiny)
    assert decodings == [6, 3, 6, 3]
    assert (data.train_inputs.flatten(1).float().mean(1) < 10).any()


@pytest.mark.parametrize("place", ["", "decoded"])
def test_a_cache_that_cannot_be_written_is_done_without(tiny, decodings, place):
    blocked = cache_folder() / place if place else cache_folder()
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("a file where a folder should be")
    first, second = load_data("tiny-imagenet", tiny), load_data("tiny-imagenet", tiny)
    assert decodings == [6, 3, 6, 3]
    assert same(first, second)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1],
        lambda _: b"",
        lambda _: b"PK",
        lambda _: None,
    ],
)
def test_a_damaged_cache_is_written_anew(tiny, decodings, damage):
    first = load_data("tiny-imagenet", tiny)
    (path,) = cache_folder().rglob("train-images.npy")
    content = path.read_bytes()
    path.unlink()  # a new file: the old one is mapped
    if (damaged := damage(content)) is not None:
        path.write_bytes(damaged)
    assert same(first, load_data("tiny-imagenet", tiny))
    assert decodings == [6, 3, 6, 3]
    assert same(first, load_data("tiny-imagenet", tiny))
    assert len(decodings) == 4
    assert not [p for p in (cache_folder() / "decoded").iterdir() if p.name.startswith(".")]
