"""Streams: every sample in its task, nothing lost, nothing that depends on the rest."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.continual.streams import (
    STREAMS,
    Part,
    Stream,
    class_order,
    load_mini_imagenet,
    make_stream,
    permuted,
    rotated,
    split,
)


def arrays(classes: int = 10, each: int = 3, shape: tuple[int, ...] = (1, 4, 4)):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(classes).repeat(each)
    inputs = torch.rand(len(labels), *shape, generator=generator)
    inputs.flatten(1)[:, 0] = labels.float()  # what a sample is can be read from it
    return SimpleNamespace(
        train_inputs=inputs,
        train_labels=labels,
        test_inputs=inputs[: 2 * classes],
        test_labels=labels[: 2 * classes],
        classes=classes,
    )


# ---------------------------------------------------------------------- split


@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(0, 5))
def test_every_sample_is_in_one_task_with_its_own_label(sizes, seed):
    data = arrays(sum(sizes))
    order = class_order(data.classes, seed)
    tasks = list(split(data, sizes, order=order))
    assert [task.classes for task in tasks] == sizes
    assert [label for task in tasks for label in task.labels] == order
    for part, n in (("train", len(data.train_labels)), ("test", len(data.test_labels))):
        parts = [getattr(task, part) for task in tasks]
        assert sum(map(len, parts)) == n
        for task, own in zip(tasks, parts, strict=True):
            labels = torch.tensor(task.labels)[own.targets]
            assert torch.equal(own.inputs.flatten(1)[:, 0], labels.float())


def test_equal_tasks_are_consecutive_classes():
    assert [task.labels for task in split(arrays(), 5)][1] == (2, 3)


@pytest.mark.parametrize(
    ("tasks", "words"),
    [(3, "cannot be shared out"), (0, "tasks=0"), ((5, 4), "sum to 10"), ((10, 0), "at least 1")],
)
def test_classes_that_cannot_be_shared_out(tasks, words):
    with pytest.raises(ValueError, match=words):
        split(arrays(), tasks)


def test_an_order_holds_each_class_once_and_each_class_has_samples():
    with pytest.raises(ValueError, match="order="):
        split(arrays(4), 2, order=(0, 1, 2, 2))
    data = arrays(4)
    data.classes = 6
    with pytest.raises(ValueError, match="class 4 has no sample"):
        split(data, 2)


def test_labels_out_of_range_and_other_lengths_are_refused():
    data = arrays(4)
    data.train_labels = data.train_labels + 1
    with pytest.raises(ValueError, match=r"train_labels lie in 1\.\.4"):
        permuted(data, 2)
    data.train_labels = data.train_labels[:3]
    with pytest.raises(ValueError, match="3 labels for 12 inputs"):
        permuted(data, 2)


def test_class_orders_follow_the_seed():
    assert class_order(50, 1) == class_order(50, 1) != class_order(50, 2)


# ---------------------------------------------------------------------- permuted, rotated


@given(st.integers(1, 4), st.sampled_from([(6,), (1, 3, 4), (3, 3, 3)]))
def test_a_permutation_moves_whole_pixels_alike_in_all_images_and_parts(tasks, shape):
    data = arrays(4, shape=shape)
    for index, task in enumerate(permuted(data, tasks, seed=3)):
        if index == 0:
            assert task.train.inputs is data.train_inputs
        flat = task.train.inputs.flatten(2) if len(shape) > 1 else task.train.inputs
        before = data.train_inputs.flatten(2) if len(shape) > 1 else data.train_inputs
        # The numbering of pixels, permuted likewise, tells where each came from.
        where = torch.arange(flat.shape[-1]).expand(before.shape).reshape(data.train_inputs.shape)
        numbered = SimpleNamespace(**{**vars(data), "train_inputs": where})
        came_from = permuted(numbered, tasks, seed=3)[index].train.inputs.reshape(flat.shape)
        assert torch.equal(flat, before.gather(-1, came_from))
        assert sorted(came_from.reshape(-1, flat.shape[-1])[0].tolist()) == [*range(flat.shape[-1])]
        assert torch.equal(task.test.inputs, task.train.inputs[: len(task.test)])


def test_permutations_follow_seed_and_task():
    data = arrays(2)
    one, same, other = (permuted(data, 3, seed=s) for s in (0, 0, 1))
    assert torch.equal(one[2].train.inputs, same[2].train.inputs)
    assert not torch.equal(one[2].train.inputs, other[2].train.inputs)
    assert not torch.equal(one[1].train.inputs, one[2].train.inputs)


@pytest.mark.parametrize("quarter", [0, 1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_quarter_turns_are_those_of_numpy(quarter, dtype):
    data = arrays(2, shape=(2, 5, 5))
    data.train_inputs = (data.train_inputs * 100).to(dtype)
    found = rotated(data, (90 * quarter,))[0].train.inputs
    wanted = np.rot90(data.train_inputs.numpy(), quarter, axes=(2, 3)).copy()
    assert found.dtype == dtype
    torch.testing.assert_close(found, torch.from_numpy(wanted), atol=1e-3, rtol=0)


def test_an_oblong_image_keeps_its_shape_when_turned():
    data = arrays(1, 1, shape=(1, 9, 5))
    data.train_inputs = torch.zeros(1, 1, 9, 5)
    data.train_inputs[0, 0, 4, 1:4] = 1.0  # a bar across
    turned = rotated(data, (90,))[0].train.inputs[0, 0]
    wanted = torch.zeros(9, 5)
    wanted[3:6, 2] = 1.0  # stands upright, as long as before
    torch.testing.assert_close(turned, wanted, atol=1e-5, rtol=0)


def test_angles_are_spread_over_half_a_turn():
    assert [task.name.split(": ")[1] for task in rotated(arrays(2), 4)] == [
        "0°",
        "45°",
        "90°",
        "135°",
    ]
    with pytest.raises(ValueError, match="cannot be rotated"):
        rotated(arrays(2, shape=(6,)), 2)


# ---------------------------------------------------------------------- streams as such


@pytest.mark.parametrize("name", STREAMS)
def test_streams_known_by_name(name):
    known = STREAMS[name]
    data = arrays(100 if "100" in known.data or "imagenet" in known.data else 10)
    stream = make_stream(name, data, seed=1)
    assert len(stream) == known.tasks and stream.name == name
    assert len({task.name for task in stream}) == known.tasks
    if name.startswith("split"):
        assert stream[0].classes == data.classes // known.tasks


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match="stream='split-mnist': must be one of"):
        make_stream("split-mnist", arrays())


def test_a_stream_is_a_sequence_of_tasks_made_when_asked_for():
    made = []

    def make(index):
        made.append(index)
        return split(arrays(4), 2)[index % 2]

    stream = Stream("s", make, 4)
    assert made == [] and len(stream[1:3]) == 2
    stream[1:3][0], stream[-1]
    assert made == [1, 3]
    with pytest.raises(IndexError):
        stream[4]
    with pytest.raises(ValueError, match="at least one task"):
        stream[4:]


def test_prepared_changes_inputs_and_nothing_else():
    stream = split(arrays(4), 2)
    doubled = stream.prepared(lambda x: 2 * x)
    for before, after in zip(stream, doubled, strict=True):
        assert torch.equal(after.train.inputs, 2 * before.train.inputs)
        assert torch.equal(after.test.inputs, 2 * before.test.inputs)
        assert torch.equal(after.train.targets, before.train.targets)


@given(st.integers(1, 12))
def test_some_samples_are_distinct_and_follow_the_key(n):
    part = Part(torch.arange(10.0), torch.arange(10))
    some = part.some(n, 0)
    assert len(some) == min(n, 10) == len(set(some.targets.tolist()))
    assert torch.equal(some.inputs, some.targets.float())
    assert torch.equal(some.targets, part.some(n, 0).targets)


# ---------------------------------------------------------------------- miniImageNet


def save_image(path, value: int) -> None:
    from PIL import Image

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (value, 0, 255 - value)).save(path)


@pytest.mark.parametrize("layout", ["csv", "splits", "plain"])
def test_all_layouts_of_mini_imagenet_give_the_same_arrays(tmp_path, layout):
    pytest.importorskip("PIL")
    rows = {"train": [("n01", i) for i in range(4)], "test": [("n02", i) for i in range(4)]}
    for part, images in rows.items():
        lines = ["filename,label"]
        for label, i in images:
            name = f"{label}{i}.png"
            place = {"csv": "images", "splits": f"{part}/{label}", "plain": label}[layout]
            save_image(tmp_path / place / name, 10 * i + int(label[-1]))
            lines.append(f"{name},{label}")
        if layout == "csv":
            (tmp_path / f"{part}.csv").write_text("\n".join(lines) + "\n")
    data = load_mini_imagenet(tmp_path, size=8, test_per_class=1, seed=5)
    assert data.names == ("n01", "n02") and data.classes == 2
    assert data.train_inputs.shape == (6, 3, 8, 8) and data.test_inputs.shape == (2, 3, 8, 8)
    assert torch.equal(data.train_inputs[:, 0, 0, 0] % 10, data.train_labels + 1)
    seen = torch.cat([data.train_inputs, data.test_inputs])[:, 0, 0, 0]
    assert sorted(seen.tolist()) == [1, 2, 11, 12, 21, 22, 31, 32]
    assert [task.classes for task in split(data, 2)] == [1, 1]


def test_a_list_cannot_lead_out_of_its_folder(tmp_path):
    pytest.importorskip("PIL")
    save_image(tmp_path / "secret.png", 1)
    root = tmp_path / "data"
    for i in range(2):
        save_image(root / "images" / f"{i}.png", 1)
    (root / "train.csv").write_text("filename,label\n../../secret.png,a\n0.png,a\n1.png,a\n")
    with pytest.raises(FileNotFoundError, match=r"images.secret\.png"):
        load_mini_imagenet(root, test_per_class=1)


def test_what_is_wrong_with_a_folder_is_said(tmp_path):
    pytest.importorskip("PIL")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        load_mini_imagenet(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="holds no miniImageNet"):
        load_mini_imagenet(tmp_path)
    save_image(tmp_path / "a" / "0.png", 1)
    with pytest.raises(ValueError, match="class a has 1 images"):
        load_mini_imagenet(tmp_path, test_per_class=1)
    with pytest.raises(ValueError, match="test_per_class=0"):
        load_mini_imagenet(tmp_path, test_per_class=0)
    (tmp_path / "train.csv").write_text("name,class\n")
    with pytest.raises(ValueError, match="filename, label needed"):
        load_mini_imagenet(tmp_path)
