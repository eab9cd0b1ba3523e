"""The page of a speech run: errors by group, losses, what was kept when, the worst utterances."""

from __future__ import annotations

import base64
import io
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from regrow.lab.figures import COLOURS, figure_style, svg
from regrow.lab.files import read_json, read_lines, write_bytes
from regrow.lab.panels import panels, plots
from regrow.lab.report import page
from regrow.lab.run import METRICS
from regrow.lab.section import Details, Section, Table, duration
from regrow.speech.audio import read_audio
from regrow.speech.heard import TESTED, TRAINED, summary
from regrow.speech.utterances import Utterance

__all__ = ["write_evaluation", "write_page"]

PAGE = "page.html"
_SHOWN = 20  # rows of a table; the others are folded away
_PLAYED = 12  # utterances with a player
_LONGEST = 20.0  # seconds of a player's sound

Rows = Sequence[Mapping[str, Any]]


def write_page(record: Path) -> Path:
    """Write the page of a finished run into its folder.

    Args:
        record: the run's folder.

    Returns:
        The page.
    """
    result, config = read_json(record / "result.json"), read_json(record / "config.json")
    tested, trained = read_lines(record / TESTED), read_lines(record / TRAINED)
    lines = read_lines(record / METRICS)
    findings = [_finding(result)] if tested else ["It was not tested on any corpus."]
    heard = sum(line.get("hours_kept", 0.0) for line in lines)
    findings.append(
        f"Conformer of {result['parameters']:,} parameters, {config['units']}; "
        f"{config['epochs']} epochs over {result['hours']:.2f} h, {heard:.2f} h heard in all, "
        f"in {duration(result['train_seconds'])}."
    )
    with figure_style():
        sections = [
            *_curves(lines),
            *_kept(lines),
            *_losses(trained),
            *_error_tables(result),
            *_worst(tested),
            *_lossy(trained),
            *_left_out(result),
        ]
    source = f"Learnt from {', '.join(config['data'])}; tested on {', '.join(config['tests'])}."
    html = page("Speech recognition", source, findings, sections, f"Record: {record.name}")
    write_bytes(record / PAGE, html.encode())
    return record / PAGE


def write_evaluation(rows: Rows, corpus: str, out: Path) -> str:
    """Write a page on what was heard in a corpus.

    Args:
        rows: of its utterances.
        corpus: its name.
        out: the page.

    Returns:
        What is said of it, and where the page is.
    """
    found = summary(rows)
    with figure_style():
        sections = [*_error_tables(found), *_worst(rows)]
    finding = _finding(found)
    html = page("Speech, recognised", f"{corpus}: {len(rows)} utterances.", [finding], sections, "")
    write_bytes(out, html.encode())
    return f"{finding}\n{out}"


def _finding(found: Mapping[str, Any]) -> str:
    each = "; ".join(f"{name}: {_rates(of)}" for name, of in found["by_corpus"].items())
    return f"Word errors {each}."


def _rates(of: Mapping[str, Any]) -> str:
    return (
        f"{100 * of['wer']:.2f} % ({100 * of['low']:.2f} to {100 * of['high']:.2f}), characters "
        f"{100 * of['cer']:.2f} %"
    )


# ---------------------------------------------------------------------- figures


def _curves(lines: Rows) -> Iterator[Section]:
    if not lines:
        return
    figures, (left, right) = plots("Loss", "Errors")
    hours: list[float] = []
    for line in lines:
        hours.append((hours[-1] if hours else 0.0) + line.get("hours_kept", 0.0))
    left.plot(hours, [line["loss"] for line in lines], color=COLOURS[6])
    left.set(xlabel="hours heard", ylabel="loss by label", ylim=(0, None))
    for name, label, colour in (
        ("validation_wer", "words", COLOURS[6]),
        ("validation_cer", "characters", COLOURS[7]),
    ):
        if all(name in line for line in lines):
            right.plot(hours, [100 * line[name] for line in lines], color=colour, label=label)
    right.set(xlabel="hours heard", ylabel="errors, %", ylim=(0, None))
    if right.lines:
        right.legend(loc="best", fontsize=8)
    yield Section(
        "Learning",
        "Errors are those of utterances set apart from what is learnt from.",
        panels(figures, "Learning curves"),
        caption="Nothing was chosen by them.",
    )


