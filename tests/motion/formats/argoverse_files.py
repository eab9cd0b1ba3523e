"""Files of Argoverse 2, made up for tests."""

import json

import numpy as np
import pyarrow as pa
from pyarrow import feather, parquet

from tests.motion.lasers import pose_of


def dots(*places):
    return [dict(zip("xyz", map(float, place), strict=True)) for place in places]


def lane(left, right, marks=("NONE", "NONE"), kind="VEHICLE", centre=None):
    made = {
        "lane_type": kind,
        "left_lane_boundary": dots(*left),
        "right_lane_boundary": dots(*right),
        "left_lane_mark_type": marks[0],
        "right_lane_mark_type": marks[1],
    }
    return made if centre is None else {**made, "centerline": dots(*centre)}


A, B, C = ([(0, y, 1), (10, y, 1)] for y in (0, 4, 8))
MAP = {
    "lane_segments": {
        "1": lane(B, A, ("DASHED_WHITE", "SOLID_WHITE")),
        "2": lane(C, B[::-1], ("DOUBLE_SOLID_YELLOW", "DASHED_WHITE"), "BIKE", centre=B),
    },
    "drivable_areas": {"3": {"area_boundary": dots(*A, *C[::-1])}},
    "pedestrian_crossings": {"4": {"edge1": dots(*A), "edge2": dots(*B)}},
}


def write_map(path, content=MAP):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def scenario_table(**changes):
    """Return the columns of a scenario: the sensors' vehicle, a focal cyclist, a bench."""
    rows = [("AV", "vehicle", 1, step) for step in range(110)]
    rows += [("77", "cyclist", 3, step) for step in range(110)]
    rows += [("78", "pedestrian", 2, step) for step in range(40, 60)]
    rows += [("5", "static", 0, 49)]
    names, kinds, categories, steps = map(list, zip(*rows, strict=True))
    columns = {
        "track_id": names,
        "object_type": kinds,
        "object_category": categories,
        "timestep": steps,
        "num_timestamps": [110] * len(rows),
        "scenario_id": ["tea"] * len(rows),
        "position_x": [float(step) for step in steps],
        **{name: [0.5] * len(rows) for name in ("position_y", "heading", "velocity_x")},
        "velocity_y": [0.0] * len(rows),
        "city": ["austin"] * len(rows),
    }
    return pa.table({**columns, **changes})


def write_forecasting(folder):
    parquet.write_table(scenario_table(), folder / "scenario_tea.parquet")
    write_map(folder / "log_map_archive_tea.json")
    return folder


STAMPS = 1_000_000_000 + np.arange(6) * 100_000_000
PED, EGO = "0a5ee1d0-0000-4000-8000-000000000000", "9d57813a-0000-4000-8000-000000000000"


def ego_pose(step):
    return pose_of((0.02, -0.03, 0.5 + 0.1 * step), (100 + step, 50.0, 10.0))


def quaternion(roll, pitch, yaw):
    """Return w, x, y, z of a rotation by roll, then pitch, then yaw."""
    cr, cp, cy = np.cos(np.array([roll, pitch, yaw]) / 2)
    sr, sp, sy = np.sin(np.array([roll, pitch, yaw]) / 2)
    return (
        cr * cp * cy + sr * sp * sy,
        sr * cp * cy - cr * sp * sy,
        cr * sp * cy + sr * cp * sy,
        cr * cp * sy - sr * sp * cy,
    )


POSE = ("qw", "qx", "qy", "qz", "tx_m", "ty_m", "tz_m")


def table_of(stamps, poses, **columns):
    poses = np.array(poses)
    return pa.table(
        {"timestamp_ns": stamps, **{n: poses[:, i] for i, n in enumerate(POSE)}, **columns}
    )


def write_log(folder):
    """Write a log: a pedestrian who walks east at 1 m/s, seen from a vehicle that turns."""
    write_map(folder / "map" / "log_map_archive_log.json")
    poses = [
        (*quaternion(0.02, -0.03, 0.5 + 0.1 * step), 100 + step, 50.0, 10.0) for step in range(6)
    ]
    feather.write_feather(table_of(STAMPS, poses), folder / "city_SE3_egovehicle.feather")
    boxes = []
    for step in range(6):
        own = np.linalg.inv(ego_pose(step)) @ [108 + 0.1 * step, 54.0, 11.0, 1.0]
        boxes.append((*quaternion(0, 0, -0.5 - 0.1 * step), *own[:3]))
    boxes += [(1.0, 0, 0, 0, 0, 0, 0)]
    made = table_of(
        np.append(STAMPS, STAMPS[0]),
        boxes,
        track_uuid=[PED] * 6 + [EGO],
        category=["PEDESTRIAN"] * 6 + ["EGO_VEHICLE"],
        **{f"{n}_m": [x] * 7 for n, x in (("length", 0.6), ("width", 0.8), ("height", 1.8))},
    )
    feather.write_feather(made, folder / "annotations.feather")
    body = np.linalg.inv(ego_pose(2)) @ [108.2, 54.0, 11.0, 1.0]
    points = np.concatenate([body[:3] + np.zeros((5, 3)), np.ones((3, 3))]).astype(np.float16)
    sweep = {axis: points[:, i] for i, axis in enumerate("xyz")}
    sweep["intensity"] = np.full(8, 51, np.uint8)
    (folder / "sensors" / "lidar").mkdir(parents=True)
    path = folder / "sensors" / "lidar" / f"{STAMPS[2]}.feather"
    feather.write_feather(pa.table(sweep), path)
    return folder
