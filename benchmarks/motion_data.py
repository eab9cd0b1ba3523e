"""What reading, packing and measuring motion data cost: `python benchmarks/motion_data.py FOLDER`.

FOLDER has shards of the Waymo Open Motion Dataset; LiDAR frames are made up, as large as real ones.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from regrow.motion.crop import crop
from regrow.motion.datasets import shard_files
from regrow.motion.formats.crc import crc32c, crc32c_numpy
from regrow.motion.formats.delta import encode_delta
from regrow.motion.formats.scenario import decode_scenario
from regrow.motion.formats.tfrecord import read_records
from regrow.motion.formats.wire import field
from regrow.motion.formats.womd_lidar import decode_sweep
from regrow.motion.metrics import measure
from regrow.motion.packing import pack, unpack

MOST = 50  # scenarios
PRECISION = (0.02, 0.01, 0.01, 1.0)


def best(call: Callable[[], Any], repeats: int = 5) -> float:
    """Return the shortest of some times, in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times) * 1000


def image(rng: np.random.Generator, rows: int, columns: int, empty: float) -> np.ndarray:
    """Return a range image whose ranges wander along each row."""
    ranges = np.abs(np.cumsum(rng.normal(0, 0.3, (rows, columns)), axis=1)) % 60 + 3
    rest = rng.random((rows, columns, 2)) * 0.5 + 0.01
    made = np.concatenate([ranges[..., None], rest, np.zeros((rows, columns, 1))], axis=2)
    made[rng.random((rows, columns)) < empty] = 0
    return made


def transform(number: int, pose: np.ndarray) -> bytes:
    """Return a pose as a field."""
    return field(number, b"".join(field(1, float(x)) for x in pose.ravel()))


def lidar_frame() -> bytes:
    """Return a frame of the laser on the roof, 64 by 2,650, and of four on the sides."""
    rng, parts = np.random.default_rng(0), []
    for name in range(1, 6):
        size = (64, 2650) if name == 1 else (200, 600)
        first, second = (image(rng, *size, empty) for empty in (0.2, 0.95))
        one = field(1, encode_delta(first, PRECISION))
        if name == 1:
            poses = np.zeros((*size, 6))
            poses[..., 3] = np.linspace(100, 101, size[1])
            one += field(4, encode_delta(poses, [1e-6] * 3 + [1e-3] * 3))
        two = field(1, encode_delta(second, PRECISION))
        parts.append(field(1, field(1, name) + field(2, one) + field(3, two)))
        ends = field(3, -0.3) + field(4, 0.05)
        parts.append(field(2, field(1, name) + ends + transform(5, np.eye(4))))
    return b"".join(parts) + transform(3, np.eye(4))


def main() -> None:
    """Print a line a figure."""
    records = (data for path in shard_files(Path(sys.argv[1])) for _, data in read_records(path))
    raw = [data for data, _ in zip(records, range(MOST), strict=False)]
    scenes = [decode_scenario(data) for data in raw]
    packed = [pack(scene) for scene in scenes]
    size, count = sum(map(len, raw)), len(raw)
    for name, check in (("crc32c", crc32c), ("crc32c_numpy", crc32c_numpy)):
        print(
            f"{name}: {size / best(lambda check=check: [check(d) for d in raw]) / 1000:,.0f} MB/s"
        )
    print(f"{count} scenarios of {size / count / 1000:,.0f} kB")
    print(f"decode: {best(lambda: [decode_scenario(d) for d in raw]) / count:.1f} ms each")
    print(f"packed: {sum(map(len, packed)) / count / 1000:,.0f} kB each")
    print(f"pack: {best(lambda: [pack(s) for s in scenes]) / count:.1f} ms each")
    print(f"unpack: {best(lambda: [unpack(d) for d in packed]) / count:.1f} ms each")
    futures = [scene for scene in scenes if len(scene.times) == 91 and len(scene.targets)]
    made = [np.zeros((len(scene.targets), 6, 16, 2)) for scene in futures]
    ones = [np.ones(trajectories.shape[:2]) for trajectories in made]
    every = list(zip(futures, made, ones, strict=True))
    if every:
        print(f"measure: {best(lambda: [measure(*one) for one in every]) / len(every):.1f} ms each")
    frame = lidar_frame()
    sweep = decode_sweep(frame)
    assert sweep is not None
    took = best(lambda: decode_sweep(frame), 3)
    print(f"LiDAR frame of {len(sweep.points):,} points: {took:.0f} ms")
    scene = scenes[0]
    took = best(lambda: crop([sweep] * (scene.now + 1), scene), 3)
    print(f"crop of {len(scene.targets)} targets in {scene.now + 1} such frames: {took:.0f} ms")


if __name__ == "__main__":
    main()
