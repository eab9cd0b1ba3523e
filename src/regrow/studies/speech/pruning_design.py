"""What the study of speech pruning runs: arms, corpora, presets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import regrow
from regrow import samples
from regrow.lab.design import Arm, Label, Labelled, grid
from regrow.lab.study import Preset
from regrow.speech.synthesis.made import Made
from regrow.studies.speech.recognise import Recognise

__all__ = ["ARMS", "BY_LOSS", "KEEPS", "LOWEST_KEEP", "PRESETS", "TIMED", "planned"]

KEEPS, LOWEST_KEEP = (0.5, 0.7, 0.9), 0.3
_WARMUP = 0.1  # of a run, whatever its length, the learning rate rises
_CHUNK = 10  # steps of 40 ms


def planned(keep: float, epochs: int, first: int) -> float:
    """Return how many epochs of all data a run sees that keeps a share after the first ones."""
    return first + (epochs - first) * keep


def _length(epochs: float) -> dict[str, Any]:
    """Return a run on all data of so many epochs, and at least one."""
    whole = max(1, round(epochs))
    return {"epochs": whole, "warmup": _WARMUP * whole}


def _choosing(criterion: samples.Criterion, **more: Any) -> Arm:
    return lambda keep: {"criterion": criterion, "keep": keep, **more}


def _static(keep: float, epochs: int, first: int) -> dict[str, Any]:
    """Choose once, before the run, which is longer in epochs and equally long in steps."""
    once = {"criterion": samples.Random(), "keep": keep, "every": None, "full_first": 0}
    return once | _length(planned(keep, epochs, first) / keep)


def _infobatch(keep: float, epochs: int, first: int) -> dict[str, Any]:
    """Keep less in the middle for the last eighth on all data, as published, at equal steps."""
    last = round(epochs / 8)
    share = (planned(keep, epochs, first) - first - last) / (epochs - first - last)
    return {"criterion": samples.InfoBatch(), "keep": share, "full_last": last}


def _time(chunk: int, **more: Any) -> Arm:
    return lambda keep: {"time_keep": keep, "time_chunk": chunk, **more}


def _both(keep: float) -> dict[str, Any]:
    return {**_choosing(samples.EasyToHard())(keep), **_time(_CHUNK)(keep)}


ARMS: dict[str, Arm] = {
    "full": lambda: {"criterion": None},
    "full short": lambda keep, epochs, first: _length(planned(keep, epochs, first)),
    "full shorter": lambda keep, epochs, first: _length(keep * planned(keep, epochs, first)),
    "static random": _static,
    "dynamic random": _choosing(samples.Random()),
    "stratified random": _choosing(samples.Stratified("length")),
    "easy": _choosing(samples.Easy()),
    "hard": _choosing(samples.Hard()),
    "hard by sum": _choosing(samples.Hard(), score="sum"),
    "easy to hard": _choosing(samples.EasyToHard()),
    "InfoBatch": _infobatch,
    "COWERAGE": _choosing(samples.Coverage(), every=None),
    "SeTa": _choosing(samples.SeTa()),
    "ours": _choosing(samples.RootLoss(guard=True)),  # the first rule: its records are of it
    "ours, no guard": _choosing(samples.RootLoss(guard=False)),
    "points": _time(1),
    "chunks": _time(_CHUNK),
    "both": _both,
}
BY_LOSS = ("easy", "hard", "easy to hard", "InfoBatch", "COWERAGE", "SeTa", "ours")
# Of a name of their own: their error rates, of short runs, are in no other rule. The first to run
# also pays for what a device does once.
TIMED = {f"{arm}, timed": ARMS[arm] for arm in ("chunks", "full", "easy to hard", "both")}
_LOW = {name: ARMS[name] for name in ("full short", "dynamic random", "easy to hard", "ours")}
_FEW = ("full", "full short", "dynamic random", "easy to hard", "ours", "points", "chunks", "both")


def _trials(
    task: str,
    arms: Mapping[str, Arm],
    seeds: int,
    keeps: Sequence[float] = KEEPS,
    low: Mapping[str, Arm] | None = None,
    **setting: Any,
) -> Iterator[Labelled]:
    epochs: int = setting["epochs"]
    first = max(1, epochs // 10)
    base = Recognise(
        seed=0,
        method=regrow.Dense(),
        full_first=first,
        watched=0,
        warmup=_WARMUP * epochs,
        **setting,
    )
    labels: dict[str, Label] = {"task": task}
    given = {"epochs": epochs, "first": first}
    yield from grid(base, arms, seeds=seeds, labels=labels, given=given, keep=keeps)
    if low:
        yield from grid(base, low, seeds=seeds, labels=labels, given=given, keep=(LOWEST_KEEP,))


def _made(learnt: Made, usual: Made, short: Made) -> dict[str, Any]:
    corpora = (("learnt", learnt), ("usual", usual), ("short", short))
    return {"data": ("learnt",), "tests": ("usual", "short"), "made": corpora}


def _sentences(
    hours: float, common: int, words: tuple[int, int], wrong: float = 0.0, copies: float = 0.0
) -> dict[str, Any]:
    """Return sentences that voices read, and others of other voices; short: single phrases."""
    heard = partial(Made, what="sentences", part="test", common=common)
    learnt = Made(
        what="sentences",
        part="train",
        hours=hours,
        common=common,
        words=words,
        wrong=wrong,
        copies=copies,
    )
    usual, short = heard(hours=0.4, words=words, seed=1), heard(hours=0.2, words=(1, 1), seed=2)
    return _made(learnt, usual, short)


def _spoken(hours: float) -> dict[str, Any]:
    """Return digits that voices read."""
    heard = partial(Made, what="digits", part="test", hours=0.02)
    learnt = Made(what="digits", part="train", hours=hours, words=(2, 6))
    return _made(learnt, heard(words=(2, 6)), heard(words=(1, 1), seed=1))


_STRINGS = _made(
    Made(what="strings", part="train", words=(2, 7), rounds=2),
    Made(what="strings", part="test", words=(2, 7), rounds=3),
    Made(what="strings", part="test", words=(1, 1)),
)
_REAL: dict[str, Any] = {"data": ("speechocean762/train",), "tests": ("speechocean762/test",)}
_MORE = Made(what="sentences", part="train", hours=3.0)
_WITH: dict[str, Any] = {
    "data": ("speechocean762/train", "learnt"),
    "tests": ("speechocean762/test",),
    "made": (("learnt", _MORE),),
}
_FAST: dict[str, Any] = {"size": "1m", "learning_rate": 2e-3, "precision": "bfloat16"}
# In so few steps SpecAugment delays learning more than it helps.
_PLAIN: dict[str, Any] = {**_FAST, "units": "words", "augment": False}
_WORDS: dict[str, Any] = {**_PLAIN, "unit_count": 1000, "batch": 48, "epochs": 20}
# Without a loss in the middle a fifth of the runs hardly begin to write words of so little speech.
_LITTLE: dict[str, Any] = {"middle": 0.3, "batch": 32}
_DIGITS: dict[str, Any] = {**_PLAIN, **_LITTLE, "epochs": 40}
_PIECES: dict[str, Any] = {**_FAST, **_LITTLE, "units": "pieces", "unit_count": 200, "epochs": 60}
_SMOKE: dict[str, Any] = {
    "size": "tiny", "units": "words", "batch": 8, "epochs": 4, "learning_rate": 3e-3,
}  # fmt: skip
_PAPER: dict[str, Any] = {
    "size": "243m", "units": "pieces", "unit_count": 5000, "batch": 256, "epochs": 80,
    "precision": "bfloat16", "weight_decay": 0.03, "longest": 16.0,
}  # fmt: skip
_HOURS: dict[str, Any] = {
    "size": "13m", "units": "pieces", "unit_count": 500, "batch": 160, "epochs": 40,
    "learning_rate": 1.5e-3, "precision": "bfloat16",
}  # fmt: skip
_LIBRI: dict[str, Any] = {
    "data": tuple(f"LibriSpeech/train-{n}" for n in ("clean-100", "clean-360", "other-500")),
    "tests": ("LibriSpeech/test-clean", "LibriSpeech/test-other"),
}


def _quick(task: str, setting: Mapping[str, Any], corpora: Mapping[str, Any]) -> Any:
    return partial(_trials, task, ARMS, 3, low=_LOW, **setting, **corpora)


_TIMED: dict[str, Any] = {**_WORDS, "size": "13m", "batch": 192, "epochs": 10}
_COMMON = partial(_sentences, 6.0, 1000, (5, 12))
_COST = "22 minutes of an H200 for sentences, with --jobs 18; by estimate as long"
PRESETS = {
    "smoke": Preset(
        "a minute",
        {
            "spoken digits": partial(
                _trials,
                "spoken digits",
                {arm: ARMS[arm] for arm in _FEW},
                2,
                (0.7,),
                **_SMOKE,
                **_spoken(0.05),
            )
        },
        judges=False,
    ),
    "quick": Preset(
        f"{_COST} for defects, 10 for digit-strings, 30 for each of speechocean762 and "
        "speechocean762-and-sentences; 10 for time, with --jobs 1",
        {
            "sentences": _quick("sentences", _WORDS, _COMMON()),
            "defects": _quick("defects", _WORDS, _COMMON(wrong=0.1, copies=0.2)),
            "time": partial(_trials, "time", TIMED, 3, (0.7,), **_TIMED, **_COMMON()),
            "digit-strings": _quick("digit strings", _DIGITS, _STRINGS),
            "speechocean762": _quick("speechocean762", _PIECES, _REAL),
            "speechocean762-and-sentences": _quick(
                "speechocean762 and sentences", _PIECES | {"epochs": 30}, _WITH
            ),
        },
        default="sentences",
    ),
    "paper": Preset(
        "days of an H200 for sentences (30 h, 13 M parameters); months for LibriSpeech, as in the "
        "paper (960 h, 243 M)",
        {
            "sentences": _quick("sentences", _HOURS, _sentences(30.0, 0, (4, 20))),
            "librispeech": _quick("LibriSpeech", _PAPER, _LIBRI),
        },
        default="sentences",
    ),
}  # fmt: skip
