"""Makes a cache of scenes from a folder of a published data set, whatever is damaged in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, get_args

from regrow.motion.crop import crop
from regrow.motion.datasets import shard_files
from regrow.motion.formats.argoverse_forecasting import read_forecasting
from regrow.motion.formats.argoverse_sensor import read_log
from regrow.motion.formats.pedestrians import read_pedestrians
from regrow.motion.formats.scenario import read_scenarios
from regrow.motion.formats.womd_lidar import read_sweeps
from regrow.motion.scene import Scene
from regrow.motion.shards import SUFFIX, remove_leftovers, whole, write_shard
from regrow.reading import UnreadableError

__all__ = ["Kind", "Prepared", "Settings", "find_kind", "prepare"]

Kind = Literal["womd", "argoverse-forecasting", "argoverse-sensor", "pedestrians"]

_A_SHARD = 500  # forecasting scenarios, which have a folder each


@dataclass(frozen=True)
class Settings:
    """What decides how the scenes of a cache are made.

    Args:
        kind: of the data set.
        lidar: folder of WOMD-LiDAR, with ``{scenario_id}.tfrecord``; None: no LiDAR. Sensor logs of
            Argoverse have theirs with them.
        most: LiDAR points of a target in a frame to keep, chosen at random; LiMTR keeps 2,048.
        past: steps before the present one, of recordings that are cut into scenes.
        future: steps after it.
        every: steps from one scene's present to the next one's.
        targets: of Argoverse's forecasting: the focal agent, or all that are scored.
    """

    kind: Kind
    lidar: Path | None = None
    most: int = 2048
    past: int | None = None
    future: int | None = None
    every: int | None = None
    targets: Literal["focal", "scored"] = "focal"

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind={self.kind!r}: must be one of {', '.join(get_args(Kind))}")
        if self.lidar is not None and self.kind != "womd":
            raise ValueError(f"lidar={self.lidar}: goes with kind='womd', not {self.kind!r}")
        if self.lidar is not None and not self.lidar.is_dir():
            raise FileNotFoundError(f"lidar={self.lidar}: no such folder")
        if self.most < 1:
            raise ValueError(f"most={self.most}: must be at least 1")
        for name, value in self.window().items():
            if self.kind not in ("argoverse-sensor", "pedestrians"):
                raise ValueError(f"{name}={value}: {self.kind} has scenes, which are not cut")
            # Pedestrians have velocities from the step before only.
            least = 0 if name == "past" and self.kind == "argoverse-sensor" else 1
            if value < least:
                raise ValueError(f"{name}={value}: must be at least {least}")
        if self.targets not in ("focal", "scored"):
            raise ValueError(f"targets={self.targets!r}: must be focal or scored")
        if self.targets != "focal" and self.kind != "argoverse-forecasting":
            raise ValueError(
                f"targets={self.targets}: goes with kind='argoverse-forecasting', not {self.kind!r}"
            )

    def window(self) -> dict[str, int]:
        """Return past, future and every, as far as they are given."""
        cut = {"past": self.past, "future": self.future, "every": self.every}
        return {name: value for name, value in cut.items() if value is not None}


@dataclass
class Prepared:
    """What became of one shard, or of all.

    Args:
        scenes: written.
        bytes: of the shards.
        empty: scenes left out, for they have nobody to predict.
        lidar: scenes with LiDAR.
        absent: LiDAR frames that are absent in these.
        done_before: shards that were there already.
        others: shards in the cache that are of something else.
        errors: of what was left out, one a record or file.
    """

    scenes: int = 0
    empty: int = 0
    bytes: int = 0
    lidar: int = 0
    absent: int = 0
    done_before: int = 0
    others: int = 0
    errors: list[str] = field(default_factory=list)

    def take(self, other: Prepared) -> None:
        """Add what became of another shard."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)


