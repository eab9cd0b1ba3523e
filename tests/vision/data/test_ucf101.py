"""UCF101: files and folders of frames, clips, batches, and what is wrong with them."""

import builtins
import shutil
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.vision.data import UCF101, FolderBatches
from regrow.vision.data.ucf101 import clip_frames

pytest.importorskip("PIL")

CLASSES = ("ApplyEyeMakeup", "YoYo")
COUNTS = {"v_ApplyEyeMakeup_g01_c01": 20, "v_ApplyEyeMakeup_g08_c01": 9, "v_YoYo_g01_c01": 12}


def frame(number, blue):
    """Red says which frame it is; blue, in the left half, which video."""
    image = np.zeros((30, 40, 3), np.uint8)
    image[..., 0] = 10 * number
    image[:, :20, 2] = blue
    return image


def names(video):
    action = video.split("_")[1]
    return f"{action}/{video}"


@pytest.fixture
def root(tmp_path, picture):
    """Extracted frames of three videos; two to train on, two to test on."""
    folder = tmp_path / "ucf101"
    for v, (video, count) in enumerate(COUNTS.items()):
        where = folder / "UCF-101" / names(video)
        where.mkdir(parents=True)
        for i in range(count):
            (where / f"image_{i + 1}.jpg").write_bytes(picture(frame(i, 60 * v + 60), "PNG"))
        (where / ".hidden.jpg").write_text("no image")
        (where / "n_frames").write_text("20")
    lists = folder / "ucfTrainTestlist"
    lists.mkdir()
    index = "".join(f"{i + 1} {name}\r\n" for i, name in enumerate(CLASSES))
    (lists / "classInd.txt").write_text(index)
    first, second, third = (f"{names(video)}.avi" for video in COUNTS)
    (lists / "trainlist01.txt").write_text(f"{second} 1\r\n{third} 2\r\n")
    (lists / "testlist01.txt").write_text(f"{first}\r\n{third}\r\n")
    return folder


def small(root, split="train", **arguments):
    return UCF101(root, split, **{"frames": 4, "size": 12, "resize": 15} | arguments)


def numbers(clip):
    """Which frames of the video a clip shows."""
    return (clip[0].flatten(1).float().mean(1) / 10).round().int().tolist()


def test_a_clip_has_its_shape_and_label(root):
    for split in ("train", "test"):
        data = small(root, split)
        assert data.classes == list(CLASSES)
        for index in range(len(data)):
            clip, label = data[index]
            assert (clip.shape, clip.dtype) == ((3, 4, 12, 12), torch.uint8)
            assert data.classes[label] in str(data.path(index))
    assert small(root).labels.tolist() == [0, 1]


def test_frames_are_ordered_by_number_not_by_name(root):
    clip, _ = small(root, "test", frames=20)[0]
    assert numbers(clip) == list(range(20))


def test_testing_clips_begin_at_equal_distances_and_never_change(root):
    data = small(root, "test", clips=4, step=2)
    assert len(data) == 8
    assert data.labels.tolist() == [0] * 4 + [1] * 4
    starts = [numbers(data.read(i, epoch)[0]) for i in range(4) for epoch in (0, 1)]
    assert starts == [list(range(s, s + 8, 2)) for s in (1, 1, 5, 5, 8, 8, 12, 12)]
    assert numbers(small(root, "test")[0][0]) == [8, 9, 10, 11]


def test_training_clips_change_with_epoch_and_seed_and_come_back(root):
    data = small(root)
    shown = [numbers(data.read(0, epoch)[0]) for epoch in range(80)]
    assert {s[0] for s in shown} == set(range(6))
    assert all(s == list(range(s[0], s[0] + 4)) for s in shown)
    assert torch.equal(data.read(0, 3)[0], small(root).read(0, 3)[0])
    assert any(
        not torch.equal(data.read(0, e)[0], small(root, seed=1).read(0, e)[0]) for e in range(3)
    )


def test_all_frames_of_a_training_clip_are_cut_and_flipped_alike(root):
    data = small(root)
    left = set()
    for epoch in range(30):
        blue = data.read(0, epoch)[0][2].float()
        assert (blue - blue[0]).abs().max() <= 1
        profile = blue[0].mean(0)
        left.add(bool(profile[0] > profile[-1]))
    assert left == {True, False}


def test_a_short_video_begins_again(root):
    assert numbers(small(root, "test", frames=14)[1][0]) == [*range(12), 0, 1]


