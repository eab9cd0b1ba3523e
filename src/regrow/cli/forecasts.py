"""``regrow motion``: train, evaluate, predict, draw."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from regrow.cli.checks import check_between, check_threads
from regrow.cli.fields import takes_fields
from regrow.lab.files import check_writable, make_folder, read_json
from regrow.machine import expanded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regrow.motion.scene import Scene
    from regrow.studies.lidar_motion.predict import Predict

__all__ = ["motion_draw", "motion_evaluate", "motion_predict", "motion_train"]

_NO_OPTIONS = (
    "method",
    "nesterov",
    "milestones",
    "rescale",
    "data",
    "digest",
    "include",
    "exclude",
)
_DEFAULTS: dict[str, Any] = {
    "seed": 0,
    "epochs": 4,
    "batch": 8,
    "lidar": "temporal",
    "lidar_frames": 4,
    "lidar_points": 64,
    "polylines": 96,
    "scenes_learnt": 500,
    "scenes_tested": 100,
    "warmup": 0.2,
}
_MOST = 10_000_000  # scenes


@takes_fields(
    "regrow.studies.lidar_motion.predict:Predict", leave_out=_NO_OPTIONS, defaults=_DEFAULTS
)
def motion_train(
    *,
    learn_from: Path | None = None,
    test_on: Path | None = None,
    density: float | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    data_dir: Path | None = None,
    threads: int | None = None,
    out: Path = Path("motion-results"),
    **fields: Any,
) -> None:
    """Train a network to predict road users, test it on other scenes, and make a page of it.

    Without caches the scenes are made up, with bodies that tell what comes. Defaults are for
    minutes on two CPU cores. The same command goes on where it was cut off. Forecasts, weights and
    the page lie in the run's folder. On several GPUs: torchrun --nproc-per-node N -m regrow motion
    train ...

    Args:
        learn_from: A cache that "regrow motion prepare" wrote; else scenes are made up.
        test_on: Another one, to test on.
        density: The share of the LiDAR encoder's weights kept, by RigL; else all weights stay.
        device: Where to train; "auto" takes a GPU if there is one.
        data_dir: Folder in which made-up scenes are kept; else the user's cache.
        threads: Of torch; else as torch has it.
        out: Folder for the records of runs.
        **fields: Of the trial.
    """
    import regrow  # noqa: PLC0415
    from regrow.cli.trial import run_trial  # noqa: PLC0415
    from regrow.studies.lidar_motion.design import ENCODER  # noqa: PLC0415
    from regrow.studies.lidar_motion.page import write_page  # noqa: PLC0415
    from regrow.studies.lidar_motion.predict import FORECASTS, Predict  # noqa: PLC0415
    from regrow.studies.lidar_motion.scenes import digest_of  # noqa: PLC0415

    check_threads(threads)
    fields = _DEFAULTS | fields
    if (learn_from is None) != (test_on is None):
        given, other = ("learn-from", "test-on") if test_on is None else ("test-on", "learn-from")
        raise ValueError(f"{given}: give {other}, too: another part of the same data set")
    folders = [expanded(f).resolve() for f in (learn_from, test_on) if f is not None]
    if folders:
        fields |= {"data": "cache", "digest": digest_of(*folders)}
    if density is not None and fields["lidar"] == "none":
        raise ValueError(f"density={density}: is of the LiDAR encoder, and lidar is none")
    method = regrow.Dense() if density is None else regrow.RigL(density=density, update_every=50)
    include = () if density is None else ENCODER
    trial = Predict(**fields, method=method, include=include)
    make_folder(out, "out")
    options = {
        "device": device,
        "data_dir": None if data_dir is None else str(data_dir),
        "keep_weights": True,
        "graphs": False,
        **dict(zip(("learnt", "tested"), map(str, folders), strict=False)),
    }
    record = run_trial(trial, out, options, threads, ["min_ade", "min_fde", "ade_1"])
    scenes = _tested(trial, record, options)
    if both := read_json(record / "result.json").get("in_both"):
        print(f"note             {both:,} of the scenes of the test were learnt from, too")
    print(f"page             {write_page(record, _load(record / FORECASTS), scenes)}")


def motion_evaluate(
    run: Path,
    folder: Path | None = None,
    /,
    *,
    scenes: int = 200,
    first: int = 2_000_000_000,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    out: Path = Path("evaluation.html"),
) -> None:
    """Judge a trained network on scenes: Waymo's metrics, errors by kind, range and speed, a page.

    Args:
        run: The folder of a run of "regrow motion train".
        folder: A cache that "regrow motion prepare" wrote; else scenes are made up.
        scenes: To judge by, at most.
        first: The seed of the first made-up scene; those of training begin at 0.
        device: Where to compute; "auto" takes a GPU if there is one.
        out: The page.
    """
    from regrow.lab.section import counted  # noqa: PLC0415
    from regrow.studies.lidar_motion.page import write_evaluation  # noqa: PLC0415
    from regrow.studies.lidar_motion.results import results  # noqa: PLC0415
    from regrow.studies.lidar_motion.trained import load_trained  # noqa: PLC0415

    if out.suffix not in (".html", ".htm"):
        raise ValueError(f"out={out}: a page is written, which must be called .html")
    check_writable(out, "out")
    trained, source = load_trained(run, device), _scenes(folder, scenes, first, once=True)
    found = trained.predict(source)
    said = (
        f"{folder or 'Made-up scenes'}: {counted(len(source), 'scene')}. Run: {run.resolve().name}."
    )
    print(write_evaluation(found, source, results(found, source), said, out))


def motion_predict(
    run: Path,
    folder: Path | None = None,
    /,
    *,
    out: Path,
    account: str = "",
    name: str = "",
    scenes: int = _MOST,
    first: int = 2_000_000_000,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Predict the targets of scenes: six futures of each and their probabilities.

    Args:
        run: The folder of a run of "regrow motion train".
        folder: A cache that "regrow motion prepare" wrote; else 100 scenes are made up.
        out: The file. An .npz has arrays: scene, id, kind, paths (in metres, in the frame of the
            scene), probabilities; a row a target. A .tar.gz is a submission to Waymo's challenge.
        account: For a submission: the e-mail address registered with Waymo.
        name: For a submission: the method's short name.
        scenes: To predict, at most.
        first: The seed of the first made-up scene.
        device: Where to compute; "auto" takes a GPU if there is one.
    """
    from regrow.lab.section import counted  # noqa: PLC0415
    from regrow.studies.lidar_motion.trained import (  # noqa: PLC0415
        load_trained,
        save_forecasts,
        save_submission,
    )

    submits = out.name.endswith(".tar.gz")
    if not submits and out.suffix != ".npz":
        raise ValueError(f"out={out}: must be called .npz (arrays) or .tar.gz (a submission)")
    if submits != bool(account and name) or (not submits and (account or name)):
        raise ValueError(
            f"account={account!r}, name={name!r}: both go with a submission, --out FILE.tar.gz"
        )
    check_writable(out, "out")
    count = 100 if folder is None and scenes == _MOST else scenes
    trained, source = load_trained(run, device), _scenes(folder, count, first)
    found = trained.predict(source)
    if submits:
        save_submission(out, found, source, trained, account, name)
    else:
        save_forecasts(out, found, source)
    print(f"{counted(sum(len(scene.targets) for scene in source), 'target')}: {out}")


