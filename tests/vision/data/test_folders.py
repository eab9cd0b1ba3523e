"""Image folders: what is read depends on seed, epoch and image, not on who reads it or when."""

import numpy as np
import pytest
import torch

from regrow.vision.data import FolderBatches, ImageFolder

pytest.importorskip("PIL")


@pytest.fixture
def root(tmp_path, picture):
    """Classes of odd-sized images: red tells the class, blue grows to the right."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 4), ("val", 2)):
        for c, wnid in enumerate(("n10", "n20", "n30")):
            folder = tmp_path / "imagenet" / split / wnid
            folder.mkdir(parents=True)
            for i in range(n):
                height, width = rng.integers(20, 60, 2)
                image = np.zeros((height, width, 3), np.uint8)
                image[:, :, 0] = 100 * c
                image[:, :, 2] = np.linspace(0, 255, width)
                (folder / f"{wnid}_{i}.JPEG").write_bytes(picture(image, "PNG"))
            (folder / ".hidden.JPEG").write_text("no image")
            (folder / "notes.txt").write_text("no image")
    (tmp_path / "imagenet" / "train" / "n15").mkdir()  # no image of it in val
    (tmp_path / "imagenet" / "train" / "n15" / "a.png").write_bytes(picture((1, 2, 3)))
    return tmp_path / "imagenet"


def small(root, split="train", **arguments):
    return ImageFolder(root, split, size=16, resize=20, **arguments)


def test_classes_are_numbered_by_name_in_both_parts(root):
    train, val = small(root), small(root, "val")
    assert train.classes == val.classes == ["n10", "n15", "n20", "n30"]
    assert train.labels.tolist() == [0] * 4 + [1] + [2] * 4 + [3] * 4
    assert val.labels.tolist() == [0, 0, 2, 2, 3, 3]
    assert val.path(2) == root / "val" / "n20" / "n20_0.JPEG"


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_image_has_its_size_and_its_label(root, split):
    folder = small(root, split)
    for index in range(len(folder)):
        image, label = folder[index]
        assert (image.shape, image.dtype) == ((3, 16, 16), torch.uint8)
        if folder.classes[label] != "n15":
            red = {"n10": 0, "n20": 100, "n30": 200}[folder.classes[label]]
            assert image[0].unique().tolist() == [red]


def test_training_images_change_with_epoch_and_seed_and_come_back(root):
    folder = small(root)
    first = folder.read(0, 1)[0]
    assert torch.equal(first, small(root).read(0, 1)[0])
    assert not torch.equal(first, folder.read(0, 2)[0])
    assert not torch.equal(first, small(root, seed=1).read(0, 1)[0])


def test_training_images_are_flipped_half_of_the_time_and_seldom_whole(root):
    folder = small(root)
    blue = torch.stack([folder.read(0, epoch)[0][2, 0].int() for epoch in range(200)])
    slope = (blue[:, -1] - blue[:, 0]).sign()
    assert 60 < int((slope > 0).sum()) < 140
    assert int((slope == 0).sum()) == 0
    assert (blue[:, 0] - blue[:, -1]).abs().unique().numel() > 20


def test_testing_images_are_the_middle_and_never_change(root):
    from PIL import Image

    folder = small(root, "val")
    image = folder[0][0]
    assert torch.equal(image, folder.read(0, 5)[0])
    whole = Image.open(folder.path(0))
    blue = np.asarray(whole)[0, :, 2].astype(float)
    scale = 20 / min(whole.size)
    shown = 16 / (whole.width * scale)  # share of the width
    found = image[2, 0].numpy().astype(float)
    assert abs(found.mean() - blue.mean()) < 6
    assert abs((found[-1] - found[0]) - 255 * shown * 15 / 16) < 12


@pytest.mark.parametrize(
    "mode, kind", [("L", "JPEG"), ("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG")]
)
def test_every_mode_becomes_rgb(root, picture, mode, kind):
    folder = small(root, "val")
    folder.path(0).write_bytes(picture(np.full((30, 30, 3), 102, np.uint8), kind, mode))
    image = folder[0][0].int()
    assert image.shape == (3, 16, 16)
    assert (image - 102).abs().max() <= 4  # a colour of the usual palette


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("damage", [lambda c: c[: len(c) // 2], lambda c: b"", lambda c: b"text"])
def test_a_damaged_image_is_named(root, damage, workers):
    folder = small(root)
    path = folder.path(5)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        list(FolderBatches(folder, 13, seed=0, workers=workers).epoch(0))


def test_an_image_too_narrow_to_test_on_is_named(root, picture):
    folder = small(root, "val")
    folder.path(0).write_bytes(picture(np.zeros((1, 100_000, 3), np.uint8)))
    folder.resize = 256
    with pytest.raises(ValueError, match=rf"{folder.path(0)} takes .*REGROW_MAX_UNPACKED"):
        folder[0]


def test_a_class_that_leads_to_itself_is_named(root):
    (root / "train" / "n99").symlink_to(root / "train" / "n99")
    with pytest.raises(ValueError, match=rf"{root / 'train'} is damaged .*symbolic links"):
        ImageFolder(root)


def joined(batches, epoch):
    parts = list(batches.epoch(epoch))
    return torch.cat([b.inputs for b in parts]), torch.cat([b.targets for b in parts])


def noise(images, generator):
    return images.float() + torch.rand(len(images), 1, 1, 1, generator=generator)


def test_batches_do_not_depend_on_workers_or_on_what_came_before(root):
    alone = FolderBatches(small(root), 4, seed=3, augment=noise, workers=0)
    for epoch in (0, 1):
        list(alone.epoch(epoch))
    helped = FolderBatches(small(root), 4, seed=3, augment=noise, workers=2)
    for a, b in zip(alone.epoch(2), helped.epoch(2), strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)
        assert torch.equal(a.ids, b.ids)
    assert not torch.equal(joined(alone, 2)[0], joined(alone, 3)[0])


def test_ranks_share_the_batches_of_one_process(root):
    folder = small(root)
    whole = FolderBatches(folder, 4, seed=0, workers=0)
    ranks = [FolderBatches(folder, 4, seed=0, rank=r, ranks=2, workers=0) for r in (0, 1)]
    assert len(whole) == len(ranks[0]) == 3
    for one, first, second in zip(whole.epoch(1), *(r.epoch(1) for r in ranks), strict=True):
        for part in ("inputs", "targets", "ids"):
            shares = [getattr(batch, part) for batch in (first, second)]
            assert torch.equal(getattr(one, part), torch.cat(shares))


def test_every_image_comes_once_an_epoch(root):
    folder = small(root, "val")
    labels = joined(FolderBatches(folder, 4, seed=0, workers=0, drop_last=False), 0)[1]
    assert labels.sort().values.tolist() == folder.labels.tolist()


def test_batches_leave_torchs_own_random_numbers_alone(root):
    before = torch.get_rng_state()
    list(FolderBatches(small(root), 4, seed=0, workers=0).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_folder_is_found_by_name(root, tmp_path, monkeypatch):
    assert len(ImageFolder.find("imagenet", "val", tmp_path, size=8)) == 6
    monkeypatch.setenv("REGROW_DATA", str(tmp_path))
    assert ImageFolder.find(size=8, seed=4).seed == 4
    with pytest.raises(FileNotFoundError, match=r"other: .*image-net\.org"):
        ImageFolder.find("other")


def test_what_cannot_be_is_refused(root, tmp_path):
    with pytest.raises(FileNotFoundError, match=f"{tmp_path / 'none' / 'train'} is missing"):
        ImageFolder(tmp_path / "none")
    with pytest.raises(ValueError, match="split='test'"):
        ImageFolder(root, "test")
    with pytest.raises(ValueError, match="size=300, resize=256"):
        ImageFolder(root, size=300)
    with pytest.raises(ValueError, match="workers=-1"):
        FolderBatches(small(root), 4, seed=0, workers=-1)
    (root / "val" / "n99").mkdir()
    with pytest.raises(ValueError, match="n99 is none of the"):
        ImageFolder(root, "val")


def test_folders_without_images_are_refused(tmp_path):
    (tmp_path / "train" / "n10").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match="holds no image"):
        ImageFolder(tmp_path)


def test_an_error_leaves_no_worker_behind(root):
    import multiprocessing

    folder = small(root)
    folder.path(5).write_bytes(b"")
    before = set(multiprocessing.active_children())
    with pytest.raises(ValueError, match="is damaged") as caught:
        list(FolderBatches(folder, 1, seed=0, workers=2).epoch(0))
    assert set(multiprocessing.active_children()) == before
    assert str(folder.path(5)) in str(caught.value)