def find_kind(folder: Path) -> Kind:
    """Return which data set lies in a folder, by its files.

    Raises:
        FileNotFoundError: there is no such folder, or none of a kind that can be read.
        ValueError: several kinds lie in it.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder")
    signs: dict[Kind, str] = {
        "womd": "*.tfrecord*",
        "argoverse-forecasting": "scenario_*.parquet",
        "argoverse-sensor": "city_SE3_egovehicle.feather",
        "pedestrians": "*.txt",
    }
    found = [
        kind
        for kind, sign in signs.items()
        if any(path.suffix != SUFFIX for path in folder.rglob(sign))
    ]
    if not found:
        raise FileNotFoundError(
            f"{folder}: has no file such as {', '.join(signs.values())}: give a folder of the "
            "Waymo Open Motion Dataset, of Argoverse 2, or of ETH and UCY tracks"
        )
    # A text file may be a note on any data set.
    if len(certain := [kind for kind in found if kind != "pedestrians"]) > 1:
        raise ValueError(
            f"{folder}: holds several kinds of data: {', '.join(certain)}. Give one's folder, or "
            "say which by kind"
        )
    return found[0]


def prepare(
    folder: Path,
    out: Path,
    settings: Settings,
    *,
    jobs: int = 1,
    told: Callable[[int, int, str, Prepared], None] = lambda *_: None,
) -> Prepared:
    """Write the scenes of a data set as shards; what is damaged is left out and told of.

    Shards that are there, of the same files by the same settings, are left as they are: the same
    call goes on where it was cut off, and several may write at once.

    Args:
        folder: of the data set, as published.
        out: of the cache.
        settings: how scenes are made.
        jobs: processes.
        told: called after each shard with how many are done, how many there are, its name and what
            became of it.

    Raises:
        FileNotFoundError: there is nothing to read.
        OSError: a shard cannot be written.
    """
    tasks = _tasks(folder, settings.kind)
    out.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    planned = {out / f"{name}{SUFFIX}" for name, _ in tasks}
    total = Prepared(others=len(set(out.rglob(f"*{SUFFIX}")) - planned))
    arguments = [(out / f"{name}{SUFFIX}", sources, settings) for name, sources in tasks]
    for done, ((name, _), found) in enumerate(zip(tasks, _run(arguments, jobs), strict=True), 1):
        total.take(found)
        told(done, len(tasks), name, found)
    return total


def _run(arguments: Sequence[tuple[Path, list[Path], Settings]], jobs: int) -> Iterator[Prepared]:
    if jobs == 1:
        yield from (_prepare_shard(*one) for one in arguments)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        try:
            yield from pool.map(_prepare_shard, *zip(*arguments, strict=True))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _tasks(folder: Path, kind: Kind) -> list[tuple[str, list[Path]]]:
    """Return the shards to make: their names, unique, and the files or folders of each."""
    if kind == "womd":
        sources = [[path] for path in shard_files(folder)]
    elif kind == "pedestrians":
        sources = [[path] for path in sorted(folder.rglob("*.txt"))]
    elif kind == "argoverse-sensor":
        logs = sorted(path.parent for path in folder.rglob("city_SE3_egovehicle.feather"))
        sources = [[log] for log in logs]
    else:
        found = sorted({path.parent for path in folder.rglob("scenario_*.parquet")})
        sources = [found[start : start + _A_SHARD] for start in range(0, len(found), _A_SHARD)]
    if not sources:
        raise FileNotFoundError(f"{folder}: has nothing of kind={kind!r}")
    return [(_name(folder, own, place), own) for place, own in enumerate(sources)]


def _name(folder: Path, sources: list[Path], place: int) -> str:
    if len(sources) > 1:
        return f"scenes-{place:05}"
    within = sources[0].relative_to(folder)
    return str(within) if within.parts else folder.resolve().name


def _prepare_shard(path: Path, sources: list[Path], settings: Settings) -> Prepared:
    """Write a shard, unless it is there."""
    about: dict[str, Any] = {"settings": repr(settings)}
    about["sources"] = [_stamp(source) for source in sources]
    if settings.lidar is not None:
        about["lidar"] = settings.lidar.stat().st_mtime_ns  # later files may have come
    before = whole(path)
    if before and {key: before.about.get(key) for key in about} == about:
        found = Prepared(**before.about["prepared"])
        return replace(found, done_before=1, bytes=path.stat().st_size)
    found = Prepared()
    told: dict[str, Any] = {**about, "prepared": {}}

    def scenes() -> Iterator[Scene]:
        for scene in _scenes(sources, settings, found):
            found.scenes += 1
            yield scene
        told["prepared"] = asdict(found)

    write_shard(path, scenes(), told)
    found.bytes = path.stat().st_size
    return found


def _stamp(source: Path) -> list[Any]:
    """Return what changes where a file does, or one of those in a folder."""
    names = ("*.feather", "*.parquet", "*.json", "*.tfrecord")
    files = [file for name in names for file in source.rglob(name)] if source.is_dir() else [source]
    found = [file.stat() for file in files]
    return [
        source.name,
        sum(at.st_size for at in found),
        max((at.st_mtime_ns for at in found), default=0),
    ]


def _scenes(sources: list[Path], settings: Settings, found: Prepared) -> Iterator[Scene]:
    """Give the scenes of some sources with somebody to predict; errors are noted."""
    readers: dict[Kind, Callable[[Path], Iterable[Scene]]] = {
        "womd": lambda path: read_scenarios(path, lambda error: found.errors.append(str(error))),
        "argoverse-forecasting": lambda path: [read_forecasting(path, settings.targets)],
        "argoverse-sensor": lambda path: _log_scenes(path, settings, found),
        "pedestrians": lambda path: read_pedestrians(path, **settings.window()),
    }
    for source in sources:
        if source.is_file() and not source.stat().st_size:
            found.errors.append(f"{source}: is empty: get it again")
            continue
        try:
            for read in readers[settings.kind](source):
                scene = _with_targets_now(read, source, found)
                if not len(scene.targets):
                    found.empty += 1  # nothing can be learnt from it, nor predicted in it
                    continue
                made = _with_lidar(scene, settings, found)
                if made.points is not None:
                    found.lidar += 1
                yield made
        except (ValueError, FileNotFoundError) as error:
            found.errors.append(str(error))


def _with_targets_now(scene: Scene, source: Path, found: Prepared) -> Scene:
    """Return a scene without the targets that are not there now; each of them is noted.

    No frame can be put to them: one of them would end a training run.
    """
    there = scene.valid[scene.targets, scene.now]
    for target in scene.targets[~there]:
        found.errors.append(
            f"{source}, scene {scene.name}: target {target} (id {scene.ids[target]}) is not valid "
            f"at step {scene.now}, which is now: it is left out"
        )
    return scene if there.all() else replace(scene, targets=scene.targets[there])


def _log_scenes(path: Path, settings: Settings, found: Prepared) -> Iterator[Scene]:
    log, window = read_log(path), {"past": 10, "future": 80, **settings.window()}
    every, steps = window.pop("every", 10), len(log.stamps)
    if steps <= window["past"] + window["future"]:
        found.errors.append(
            f"{path}: is too short: it has {steps} steps, a scene "
            f"{window['past'] + 1 + window['future']}; give a smaller past or future"
        )
    told: set[str] = set()
    for now in log.presents(**window, every=every):
        damaged: list[UnreadableError] = []
        scene = log.scene(now, **window, most=settings.most, skipped=damaged.append)
        # Scenes share frames: each is told of once.
        new = [said for said in map(str, damaged) if said not in told]
        found.errors += [f"{said} (the frame counts as absent)" for said in new]
        told.update(new)
        if scene.points is not None:
            found.absent += log.sweeps[now - scene.now : now + 1].count(None) + len(damaged)
        yield scene


def _with_lidar(scene: Scene, settings: Settings, found: Prepared) -> Scene:
    """Return a scene with the LiDAR points of WOMD, if they are there and sound."""
    if settings.lidar is None:
        return scene
    path = settings.lidar / f"{os.path.basename(scene.name)}.tfrecord"  # noqa: PTH119 no way out
    try:
        sweeps = read_sweeps(path)
        points = crop(sweeps, scene, most=settings.most)
    except (ValueError, FileNotFoundError) as error:
        found.errors.append(f"{error} (scene {scene.name} goes without LiDAR)")
        return scene
    if points is None:
        found.errors.append(f"{path}: all frames are empty (scene {scene.name} goes without LiDAR)")
        return scene
    found.absent += sum(sweep is None for sweep in sweeps)
    return replace(scene, points=points)
