"""The trial: a network learns to recognise speech, and is tested on other corpora."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from regrow.data.places import Places
from regrow.lab.run import Run
from regrow.lab.trial import Trial
from regrow.speech.data import Speech, open_part, open_speech
from regrow.speech.problem import RecogniseSpeech, SpeechSource
from regrow.speech.synthesis.made import Made
from regrow.studies.speech.finished import Finished, open_finished, weights_digest
from regrow.training.run import RunLike, device_of
from regrow.training.setting import Setting
from regrow.training.train import start, train

__all__ = ["Recognise", "corpus_path", "make_all"]


@dataclass(frozen=True, kw_only=True)
class Recognise(Setting, RecogniseSpeech, Trial):
    """Train a recogniser of speech on corpora, and test it on others.

    Args:
        data: names of the corpora to learn from: a folder or table under the folder of data, such
            as "speechocean762/train".
        tests: names of those to test on.
        digest: of their utterances (:func:`regrow.speech.data.fingerprint`): corpora of the same
            names and other utterances are another trial. Empty: they are not looked at.
        longest: utterance that is learnt from, in seconds.
        made: those among these corpora that are made when they are first asked for, by name.
        begin: of the weights of a finished run that it begins with
            (:func:`regrow.studies.speech.finished.weights_digest`), in whose units it writes; the
            run's option ``begin`` says where that is. Empty: it begins with random weights.

    Raises:
        ValueError: a choice is unknown or a number out of its range; the message says which.

    Source: Conformer (Gulati et al. 2020); DDP-ASR (arXiv 2406.18373) and auto_avsr, on which it
    stands.
    """

    data: tuple[str, ...]
    tests: tuple[str, ...] = ()
    digest: str = ""
    longest: float = 35.0
    made: tuple[tuple[str, Made], ...] = field(default=(), metadata={"later": True})
    begin: str = field(default="", metadata={"later": True})
    batch: int = 32
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    schedule: Literal["steps", "cosine", "poly"] = "cosine"
    clip: float | None = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check()
        if not self.data:
            raise ValueError("data=(): name a corpus to learn from")
        if not self.longest > 0:
            raise ValueError(f"longest={self.longest}: must be above 0 s")
        if unknown := [name for name, _ in self.made if name not in (*self.data, *self.tests)]:
            raise ValueError(f"made={unknown[0]!r}: must be a name in data or tests")

    def speech(self, run: RunLike) -> Speech:
        """Open the corpora, from where the run's options say, or the usual places."""
        return open_speech(
            [self.place(name, run.options) for name in self.data],
            {name: self.place(name, run.options) for name in self.tests},
            units=begun.units if (begun := self.begun(run)) else self.units,
            unit_count=self.unit_count,
            watched=self.watched,
            speeds=self.other_speeds,
            longest=self.longest,
            stride=self.stride,
            seed=self.seed,
            device=device_of(run.options),
            workers=run.options.get("workers", 2),
        )

    @property
    def other_speeds(self) -> list[float]:
        """At which corpora that are learnt from are played, beside 1."""
        return sorted(set(self.speeds) - {1.0})

    def place(self, name: str, options: Mapping[str, Any], workers: int = 1) -> Path:
        """Return where a corpus is, made if it has to be.

        Args:
            name: in data or tests.
            options: of the run: ``corpora``, ``data_dir``.
            workers: processes that make it.
        """
        known, data_dir = options.get("corpora", {}), options.get("data_dir")
        if made := dict(self.made).get(name):
            return made.folder(data_dir, workers)
        return Path(known[name]) if name in known else corpus_path(name, data_dir)

    def begun(self, run: RunLike) -> Finished | None:
        """Open the run that it begins with, if any.

        Raises:
            FileNotFoundError: the run is not there, or not finished.
            ValueError: it has other weights than ``begin`` says, another size or other units.
        """
        if not self.begin:
            return None
        where = run.options.get("begin")
        if where is None:
            raise ValueError(f"begin={self.begin!r}: the run's option begin must say where that is")
        if (found := weights_digest(Path(where))) != self.begin:
            raise ValueError(f"begin={self.begin!r}: the weights in {where} are {found}")
        finished = open_finished(Path(where))
        for name, own, there in (
            ("size", self.size, finished.size),
            ("units", self.units, finished.units.told()["kind"]),
        ):
            if own != there:
                raise ValueError(f"{name}={own!r}: begin={where} has {there!r}: give that")
        return finished

    def open(self, setting: Setting, run: RunLike) -> SpeechSource:
        """Open the speech, and the weights that the network begins with."""
        begun = self.begun(run)
        return replace(super().open(setting, run), begun=begun.weights if begun else None)

    def run(self, run: Run) -> Mapping[str, Any]:
        """Train, resuming from the run's checkpoint if there is one, and test.

        Options of the run: ``begin``, ``corpora`` (paths by name), ``data_dir``, ``device``,
        ``execution``, ``keep_weights``, ``workers`` (threads that read audio). Passes are not
        captured as graphs, for batches differ in shape.
        """
        run.options.setdefault("graphs", False)
        return train(self, start(self, self, run), run)


def make_all(
    trials: Sequence[Trial], options: Mapping[str, Any], tell: Callable[[str], object]
) -> None:
    """Make the corpora of all trials and their features, before the first one is trained.

    Trials side by side would wait for the first that comes to a corpus, which makes it alone.

    Args:
        trials: of this study.
        options: of the run.
        tell: called with what is going on.
    """
    cores = os.cpu_count() or 1
    done = set()
    for trial in trials:
        assert isinstance(trial, Recognise)
        for names, speeds in ((trial.data, trial.other_speeds), (trial.tests, [])):
            for name in names:
                made = dict(trial.made).get(name)
                if (asked := (made or name, tuple(speeds))) in done:
                    continue
                done.add(asked)
                tell(f"corpus {name}: made and read, unless it is there")
                path = trial.place(name, options, cores)
                open_part(path, speeds=speeds, workers=cores)


def corpus_path(name: str, data_dir: str | Path | None) -> Path:
    """Find a corpus by its name.

    Raises:
        FileNotFoundError: there is none of this name.
    """
    plain, colon, split = name.partition(":")

    def look(folder: Path) -> Path | None:
        return folder if folder.exists() else None

    found = Places(plain, data_dir).find(look, "a corpus of this name", "name its folder's path")
    return Path(f"{found}{colon}{split}")
