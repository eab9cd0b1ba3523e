"""Scenes made when asked for and scenes kept in a folder are the same scenes."""

import numpy as np
import pytest

from regrow.motion.simulator import Sensor, World, stored
from regrow.motion.simulator.stored import Simulated, Stored, make_scenes

QUICK = World(sensor=Sensor(beams=8, columns=200))


@pytest.fixture(autouse=True)
def small_files(monkeypatch):
    monkeypatch.setattr(stored, "_SHARD", 3)


def _same(one, other):
    arrays, others = one.arrays(), other.arrays()
    assert arrays.keys() == others.keys()
    assert one.name == other.name
    assert (one.now, one.ego) == (other.now, other.ego)
    return all(np.array_equal(arrays[name], others[name]) for name in arrays)


def test_kept_scenes_are_those_made_when_asked_for(tmp_path):
    kept = make_scenes(tmp_path / "a", 7, QUICK, first=20)
    made = Simulated(7, QUICK, first=20)
    assert len(kept) == len(made) == 7
    for i in (0, 3, 6, -1):
        assert _same(kept[i], made[i])
        assert kept.truths(i) == made.truths(i)
    assert [scene.name for scene in kept[1:3]] == [scene.name for scene in made[1:3]]
    with pytest.raises(IndexError):
        kept[7]
    with pytest.raises(IndexError):
        made[7]


def test_several_processes_make_the_same_files(tmp_path):
    one, two = (make_scenes(tmp_path / str(jobs), 7, QUICK, jobs=jobs) for jobs in (1, 2))
    assert all(_same(a, b) for a, b in zip(one, two, strict=True))


def test_only_what_is_missing_is_made(tmp_path):
    told = []
    make_scenes(tmp_path, 7, QUICK, tell=told.append)
    assert told == ["scenes-00000.npz", "scenes-00001.npz", "scenes-00002.npz"]
    (tmp_path / "scenes-00001.npz").unlink()
    with pytest.raises(ValueError, match=r"scenes-00001.npz and 0 more are missing"):
        Stored(tmp_path)
    again = make_scenes(tmp_path, 7, QUICK, tell=told.append)
    assert told[3:] == ["scenes-00001.npz"]
    assert _same(again[4], Simulated(7, QUICK)[4])
    assert not list(tmp_path.glob(".*"))


def test_other_scenes_in_the_folder_are_left_alone(tmp_path):
    make_scenes(tmp_path, 4, QUICK)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for count, world, first in ((5, QUICK, 0), (4, World(), 0), (4, QUICK, 1)):
        with pytest.raises(ValueError, match="another world, number or seed"):
            make_scenes(tmp_path, count, world, first=first)
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir()}


def test_damaged_files_are_named(tmp_path):
    kept = make_scenes(tmp_path, 4, QUICK)
    path = tmp_path / "scenes-00001.npz"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"scenes-00001.npz is damaged"):
        kept[3]
    assert _same(kept[0], Simulated(4, QUICK)[0])  # the others are as they were
    (tmp_path / "world.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"world.json is damaged"):
        Stored(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no world.json in it"):
        Stored(tmp_path / "none")


def test_arguments_out_of_range_are_refused(tmp_path):
    with pytest.raises(ValueError, match="count=0"):
        make_scenes(tmp_path, 0)
    with pytest.raises(ValueError, match="jobs=0"):
        make_scenes(tmp_path, 1, jobs=0)
    with pytest.raises(ValueError, match="first=-1"):
        Simulated(1, first=-1)
    assert not list(tmp_path.iterdir())
