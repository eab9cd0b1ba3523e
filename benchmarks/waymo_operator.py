"""Makes the values of Waymo's own code that tests compare with, in two steps.

    python benchmarks/waymo_operator.py inputs /tmp/waymo          # where regrow is installed
    python benchmarks/waymo_operator.py outputs /tmp/waymo tests/motion   # where Waymo's package is

Waymo's package, waymo-open-dataset-tf-2-12-0 1.6.7, takes 2.8 GB, pins old versions of others, and
wants an environment of its own with Python 3.11. All inputs are synthetic.
"""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

METRICS = ("min_ade", "min_fde", "miss_rate", "overlap_rate", "map")
STEPS = ((5, 1.0, 2.0), (9, 1.8, 3.6), (15, 3.0, 6.0))
CONFIG = """
track_steps_per_second: 10 prediction_steps_per_second: 2
track_history_samples: 10 track_future_samples: 80 max_predictions: 6
speed_lower_bound: 1.4 speed_upper_bound: 11.0 speed_scale_lower: 0.5 speed_scale_upper: 1.0
""" + "".join(
    f"step_configurations {{ measurement_step: {step} lateral_miss_threshold: {lateral} "
    f"longitudinal_miss_threshold: {longitudinal} }}\n"
    for step, lateral, longitudinal in STEPS
)


def write_inputs(folder: Path) -> None:
    """Write the scenes and images that tests make, as arrays."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tests.motion.formats.test_womd_lidar import golden_inputs  # noqa: PLC0415
    from tests.motion.metrics.test_waymo import SETS, made  # noqa: PLC0415

    folder.mkdir(parents=True, exist_ok=True)
    np.savez(folder / "lidar.npz", **golden_inputs())
    for name in SETS:
        np.savez(folder / f"set {name}.npz", **operator_inputs(made(name)))


def operator_inputs(scenes: list[Any]) -> dict[str, np.ndarray]:
    """Return the arguments of the operator: scenes padded to the largest one."""
    count = len(scenes)
    agents = max(len(scene.ids) for scene, _, _ in scenes)
    targets = max(len(scene.targets) for scene, _, _ in scenes)
    modes = scenes[0][1].shape[1]
    found = {
        "prediction_trajectory": np.zeros((count, targets, modes, 1, 16, 2), np.float32),
        "prediction_score": np.zeros((count, targets, modes), np.float32),
        "ground_truth_trajectory": np.zeros((count, agents, 91, 7), np.float32),
        "ground_truth_is_valid": np.zeros((count, agents, 91), bool),
        "prediction_ground_truth_indices": np.zeros((count, targets, 1), np.int64),
        "prediction_ground_truth_indices_mask": np.zeros((count, targets, 1), bool),
        "object_type": np.zeros((count, agents), np.int64),
        "object_id": np.full((count, agents), -1, np.int64),
        "scenario_id": np.array([scene.name for scene, _, _ in scenes]),
    }
    for place, (scene, trajectories, scores) in enumerate(scenes):
        n, m = len(scene.ids), len(scene.targets)
        found["prediction_trajectory"][place, :m, :, 0] = trajectories
        found["prediction_score"][place, :m] = scores
        found["ground_truth_trajectory"][place, :n] = scene.states[..., [0, 1, 3, 4, 6, 7, 8]]
        found["ground_truth_is_valid"][place, :n] = scene.valid
        found["prediction_ground_truth_indices"][place, :m, 0] = scene.targets
        found["prediction_ground_truth_indices_mask"][place, :m] = True
        found["object_type"][place, :n] = np.where(scene.kinds == 0, 4, scene.kinds)
        found["object_id"][place, :n] = scene.ids
    return found


def write_outputs(folder: Path, tests: Path) -> None:
    """Run Waymo's code on the inputs, and write what the tests read."""
    sets = {path.stem[4:]: run_operator(path) for path in sorted(folder.glob("set *.npz"))}
    write_json(tests / "metrics" / "waymo_operator.json", sets)
    write_json(tests / "formats" / "waymo_lidar.json", run_lidar(folder / "lidar.npz"))


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=1 if "operator" in path.name else None))


def run_operator(path: Path) -> dict[str, list[float]]:
    """Return the operator's values: vehicle, pedestrian, cyclist, each at 3, 5 and 8 s."""
    from google.protobuf import text_format  # noqa: PLC0415
    from waymo_open_dataset.metrics.ops import py_metrics_ops  # noqa: PLC0415
    from waymo_open_dataset.protos import motion_metrics_pb2  # noqa: PLC0415

    config = text_format.Parse(CONFIG, motion_metrics_pb2.MotionMetricsConfig())
    inputs = dict(np.load(path))
    inputs["scenario_id"] = inputs["scenario_id"].tolist()
    values = py_metrics_ops.motion_metrics(config=config.SerializeToString(), **inputs)
    return {
        name: [float(f"{x:.9g}") for x in np.asarray(value)]
        for name, value in zip(METRICS, values, strict=True)
    }


def run_lidar(path: Path) -> dict[str, Any]:
    """Return points of a range image, still and with pixel poses, and an encoded image."""
    import tensorflow as tf  # noqa: PLC0415
    from waymo_open_dataset.utils import range_image_utils, transform_utils  # noqa: PLC0415
    from waymo_open_dataset.utils.compression import delta_encoder  # noqa: PLC0415

    given = np.load(path)

    def tensor(values: np.ndarray) -> Any:
        return tf.constant(values.copy()[None], tf.float64)

    pixels = given["pixels"]
    turns = transform_utils.get_rotation_matrix(*(tf.constant(pixels[..., i]) for i in range(3)))
    poses = transform_utils.get_transform(turns, tf.constant(pixels[..., 3:]))
    arguments = [tensor(given[name]) for name in ("ranges", "extrinsic")]
    arguments.append(tensor(given["inclinations"][::-1]))
    moving = {"pixel_pose": poses[None], "frame_pose": tensor(given["pose"])}
    found: dict[str, Any] = {}
    for name, more in (("still", {}), ("moving", moving)):
        image = range_image_utils.extract_point_cloud_from_range_image(
            *arguments, dtype=tf.float64, **more
        )
        points = image.numpy()[0][given["ranges"] > 0]
        found[name] = [[float(f"{x:.12g}") for x in point] for point in points]
    encoded = delta_encoder.compress(given["image"].copy(), [0.02, 0.01, 0.01, 1.0])
    found["encoded"] = base64.b64encode(encoded).decode()
    decoded = delta_encoder.decompress(encoded).ravel()
    return {**found, "decoded": [float(f"{x:.12g}") for x in decoded]}


if __name__ == "__main__":
    if sys.argv[1] == "inputs":
        write_inputs(Path(sys.argv[2]))
    else:
        write_outputs(Path(sys.argv[2]), Path(sys.argv[3]))