def motion_draw(
    folder: Path | None = None,
    /,
    *,
    out: Path,
    run: Path | None = None,
    scene: str = "0",
    target: int = 0,
    dark: bool = False,
    device: Literal["auto", "cpu", "cuda"] = "auto",
) -> None:
    """Draw a scene from above, with the LiDAR points on its target beside it: a picture or a film.

    Args:
        folder: A cache that "regrow motion prepare" wrote; else a scene is made up.
        out: The file: .png, .svg, .pdf; .gif and .mp4 are films.
        run: The folder of a run of "regrow motion train": its six futures are drawn, too.
        scene: Its name in the cache, or its number; of a made-up scene the seed.
        target: Which of the scene's targets, from 0 on.
        dark: On dark paper.
        device: Where to compute; "auto" takes a GPU if there is one.
    """
    from regrow.studies.lidar_motion.looks import DARK, LIGHT  # noqa: PLC0415
    from regrow.studies.lidar_motion.pictures import (  # noqa: PLC0415
        FILMS,
        draw_scene,
        write_film,
        write_picture,
    )
    from regrow.studies.lidar_motion.trained import forecast_of, load_trained  # noqa: PLC0415

    check_writable(out, "out")
    shown, look = _one_scene(folder, scene), DARK if dark else LIGHT
    if not 0 <= target < len(shown.targets):
        raise ValueError(f"target={target}: {shown.name} has {len(shown.targets)}, from 0 on")
    forecast = None
    if run is not None:
        forecast = forecast_of(load_trained(run, device).predict([shown]), target)
    if out.suffix in FILMS:
        print(write_film(shown, target, out, forecast, look=look))
    else:
        print(write_picture(draw_scene(shown, target, forecast, look=look), out))


def _scenes(folder: Path | None, most: int, first: int, *, once: bool = False) -> Sequence[Scene]:
    """Return scenes that have targets; ``once``: refuse those of which one is there twice."""
    from regrow.motion.datasets import CachedScenes  # noqa: PLC0415
    from regrow.motion.simulator.stored import Simulated  # noqa: PLC0415
    from regrow.studies.lidar_motion.scenes import check_once  # noqa: PLC0415

    check_between("scenes", most, 1, _MOST)
    if folder is None:
        return list(Simulated(most, first=first))
    scenes = CachedScenes(expanded(folder))
    if once:
        check_once(scenes)
    places = [i for i in range(len(scenes)) if i < most]
    found = [one for one in (scenes[i] for i in places) if len(one.targets)]
    if not found:
        raise ValueError(f"folder={folder}: none of its first {most:,} scenes has a target")
    return found


def _one_scene(folder: Path | None, name: str) -> Scene:
    from regrow.motion.datasets import CachedScenes  # noqa: PLC0415
    from regrow.motion.simulator import simulate  # noqa: PLC0415

    if folder is None:
        if not name.isdecimal():
            raise ValueError(f"scene={name!r}: without a folder it is a seed, such as 0")
        return simulate(int(name))[0]
    scenes = CachedScenes(expanded(folder))
    names = [name for shard in scenes.shards for name in shard.names]
    if name in names:
        return scenes[names.index(name)]
    if name.isdecimal() and int(name) < len(names):
        return scenes[int(name)]
    raise ValueError(
        f"scene={name!r}: {folder} has {len(names):,} scenes, such as {names[0]!r}; give a name or "
        f"a number from 0 to {len(names) - 1}"
    )


def _tested(trial: Predict, record: Path, options: dict[str, Any]) -> Sequence[Scene]:
    """Return the scenes that a trial was tested on."""
    from regrow.lab.run import Run  # noqa: PLC0415

    return list(trial.scenes(Run(record, options, writes=False)).test)


def _load(path: Path) -> dict[str, Any]:
    import numpy as np  # noqa: PLC0415

    with np.load(path, allow_pickle=False) as file:
        return dict(file)
