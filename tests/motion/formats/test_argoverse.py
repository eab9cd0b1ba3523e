"""Argoverse 2: files made up for tests, and real ones where they are at hand."""

import numpy as np
import pytest

from regrow.motion.crop import crop
from regrow.motion.formats.argoverse_forecasting import read_forecasting
from regrow.motion.formats.argoverse_map import MARKS, read_map
from regrow.motion.formats.argoverse_sensor import read_log
from regrow.motion.formats.columns import read_columns
from regrow.motion.scene import KINDS, LINES
from regrow.reading import UnreadableError
from tests.malformed import malform
from tests.motion.lasers import turn_of
from tests.motion.made import argoverse

pa = pytest.importorskip("pyarrow", reason="needs the extra regrow[motion]")
feather = pytest.importorskip("pyarrow.feather")
parquet = pytest.importorskip("pyarrow.parquet")

from tests.motion.formats.argoverse_files import (  # noqa: E402  (needs pyarrow)
    PED,
    STAMPS,
    scenario_table,
    write_forecasting,
    write_log,
    write_map,
)


def test_lines_of_a_map(tmp_path):
    points, lengths, kinds = read_map(write_map(tmp_path / "map.json"))
    names = ["street", "broken white", "solid white", "bike lane", "double yellow"]
    assert kinds.tolist() == [LINES[name] for name in [*names, "road edge", "crosswalk"]]
    assert lengths.tolist() == [10, 2, 2, 2, 2, 4, 4]
    np.testing.assert_allclose(points[:10, 1], 2)  # midway between the sides
    np.testing.assert_allclose(points[:10, 0], np.linspace(0, 10, 10))
    assert points[-4:].tolist() == [[0, 0, 1], [10, 0, 1], [10, 4, 1], [0, 4, 1]]


def test_all_marks_are_kinds_of_lines():
    assert set(MARKS.values()) <= set(LINES)


@pytest.fixture
def forecasting(tmp_path):
    return write_forecasting(tmp_path)


def test_a_forecasting_scenario(forecasting):
    scene = read_forecasting(forecasting)
    by_id = {int(ident): place for place, ident in enumerate(scene.ids)}
    assert set(by_id) == {-1, 77, 78, 5}
    assert scene.ego == by_id[-1]
    assert scene.targets.tolist() == [by_id[77]]
    assert [KINDS[scene.kinds[by_id[i]]] for i in (-1, 77, 78, 5)] == [
        *("vehicle", "cyclist", "pedestrian", "other")
    ]
    assert np.flatnonzero(scene.valid[by_id[78]]).tolist() == list(range(40, 60))
    assert scene.states[by_id[77], 60].tolist() == [60, 0.5, 0, 1.8, 0.7, 1.75, 0.5, 0.5, 0]
    assert (scene.now, len(scene.times)) == (49, 110)
    assert not scene.line_points[:, 2].any()
    both = read_forecasting(forecasting, "scored").targets
    assert sorted(both.tolist()) == sorted([by_id[77], by_id[78]])


def test_a_scenario_to_predict_has_no_future(forecasting):
    table = scenario_table()
    seen = table.filter(pa.array(table["timestep"].to_numpy() <= 49))
    parquet.write_table(seen, forecasting / "scenario_tea.parquet")
    scene = read_forecasting(forecasting)
    assert not scene.valid[:, 50:].any()
    assert scene.valid[scene.targets, scene.now].all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"timestep": [999] * 241}, "110 steps, and states at 999"),
        ({"num_timestamps": [10**9] * 241}, "has 1000000000 steps"),
        ({"heading": [None] * 241}, "column 'heading' has empty cells"),
        ({"track_id": ["tea"] * 241}, "invalid literal"),
    ],
)
def test_tables_that_contradict_themselves_are_refused(forecasting, changes, said):
    parquet.write_table(scenario_table(**changes), forecasting / "scenario_tea.parquet")
    with pytest.raises(UnreadableError, match=r"scenario_tea\.parquet is damaged") as caught:
        read_forecasting(forecasting)
    assert said in str(caught.value)


def test_missing_files_are_named(forecasting, tmp_path):
    (forecasting / "log_map_archive_tea.json").unlink()
    with pytest.raises(FileNotFoundError, match="has no file log_map_archive"):
        read_forecasting(forecasting)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        read_forecasting(tmp_path / "none")
    with pytest.raises(ValueError, match="targets='all'"):
        read_forecasting(forecasting, "all")
    with pytest.raises(FileNotFoundError, match=r"has no annotations.feather"):
        read_log(tmp_path)


@pytest.fixture
def log(tmp_path):
    return write_log(tmp_path / "log")


def test_a_sensor_log(log):
    scene = read_log(log).scene(3, past=2, future=2)
    assert scene.ids.tolist() == [-1, int(PED.replace("-", "")[:15], 16)]
    assert (scene.ego, scene.targets.tolist(), scene.now) == (0, [1], 2)
    wanted = [[108 + 0.1 * step, 54, 11, 0.6, 0.8, 1.8, 0.0, 1, 0] for step in range(1, 6)]
    np.testing.assert_allclose(scene.states[1], wanted, atol=2e-3)
    np.testing.assert_allclose(scene.states[0, :, 6], 0.5 + 0.1 * np.arange(1, 6), atol=1e-3)
    # The one sweep is that of the second step of the scene; float16 is good to half a centimetre.
    assert scene.points.counts.tolist() == [[0, 5, 0]]
    points = scene.points.of(0, 1)
    np.testing.assert_allclose(points[:, :3], 0, atol=0.01)
    np.testing.assert_allclose(points[:, 4], 0.2)
    turn = turn_of(0.02, -0.03, 0.7)
    wanted_sensor = turn @ [1.35, 0, 1.64] + [102, 50, 10]
    np.testing.assert_allclose(scene.points.sensor, [wanted_sensor] * 3)


