"""The page of a run: films, returns clean and distracted, masks against the truth, losses."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from regrow.control.distractions.films import write_film
from regrow.control.distractions.videos import Frames
from regrow.lab.figures import COLOURS, figure_style
from regrow.lab.files import read_lines, write_bytes
from regrow.lab.panels import panels, plots
from regrow.lab.report import page
from regrow.lab.run import METRICS
from regrow.lab.section import Section, Table

__all__ = ["PAGE", "film_name", "write_films", "write_page"]

PAGE = "page.html"
_WIDE, _PIXELS = 3, 200  # of a film with masks: frame, mask, product; of the side of each


def film_name(mode: str, ending: str) -> str:
    """Return the name of the film of a mode's test.

    Example:
        >>> film_name("video_hard", "gif")
        'film-video_hard.gif'
    """
    return f"film-{mode}.{ending}"


def write_films(folder: Path, mode: str, frames: Frames) -> None:
    """Write the film of a mode's test: a GIF, and an MP4, enlarged, where there is PyAV.

    Args:
        folder: of the run.
        mode: of the test.
        frames: uint8, (n, h, w, 3).
    """
    write_film(folder / film_name(mode, "gif"), frames)
    with contextlib.suppress(ImportError):
        enlarged = max(1, _PIXELS // frames.shape[1])
        write_film(folder / film_name(mode, "mp4"), frames, enlarged=enlarged)


def write_page(folder: Path, title: str, result: Mapping[str, Any]) -> Path:
    """Write the page of a run into its folder, where films and metrics are.

    Args:
        folder: of the run.
        title: what was run.
        result: of the run.

    Returns:
        The page.
    """
    tests = result["tests"]
    with figure_style():
        sections = [
            *_films(folder, tests),
            *_curves(result),
            *_masks(result),
            *_losses(read_lines(folder / METRICS)),
            _table(tests),
        ]
    html = page("An agent that sees", title, _findings(result), sections, f"Record: {folder.name}")
    write_bytes(folder / PAGE, html.encode())
    return folder / PAGE


def _findings(result: Mapping[str, Any]) -> list[str]:
    returns = ", ".join(f"{mode} {test['return']:.1f}" for mode, test in result["tests"].items())
    parameters = result["parameters"]
    found = [f"Mean return at the end: {returns}."]
    if "masker" in parameters:
        others = sum(n for name, n in parameters.items() if name != "masker")
        found.append(
            f"The masker has {parameters['masker']:,} parameters, "
            f"{100 * parameters['masker'] / others:.2f} % of the others'; a mask of an observation "
            f"takes {result['mask_multiply_adds'] / 1e6:.1f} million multiplications."
        )
    found.append(
        f"{result['updates']:,} updates; strong augmentation: {result['augmentation']}. The "
        f"environment took {100 * result['environment_share']:.0f} % of the time in training."
    )
    return found


def _films(folder: Path, tests: Mapping[str, Any]) -> Iterator[Section]:
    from PIL import Image  # noqa: PLC0415 (an extra, without which there is no film)

    for mode, test in tests.items():
        files = [folder / film_name(mode, ending) for ending in ("gif", "mp4")]
        if not files[0].is_file():
            continue
        with Image.open(files[0]) as gif:
            wide = gif.width // gif.height
        parts = "from left to right what is seen, its mask, and what is left"
        text = (
            f"The first episode of the test, return {test['returns'][0]:.1f}; 25 steps of the "
            f"agent a second: {parts if wide == _WIDE else 'what is seen'}."
        )
        file = files[-1] if files[-1].is_file() else files[0]
        content = base64.b64encode(file.read_bytes()).decode()
        style = f'style="width:{_PIXELS * wide}px;max-width:100%;image-rendering:pixelated"'
        yield Section(f"Film: {mode}", text, _SHOWN[file.suffix].format(content, mode, style))


_SHOWN = {
    ".mp4": '<video src="data:video/mp4;base64,{}" aria-label="Film, {}" {} controls autoplay loop '
    "muted playsinline></video>",
    ".gif": '<img src="data:image/gif;base64,{}" alt="Film, {}" {}>',
}


def _curves(result: Mapping[str, Any]) -> Iterator[Section]:
    lines = {
        mode: [(found["step"], found["return"]) for found in evaluations]
        for mode, evaluations in result["evaluations"].items()
    }
    yield from _lines("Returns", "Mean of the episodes of a test.", lines, "return")


def _masks(result: Mapping[str, Any]) -> Iterator[Section]:
    for name, (title, y, text, chance) in _JUDGED.items():
        lines = {
            mode: [(found["step"], found[name]) for found in evaluations if name in found]
            for mode, evaluations in result["evaluations"].items()
        }
        found = [value for points in lines.values() for _, value in points]
        ends = min([chance, *found]) - 0.03, 1.03
        yield from _lines(title, text, lines, y, partial(_from_to, ends))


def _from_to(ends: tuple[float, float], axes: Any) -> None:
    axes.set_ylim(*ends)


_JUDGED = {
    "auc": (
        "Masks against the true foreground",
        "AUC",
        (
            "How often a pixel of the foreground is masked less than one of the background: 0.5 is "
            "chance, 1 perfect. Only the order counts; how much is hidden says the table."
        ),
        0.5,
    ),
    "iou": (
        "Masks cut at their best threshold",
        "best IoU",
        (
            "Of the pixels that are foreground in truth or by the mask, the share that is both, at "
            "the threshold at which it is highest. 1 is perfect."
        ),
        0.0,
    ),
}


def _losses(lines: Sequence[Mapping[str, Any]]) -> Iterator[Section]:
    names = {"critic_loss": "critic", "auxiliary_loss": "auxiliary"}
    found = {
        label: [(line["step"], line[name]) for line in lines if name in line]
        for name, label in names.items()
    }

    def scaled(axes: Any) -> None:
        axes.set_yscale("log")
        for which in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            which("{x:g}")

    yield from _lines("Losses", "Of the last update before a test.", found, "loss", scaled)


def _lines(
    title: str,
    text: str,
    lines: Mapping[str, Sequence[tuple[float, float]]],
    y: str,
    scaled: Callable[[Any], object] = lambda _: None,
) -> Iterator[Section]:
    lines = {label: points for label, points in lines.items() if points}
    if not lines:
        return
    figures, (axes,) = plots("")
    for number, (label, points) in enumerate(lines.items()):
        steps, values = zip(*points, strict=True)
        colour = COLOURS[(6 + number) % len(COLOURS)]
        axes.plot(steps, values, "o-", markersize=3.5, color=colour, label=label)
    scaled(axes)
    axes.set(xlabel="steps of the agent", ylabel=y)
    axes.legend(loc="best", fontsize=8)
    yield Section(title, text, panels(figures, title))


def _table(tests: Mapping[str, Any]) -> Section:
    def cell(test: Mapping[str, Any], name: str) -> str:
        return f"{test[name]:.3f}" if name in test else "–"

    names = ("auc", "iou", "inside", "outside")
    rows = [
        (
            mode,
            f"{test['return']:.1f}",
            " ".join(f"{value:.0f}" for value in test["returns"]),
            *(cell(test, name) for name in names),
        )
        for mode, test in tests.items()
    ]
    head = ("test", "mean return", "episodes", "AUC", "best IoU", "mask inside", "mask outside")
    text = "The last test. Masks are judged every 25 steps, on the latest frame."
    return Section("All tests", text, table=Table(head, rows))