def _kept(lines: Rows) -> Iterator[Section]:
    """Show which tenths of the utterances, by length, were kept in which epoch."""
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    names = [f"kept_{i}" for i in range(1, 11)]
    table = [[line.get(name, math.nan) for line in lines] for name in names]
    known = [value for row in table for value in row if not math.isnan(value)]
    if not known:
        return
    figure = Figure(figsize=(7.2, 2.6))
    axes = figure.subplots()
    image = axes.imshow(
        table, aspect="auto", origin="lower", vmin=0, vmax=1, cmap="viridis",
        extent=(0.5, len(lines) + 0.5, 0.5, 10.5),
    )  # fmt: skip
    axes.grid(visible=False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set(xlabel="epoch", ylabel="tenth, short to long")
    figure.colorbar(image, ax=axes, label="share kept")
    hours = [line["hours_kept"] for line in lines if "hours_kept" in line]
    whole = lines[-1].get("hours_in_all", 0.0)
    yield Section(
        "What was kept when",
        f"{sum(hours):.2f} of {whole * len(hours):.2f} h were heard; on average "
        f"{100 * statistics.fmean(known):.0f} % of the utterances of an epoch.",
        svg(figure, "Shares of utterances kept, by length and epoch"),
        caption="Utterances in ten groups of equal number by their length.",
    )


def _losses(trained: Rows) -> Iterator[Section]:
    """Show losses by the utterances' length and speaker."""
    known = [row for row in trained if row["loss"] is not None]
    if not known:
        return
    figures, (left, right) = plots("By length", "By speaker")
    seconds, losses = [row["seconds"] for row in known], [row["loss"] for row in known]
    left.plot(seconds, losses, ".", ms=2, alpha=0.4, color=COLOURS[6], rasterized=True)
    left.set(xlabel="length, s", ylabel="last loss by label", ylim=(0, None))
    speakers: dict[str, list[float]] = {}
    for row in known:
        speakers.setdefault(row["speaker"], []).append(row["loss"])
    means = sorted(statistics.fmean(of) for of in speakers.values())
    right.plot(range(1, len(means) + 1), means, ".", ms=3, color=COLOURS[7])
    right.set(xlabel="speaker, by loss", ylabel="mean loss by label", ylim=(0, 1.08 * means[-1]))
    worst = sorted(speakers.items(), key=lambda of: -statistics.fmean(of[1]))
    rows = [
        (name or "unknown", f"{statistics.fmean(of):.3f}", str(len(of)))
        for name, of in worst[:_SHOWN]
    ]
    details = [
        Details(
            "Speakers of the highest loss", table=Table(("speaker", "loss", "utterances"), rows)
        )
    ]
    yield Section(
        "Loss by length and speaker",
        f"{len(known):,} utterances, {len(speakers):,} speakers; losses of the last time that each "
        "was learnt, on what was left of it then.",
        panels(figures, "Losses"),
        details=details,
    )


# ---------------------------------------------------------------------- tables


def _error_tables(found: Mapping[str, Any]) -> Iterator[Section]:
    groups = {**found.get("by_corpus", {}), **found.get("by_group", {})}
    if not groups:
        return
    worst = sorted(groups.items(), key=lambda of: -of[1]["wer"])
    rows = [(name, *_cells(of)) for name, of in worst]
    columns = ("", "WER, %", "95 % interval", "CER, %", "utterances")
    details = []
    if len(rows) > _SHOWN:
        rest = Table(columns, rows[_SHOWN:])
        details.append(Details(f"The other {len(rows) - _SHOWN}", table=rest))
    yield Section(
        "Errors by corpus and group",
        "Words and characters that are wrong, missing or too many, of those that are said; the "
        "interval is over speakers drawn with replacement, of one speaker over utterances.",
        table=Table(columns, rows[:_SHOWN]),
        details=details,
    )


def _cells(of: Mapping[str, Any]) -> tuple[str, ...]:
    interval = f"{100 * of['low']:.2f} to {100 * of['high']:.2f}"
    return f"{100 * of['wer']:.2f}", interval, f"{100 * of['cer']:.2f}", f"{of['utterances']:,}"


def _worst(tested: Rows) -> Iterator[Section]:
    rows = sorted(tested, key=lambda row: (-row["word_errors"], row["id"]))
    if rows and rows[0]["word_errors"]:
        shown = [
            (row, f"{row['word_errors']} of {row['words']} words: {row['heard'] or '(nothing)'}")
            for row in rows[:_PLAYED]
            if row["word_errors"]
        ]
        yield Section(
            "Worst utterances",
            "Those tested with most wrong words: what was said, and what was heard.",
            _players(shown),
        )


def _lossy(trained: Rows) -> Iterator[Section]:
    known = [row for row in trained if row["loss"] is not None]
    rows = sorted(known, key=lambda row: (-row["loss"], row["id"]))[:_PLAYED]
    if rows:
        yield Section(
            "Utterances of the highest loss",
            "Those learnt from that fit worst: here wrong transcripts show.",
            _players([(row, f"loss {row['loss']:.2f}, seen {row['seen']} times") for row in rows]),
        )


def _left_out(result: Mapping[str, Any]) -> Iterator[Section]:
    if left := result.get("left_out"):
        text = "\n".join(left)
        details = [Details(f"{len(left)} of them", text=text)]
        yield Section("Left out", "What could not be used, and why.", "", details=details)


def _players(rows: Sequence[tuple[Mapping[str, Any], str]]) -> str:
    """Return a table of utterances with players; all text is escaped."""
    from markupsafe import escape  # noqa: PLC0415 (an extra)

    cells = (
        f"<tr><th scope='row'>{escape(row['id'])}</th><td>{_player(row)}</td>"
        f"<td>{escape(row['said'])}<br><b>{escape(words)}</b></td></tr>"
        for row, words in rows
    )
    return f"<div class='players'><table><tbody>{''.join(cells)}</tbody></table></div>"


def _player(row: Mapping[str, Any]) -> str:
    """Return an element that plays an utterance, the sound inside it, or why there is none."""
    from markupsafe import escape  # noqa: PLC0415

    try:
        sound = base64.b64encode(_opus(row)).decode()
    except (OSError, ValueError, ImportError) as error:
        return f"<small>{escape(error)}</small>"
    return f"<audio controls preload='none' src='data:audio/ogg;base64,{sound}'></audio>"


def _opus(row: Mapping[str, Any]) -> bytes:
    import soundfile  # noqa: PLC0415 (an extra)

    lasts = min(_LONGEST, row["duration"] or row["seconds"])
    utterance = Utterance(
        row["id"], Path(row["audio"]), "", "", "", row["start"], lasts, row["channel"]
    )
    out = io.BytesIO()
    soundfile.write(out, read_audio(utterance), 16_000, format="OGG", subtype="OPUS")
    return out.getvalue()
