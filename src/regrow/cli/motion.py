"""``regrow motion``: make a cache of scenes from published data sets."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from regrow.cli.checks import check_jobs

if TYPE_CHECKING:
    from regrow.motion.prepare import Prepared

__all__ = ["motion_prepare"]


def motion_prepare(
    folder: Path,
    /,
    *,
    out: Path,
    kind: Literal[
        "auto", "womd", "argoverse-forecasting", "argoverse-sensor", "pedestrians"
    ] = "auto",
    lidar: Path | None = None,
    most: int = 2048,
    past: int | None = None,
    future: int | None = None,
    every: int | None = None,
    targets: Literal["focal", "scored"] = "focal",
    jobs: int = 1,
) -> None:
    """Make a cache of scenes from a data set as published.

    Reads scenarios of the Waymo Open Motion Dataset (.tfrecord, with WOMD-LiDAR), scenarios and
    sensor logs of Argoverse 2, and tracks of ETH and UCY (.txt). A record that is damaged is told
    of and left out. The same command goes on where it was cut off; several may run at once.

    Args:
        folder: The data set, or a part of it, such as its training split.
        out: Folder for the cache.
        kind: Of the data set; "auto" finds out by the files.
        lidar: Folder of WOMD-LiDAR, with a file {scenario_id}.tfrecord a scenario.
        most: LiDAR points to keep of an agent in a frame.
        past: Steps before the present one, where logs and recordings are cut into scenes; else 10
            of logs, 7 of tracks.
        future: Steps after it; else 80 of logs, 12 of tracks.
        every: Steps from one scene's present to the next one's; else 10 of logs, 1 of tracks.
        targets: Whom to predict in Argoverse's forecasting: the focal agent, or all scored ones.
        jobs: Processes; -1 for one a core.
    """
    import os  # noqa: PLC0415

    from regrow.lab.section import counted  # noqa: PLC0415
    from regrow.motion.prepare import Settings, find_kind, prepare  # noqa: PLC0415

    check_jobs(jobs)
    settings = Settings(
        find_kind(folder) if kind == "auto" else kind, lidar, most, past, future, every, targets
    )

    def tell(done: int, of: int, name: str, found: Prepared) -> None:
        for error in found.errors:
            print(error)
        print(f"{done} of {of}: {name}, {counted(found.scenes, 'scene')}", flush=True)

    workers = (os.cpu_count() or 1) if jobs == -1 else jobs
    total = prepare(folder, out, settings, jobs=workers, told=tell)
    print(_summary(total, out))
    if not total.scenes:
        raise ValueError(
            f"folder={folder}: no scene was made. Either errors are above, or no recording is long "
            "enough with somebody to predict who is there throughout"
        )


def _summary(total: Prepared, out: Path) -> str:
    from regrow.lab.section import counted  # noqa: PLC0415

    each = total.bytes / max(total.scenes, 1) / 1000
    parts = [f"{counted(total.scenes, 'scene')} in {out}, {each:,.1f} kB each"]
    if total.empty:
        parts.append(f"left out, with nobody to predict: {total.empty:,}")
    if total.lidar:
        parts.append(f"{total.lidar:,} with LiDAR, {total.absent:,} of their frames absent")
    if total.done_before:
        parts.append(f"there already: {counted(total.done_before, 'shard')}")
    if total.others:
        parts.append(f"of something else there: {counted(total.others, 'shard')}")
    parts.append(f"errors: {len(total.errors):,}" if total.errors else "no errors")
    return "; ".join(parts)
