"""The page of a study: figures, tables, claims, failures, and where it all comes from."""

from __future__ import annotations

import contextlib
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from regrow.lab.claims import Claim, Verdict
from regrow.lab.design import Labels, labels_by_identity
from regrow.lab.failures import Failure, read_failures
from regrow.lab.figures import figure_style
from regrow.lab.files import Damaged
from regrow.lab.origin import failures_section, machines_section, rerun_section
from regrow.lab.records import Records
from regrow.lab.report import page
from regrow.lab.section import Section
from regrow.lab.study import Study
from regrow.lab.study_file import Order, left_out, read_orders
from regrow.lab.trial import Trial
from regrow.lab.view import Gaps, NotRun, View

__all__ = ["Found", "find", "study_page"]

SMOKE = "smoke"


@dataclass(frozen=True)
class Found:
    """What folders hold of a study.

    Args:
        study: which.
        records: of finished trials.
        failures: trials that failed.
        damaged: what is wrong with files that cannot be read.
        orders: what was asked for, and the identities of its trials.
        waiting: trials that were asked for and have neither finished nor failed.
        left_out: why those will not run; empty if nobody has said that they will not.
    """

    study: Study
    records: Records
    failures: Sequence[Failure]
    damaged: Sequence[str]
    orders: Mapping[Order, Sequence[str]]
    waiting: Sequence[NotRun] = ()
    left_out: str = ""

    @functools.cached_property
    def view(self) -> View:
        """The records by their labels, and what is not there.

        Trials of the smoke preset are for tests: beside those of another preset they are left out,
        by themselves they decide nothing.
        """
        real = {one for order, ones in self.orders.items() if order.preset != SMOKE for one in ones}
        smoke = {one for ones in self.orders.values() for one in ones} - real if real else set()
        gaps = Gaps(
            [(labels, r) for r in self.waiting for labels in r.labels if r.identity not in smoke],
            accepted=bool(self.left_out),
            too_small="" if real or not self.orders else "smoke preset: too small to judge",
        )
        return View(View.of(one for one in self.records if one.identity not in smoke).rows, gaps)

    @functools.cached_property
    def verdicts(self) -> list[tuple[Claim, Verdict]]:
        """The study's claims, judged."""
        return [(claim, claim.judge(self.view)) for claim in self.study.claims]

    def sections(self) -> list[Section]:
        """Make the study's own figures and tables, figures first."""
        with figure_style():
            made = self.study.sections(self.view)
        return sorted(made, key=lambda section: section.figure is None)

    @property
    def missing(self) -> int:
        """How many trials that were asked for have neither finished nor failed."""
        return len(self.waiting)


def find(folders: Sequence[Path], load: Callable[[str], Study]) -> Found:
    """Read what folders hold of one study; a file that is damaged is noted, and the rest read.

    Args:
        folders: each was ``--out`` of a run of the study.
        load: finds a study by name.

    Raises:
        FileNotFoundError: a folder holds no study.
        ValueError: there are no folders, they hold different studies, none of them says readably
            which, or the study knows none of their presets.
    """
    if not folders:
        raise ValueError("no folder: name one that was --out of regrow study run")
    damaged: list[str] = []
    asked = _asked(folders, damaged)
    names = sorted({order.study for order in asked})
    if len(names) != 1:
        raise ValueError(
            f"the folders hold {', '.join(map(repr, names))}: one page is of one study"
        )
    study = load(names[0])
    records = Records.read(*folders, damaged=damaged.append)
    failures = read_failures(*folders, damaged=damaged.append)
    orders: dict[Order, list[str]] = {}
    labels: dict[str, list[Labels]] = {}
    trials: dict[str, Trial] = {}
    for order in dict.fromkeys(asked):
        try:
            labelled = study.trials(order.preset, order.data)
        except ValueError as error:
            damaged.append(f"{order}: {error}")
            continue
        trials |= {one.trial.identity: one.trial for one in labelled}
        own = labels_by_identity(labelled)
        orders[order] = list(own)
        for identity, more in own.items():
            known = labels.setdefault(identity, [])
            known += [one for one in more if one not in known]
    if not orders:
        raise ValueError(damaged[-1])
    there = {one.identity for one in (*records, *failures)}
    waiting = [
        NotRun(identity, trial.content, {}, {}, Path(), labels=labels[identity])
        for identity, trial in trials.items()
        if identity not in there
    ]
    reasons = _reasons(folders)
    why = "; ".join(dict.fromkeys(reasons)) if all(reasons) else ""
    return Found(study, records.labelled(labels), failures, damaged, orders, waiting, why)


def _asked(folders: Sequence[Path], damaged: list[str]) -> list[Order]:
    """Read what was asked for, as far as it can be read in one folder at least."""
    asked: list[Order] = []
    for folder in folders:
        try:
            asked += read_orders(folder)
        except Damaged as error:
            damaged.append(str(error))
    if not asked:
        raise Damaged(damaged[-1])
    return asked


def _reasons(folders: Sequence[Path]) -> list[str]:
    reasons = []
    for folder in folders:
        with contextlib.suppress(Damaged):
            reasons.append(left_out(folder))
    return reasons


def study_page(found: Found) -> str:
    """Make the page.

    Returns:
        HTML.
    """
    study = found.study
    sections = found.sections()
    appendix = [rerun_section(found.records, found.orders)]
    if len(found.records):
        appendix.insert(0, machines_section(found.records))
    if found.failures:
        appendix.insert(0, failures_section(found.failures))
    verdicts = found.verdicts
    footer = "Made by regrow. Intervals are 95 % intervals over seeds."
    source = f"{study.about} Source: {study.source}."
    return page(study.title, source, _lead(found, verdicts), sections, footer, verdicts, appendix)


def _lead(found: Found, verdicts: Sequence[tuple[Claim, Verdict]]) -> list[str]:
    """Say in sentences what was decided and what is not there."""
    said = []
    if verdicts:
        counts = Counter(verdict.outcome for _, verdict in verdicts)
        words = ", ".join(f"{n} {outcome}" for outcome, n in sorted(counts.items(), reverse=True))
        said.append(f"Claims: {words}.")
    trials = [f"{len(found.records)} finished"]
    if found.failures:
        trials.append(f"{len(found.failures)} failed")
    if found.missing:
        trials.append(f"{found.missing} {'left out' if found.left_out else 'not run yet'}")
    said.append(f"Trials: {', '.join(trials)}.")
    if found.missing and found.left_out:
        said.append(f"Why trials are left out: {found.left_out}")
    said += [f"Left out: {words}." for words in found.damaged]
    return said
