"""Moving Fashion: what a clip shows is its label, and what a frame shows is not."""

import gzip
import math
import struct

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from regrow.vision.data import ACTIONS, Batches, load_data, moving_fashion, standard
from regrow.vision.data.actions import draw_poses, render
from regrow.vision.data.moving_fashion import make_clips


def poses_of(action, n=400, frames=16, seed=0):
    labels = torch.full((n,), ACTIONS.index(action))
    return draw_poses(labels, frames, torch.Generator().manual_seed(seed)).double()


def steps(values):
    """Changes from frame to frame, the short way round."""
    return (values.diff(dim=1) + 0.5) % 1 - 0.5


@pytest.mark.parametrize(
    ("action", "moving", "sign"),
    [
        ("moves left", 0, -1),
        ("moves right", 0, 1),
        ("moves up", 1, -1),
        ("moves down", 1, 1),
        ("turns clockwise", 2, 1),
        ("turns counter-clockwise", 2, -1),
        ("grows", 3, 1),
        ("shrinks", 3, -1),
    ],
)
def test_a_steady_action_changes_one_thing_at_one_pace(action, moving, sign):
    changes = steps(poses_of(action))
    for which in range(4):
        if which != moving:
            assert changes[..., which].abs().max() < 1e-6
    pace = sign * changes[..., moving]
    assert (pace > 0.7 / 16 - 1e-6).all()
    assert (pace < 1.5 / 16 + 1e-6).all()
    assert (pace - pace.mean(1, keepdim=True)).abs().max() < 1e-6
    assert pace[:, 0].std() > 0.01  # clips differ


def path(action):
    """Centres of clips, unrolled, relative to their first."""
    return steps(poses_of(action)[..., :2]).cumsum(1)


def test_a_circle_keeps_its_distance_and_goes_either_way():
    first, second, third = path("circles")[:, [0, 6, 12]].unbind(1)
    area = torch.linalg.det(torch.stack([second - first, third - first], 1))
    sides = [(a - b).norm(dim=1) for a, b in ((first, second), (second, third), (first, third))]
    radius = sides[0] * sides[1] * sides[2] / (2 * area.abs())
    assert (radius > 0.119).all()
    assert (radius < 0.251).all()
    assert 120 < int((area > 0).sum()) < 280


def test_a_shake_stays_on_a_line_and_comes_back():
    moved = path("shakes")
    _, widths, _ = torch.linalg.svd(moved - moved.mean(1, keepdim=True))
    assert (widths[:, 1] < 1e-5 * widths[:, 0]).all()
    assert moved.norm(dim=2).max() < 2 * 0.12 + 1e-6
    turns = (moved[..., 0].diff(dim=1).sign().diff(dim=1) != 0).sum(1)
    assert (turns >= 4).all()


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("frame", [0, 7, 15])
def test_poses_of_a_single_frame_are_uniform_whatever_the_action(action, frame):
    poses = poses_of(action, n=2000, seed=ACTIONS.index(action))[:, frame].numpy()
    for values in poses.T:
        assert stats.kstest(values, "uniform").pvalue > 1e-4
    for a, b in ((0, 1), (0, 2), (1, 2), (2, 3)):
        counts, *_ = np.histogram2d(poses[:, a], poses[:, b], 4, [[0, 1], [0, 1]])
        assert stats.chisquare(counts.ravel()).pvalue > 1e-4


def test_a_picture_is_where_its_pose_says_turned_and_sized():
    """Against scipy's affine transform of the picture, in the middle of a frame."""
    picture = torch.zeros(28, 28, dtype=torch.uint8)
    picture[6:22, 10:16] = 200
    picture[6:12, 10:24] = 90  # no symmetry
    turn, zoom, size = 0.15, 0.4, 40
    pose = torch.tensor([[[0.55, 0.45, turn, zoom]]])
    frame = render(picture[None], pose, size)[0, 0, 0].double()
    pixels = size * 0.4 * (0.75 / 0.4) ** zoom / 28  # of the frame to one of the picture
    angle = 2 * math.pi * turn  # clockwise, with rows downwards
    turned = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    backwards = turned.T / pixels  # rows and columns of the frame to those of the picture
    centre = np.array([0.45 * size - 0.5, 0.55 * size - 0.5])
    wanted = ndimage.affine_transform(
        picture.double().numpy(), backwards, 13.5 - backwards @ centre, (size, size), order=1
    )
    assert np.abs(frame.numpy() - wanted).max() <= 1.01


