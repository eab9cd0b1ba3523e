"""Scenes packed, written to shards, read back; writers that are killed, files that are damaged."""

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, DistributedSampler

from regrow.motion.datasets import CachedScenes, SceneStream, shard_files
from regrow.motion.formats.scenario import read_scenarios
from regrow.motion.formats.scenario_writer import write_scenarios
from regrow.motion.metrics import measure
from regrow.motion.packing import pack, unpack
from regrow.motion.scene import Points
from regrow.motion.shards import Shard, remove_leftovers, whole, write_shard
from regrow.reading import UnreadableError
from tests.motion.curves import predictions_of, scene_of

EXACT = ("times", "ids", "kinds", "valid", "targets", "line_lengths", "line_kinds")


def with_points(scene, count=40, seed=0):
    rng = np.random.default_rng(seed)
    counts = rng.integers(0, count, (len(scene.targets), scene.now + 1))
    values = (rng.random((counts.sum(), 6)) - 0.5) * [4, 4, 2, 0, 0, 0] + [0, 0, 0, 30, 0.5, 0.1]
    sensor = rng.random((scene.now + 1, 3)) * 100
    return replace(scene, points=Points(values.astype(np.float32), counts, sensor))


def moved(scene, shift):
    """Return a scene elsewhere, as in a city's coordinates."""
    states = scene.states + np.array([*shift, *[0] * 6]) * scene.valid[..., None]
    return replace(scene, states=states, line_points=scene.line_points + shift)


def assert_near(found, scene):
    assert (found.name, found.now, found.ego) == (scene.name, scene.now, scene.ego)
    for name in EXACT:
        np.testing.assert_array_equal(getattr(found, name), getattr(scene, name), err_msg=name)
    gap = np.abs(found.states - scene.states)
    assert gap[..., :2].max(initial=0) < 1e-4
    assert gap[..., 2:].max(initial=0) < 1e-3
    assert gap[..., 6].max(initial=0) < 1e-4
    np.testing.assert_allclose(found.line_points, scene.line_points, atol=5e-3)
    assert (found.points is None) == (scene.points is None)
    if scene.points is not None:
        np.testing.assert_array_equal(found.points.counts, scene.points.counts)
        np.testing.assert_allclose(found.points.values, scene.points.values, atol=1e-3, rtol=1e-3)
        np.testing.assert_array_equal(found.points.sensor, scene.points.sensor)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("shift", [(0, 0, 0), (40_000, -25_000, 120)])
def test_scenes_come_back_as_close_as_is_said(seed, shift):
    scene = moved(scene_of(seed), shift)
    assert_near(unpack(pack(scene)), scene)
    assert_near(unpack(pack(with_points(scene))), with_points(scene))


def test_packing_twice_changes_nothing_more():
    once = unpack(pack(with_points(scene_of(3))))
    twice = unpack(pack(once))
    for name, array in once.arrays().items():
        np.testing.assert_allclose(twice.arrays()[name], array, atol=1e-9, err_msg=name)


def test_odd_scenes_come_back():
    scene = scene_of(5)
    nobody = np.zeros_like(scene.valid)
    odd = replace(
        scene,
        states=scene.states * 0,
        valid=nobody,
        targets=scene.targets[:0],
        ego=None,
        line_points=np.zeros((0, 3)),
        line_lengths=np.zeros(0, np.int64),
        line_kinds=np.zeros(0, np.int64),
    )
    assert_near(unpack(pack(odd)), odd)
    assert_near(unpack(pack(with_points(odd))), with_points(odd))
    none = replace(
        scene, points=Points(np.zeros((0, 6)), np.zeros((6, 11), int), np.zeros((11, 3)))
    )
    assert_near(unpack(pack(none)), none)


def test_bright_points_stay_finite():
    scene = with_points(scene_of(1))
    scene.points.values[:, 4] = 1e9
    assert np.isfinite(unpack(pack(scene)).points.values).all()


def test_one_odd_value_does_not_coarsen_the_others():
    scene = scene_of(2, gaps=0.0)
    scene.states[3, 5, 7], scene.states[2, 0, 3] = 3e4, 1e5
    scene.line_points[4, 2] = -1e6
    found = unpack(pack(scene))
    np.testing.assert_allclose(found.states, scene.states, atol=5e-3, rtol=1e-6)
    gap = np.abs(found.line_points - scene.line_points)
    assert gap[:, :2].max() < 1e-2
    assert gap[4, 2] < 1


