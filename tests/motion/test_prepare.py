"""A cache made from folders as published: damage, absence, resumption, several processes."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from regrow.cli.motion import motion_prepare
from regrow.motion.datasets import CachedScenes
from regrow.motion.features import Featurer
from regrow.motion.formats.scenario_writer import encode_scenario, write_scenarios
from regrow.motion.formats.tfrecord import write_records
from regrow.motion.prepare import Settings, find_kind, prepare
from regrow.motion.shards import SUFFIX, Shard
from tests.motion.curves import scene_of
from tests.motion.formats.argoverse_files import STAMPS, write_log
from tests.motion.lasers import calibration, frame, laser, lidar_record, pose_of
from tests.motion.made import argoverse

SMALL = {"kinds": (1, 2), "targets": 1}


def scenes_of(shard, count=3):
    return [scene_of(10 * shard + n, **SMALL) for n in range(count)]


@pytest.fixture
def womd(tmp_path):
    folder = tmp_path / "womd" / "training"
    folder.mkdir(parents=True)
    for shard in range(3):
        write_scenarios(folder / f"training.tfrecord-0000{shard}-of-00003", scenes_of(shard))
    return folder


def names(cache):
    scenes = CachedScenes(cache)
    return [scenes[place].name for place in range(len(scenes))]


ALL = [f"made-{10 * shard + n}" for shard in range(3) for n in range(3)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cache_has_all_scenes_with_any_number_of_processes(womd, tmp_path, jobs):
    told = []
    found = prepare(
        womd, tmp_path / "cache", Settings("womd"), jobs=jobs, told=lambda *said: told.append(said)
    )
    assert names(tmp_path / "cache") == ALL
    assert (found.scenes, found.lidar, found.errors) == (9, 0, [])
    assert found.bytes == sum(path.stat().st_size for path in (tmp_path / "cache").iterdir())
    assert [done for done, *_ in told] == [1, 2, 3]


def damage(path, place):
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def test_what_is_damaged_is_left_out_and_named(womd, tmp_path):
    second = len(encode_scenario(scenes_of(0)[0])) + 16
    damage(womd / "training.tfrecord-00000-of-00003", second + 100)  # a content
    damage(womd / "training.tfrecord-00001-of-00003", 3)  # the first length: nothing is left
    found = prepare(womd, tmp_path / "cache", Settings("womd"))
    assert names(tmp_path / "cache") == [n for n in ALL if n not in (*ALL[3:6], "made-1")]
    assert found.scenes == 5
    first, other = found.errors
    assert "00000-of-00003, record 1 is damaged" in first
    assert "00001-of-00003, record 0 is damaged" in other


def test_what_is_done_is_not_done_again_and_a_changed_file_is(womd, tmp_path):
    cache = tmp_path / "cache"
    prepare(womd, cache, Settings("womd"))
    before = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    again = prepare(womd, cache, Settings("womd"))
    assert (again.scenes, again.done_before) == (9, 3)
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == before
    write_scenarios(womd / "training.tfrecord-00002-of-00003", scenes_of(7))
    assert prepare(womd, cache, Settings("womd")).done_before == 2
    assert names(cache)[-1] == "made-72"
    assert prepare(womd, cache, Settings("womd", most=5)).done_before == 0


def test_a_damaged_shard_is_made_again(womd, tmp_path):
    prepare(womd, tmp_path / "cache", Settings("womd"))
    shard = sorted((tmp_path / "cache").iterdir())[1]
    shard.write_bytes(shard.read_bytes()[:-5])
    assert prepare(womd, tmp_path / "cache", Settings("womd")).done_before == 2
    assert names(tmp_path / "cache") == ALL


def test_a_run_that_is_killed_goes_on(womd, tmp_path):
    for shard in range(3, 12):
        write_scenarios(womd / f"training.tfrecord-{shard:05}-of-00003", scenes_of(shard, 9))
    cache = tmp_path / "cache"
    code = f"""if True:
        from pathlib import Path
        from regrow.motion.prepare import Settings, prepare
        prepare(Path({str(womd)!r}), Path({str(cache)!r}), Settings("womd"))
    """
    process = subprocess.Popen([sys.executable, "-c", code], env=dict(os.environ))
    deadline = time.monotonic() + 60
    while len(list(cache.glob("*.scenes"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    there = [len(Shard(path)) for path in cache.glob("*.scenes")]  # all are whole
    found = prepare(womd, cache, Settings("womd"))
    assert found.done_before == len(there) >= 2
    assert len(names(cache)) == found.scenes == 9 + 81
    assert all(path.suffix == ".scenes" for path in cache.iterdir())


def lidar_of(scene, frames=11):
    """Return a file of WOMD-LiDAR with a wall of points all over the first target."""
    parts = []
    for step in range(frames):
        if step == 4:  # an absent frame
            parts.append(b"")
            continue
        place = scene.states[scene.targets[0], step, :3] - [0, 0, 50.0]
        image = np.zeros((1, 8, 4))
        image[..., 0] = 50.0
        # A laser that looks straight up from 50 m below the target.
        own = calibration(2, np.eye(4), [np.pi / 2])
        parts.append(frame([laser(2, image)], [own], pose_of((0, 0, 0), place)))
    return lidar_record(parts)


@pytest.fixture
def lidar(tmp_path):
    folder = tmp_path / "lidar"
    folder.mkdir()
    for scene in scenes_of(0):
        write_records(folder / f"{scene.name}.tfrecord", [lidar_of(scene)])
    return folder


def test_lidar_of_scenes_is_put_to_them_and_what_is_absent_or_damaged_is_told(
    womd, lidar, tmp_path
):
    for shard in (1, 2):
        (womd / f"training.tfrecord-0000{shard}-of-00003").unlink()
    damage(lidar / "made-1.tfrecord", 30)
    (lidar / "made-2.tfrecord").unlink()
    found = prepare(womd, tmp_path / "cache", Settings("womd", lidar=lidar))
    assert (found.scenes, found.lidar, found.absent) == (3, 1, 1)
    assert len(found.errors) == 2
    assert all("goes without LiDAR" in error for error in found.errors)
    with_points, *without = (CachedScenes(tmp_path / "cache")[place] for place in range(3))
    assert [scene.points for scene in without] == [None, None]
    counts = with_points.points.counts[0]
    seen = with_points.valid[with_points.targets[0], :11] & (np.arange(11) != 4)
    assert (counts > 0).tolist() == seen.tolist()


def test_lidar_with_another_number_of_frames_is_told(womd, lidar, tmp_path):
    write_records(lidar / "made-0.tfrecord", [lidar_of(scenes_of(0)[0], frames=6)])
    found = prepare(womd, tmp_path / "cache", Settings("womd", lidar=lidar))
    assert "scene made-0: has 6 LiDAR frames; must be 11" in found.errors[0]


def test_files_of_like_names_in_folders_are_not_mixed_up(tmp_path):
    for shard, place in enumerate(("a-b/c.tfrecord", "a/b-c.tfrecord", "a/b/c.tfrecord")):
        path = tmp_path / "in" / place
        path.parent.mkdir(parents=True, exist_ok=True)
        write_scenarios(path, scenes_of(shard))
    prepare(tmp_path / "in", tmp_path / "cache", Settings("womd"))
    assert sorted(names(tmp_path / "cache")) == sorted(ALL)


def test_shards_of_something_else_are_told(womd, tmp_path):
    prepare(womd, tmp_path / "cache", Settings("womd"))
    sorted(womd.iterdir())[0].unlink()
    assert prepare(womd, tmp_path / "cache", Settings("womd")).others == 1


def test_tracks_of_pedestrians_are_cut_into_scenes(tmp_path):
    folder = tmp_path / "tracks"
    folder.mkdir()
    lines = [f"{10 * n}\t1\t{n}\t0" for n in range(30)]
    (folder / "zara.txt").write_text("\n".join(lines))
    (folder / "bad.txt").write_text("1 2 3")
    assert find_kind(folder) == "pedestrians"
    found = prepare(folder, tmp_path / "cache", Settings("pedestrians", past=3, future=4, every=5))
    assert found.scenes == len(CachedScenes(tmp_path / "cache")) == 5
    assert "bad.txt is damaged" in found.errors[0]
    assert len(CachedScenes(tmp_path / "cache")[0].times) == 8


def test_a_real_log_and_a_real_scenario(tmp_path):
    log = argoverse("sensor", "adcf7d18-0510-35b0-a2fa-b4cea13a6d76")
    assert find_kind(log.parent) == "argoverse-sensor"
    shutil.copytree(log, tmp_path / "logs" / log.name)
    settings = Settings("argoverse-sensor", past=2, future=40, every=50)
    found = prepare(tmp_path / "logs", tmp_path / "log-cache", settings)
    assert (found.scenes, found.lidar, found.absent, found.errors) == (3, 1, 2, [])
    early = Settings("argoverse-sensor", past=0, future=40, every=50)
    found = prepare(tmp_path / "logs", tmp_path / "log-cache", early)
    assert (found.scenes, found.lidar, found.absent) == (3, 1, 0)
    scenario = argoverse("motion-forecasting")
    assert find_kind(scenario) == "argoverse-forecasting"
    found = prepare(scenario, tmp_path / "cache", Settings("argoverse-forecasting"))
    assert (found.scenes, found.errors) == (1, [])


def test_a_folder_and_settings_that_do_not_fit_are_refused(tmp_path, womd):
    with pytest.raises(FileNotFoundError, match="no such folder"):
        find_kind(tmp_path / "none")
    prepare(womd, womd / "cache", Settings("womd"))
    assert (
        prepare(womd, womd / "cache", Settings("womd")).scenes == 9
    )  # its own shards are not data
    with pytest.raises(FileNotFoundError, match="has no file such as"):
        find_kind(womd / "cache")
    for settings, said in {
        ("tea",): "kind='tea'",
        ("womd", None, 0): "most=0",
        ("womd", None, 5, 3): "past=3: womd has scenes",
        ("pedestrians", tmp_path): "goes with kind='womd'",
        ("argoverse-sensor", None, 9, -1): "past=-1: must be at least 0",
        ("pedestrians", None, 9, 0): "past=0: must be at least 1",
        ("argoverse-sensor", None, 9, None, 0): "future=0: must be at least 1",
        ("argoverse-sensor", None, 9, None, None, 0): "every=0: must be at least 1",
        ("womd", None, 9, None, None, None, "scored"): "goes with kind='argoverse-forecasting'",
        ("womd", None, 9, None, None, None, "all"): "targets='all'",
    }.items():
        with pytest.raises(ValueError, match=said):
            Settings(*settings)
    with pytest.raises(FileNotFoundError, match="lidar="):
        Settings("womd", tmp_path / "none")


def test_of_two_kinds_of_data_in_a_folder_none_is_chosen(womd):
    (womd / "readme.txt").write_text("Notes, not tracks.")
    assert find_kind(womd) == "womd"
    (womd / "scenario_1.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match="several kinds of data: womd, argoverse-forecasting"):
        find_kind(womd)


def test_scenes_with_nobody_to_predict_are_left_out_and_counted(tmp_path, capsys):
    scenes = scenes_of(0)
    scenes[1] = replace(scenes[1], targets=scenes[1].targets[:0])
    (tmp_path / "womd").mkdir()
    write_scenarios(tmp_path / "womd" / "a.tfrecord", scenes)
    for _ in range(2):  # made, and there already
        motion_prepare(tmp_path / "womd", out=tmp_path / "cache")
        assert "left out, with nobody to predict: 1" in capsys.readouterr().out
    assert names(tmp_path / "cache") == [scenes[0].name, scenes[2].name]


@pytest.mark.parametrize("how", ["not valid", "not a number"])
def test_targets_that_are_not_there_now_are_left_out_and_named(how, tmp_path):
    """In one scene of three both are gone, in another one of two: nothing else is lost."""
    scenes = [scene_of(seed, kinds=(2, 1), targets=2) for seed in range(3)]
    for scene, gone in ((scenes[0], [0, 1]), (scenes[1], [0])):
        scene.states[gone, scene.now, 0] = np.nan
        scene.valid[gone, scene.now] = how == "not a number"
    folder = tmp_path / "womd"
    folder.mkdir()
    write_scenarios(folder / "a.tfrecord", scenes)
    found = prepare(folder, tmp_path / "cache", Settings("womd"))
    assert (found.scenes, found.empty) == (2, 1)
    said = f"target 0 (id {scenes[1].ids[0]}) is not valid at step 10, which is now: it is left out"
    assert found.errors[2:] == [f"{folder / 'a.tfrecord'}, scene made-1: {said}"]
    kept = CachedScenes(tmp_path / "cache")
    assert [kept[place].targets.tolist() for place in range(2)] == [[1], [0, 1]]
    for place in range(2):
        assert len(Featurer()(kept[place])["future"])


def test_a_file_without_a_byte_is_told(womd, tmp_path):
    (path := womd / "training.tfrecord-00001-of-00003").write_bytes(b"")
    found = prepare(womd, tmp_path / "cache", Settings("womd"))
    assert found.errors == [f"{path}: is empty: get it again"]
    assert found.scenes == 6


def test_a_damaged_sweep_costs_a_log_that_frame_alone(tmp_path):
    """Told of once, though several scenes have it; those that have another keep their LiDAR."""
    log = write_log(tmp_path / "logs" / "one")
    (sweep,) = (log / "sensors" / "lidar").iterdir()
    bad = sweep.with_name(f"{STAMPS[1]}.feather")
    bad.write_bytes(sweep.read_bytes()[:100])
    settings = Settings("argoverse-sensor", past=1, future=1, every=1)
    found = prepare(log.parent, tmp_path / "cache", settings)
    assert (found.scenes, found.lidar) == (4, 2)
    assert found.absent == 2  # the damaged frame of one scene, the next one of another
    (error,) = found.errors
    assert error.startswith(f"{bad} is damaged")
    assert error.endswith("(the frame counts as absent)")
    counts = [CachedScenes(tmp_path / "cache")[place].points for place in range(4)]
    assert [None if points is None else points.counts.tolist() for points in counts] == [
        None,
        [[0, 5]],
        [[5, 0]],
        None,
    ]


def test_lidar_without_a_point_in_any_frame_is_told(womd, lidar, tmp_path):
    write_records(lidar / "made-0.tfrecord", [lidar_record([b""] * 11)])
    found = prepare(womd, tmp_path / "cache", Settings("womd", lidar=lidar))
    said = "all frames are empty (scene made-0 goes without LiDAR)"
    assert found.errors[0] == f"{lidar / 'made-0.tfrecord'}: {said}"
    assert found.absent == found.lidar == 2  # each of the others lacks one


def test_a_log_that_is_too_short_for_a_scene_is_told(tmp_path):
    log = write_log(tmp_path / "logs" / "one")
    found = prepare(log.parent, tmp_path / "cache", Settings("argoverse-sensor", future=80))
    assert found.scenes == 0
    assert "is too short: it has" in found.errors[0]
    assert "a scene 91" in found.errors[0]


def test_options_that_cannot_be_leave_the_cache_as_it_is(womd, tmp_path):
    tracks = tmp_path / "tracks"
    tracks.mkdir()
    (tracks / "zara.txt").write_text("\n".join(f"{10 * n}\t1\t{n}\t0" for n in range(30)))
    motion_prepare(tracks, out=tmp_path / "cache")
    before = (tmp_path / "cache" / f"zara.txt{SUFFIX}").read_bytes()
    with pytest.raises(ValueError, match="every=0"):
        motion_prepare(tracks, out=tmp_path / "cache", every=0)
    assert (tmp_path / "cache" / f"zara.txt{SUFFIX}").read_bytes() == before


def test_the_command_tells_of_errors_and_sums_up(womd, tmp_path, capsys):
    damage(womd / "training.tfrecord-00001-of-00003", 3)
    motion_prepare(womd, out=tmp_path / "cache")
    said = capsys.readouterr().out
    assert "record 0 is damaged" in said
    assert "6 scenes in" in said
    assert "errors: 1" in said
    for path in womd.iterdir():
        path.write_bytes(b"tea")
    with pytest.raises(ValueError, match="no scene was made"):
        motion_prepare(womd, out=tmp_path / "cache")
