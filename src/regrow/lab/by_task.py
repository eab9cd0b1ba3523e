"""A study of several tasks: what each of them alone says of the claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from regrow.lab.claims import Claim, Verdict
from regrow.lab.records import Records
from regrow.lab.report import Section, Table, cell

__all__ = ["verdicts_by_task"]


def verdicts_by_task(claims: Sequence[Claim], tasks: Mapping[str, Records]) -> Iterator[Section]:
    """Yield a table of verdicts, a column a task; nothing where there is one task or none.

    A mean over tasks is as uncertain as the most uncertain of them; this shows what the others say.

    Args:
        claims: of the study.
        tasks: records by the task's name.

    Example:
        >>> list(verdicts_by_task([], {"alone": Records([])}))
        []
    """
    if len(tasks) < 2:
        return
    rows = [
        (claim.sentence, *(_said(claim.judge(records)) for records in tasks.values()))
        for claim in claims
    ]
    note = (
        "The same rules, each task's records alone. Mean ± half the 95 % interval (seeds); a dash "
        "where a task has no records to judge by."
    )
    yield Section("What each task says", "", table=Table(("", *tasks), rows, note))


def _said(verdict: Verdict) -> str:
    said = cell(verdict.effect)
    return f"{verdict.outcome}: {said}" if verdict.effect else said
