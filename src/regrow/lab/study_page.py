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
from regrow.lab.learnt import Unlearnt, unlearnt
from regrow.lab.origin import (
    failures_section,
    machines_section,
    rerun_section,
    unlearnt_section,
)
from regrow.lab.records import Records
from regrow.lab.report import page
from regrow.lab.section import Section
from regrow.lab.study import Study
from regrow.lab.study_file import Order, left_out, read_orders
from regrow.lab.trial import Trial
from regrow.lab.view import Gaps, NotRun, View

__all__ = ["Found", "find", "study_page"]

_NAMED = 3  # trials that did not learn, at the top of the page; the others are below


@dataclass(frozen=True)
class Found:
    """What folders hold of a study.

    Args:
        study: which.
        records: of finished trials.
        failures: trials that failed.
        damaged: what is wrong with files that cannot be read.
        orders: what was asked for, and the identities of its trials.
        waiting: trials that were asked for and have not finished: those that failed are among them.
        left_out: why what is not there, or failed, is done without; empty if nobody has said so.
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
        """The records by their labels, and what is not there or did not learn."""
        waiting = [(labels, one) for one in self._unfinished for labels in one.labels]
        lost = frozenset(one.record.identity for one in self.unlearnt)
        return View(self._judged.rows, Gaps(waiting, self.held, lost))

    @functools.cached_property
    def _judged(self) -> View:
        """The records to judge by, by their labels."""
        return View.of(one for one in self.records if one.identity not in self._aside)

    @functools.cached_property
    def verdicts(self) -> list[tuple[Claim, Verdict]]:
        """The study's claims, judged."""
        return [(claim, claim.judge(self.view)) for claim in self.study.claims]

    @functools.cached_property
    def unlearnt(self) -> list[Unlearnt]:
        """Controls that did not learn."""
        return list(unlearnt(self._judged, self.study.known))

    @property
    def missing(self) -> list[NotRun]:
        """Trials that were asked for, to judge by, and have neither finished nor failed."""
        failed = {one.identity for one in self.failed}
        return [one for one in self._unfinished if one.identity not in failed]

    @property
    def failed(self) -> list[Failure]:
        """Trials that were asked for, to judge by, and failed."""
        return [one for one in self.failures if one.identity in self._asked]

    @property
    def _unfinished(self) -> list[NotRun]:
        return [one for one in self.waiting if one.identity in self._asked]

    @property
    def held(self) -> str:
        """Why no verdict may rest on what is there; empty if one may."""
        presets = {order.preset for order in self.orders}
        if presets and not any(self.study.presets[name].judges for name in presets):
            return f"the {' and '.join(sorted(presets))} preset is too small to judge by"
        counts = {"not run yet": len(self.missing), "failed": len(self.failed)}
        if self.left_out or not any(counts.values()):
            return ""
        said = " and ".join(f"{n} {what}" for what, n in counts.items() if n)
        return f"unfinished, of {len(self._asked)} trials {said}"

    @property
    def answer(self) -> str:
        """One sentence: what the verdicts say of the study's question, or why there are none."""
        if self.held:
            return f"No verdict: {self.held}."
        said = [one.answer.words(verdict) for one, verdict in self.verdicts if one.answer]
        if not said:
            counts = Counter(verdict.outcome for _, verdict in self.verdicts)
            each = ", ".join(f"{n} {outcome}" for outcome, n in counts.most_common())
            said = [f"of {sum(counts.values())} claims: {each}" if counts else "no claims"]
        words = "; ".join(said)
        return f"{words[0].upper()}{words[1:]}."

    @functools.cached_property
    def _aside(self) -> set[str]:
        """Trials of presets that judge nothing: left out where there are others."""
        judging = {order for order in self.orders if self.study.presets[order.preset].judges}
        counted = {one for order in judging for one in self.orders[order]}
        return self._all - counted if judging else set()

    @functools.cached_property
    def _asked(self) -> set[str]:
        """Trials that were asked for, to judge by."""
        return self._all - self._aside

    @property
    def _all(self) -> set[str]:
        return {one for ones in self.orders.values() for one in ones}

    def sections(self) -> list[Section]:
        """Make the study's own figures and tables, figures first."""
        with figure_style():
            made = self.study.sections(self.view)
        return sorted(made, key=lambda section: section.figure is None)


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
    there = {one.identity for one in records}
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
    appendix = [rerun_section(found.records, found.orders)]
    if len(found.records):
        appendix.insert(0, machines_section(found.records))
    if found.failures:
        appendix.insert(0, failures_section(found.failures))
    if found.unlearnt:
        appendix.insert(0, unlearnt_section(found.unlearnt))
    return page(
        study.title,
        f"{study.about} Source: {study.source}.",
        [found.answer, *_lead(found)],
        found.sections(),
        "Made by regrow. Intervals are 95 % intervals over seeds.",
        found.verdicts,
        appendix,
        judged=not found.held,
    )


def _lead(found: Found) -> list[str]:
    """Say in sentences what is there, what is not, and what did not learn."""
    counts = {
        "finished": len(found.records),
        "failed": len(found.failures),
        "left out" if found.left_out else "not run yet": len(found.missing),
    }
    said = [f"Trials: {', '.join(f'{n} {what}' for what, n in counts.items() if n)}."]
    if found.left_out and (found.missing or found.failed):
        said.append(f"Why trials are left out: {found.left_out}")
    if found.unlearnt:
        first = "; ".join(map(str, found.unlearnt[:_NAMED]))
        more = len(found.unlearnt) - _NAMED
        said.append(f"Did not learn: {first}{f'; and {more} more, below' if more > 0 else ''}.")
    return said + [f"Left out: {words}." for words in found.damaged]
