"""Scenes made when asked for and scenes kept in a folder are the same scenes."""

import os
from pathlib import Path

import numpy as np
import pytest

from regrow.motion.datasets import CachedScenes
from regrow.motion.packing import pack, unpack
from regrow.motion.shards import write_shard
from regrow.motion.simulator import Sensor, World, stored
from regrow.motion.simulator.stored import Lot, Simulated, make_lots, make_scenes, truths_of

QUICK = World(sensor=Sensor(beams=8, columns=200))


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(stored, "_SHARD", 3)


def _same(one, other):
    arrays, others = one.arrays(), other.arrays()
    assert arrays.keys() == others.keys()
    assert (one.name, one.now, one.ego) == (other.name, other.now, other.ego)
    return all(np.array_equal(arrays[name], others[name]) for name in arrays)


def _packed(scene):
    return unpack(pack(scene))


def test_kept_scenes_are_those_made_when_asked_for(tmp_path):
    kept = make_scenes(tmp_path / "a", 7, QUICK, first=20)
    made = Simulated(7, QUICK, first=20)
    assert len(kept) == len(made) == 7
    assert all(_same(kept[i], _packed(made[i])) for i in range(7))
    assert truths_of(kept) == [made.truths(i) for i in range(7)]
    assert [scene.name for scene in made[1:3]] == ["simulated-21", "simulated-22"]
    assert made[-1].name == "simulated-26"
    with pytest.raises(IndexError):
        made[7]


def test_what_is_packed_is_as_fine_as_the_sensor(tmp_path):
    scene = Simulated(1, World())[0]
    packed = _packed(scene)
    assert np.abs(packed.points.values[:, :3] - scene.points.values[:, :3]).max() < 0.002
    assert np.abs(packed.states - scene.states)[..., :6].max() < 0.002


def test_only_what_is_missing_is_made(tmp_path):
    told = []
    make_scenes(tmp_path, 7, QUICK, told=told.append)
    assert told == [f"simulated-0000{i}.scenes" for i in range(3)]
    (tmp_path / told[1]).unlink()
    again = make_scenes(tmp_path, 7, QUICK, told=told.append)
    assert told[3:] == [told[1]]
    assert _same(again[4], _packed(Simulated(7, QUICK)[4]))
    path = tmp_path / told[2]
    path.write_bytes(path.read_bytes()[:-5])  # a damaged file is made again
    make_scenes(tmp_path, 7, QUICK, told=told.append)
    assert told[4:] == [told[2]]


def test_other_scenes_in_the_folder_are_left_alone(tmp_path):
    make_scenes(tmp_path, 4, QUICK)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for count, world, first in ((5, QUICK, 0), (4, World(), 0), (4, QUICK, 1), (3, QUICK, 0)):
        with pytest.raises(ValueError, match="name another folder"):
            make_scenes(tmp_path, count, world, first=first)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_of_other_scenes_nothing_is_told(tmp_path):
    write_shard(tmp_path / "a.scenes", [Simulated(1, QUICK)[0]])
    with pytest.raises(ValueError, match=r"a.scenes: its scenes are not made up"):
        truths_of(CachedScenes(tmp_path))


def test_arguments_out_of_range_are_refused(tmp_path):
    folder = Path(tmp_path / "none")
    with pytest.raises(ValueError, match="count=0"):
        make_scenes(folder, 0)
    with pytest.raises(ValueError, match="jobs=0"):
        make_scenes(folder, 1, jobs=0)
    with pytest.raises(ValueError, match="first=-1"):
        Simulated(1, first=-1)
    assert not folder.exists()


def test_several_lots_are_made_by_one_pool_of_processes_of_one_thread(tmp_path):
    lots = [Lot(tmp_path / "a", 7, QUICK), Lot(tmp_path / "b", 4, QUICK, first=50)]
    before, told = dict(os.environ), []
    make_lots(lots, jobs=2, told=told.append)
    assert dict(os.environ) == before
    assert len(told) == 5
    for lot in lots:
        kept, made = CachedScenes(lot.folder), Simulated(lot.count, QUICK, first=lot.first)
        assert len(kept) == lot.count
        assert all(_same(kept[i], _packed(made[i])) for i in range(lot.count))
    with pytest.raises(ValueError, match="count=0"):
        Lot(tmp_path, 0)
