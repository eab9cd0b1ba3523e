"""Does a recogniser of speech learn as well from less data?"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from regrow.lab import charts
from regrow.lab.claims import Answer
from regrow.lab.effects import EVERY, Effect, Measure, gain, level
from regrow.lab.records import Record
from regrow.lab.rules import claim, each, gated
from regrow.lab.section import Section, Table, estimate
from regrow.lab.study import Study
from regrow.lab.view import View
from regrow.studies.speech.pruning_design import ARMS, BY_LOSS, KEEPS, LOWEST_KEEP, PRESETS, TIMED
from regrow.studies.speech.recognise import make_all

__all__ = ["STUDY"]

MARGIN = 1.0  # points of word error rate that matter
KEEP = 0.7  # the paper's


def _wer(place: int, name: str, rate: str = "wer") -> Measure:
    """Read the error rate of one of the tests, in the order of the trial."""

    def read(record: Record) -> float:
        tests = record.config["tests"]
        if place >= len(tests):
            raise ValueError(f"no {name}")
        return 100 * float(record.result["by_corpus"][tests[place]][rate])

    return Measure(name, read, "points of WER")


WER = _wer(0, "word error rate")
SHORT = _wer(1, "word error rate of short utterances")
SECONDS = Measure(
    "seconds of training", lambda record: float(record.result["train_seconds"]), "", ratio=True
)
HOURS = Measure(
    "hours learnt from", lambda record: float(record.result["hours_learnt"]), "", ratio=True
)

_PAPER = "DDP-ASR (arXiv 2406.18373), abstract"
_NOTES = "DDP-ASR (arXiv 2406.18373), as third parties tell it; unverified"
_CONTROL = "a control of ours"


def over(arm: str, other: str, measure: Measure = WER, keep: float | str = KEEP) -> Effect:
    """Ask by how much an arm errs more than another; below 0 it is better."""
    return gain(arm, other, measure, keep=keep)


LEARNT = claim(
    "The full-data network has learnt: it errs in less than half of the words.",
    _CONTROL,
    level("full", WER),
    below=50,
)
QUALITY = (
    claim(
        "Easy to hard, 70 % of the utterances reach the word error rate of all.",
        _PAPER,
        over("easy to hard", "full"),
        below=MARGIN,
        answer=Answer(
            "from easy to hard, 70 % of the utterances are enough",
            "from easy to hard, 70 % of the utterances are not enough",
        ),
    ),
    claim(
        "All data, stopped after as many steps, do not.",
        f"{_CONTROL}: else 70 % of the steps are enough, whatever they are of",
        over("full short", "full"),
        above=MARGIN,
    ),
    claim(
        "Choosing by loss, easy to hard, beats all data at equal steps.",
        _CONTROL,
        over("easy to hard", "full short", keep=EVERY),
        below=0,
        answer=Answer(
            "they are better than all data at equal steps",
            "they are no better than all data at equal steps",
        ),
    ),
    claim(
        "Ours beats all data at equal steps.",
        _CONTROL,
        over("ours", "full short", keep=EVERY),
        below=0,
    ),
    claim(
        "Ours beats choosing at random, and at random within lengths.",
        _CONTROL,
        each(("dynamic random", "stratified random"), lambda arm: over("ours", arm, keep=EVERY)),
        below=0,
    ),
    claim(
        "No choice by loss is worse than one at random.",
        _CONTROL,
        each(BY_LOSS, lambda arm: over(arm, "dynamic random", keep=EVERY)),
        below=MARGIN,
    ),
    claim(
        "Choosing anew in every epoch beats choosing once.",
        _PAPER,
        over("dynamic random", "static random", keep=EVERY),
        below=0,
    ),
    claim(
        "Chunks of time are better removed than points.",
        _NOTES,
        over("chunks", "points", keep=EVERY),
        below=0,
    ),
    claim(
        "70 % of the utterances and 70 % of their time lose nothing.",
        _PAPER,
        over("both", "full"),
        below=MARGIN,
    ),
    claim(
        "They beat all data at equal computation.",
        _CONTROL,
        over("both", "full shorter", keep=EVERY),
        below=0,
    ),
    claim(
        "The hardest by summed loss, which are long, fail on short utterances.",
        _NOTES,
        over("hard by sum", "dynamic random", SHORT, keep=0.5),
        above=MARGIN,
    ),
    claim(
        "By loss a label, which knows no length, they do not.",
        _CONTROL,
        over("hard", "dynamic random", SHORT, keep=0.5),
        below=MARGIN,
    ),
    claim(
        "Below half of the data the choice collapses: at 30 % it loses to as few steps on all.",
        _NOTES,
        over("easy to hard", "full short", keep=LOWEST_KEEP),
        above=MARGIN,
    ),
)
COST = claim(
    "70 % of both train 1.6 times as fast.",
    f"{_PAPER}: up to 1.6 times; 2.04 if all time were spent on frames",
    gain("full, timed", "both, timed", SECONDS, keep=KEEP),
    above=1.6,
    note="Seconds include choosing. Runs of --data time, one at a time: side by side they wait for "
    "each other.",
)
CLAIMS = (*gated(LEARNT, *QUALITY), COST)
UTTERANCES = tuple(arm for arm in ARMS if arm not in ("full", "full shorter", "points", "chunks"))
TIME = ("points", "chunks", "both", "full shorter")


def _learning(view: View) -> dict[str, View]:
    """Return the records of each task that is about error rates."""
    return {
        str(name): task for name, task in view.by("task").items() if task.where(arm="full").rows
    }


def by_keep(view: View) -> Iterator[Section]:
    """Draw word error rates by the share kept."""
    for task, here in _learning(view).items():
        panels = {
            name: charts.curves_of(
                here, lambda arm, keep: level(arm, WER, keep=keep), arms, here.axis("keep")
            )
            for name, arms in (("utterances", UTTERANCES), ("time, and both", TIME))
        }
        full = charts.rows_of(here, {"full": level("full", WER)})
        yield from charts.curves(
            f"Word error rate by the share kept: {task}",
            "Full short and full shorter are all data at the steps of pruned utterances, and at "
            "those of both.",
            {name: lines for name, lines in panels.items() if lines},
            x="share kept",
            y="word error rate, %",
            levels=dict.fromkeys(panels, full),
            colours=charts.palette(ARMS),
        )


def over_random(view: View) -> Iterator[Section]:
    """Draw by how much each arm errs more than choosing at random."""
    arms = [arm for arm in ARMS if arm not in ("full", "dynamic random", "full shorter")]
    panels = {
        task: charts.rows_of(here, each(arms, lambda arm: over(arm, "dynamic random", keep=EVERY)))
        for task, here in _learning(view).items()
    }
    text = "Mean over the shares kept, paired by seed. Below 0 is better than at random."
    if panels:
        yield from charts.rows(
            "Against choosing at random", text, panels, x="points of WER", band=MARGIN
        )


def all_arms(view: View) -> Iterator[Section]:
    """Write error rates, hours and time of every arm."""
    measures = (WER, _wer(0, "CER", "cer"), SHORT)
    for task, here in _learning(view).items():
        rows = []
        for arm in ARMS:
            for keep in here.where(arm=arm).axis("keep") or [None]:
                asked = partial(level, arm, **({} if keep is None else {"keep": keep}))
                if not asked(measure=WER).maybe(here):
                    continue
                name = arm if keep is None else f"{arm}, {keep:g}"
                rates = [estimate(asked(measure=m).maybe(here)) for m in measures]
                hours, seconds = (asked(measure=m).interval(here).mean for m in (HOURS, SECONDS))
                rows.append((name, *rates, f"{hours:.2f}", f"{seconds:.0f}"))
        head = ("arm, share kept", "WER, %", "CER, %", "short: WER, %", "hours", "seconds")
        text = (
            "Means over seeds, with half the 95 % interval. Hours are of audio that went through "
            "the network in the whole run; seconds are of training, choosing included."
        )
        yield Section(f"All arms: {task}", text, table=Table(head, rows))


def speed(view: View) -> Iterator[Section]:
    """Write how much faster timed runs are than on all data, and how much less they learn from."""
    rows = []
    for arm in TIMED:
        asked = partial(gain, "full, timed", arm, keep=KEEP)
        faster, less = (asked(measure=measure).maybe(view) for measure in (SECONDS, HOURS))
        if faster and less and arm != "full, timed":
            rows.append((arm, estimate(faster), estimate(less)))
    if rows:
        text = (
            f"Ratios of all data to share {KEEP:g}, geometric means, with half the 95 % interval."
        )
        yield Section("Speed", text, table=Table(("arm", "seconds", "hours learnt from"), rows))


def what_was_chosen(view: View) -> Iterator[Section]:
    """Write how often utterances with known defects were learnt from."""
    for task, here in view.by("task").items():
        rows = []
        for arm in ARMS:
            # One share kept, that runs of different lengths are comparable.
            found = [r for _, r in here.where(arm=arm).at(keep=KEEP).rows]
            seen = [r.result["seen_by_group"] for r in found]
            if seen and "wrong" in seen[0]:
                means = [sum(s[g] for s in seen) / len(seen) for g in ("clean", "wrong", "copy")]
                rows.append((arm, *(f"{mean:.2f}" for mean in means)))
        if rows:
            yield Section(
                f"What was chosen: {task}",
                f"How often utterances of a kind were learnt from at keep {KEEP:g}, against the "
                "mean of all: those with nothing wrong, with another's transcript, exact copies.",
                table=Table(("arm", "clean", "wrong transcript", "copy"), rows),
            )


STUDY = Study(
    name="speech-pruning",
    title="Does a recogniser of speech learn as well from less data?",
    source="Xiao et al. 2024, Dynamic Data Pruning for Automatic Speech Recognition (Interspeech, "
    "arXiv 2406.18373), whose code and schedule are not public",
    about="Shares of utterances, chosen by loss or at random, of time, and of both; read and real "
    f"speech; shares {', '.join(map(str, KEEPS))}. Controls: all data at equal steps, choices at "
    "random once, in every epoch and within lengths. One recipe; only steps differ.",
    presets=PRESETS,
    claims=CLAIMS,
    page=(
        partial(charts.verdicts_by_task, CLAIMS), by_keep, over_random, all_arms, speed,
        what_was_chosen,
    ),
    prepare=make_all,
)  # fmt: skip
