"""The ring of frames against a plain list, its files, and memory that is not there."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.control import memory
from regrow.control.pixels.frames import Frames
from regrow.control.pixels.images import windows
from regrow.control.pixels.kept import KeptFrames

CPU = torch.device("cpu")


def frame(number):
    content = torch.zeros(3, 4, 4, dtype=torch.uint8)
    content.view(-1)[:4] = torch.tensor([number >> s & 255 for s in (0, 8, 16, 24)])
    return content


def number_of(found):
    return sum(int(found[k]) << s for k, s in enumerate((0, 8, 16, 24)))


def played(ring, lengths):
    """Fill a ring; return (frames, frames, action, reward, ended) of all, and how many frames."""
    told, count = [], 0
    for length in lengths:
        episode = [count]
        ring.begin_(frame(count))
        count += 1
        for step in range(length):
            stack = [episode[max(0, len(episode) - k)] for k in (3, 2, 1)]
            episode.append(count)
            then = [episode[max(0, len(episode) - k)] for k in (3, 2, 1)]
            ended = step == length - 1 and length % 2 == 0
            ring.add_(torch.tensor([float(count)]), 0.5 * count, ended, frame(count))
            told.append((stack, then, float(count), 0.5 * count, float(ended)))
            count += 1
    return told, count


def read(ring, places):
    now, then = (ring.stacked(n).view(len(places), 3, -1) for n in ring.numbers(places))
    return [
        (
            [number_of(f) for f in now[k]],
            [number_of(f) for f in then[k]],
            float(ring.actions[p]),
            float(ring.rewards[p]),
            float(ring.ended[p]),
        )
        for k, p in enumerate(places.tolist())
    ]


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.integers(5, 40),
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=12),
)
def test_what_is_read_is_what_a_list_holds_of_the_frames_that_are_left(capacity, lengths):
    ring = Frames(capacity, 3, 4, 1, CPU)
    told, count = played(ring, lengths)
    left = [one for one in told if min(one[0]) >= count - capacity]
    assert len(ring) == len(left)
    if left:
        drawn = (torch.arange(len(left)) + 0.5) / len(left)
        assert read(ring, ring.chosen(drawn)) == left


def test_observations_never_reach_into_the_episode_before():
    ring = Frames(50, 3, 4, 1, CPU)
    played(ring, [4, 3])
    second = read(ring, torch.arange(4, 7))
    assert [now for now, *_ in second] == [[5, 5, 5], [5, 5, 6], [5, 6, 7]]
    assert [then for _, then, *_ in second] == [[5, 5, 6], [5, 6, 7], [6, 7, 8]]


def test_every_transition_is_as_likely():
    ring = Frames(20, 3, 4, 1, CPU)
    played(ring, [9, 30])
    drawn = torch.linspace(0, 1, 17_001)[1:-1]
    counts = ring.chosen(drawn).bincount(minlength=20)
    some = counts[counts > 0]
    assert len(some) == len(ring) and some.max() - some.min() <= 2


def test_cutting_on_a_gpu_s_way_is_cutting_on_the_cpu_s():
    ring = Frames(12, 4, 9, 1, CPU)
    generator = torch.Generator().manual_seed(0)
    ring.frames.random_(0, 256, generator=generator)
    numbers = torch.randint(0, 12, (10, 3), generator=generator)
    starts = torch.randint(-4, 5, (10, 2), generator=generator)
    for size in (9, 6):
        wanted = windows(ring.stacked(numbers), starts, size)
        assert torch.equal(ring.stacked(numbers, starts, size), wanted)
        assert torch.equal(ring._cut(numbers, starts, size), wanted)


@settings(max_examples=30, deadline=None)
@given(
    capacity=st.integers(5, 30),
    parts=st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=5),
    each=st.integers(1, 7),
)
def test_frames_kept_in_files_come_back(tmp_path_factory, capacity, parts, each):
    from regrow.control.pixels import kept as kept_module

    folder = tmp_path_factory.mktemp("kept")
    ring = Frames(capacity, 3, 4, 1, CPU)
    before, kept_module._EACH = kept_module._EACH, each
    try:
        files = KeptFrames(folder, ring)
        for lengths in parts:
            played(ring, lengths)
            state, counts = files.save_(), ring.state_dict()
        played(ring, [3])  # what comes after a checkpoint is not there again
        files._append_(files._parts[-1], b"x" * 48, 0)
        again = Frames(capacity, 3, 4, 1, CPU)
        again.load_state_dict(counts)
        KeptFrames(folder, again).load_(state)
    finally:
        kept_module._EACH = before
    first = max(0, again.frames_added - capacity)
    twin = Frames(capacity, 3, 4, 1, CPU)
    for lengths in parts:
        played(twin, lengths)
    assert np.array_equal(
        again.read(first, again.frames_added), twin.read(first, twin.frames_added)
    )
    assert len(again) == len(twin)


def test_files_that_the_last_checkpoint_names_stay_until_the_next(tmp_path, monkeypatch):
    monkeypatch.setattr("regrow.control.pixels.kept._EACH", 4)
    ring = Frames(6, 3, 4, 1, CPU)
    files = KeptFrames(tmp_path, ring)
    for _ in range(4):
        played(ring, [5])
        state = files.save_()
        played(ring, [5])
        files.save_()  # a checkpoint of which nobody knows
        for first, *_ in state["parts"]:
            assert (tmp_path / f"{first:09}.frames").is_file()
    assert len(list(tmp_path.iterdir())) <= 8
    files.remove()
    assert not tmp_path.exists()


@pytest.mark.parametrize("damage", ["gone", "short", "other"])
def test_damaged_files_are_named(tmp_path, damage):
    ring = Frames(30, 3, 4, 1, CPU)
    files = KeptFrames(tmp_path, ring)
    played(ring, [8])
    state = files.save_()
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(content[:-1] if damage == "short" else b"x" + content[1:])
    with pytest.raises(ValueError, match=r"000000000\.frames: is missing or damaged"):
        files.load_(state)


def test_a_replay_that_does_not_fit_is_refused_before_anything_is_made(monkeypatch):
    with pytest.raises(ValueError, match=r"replay=1000000000: .* GiB free: at most replay="):
        Frames(10**9, 3, 84, 1, CPU)
    monkeypatch.setattr(memory, "_free", lambda device: 100_000)
    with pytest.raises(ValueError, match="at most replay=1184 fits"):
        Frames(2000, 3, 4, 1, CPU)
    assert Frames(1184, 3, 4, 1, CPU).capacity == 1184
    with pytest.raises(ValueError, match="replay=4: must hold 5 frames"):
        Frames(4, 3, 4, 1, CPU)