@given(
    total=st.integers(1, 60),
    frames=st.integers(1, 20),
    step=st.integers(1, 5),
    start=st.floats(0, 1),
)
def test_frames_of_a_clip_lie_in_the_video_a_step_apart(total, frames, step, start):
    chosen = clip_frames(total, frames, step, start)
    assert len(chosen) == frames
    assert all(0 <= i < total for i in chosen)
    assert all((b - a) % total == step % total for a, b in pairwise(chosen))
    if (frames - 1) * step < total:
        assert chosen == sorted(chosen)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_read_by_workers(root, workers):
    batches = FolderBatches(small(root), 2, seed=0, workers=workers)
    alone = FolderBatches(small(root), 2, seed=0, workers=0)
    for batch, same in zip(batches.epoch(1), alone.epoch(1), strict=True):
        assert batch.inputs.shape == (2, 3, 4, 12, 12)
        assert sorted(batch.targets.tolist()) == [0, 1]
        assert torch.equal(batch.inputs, same.inputs)


def test_folders_of_frames_may_lie_side_by_side(root):
    before = small(root, "test")[0][0]
    folder = root / "UCF-101"
    (folder / names("v_ApplyEyeMakeup_g01_c01")).rename(folder / "v_ApplyEyeMakeup_g01_c01")
    assert torch.equal(small(root, "test")[0][0], before)


def test_it_is_found_by_name(root, tmp_path, monkeypatch):
    assert len(UCF101.find("test", tmp_path, clips=3)) == 6
    monkeypatch.setenv("REGROW_DATA", str(tmp_path))
    assert UCF101.find(seed=4).seed == 4
    monkeypatch.delenv("REGROW_DATA")
    (tmp_path / "none").mkdir()
    with pytest.raises(FileNotFoundError, match=r"ucf101: .*crcv\.ucf\.edu"):
        UCF101.find(data_dir=tmp_path / "none")


def test_a_missing_video_is_named(root):
    listed = root / "ucfTrainTestlist" / "testlist01.txt"
    listed.write_text("YoYo/v_YoYo_g09_c09.avi\n")
    with pytest.raises(FileNotFoundError, match=r"v_YoYo_g09_c09\.avi is missing"):
        small(root, "test")


def test_missing_lists_are_named(root):
    with pytest.raises(FileNotFoundError, match=r"trainlist02\.txt is missing"):
        small(root, fold=2)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("classInd.txt", b"1 YoYo\n3 Archery\n"),
        ("classInd.txt", b""),
        ("classInd.txt", b"\xff\xfe"),
        ("trainlist01.txt", b"YoYo/v_YoYo_g01_c01.avi 1\n"),
        ("trainlist01.txt", b"Archery/v_Archery_g01_c01.avi 2\n"),
        ("trainlist01.txt", b"../v_YoYo_g01_c01.avi 2\n"),
        ("trainlist01.txt", b"\n"),
    ],
)
def test_damaged_lists_are_named(root, file, content):
    (root / "ucfTrainTestlist" / file).write_bytes(content)
    with pytest.raises(ValueError, match=f"{file} is damaged"):
        small(root)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_frame_is_named(root, workers):
    data = small(root, frames=9)
    path = data.path(0) / "image_5.jpg"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        list(FolderBatches(data, 2, seed=0, workers=workers).epoch(0))


def test_a_folder_without_frames_is_named(root):
    data = small(root)
    for file in data.path(0).iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=f"{data.path(0)} holds no frame"):
        data[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"split": "val"}, {"fold": 4}, {"size": 30}, {"frames": 0}, {"step": 0}, {"clips": 0},
        {"clips": 2},
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(root, wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}="):
        small(root, **wrong)


# ---------------------------------------------------------------------- video files


def write_video(path, count, codec="mpeg4"):
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install av")
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 40, 30, "yuv420p"
        stream.bit_rate = 4_000_000
        for i in range(count):
            for packet in stream.encode(av.VideoFrame.from_ndarray(frame(i, 60), "rgb24")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)


def as_file(root, video, count):
    folder = root / "UCF-101" / names(video)
    shutil.rmtree(folder)
    write_video(folder.with_suffix(".avi"), count)
    return folder.with_suffix(".avi")


def test_a_file_shows_what_its_frames_show(root):
    before = small(root, "test", frames=5)[0][0]
    path = as_file(root, "v_ApplyEyeMakeup_g01_c01", 20)
    data = small(root, "test", frames=5)
    assert data.path(0) == path
    assert numbers(data[0][0]) == numbers(before) == [8, 9, 10, 11, 12]
    assert (data[0][0].float() - before.float()).abs().mean() < 6


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: b"text", lambda c: c[: len(c) // 2]])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_named(root, damage, workers):
    path = as_file(root, "v_ApplyEyeMakeup_g08_c01", 9)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=f"{path} is damaged"):
        list(FolderBatches(small(root), 2, seed=0, workers=workers).epoch(0))


def test_without_pyav_the_extra_is_named(root, monkeypatch):
    folder = root / "UCF-101" / names("v_ApplyEyeMakeup_g01_c01")
    folder.rename(folder.with_name("aside"))
    folder.with_suffix(".avi").write_bytes(b"a video")
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "av":
            raise ImportError("none")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r"pip install av, or pip install '\.\[video\]'"):
        small(root, "test")[0]