def test_what_leaves_on_one_side_comes_in_on_the_other():
    picture = torch.randint(0, 255, (1, 9, 9), dtype=torch.uint8)
    middle = torch.tensor([[[0.5, 0.5, 0.1, 0.3]]])
    moved = torch.tensor([[[0.0, 0.25, 0.1, 0.3]]])
    one, other = render(picture, middle, 32)[0, 0, 0], render(picture, moved, 32)[0, 0, 0]
    assert (one.int().roll((-8, -16), (0, 1)) - other.int()).abs().max() <= 1


def garments(n=6):
    return torch.randint(1, 255, (n, 28, 28), dtype=torch.uint8)


def test_clips_depend_on_the_seed_alone_and_actions_come_equally_often():
    given = garments()
    clips, labels = make_clips(given, 25, seed=3)
    again, same = make_clips(given, 25, seed=3)
    assert torch.equal(clips, again)
    assert torch.equal(labels, same)
    assert not torch.equal(clips, make_clips(given, 25, seed=4)[0])
    assert sorted(labels.bincount().tolist()) == [2] * 5 + [3] * 5


def test_rendering_in_parts_is_rendering_at_once(monkeypatch):
    given = garments()
    whole = make_clips(given, 7, seed=0, frames=4, size=9)[0]
    monkeypatch.setattr("regrow.vision.data.actions._CHUNK", 2)
    assert torch.equal(make_clips(given, 7, seed=0, frames=4, size=9)[0], whole)


@pytest.fixture
def fashion(tmp_path, monkeypatch):
    """Garments of one grey each, below 100 to train on, above to test on."""
    folder = tmp_path / "fashion-mnist"
    folder.mkdir()
    for stem, greys in (("train", range(40, 60)), ("t10k", range(140, 150))):
        images = np.stack([np.full((28, 28), grey, np.uint8) for grey in greys])
        for kind, array in (("images-idx3", images), ("labels-idx1", np.arange(len(images)) % 10)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            content = gzip.compress(header + array.astype(np.uint8).tobytes())
            (folder / f"{stem}-{kind}-ubyte.gz").write_bytes(content)
    monkeypatch.setattr(moving_fashion, "_TRAIN", 40)
    monkeypatch.setattr(moving_fashion, "_TEST", 20)
    return tmp_path


def test_it_is_loaded_by_name_and_garments_keep_to_their_part(fashion):
    data = load_data("moving-fashion", fashion)
    assert data.train_inputs.shape == (40, 1, 16, 32, 32)
    assert data.train_inputs.dtype == torch.uint8
    assert data.test_labels.bincount().tolist() == [2] * 10
    assert 39 < int(data.train_inputs.max()) < 60
    assert int(data.test_inputs.flatten(1).amax(1).min()) > 139
    train, test = data.standardized()
    assert float(train.mean()) == pytest.approx(0, abs=1e-5)
    assert test.shape == (20, 1, 16, 32, 32)
    batches = Batches(train, data.train_labels, 8, seed=0, augment=standard("moving-fashion"))
    assert [batch.inputs.shape for batch in batches.epoch(0)] == [(8, 1, 16, 32, 32)] * 5


def test_clips_are_rendered_once_and_again_for_other_garments(fashion, monkeypatch):
    first = load_data("moving-fashion", fashion).train_inputs
    made = []
    monkeypatch.setattr(
        moving_fashion,
        "_make",
        lambda places, make=moving_fashion._make: made.append(1) or make(places),
    )
    assert torch.equal(load_data("moving-fashion", fashion).train_inputs, first)
    assert not made
    path = fashion / "fashion-mnist" / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes() + gzip.compress(b""))
    load_data("moving-fashion", fashion)
    assert made


def test_missing_garments_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="fashion-mnist: train-images"):
        load_data("moving-fashion", tmp_path, download=False)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: make_clips(garments(), 0, seed=0), "count=0"),
        (lambda: make_clips(garments(), 3, seed=0, frames=1), "frames=1"),
        (lambda: make_clips(garments(), 3, seed=0, size=0), "size=0"),
        (lambda: render(garments(2), torch.zeros(3, 4, 4), 8), "2 pictures for 3 poses"),
    ],
)
def test_what_cannot_be_is_refused(call, said):
    with pytest.raises(ValueError, match=said):
        call()
