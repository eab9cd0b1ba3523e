"""Malformed files of motion data in every reader: sound scenes, or refused by file and reason.

A case makes small right files, damages one, with right checksums around it or not, and reads all
in a process with little memory and time.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from regrow.motion.crop import Sweep
from regrow.motion.formats.argoverse_forecasting import read_forecasting
from regrow.motion.formats.argoverse_sensor import read_log
from regrow.motion.formats.delta import encode_delta
from regrow.motion.formats.pedestrians import read_pedestrians
from regrow.motion.formats.scenario import read_scenarios
from regrow.motion.formats.scenario_writer import encode_scenario
from regrow.motion.formats.tfrecord import write_records
from regrow.motion.formats.wire import field
from regrow.motion.formats.womd_lidar import read_sweeps
from regrow.motion.scene import Scene
from regrow.motion.shards import Shard, write_shard
from regrow.reading import LIMIT
from tests.fuzz.budget import main
from tests.fuzz.readers import in_a_process, limit
from tests.malformed import malform
from tests.motion.curves import scene_of
from tests.motion.formats.argoverse_files import STAMPS, write_forecasting, write_log
from tests.motion.lasers import calibration, frame, image_of, lidar_record, pose_of

Read = Callable[[Path], Iterable[Scene | Sweep | None]]


def small(rng: random.Random) -> Scene:
    return scene_of(rng.randrange(99), kinds=(1, 2), targets=1, steps=12)


def damaged(rng: random.Random, path: Path) -> None:
    path.write_bytes(malform(rng, path.read_bytes())[1])


def scenario(rng: random.Random, folder: Path) -> tuple[Path, Read]:
    contents = [encode_scenario(small(rng)) for _ in range(2)]
    if inside := rng.random() < 0.7:
        contents[1] = malform(rng, contents[1])[1]
    write_records(folder / "shard", contents)
    if not inside:
        damaged(rng, folder / "shard")
    return folder / "shard", read_scenarios


def lidar(rng: random.Random, folder: Path) -> tuple[Path, Read]:
    draw = np.random.default_rng(rng.randrange(99))
    image = encode_delta(image_of(draw, 2, 6), [1e-2] * 4)
    if inside := rng.random() < 0.5:
        image = zlib.compress(malform(rng, zlib.decompress(image))[1])
    one = field(1, 2) + field(2, field(1, image))
    record = lidar_record(
        [frame([one], [calibration(2, pose_of((0, 0, 1), (1, 0, 2)))], np.eye(4))]
    )
    write_records(folder / "a.tfrecord", [record if inside else malform(rng, record)[1]])
    return folder / "a.tfrecord", read_sweeps


def tracks(rng: random.Random, folder: Path) -> tuple[Path, Read]:
    rows = (f"{10 * n} {p} {n + p} {rng.random():.3f}" for n in range(24) for p in (1, 2))
    (folder / "a.txt").write_text("\n".join(rows))
    damaged(rng, folder / "a.txt")
    return folder / "a.txt", read_pedestrians


def forecasting(rng: random.Random, folder: Path) -> tuple[Path, Read]:
    write_forecasting(folder)
    damaged(rng, rng.choice(sorted(folder.iterdir())))
    return folder, lambda path: [read_forecasting(path)]


def sensor(rng: random.Random, folder: Path) -> tuple[Path, Read]:
    log = write_log(folder / "log")
    lidar_path = log / "sensors" / "lidar" / f"{STAMPS[2]}.feather"
    damaged(rng, rng.choice([*log.glob("*.feather"), *log.glob("map/*"), lidar_path]))
    return log, lambda path: [read_log(path).scene(3, past=2, future=2)]


def shard(rng: random.Random, folder: Path) -> tuple[Path, Read]:
    write_shard(folder / "a.scenes", [small(rng) for _ in range(2)])
    damaged(rng, folder / "a.scenes")
    return folder / "a.scenes", Shard


KINDS = (scenario, lidar, tracks, forecasting, sensor, shard)


def judge(path: Path, read: Read) -> str:
    """Read a file or folder; return what became of it, and raise where that is wrong."""
    try:
        found = list(read(path))
    except (ValueError, FileNotFoundError) as error:
        said = str(error)
        named = str(path) in said or f"{path.name}: " in said
        assert named, f"no file is named: {error!r}"
        assert not isinstance(error, UnicodeError), f"foreign: {error!r}"
        return "refused"
    for one in found:
        if isinstance(one, Scene):
            assert np.isfinite(one.states).all()
            assert np.isfinite(one.line_points).all()
    return "read"


def case(rng: random.Random) -> str:
    """Read one malformed file of one kind."""
    make = rng.choice(KINDS)

    def work() -> str:
        os.environ[LIMIT] = str(64 << 20)  # so that bombs take less time
        folder = Path(tempfile.mkdtemp())
        try:
            path, read = make(rng, folder)
            limit()
            return judge(path, read)
        finally:
            shutil.rmtree(folder)

    return f"{make.__name__} {in_a_process(work)}"


if __name__ == "__main__":
    main("scenes", case, budget=4000)
