"""``regrow control train`` with a method of agents that see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from regrow.cli.checks import check_between, check_threads
from regrow.cli.fields import takes_fields

__all__ = ["control_train_pixels", "is_of_pixels", "spelt"]

_DEFAULTS: dict[str, Any] = {"seed": 0, "task": "walker-walk"}


def is_of_pixels(arguments: Sequence[str]) -> bool:
    """Tell whether the method that a command line names is one of agents that see.

    Example:
        >>> is_of_pixels(["--method", "MaDi"]), is_of_pixels(["--method=r2n"]), is_of_pixels([])
        (True, False, False)
    """
    from regrow.control.pixels.method import PIXEL_METHODS  # noqa: PLC0415

    named = [one.partition("=")[2] for one in arguments if one.startswith("--method=")]
    named += [two for one, two in pairwise(arguments) if one == "--method"]
    return any(name in PIXEL_METHODS for name in named)


def spelt(arguments: Sequence[str]) -> list[str]:
    """Return a command line with its method as it is spelt here, whatever its letters' case.

    Papers write R2N and MaDi, and people madi.

    Example:
        >>> spelt(["--method", "R2N"]), spelt(["--method=madi", "--out", "R2N"])
        (['--method', 'r2n'], ['--method=MaDi', '--out', 'R2N'])
    """
    from regrow.control.pixels.method import PIXEL_METHODS  # noqa: PLC0415
    from regrow.control.setting import METHODS  # noqa: PLC0415

    known = {name.lower(): name for name in (*METHODS, *PIXEL_METHODS)}
    words, before = [], ""
    for word in arguments:
        option, equals, value = word.partition("=")
        if before == "--method":
            words.append(known.get(word.lower(), word))
        elif equals and option == "--method":
            words.append(f"{option}={known.get(value.lower(), value)}")
        else:
            words.append(word)
        before = word
    return words


@takes_fields(
    "regrow.studies.distraction_masks.trial:LearnFromPixels", leave_out=(), defaults=_DEFAULTS
)
def control_train_pixels(
    *,
    videos: Path | None = None,
    photos: Path | None = None,
    device: Literal["auto", "cpu", "cuda"] = "auto",
    threads: int | None = None,
    workers: int = 1,
    out: Path = Path("control-results"),
    **fields: Any,
) -> None:
    """Train an agent from clean images, and test it where backgrounds distract it.

    Prints a line after every test: the returns, clean and distracted, and how well masks cover what
    does not matter. The same command goes on where it was cut off. The run's folder gets films and
    page.html. Tasks but dot need pip install '.[pixels]' in a checkout of regrow.

    Args:
        videos: Folder of the videos that are shown behind, in tests of videos.
        photos: Folder of photographs for overlays; without it the strong augmentation is conv.
        device: Where the agent learns; "auto" takes a GPU if there is one.
        threads: Of torch; else as torch has it.
        workers: Processes that step and draw the episodes of tests.
        out: Folder for the records of runs.
        **fields: Of the trial.
    """
    from regrow.cli.trial import run_trial  # noqa: PLC0415
    from regrow.control.pixels.augment import read_photos  # noqa: PLC0415
    from regrow.lab.files import make_folder  # noqa: PLC0415
    from regrow.studies.distraction_masks.trial import LearnFromPixels, shows_videos  # noqa: PLC0415

    check_threads(threads)
    check_between("workers", workers, 1, 256)
    trial = LearnFromPixels(**(_DEFAULTS | fields))
    if trial.augmentation == "auto":  # a record must say what was done
        trial = replace(trial, augmentation="conv" if photos is None else "overlay")
    if trial.augmentation in ("overlay", "splice") and photos is None:
        raise ValueError(
            f"--augmentation {trial.augmentation} needs a folder of photographs: --photos FOLDER"
        )
    if videos is None and (shown := [mode for mode in trial.test if shows_videos(mode)]):
        raise ValueError(f"--test {shown[0]} needs a folder of videos: --videos FOLDER")
    if videos is not None and not any(map(shows_videos, trial.test)):
        raise ValueError(
            f"--videos {videos}: --test {' '.join(trial.test)} shows none; add video_easy, "
            "video_hard or distracting, or leave it out"
        )
    if photos is not None and trial.augmentation not in ("overlay", "splice"):
        raise ValueError(
            f"--photos {photos}: --augmentation {trial.augmentation} shows none; take overlay or "
            "splice, or leave it out"
        )
    if photos is not None:
        read_photos(photos)  # what is missing or damaged is told before a run
    trial.environments(videos)
    make_folder(out, "out")
    options: dict[str, Any] = {"device": device, "workers": workers, "keep_weights": True}
    folders = {"videos": videos, "photos": photos}
    options |= {name: str(path.resolve()) for name, path in folders.items() if path is not None}
    run_trial(trial, out, options, threads, [], _line(trial.steps), _table)


def _line(steps: int) -> Any:
    def line(values: Mapping[str, Any]) -> str:
        words = [f"step {values['step']:{len(str(steps))}} of {steps}"]
        for name, value in values.items():
            if name.endswith("return"):
                words.append(f"{name if name != 'return' else 'training return'} {value:.1f}")
            elif name.endswith("auc"):
                words.append(f"{name.replace('auc', 'mask AUC')} {value:.2f}")
        return ", ".join(words)

    return line


def _table(result: Mapping[str, Any], folder: Path) -> str:
    from regrow.studies.distraction_masks.page import PAGE  # noqa: PLC0415

    rows: dict[str, str] = {}
    for mode, test in result["tests"].items():
        mask = f", mask AUC {test['auc']:.3f}, best IoU {test['iou']:.3f}" if "auc" in test else ""
        rows[mode] = f"{test['return']:.1f} on average of {len(test['returns'])} episodes{mask}"
    rows["augmentation"] = str(result["augmentation"])
    rows["page"] = str(folder / PAGE)
    rows["record"] = str(folder)
    return "\n".join(f"{name:16} {words}" for name, words in rows.items())