def test_numbers_that_cannot_be_are_refused():
    scene = scene_of(2, gaps=0.0)
    scene.states[3, 5, 7] = 1e30
    with pytest.raises(ValueError, match="states has a number beyond 10,000,000"):
        pack(scene)
    scene = scene_of(2)
    scene.line_points[3, 1] = np.nan
    with pytest.raises(ValueError, match="line_points has a number beyond"):
        pack(scene)


def test_metrics_of_a_packed_scene_are_those_of_the_scene():
    for seed in range(10):
        scene = moved(scene_of(seed), (8000, -3000, 20))
        trajectories, scores = predictions_of(scene, seed)
        one, two = (measure(which, trajectories, scores) for which in (scene, unpack(pack(scene))))
        np.testing.assert_allclose(one.min_ade, two.min_ade, atol=1e-4)
        np.testing.assert_array_equal(one.miss, two.miss)
        np.testing.assert_array_equal(one.shapes, two.shapes)


@given(st.integers(0, 500), st.integers(1, 40))
def test_a_state_takes_a_third_of_its_bytes_or_less(seed, agents):
    """Two float32 and seven 16 bits instead of nine float64, and none where not valid."""
    scene = scene_of(seed, kinds=(1, 2, 3) * agents, targets=1)
    bare = pack(replace(scene, valid=scene.valid & False, states=scene.states * 0))
    assert len(pack(scene)) - len(bare) <= scene.valid.sum() * 22 + 16


SCENES = [with_points(scene_of(seed, kinds=(1, 2), targets=1, steps=20)) for seed in range(7)]


@pytest.fixture
def shard(tmp_path):
    write_shard(tmp_path / "a.scenes", SCENES, {"source": "made"})
    return tmp_path / "a.scenes"


def test_a_shard_gives_its_scenes_in_any_order(shard):
    found = Shard(shard)
    assert len(found) == 7
    assert found.about == {"source": "made"}
    assert found.names == [scene.name for scene in SCENES]
    assert found.targets == [1] * 7
    for place in (6, 0, 3, -1):
        assert_near(found[place], SCENES[place])
    assert_near(pickle.loads(pickle.dumps(found))[2], SCENES[2])
    with pytest.raises(IndexError):
        found[7]


def test_a_damaged_scene_is_named_and_the_others_are_read(shard):
    data = bytearray(shard.read_bytes())
    data[200] ^= 1
    shard.write_bytes(data)
    found = Shard(shard)
    with pytest.raises(UnreadableError, match=r"a.scenes, scene 0 is damaged"):
        found[0]
    assert_near(found[1], SCENES[1])


def test_a_damaged_end_or_a_file_of_another_kind_is_no_shard(shard):
    content = shard.read_bytes()
    for damage in (content[:-1], content[:100], b"", b"tea" * 50, content + b"a"):
        shard.write_bytes(damage)
        with pytest.raises(UnreadableError, match=r"a\.scenes is damaged"):
            Shard(shard)
        assert whole(shard) is None
    broken = bytearray(content)
    broken[-70] ^= 1
    shard.write_bytes(broken)
    with pytest.raises(UnreadableError, match="checksum of its index"):
        Shard(shard)


def test_a_writer_that_fails_leaves_the_shard_that_was_there(shard):
    before = shard.read_bytes()

    def failing():
        yield SCENES[0]
        raise RuntimeError("no more tea")

    with pytest.raises(RuntimeError):
        write_shard(shard, failing())
    assert shard.read_bytes() == before
    assert list(shard.parent.iterdir()) == [shard]


WRITER = """
    import sys, time
    from pathlib import Path
    from regrow.motion.shards import Shard, write_shard
    folder, pause, name = Path(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    scenes = list(Shard(folder / "a.scenes")) * 30
    def slowly():
        for scene in scenes:
            time.sleep(pause)
            yield scene
    print("begun", flush=True)
    write_shard(folder / "b.scenes", slowly(), {"by": name})
"""