def test_velocities_do_not_tell_of_the_future(log):
    """The state now, if it is the first that is seen, has none."""
    found = read_log(log)
    alone = found.scene(0, past=0, future=3)
    np.testing.assert_allclose(alone.states[1, :, 7], [0, 1, 1, 1], atol=1e-6)
    pair = found.scene(1, past=1, future=2)
    np.testing.assert_allclose(pair.states[1, :, 7], [1, 1, 1, 1], atol=1e-6)


def test_scenes_of_a_log_and_windows_outside_of_it(log):
    found = read_log(log)
    assert list(found.presents(past=1, future=2, every=2)) == [1, 3]
    assert found.scene(3, past=1, future=2).name == "log-3"
    with pytest.raises(ValueError, match="must be within its 6 steps"):
        found.scene(5, past=1, future=1)


def test_a_time_stamp_without_a_pose_is_an_error(log):
    path = log / "city_SE3_egovehicle.feather"
    feather.write_feather(feather.read_table(path).slice(1), path)
    with pytest.raises(UnreadableError, match="no pose of the vehicle at 1000000000"):
        read_log(log)


@pytest.mark.parametrize("name", ["annotations", "city_SE3_egovehicle", "map", "lidar", "scenario"])
def test_damaged_files_are_errors_or_scenes(log, forecasting, name):
    import random

    rng = random.Random(name)
    path = {
        "map": log / "map" / "log_map_archive_log.json",
        "lidar": log / "sensors" / "lidar" / f"{STAMPS[2]}.feather",
        "scenario": forecasting / "scenario_tea.parquet",
    }.get(name, log / f"{name}.feather")
    whole = path.read_bytes()
    for _ in range(60):
        path.write_bytes(malform(rng, whole)[1])
        try:
            if name == "scenario":
                read_forecasting(forecasting)
            else:
                read_log(log).scene(3, past=2, future=2)
        except (UnreadableError, ValueError) as error:
            assert str(path.name) in str(error) or "log" in str(error)


def test_a_real_forecasting_scenario():
    folder = next(argoverse("motion-forecasting").iterdir())
    scene = read_forecasting(folder)
    assert len(scene.ids) == 58
    assert (scene.kinds == KINDS.index("pedestrian")).sum() == 12
    assert len(scene.targets) == 1
    assert scene.valid[scene.targets].all()
    # Said and differenced velocities agree: columns, units and steps are what they seem.
    moved = np.diff(scene.states[scene.targets[0], :, :2], axis=0) / 0.1
    said = scene.states[scene.targets[0], 1:, 7:]
    assert np.median(np.abs(moved - said)) < 0.5
    lanes = scene.line_points[np.repeat(scene.line_kinds == LINES["street"], scene.line_lengths)]
    gap = np.linalg.norm(lanes[:, :2] - scene.states[scene.targets[0], 49, :2], axis=1).min()
    assert gap < 5


def test_points_in_real_boxes_are_as_many_as_the_annotations_say():
    folder = argoverse("sensor", "adcf7d18-0510-35b0-a2fa-b4cea13a6d76")
    log = read_log(folder)
    scene = log.scene(0, past=0, future=0, reach=200.0)
    boxes = read_columns(
        folder / "annotations.feather", ("timestamp_ns", "track_uuid", "num_interior_pts")
    )
    now = boxes["timestamp_ns"] == log.stamps[0]
    said = {
        int(uuid.replace("-", "")[:15], 16): count
        for uuid, count in zip(
            boxes["track_uuid"][now], boxes["num_interior_pts"][now], strict=True
        )
    }
    counts = crop([log.sweep(0)], scene, margin=0.0).counts[:, 0]
    assert counts.tolist() == [said[ident] for ident in scene.ids[scene.targets]]
    assert len(counts) > 30


def test_points_on_real_pedestrians_fall_with_range():
    """By hand: 103 at 15 m, 82 at 17 m, 30 and 77 at 18 m, 5 to 15 beyond 60 m."""
    folder = argoverse("sensor", "adcf7d18-0510-35b0-a2fa-b4cea13a6d76")
    scene = read_log(folder).scene(0, past=0, future=0, reach=70.0)
    place = scene.states[scene.targets, 0, :2] - scene.states[scene.ego, 0, :2]
    people = scene.kinds[scene.targets] == KINDS.index("pedestrian")
    found = sorted(
        zip(np.hypot(*place.T)[people], scene.points.counts[people, 0].tolist(), strict=True)
    )
    assert [count for _, count in found[:4]] == [103, 82, 30, 77]
    assert all(5 <= count <= 15 for distance, count in found if distance > 60)


@pytest.mark.parametrize("name", ["3b3570b4-7b0b-3268-a571-b0889dbf40b6"])
def test_a_real_log_without_lidar(name):
    log = read_log(argoverse("sensor", name))
    scenes = [log.scene(now) for now in log.presents(every=30)]
    assert len(scenes) == 3
    for scene in scenes:
        assert scene.points is None
        assert len(scene.targets) > 5
        assert np.hypot(scene.states[..., 7], scene.states[..., 8]).max() < 30
