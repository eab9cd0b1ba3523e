"""The trial: an agent learns a task from clean images, and is tested where others distract it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from torch import Tensor

from regrow.control.distractions import Pixels, side_by_side
from regrow.control.pixels.augment import read_photos
from regrow.control.pixels.evaluate import Evaluation
from regrow.control.pixels.masker import multiply_adds
from regrow.control.pixels.method import PIXEL_METHODS, PixelMethod
from regrow.control.pixels.setting import PixelSetting
from regrow.control.pixels.tasks import DOT, Cut, Quality, make_task, repeat_of
from regrow.control.pixels.train import PixelTraining, train_from_pixels
from regrow.data.places import Places
from regrow.engine.checks import check_choice
from regrow.lab.run import Run
from regrow.lab.trial import Trial
from regrow.studies.distraction_masks.page import write_films, write_page
from regrow.training.train import keep_weights

__all__ = ["WEIGHTS", "LearnFromPixels", "PixelMethodName", "shows_videos", "terms"]

PixelMethodName = Literal[
    "SAC", "DrQ", "RAD", "SODA", "SVEA", "SGQN", "MaDi", "MaDi-half", "MaDi-strided", "MaDi-shared",
    "mask-ones", "mask-random", "mask-segmentation",
]  # fmt: skip
WEIGHTS = "agent.pt"
_CLIPS = ("distraction-videos/hard-128", "distraction-videos")
_DRAWN = {"full": "in full", "fast": "without shadows, reflections and smooth edges"}
_OTHER = 1_000_000  # added to seeds: environments of tests begin elsewhere
_SMALL_AGENTS = ("cartpole", "ball_in_cup", "dot")  # of which SGQN leaves out more pixels


@dataclass(frozen=True, kw_only=True)
class LearnFromPixels(PixelSetting, Trial):
    """Train one agent on one task from images, and test it, clean and distracted.

    Args:
        task: dot, or one of the DeepMind Control Suite, such as walker-walk.
        method: SAC, DrQ, RAD, SODA, SVEA, SGQN or MaDi; ours: MaDi-half, MaDi-strided,
            MaDi-shared, whose masks cost less; and controls: masks of ones, random ones, and the
            true foreground (mask-segmentation).
        test: modes to test in, beside clean: color_easy, color_hard, video_easy, video_hard,
            distracting (at its intensity easy); moving, of dot.
        mask: soft, hard, or mixed: hard in tests only.
        repeat: control steps of a step of the agent; None: 8 on cartpoles, 2 on finger, else 4.
        quality: how much is drawn: shadows and all (full), or what is fast.
        cut: how videos find the background: segmentation, which is exact, or key: a colour, as the
            published benchmark does.

    Raises:
        ValueError: a choice is unknown or a number out of its range; the message says which.
    """

    task: str
    method: PixelMethodName = "MaDi"
    test: tuple[str, ...] = ("video_hard",)
    mask: Literal["soft", "hard", "mixed"] = "soft"
    repeat: int | None = None
    quality: Quality = "full"
    cut: Cut = "segmentation"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.method, tuple(PIXEL_METHODS), "method")
        check_choice(self.mask, ("soft", "hard", "mixed"), "mask")
        if self.mask != "soft" and PIXEL_METHODS[self.method].mask != "learned":
            raise ValueError(
                f"mask={self.mask!r}: {self.method} learns no mask; take MaDi or a variant"
            )
        check_choice(self.quality, get_args(Quality), "quality")
        check_choice(self.cut, get_args(Cut), "cut")
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be 0 or above")
        if self.repeat is not None and self.repeat < 1:
            raise ValueError(f"repeat={self.repeat}: must be at least 1")
        if len(set(self.test)) < len(self.test) or "clean" in self.test:
            raise ValueError(f"test={self.test}: each mode once; clean is always tested")

    def how(self) -> PixelMethod:
        """Return the method, as it is on this task."""
        method = replace(PIXEL_METHODS[self.method], hard=self.mask)
        if method.auxiliary == "sgqn" and self.task.partition("-")[0] in _SMALL_AGENTS:
            method = replace(method, quantile=0.98)  # as in SGQN's table 3
        return method

    def title(self) -> str:
        """Say what was run, and what its returns can be compared with.

        Example:
            >>> LearnFromPixels(seed=0, task="walker-walk", steps=5_000).title()
            'MaDi on walker-walk, seed 0: 5,000 steps of the agent, 20,000 frames; drawn in full'
        """
        masks = "" if self.mask == "soft" else f", masks {self.mask}"
        return f"{self.method}{masks} on {self.task}, seed {self.seed}: {terms(vars(self))}"

    def environments(
        self, videos: Path | None, *, runs: int = 1, workers: int = 1
    ) -> tuple[Pixels, dict[str, Pixels]]:
        """Make those of training and, by mode, of tests.

        Args:
            videos: folder of those that are shown behind.
            runs: episodes of a test that are played at once.
            workers: processes that step and draw them.

        Raises:
            ValueError: the task or a mode is unknown, or videos are missing.
        """
        rendered = self.how().rendered(self.size)

        def make(seed: int, mode: str, **more: int) -> Pixels:
            return make_task(
                self.task, seed, mode, size=rendered, repeat=self.repeat, quality=self.quality,
                cut=self.cut, videos=videos if shows_videos(mode) else None, **more,
            )  # fmt: skip

        other, modes = self.seed + _OTHER, ("clean", *self.test)
        tests = {mode: make(other, mode, runs=runs, workers=workers) for mode in modes}
        return make(self.seed, "clean"), tests

    def run(self, run: Run) -> Mapping[str, Any]:
        """Train, resuming from the run's checkpoint if there is one, and test.

        Options of the run: ``device``; the folders ``videos`` and ``photos``, else those of
        ``data_dir``; ``workers``, processes that step and draw in tests; and ``keep_weights``.

        Raises:
            ValueError: videos or photos are damaged.
            FileNotFoundError: they are missing.
        """
        began = time.monotonic()
        environments, tests = self.environments(
            self._videos(run), runs=self.episodes, workers=run.options.get("workers") or 1
        )
        training = train_from_pixels(
            environments,
            method=self.how(),
            setting=PixelSetting(**{f.name: getattr(self, f.name) for f in fields(PixelSetting)}),
            test=tests,
            photos=self._photos(run),
            device=str(run.options.get("device") or "auto"),
            run=run,
        )
        keep_weights(run, training.agent.state_dict(), WEIGHTS)
        result = result_of(training) | {"last_seconds": time.monotonic() - began}
        if run.writes:
            for name, found in training.last.items():
                write_films(run.folder, name, film_of(found))
            write_page(run.folder, self.title(), result)
        return result

    def _videos(self, run: Run) -> Path | None:
        return _folder(run, "videos", _CLIPS) if any(map(shows_videos, self.test)) else None

    def _photos(self, run: Run) -> Tensor | None:
        needed = self.augmentation in ("overlay", "splice")
        if not needed and (self.augmentation != "auto" or not run.options.get("photos")):
            return None
        return read_photos(_folder(run, "photos", ("photos",)))


def terms(config: Mapping[str, Any]) -> str:
    """Say how long was trained, in steps of the agent and in frames, and how pictures were drawn.

    Args:
        config: of a trial, by name.
    """
    said = f"{config['steps']:,} steps of the agent"
    if config["task"] == DOT:
        return said
    frames = config["steps"] * repeat_of(config["task"], config.get("repeat"))
    said += f", {frames:,} frames; drawn {_DRAWN[config.get('quality', 'full')]}"
    keyed = config.get("cut") == "key" and any(map(shows_videos, config["test"]))
    return said + (", videos cut out by colour" if keyed else "")


def shows_videos(mode: str) -> bool:
    """Tell whether a mode needs videos.

    Example:
        >>> shows_videos("video_hard"), shows_videos("color_hard")
        (True, False)
    """
    return mode.startswith(("video", "distracting"))


def _folder(run: Run, option: str, names: Sequence[str]) -> Path:
    """Return the folder that an option names, or the first of these names among data sets."""
    if (given := run.options.get(option)) is not None:
        return Path(given)
    places = Places("", run.options.get("data_dir"))

    def look(root: Path) -> Path | None:
        return next((root / name for name in names if (root / name).is_dir()), None)

    return places.find(
        look, f"the folder {names[-1]}", f"name one of your own by the option {option}"
    )


def result_of(training: PixelTraining) -> dict[str, Any]:
    """Return what a record keeps of a training."""
    agent = training.agent
    masker, method = agent.masker, agent.method
    augmented = method.strong or method.auxiliary != "none"
    return {
        "tests": {name: found[-1] for name, found in training.evaluations.items()},
        "evaluations": training.evaluations,
        "training_returns": list(training.returns),
        "augmentation": agent.augment.kind if augmented else "none",
        "parameters": agent.parameters(),
        "mask_multiply_adds": multiply_adds(masker, training.setting.size) if masker else 0,
        "updates": agent.updates,
        "environment_share": training.seconds["environment"] / max(training.seconds["all"], 1e-9),
    }


def film_of(found: Evaluation) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return frames of a film: what is seen; beside it, where there are any, mask and product."""
    if found.masks is None:
        return found.frames
    film: np.ndarray[Any, np.dtype[np.uint8]] = side_by_side(found.frames, found.masks)
    return film
