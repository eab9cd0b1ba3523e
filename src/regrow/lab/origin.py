"""Where the numbers of a study come from: machines, commands, the settings of each trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from regrow.lab.failures import Failure, headline
from regrow.lab.learnt import Unlearnt
from regrow.lab.records import Record, Records, flat
from regrow.lab.section import Details, Section, Table
from regrow.lab.study_file import Order, command

__all__ = [
    "failures_section",
    "machines_section",
    "rerun_section",
    "rows_of_trials",
    "unlearnt_section",
]

_FEW = 60  # characters; longer values, such as curves, are left to the records
_FIRST = 3  # numbers that a trial found; the others are left to the records


def failures_section(failures: Sequence[Failure]) -> Section:
    """Tell which trials failed, each with its traceback."""
    return Section(
        "Failed trials",
        "They are tried again when the study is run again.",
        details=[
            Details(
                f"{failure.identity}: {headline(failure.error)}",
                f"{_settings(flat(failure.config))}\n\n{failure.error}",
            )
            for failure in failures
        ],
    )


def unlearnt_section(found: Sequence[Unlearnt]) -> Section:
    """Tell which controls did not learn."""
    text = (
        "A control that ends below half of the way from chance to the level that it is known to "
        "reach has not learned: claims that read it are not judged."
    )
    rows = [
        (
            one.name,
            f"{one.known.measure.name} {one.reached:.1f}",
            f"{one.known.level:g}, {one.known.source}",
            one.record.identity,
        )
        for one in found
    ]
    table = Table(("control", "reached", "known to reach", "identity"), rows)
    return Section("Controls that did not learn", text, table=table)


def machines_section(records: Records) -> Section:
    """Tell on which machines, and with which versions, how much was computed."""
    found: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for record in records:
        where = {key: value for key, value in record.environment.items() if key != "seconds"}
        seconds = float(record.environment.get("seconds", "nan"))
        found.setdefault(tuple(sorted(where.items())), []).append(seconds)
    kinds = [dict(where) for where in found]
    names = list(dict.fromkeys(name for kind in kinds for name in kind))
    same = [n for n in names if len(kinds) > 1 and len({kind.get(n) for kind in kinds}) == 1]
    rows = [
        (
            f"surroundings {i}",
            str(len(seconds)),
            f"{sum(seconds):,.0f}",
            "; ".join(
                f"{name} {kind[name]}" for name in names if name in kind and name not in same
            ),
        )
        for i, (kind, seconds) in enumerate(zip(kinds, found.values(), strict=True), 1)
    ]
    shared = "; ".join(f"{name} {kinds[0].get(name, '')}" for name in same)
    text = "Under the same versions, on the same hardware, the same seed gives the same numbers."
    note = f"All: {shared}." if shared else ""
    table = Table(("", "trials", "seconds", "versions and hardware"), rows, note)
    return Section("Where it ran", text, table=table)


def rerun_section(records: Records, orders: Mapping[Order, Sequence[str]]) -> Section:
    """Tell how to run everything again, and each trial by itself.

    Args:
        records: of the study.
        orders: identities of the trials of each order.
    """
    details = []
    for order, identities in orders.items():
        table = rows_of_trials([r for r in records if r.identity in set(identities)])
        line = command(order, "IDENTITY")
        details.append(Details(f"{len(table.rows)} trials; one of them: {line}", table=table))
    known = {identity for identities in orders.values() for identity in identities}
    if strangers := [r for r in records if r.identity not in known]:
        words = f"{len(strangers)} trials that the study no longer has, or of another preset"
        details.append(Details(words, table=rows_of_trials(strangers)))
    text = (
        "What is finished in DIR is skipped, so name a new one to compute it again. Data that are "
        "not in the usual places are found with --data-dir."
    )
    return Section(
        "How to run it again", text, code="\n".join(command(o) for o in orders), details=details
    )


def rows_of_trials(records: Sequence[Record]) -> Table:
    """Make a row a trial: what it is in the study, and the first numbers that it found.

    Labels say what a trial is. Where it has none, settings do in which the trials differ.
    """
    configs = [flat(record.config) for record in records]
    names = dict.fromkeys(name for config in configs for name in config)
    differ = [n for n in names if len({str(config.get(n, "–")) for config in configs}) > 1]
    rows = [
        (
            record.identity,
            "; ".join(_settings(labels) for labels in record.labels)
            or _settings({name: config[name] for name in differ if name in config}),
            str(record.config["seed"]),
            _settings(dict(list(_numbers(record.result))[:_FIRST])),
        )
        for record, config in zip(records, configs, strict=True)
    ]
    rows.sort(key=lambda row: (row[1], row[2]))
    note = "Settings and all results: regrow report DIR --csv FILE."
    return Table(("identity", "what it is", "seed", "what it found"), rows, note)


def _numbers(result: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in result.items() if isinstance(value, int | float))


def _settings(content: Mapping[str, Any]) -> str:
    said = [f"{name}={_short(value)}" for name, value in content.items()]
    return ", ".join(said)


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value) if len(str(value)) <= _FEW else f"{str(value)[: _FEW - 1]}…"