def writer(folder, pause, name):
    code = textwrap.dedent(WRITER)
    command = [sys.executable, "-c", code, str(folder), str(pause), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ))


def test_of_two_writers_at_once_one_wins_whole(shard):
    folder = shard.parent
    both = [writer(folder, 0.001, name) for name in ("one", "two")]
    assert [process.wait(60) for process in both] == [0, 0]
    for process in both:
        process.stdout.close()
    found = Shard(folder / "b.scenes")
    assert len(list(found)) == 210
    assert found.about["by"] in ("one", "two")
    assert sorted(path.name for path in folder.iterdir()) == ["a.scenes", "b.scenes"]


def test_a_killed_writer_leaves_no_shard_and_what_it_left_is_removed(shard):
    folder = shard.parent
    process = writer(folder, 0.05, "one")
    assert process.stdout.readline() == b"begun\n"
    while not (parts := list(folder.glob(".b.scenes.*.part"))):
        time.sleep(0.01)
    remove_leftovers(folder)
    assert parts[0].exists()  # its writer is alive
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    process.stdout.close()
    assert not (folder / "b.scenes").exists()
    remove_leftovers(folder)
    assert list(folder.iterdir()) == [shard]


def name_of(batch):
    return [scene.name for scene in batch]


@pytest.fixture
def cache(tmp_path):
    write_shard(tmp_path / "cache" / "a.scenes", SCENES[:3])
    write_shard(tmp_path / "cache" / "b.scenes", [])
    write_shard(tmp_path / "cache" / "deep" / "c.scenes", SCENES[3:])
    return tmp_path / "cache"


def test_all_scenes_of_a_cache_by_number(cache, tmp_path):
    scenes = CachedScenes(cache)
    assert [scenes[place].name for place in range(len(scenes))] == [s.name for s in SCENES]
    for place in (-1, 7):
        with pytest.raises(IndexError):
            scenes[place]
    with pytest.raises(FileNotFoundError, match="regrow motion prepare"):
        CachedScenes(tmp_path / "none")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_gives_each_scene_once_with_any_number_of_workers(cache, workers):
    loader = DataLoader(CachedScenes(cache), 3, num_workers=workers, collate_fn=name_of)
    assert [name for batch in loader for name in batch] == [scene.name for scene in SCENES]


def test_ranks_have_scenes_of_their_own(cache):
    scenes, seen = CachedScenes(cache), []
    for rank in range(3):
        sampler = DistributedSampler(scenes, 3, rank, shuffle=False, drop_last=True)
        seen += [scenes[place].name for place in sampler]
    assert len(set(seen)) == len(seen) == 6


@pytest.fixture
def published(tmp_path):
    folder = tmp_path / "training"
    folder.mkdir()
    for place in range(4):
        scenes = [scene_of(10 * place + n, kinds=(1,), targets=1, steps=20) for n in range(3)]
        write_scenarios(folder / f"training.tfrecord-0000{place}-of-00004", scenes)
    return shard_files(folder)


ALL = sorted(f"made-{10 * place + n}" for place in range(4) for n in range(3))


@pytest.mark.parametrize("seed", [None, 0])
@pytest.mark.parametrize(("ranks", "workers"), [(1, 0), (1, 2), (2, 0), (2, 2), (3, 2)])
def test_a_stream_gives_each_scene_once_over_ranks_and_workers(published, ranks, workers, seed):
    seen = []
    for rank in range(ranks):
        stream = SceneStream(published, read_scenarios, seed=seed, buffer=3, rank=rank, ranks=ranks)
        loader = DataLoader(stream, 2, num_workers=workers, collate_fn=name_of)
        seen += [name for batch in loader for name in batch]
    assert sorted(seen) == ALL
    assert seed is None or seen != ALL


def test_epochs_of_a_stream_differ_and_come_back(published):
    stream = SceneStream(published, read_scenarios, seed=1, buffer=4)
    first = [scene.name for scene in stream]
    stream.set_epoch(1)
    second = [scene.name for scene in stream]
    stream.set_epoch(0)
    assert first == [scene.name for scene in stream] != second
    assert sorted(second) == sorted(first) == ALL


def test_a_folder_without_files_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no \.tfrecord files"):
        shard_files(tmp_path)
