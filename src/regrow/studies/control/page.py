"""The page of a run: how returns rose, what was attended to, what the learned reward is like."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from regrow.lab.figures import COLOURS, figure_style
from regrow.lab.files import read_json, read_whole, write_bytes
from regrow.lab.panels import panels, plots
from regrow.lab.report import page
from regrow.lab.section import Section, Table
from regrow.studies.control.trial import FILM, REWARDS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["write_page"]

PAGE = "page.html"
REAL, NOISE, SHARED = COLOURS[6], COLOURS[7], COLOURS[0]
_BARE = "html { overflow: hidden; } main { padding: 0; max-width: none; } h1, p { display: none; }"
_TRACED = 250  # steps of the trace of rewards

Lines = Sequence[Sequence[float | None]]


def write_page(record: Path) -> Path:
    """Write the page of a finished run into its folder.

    Args:
        record: the run's folder.

    Returns:
        The page.
    """
    result, config = read_json(record / "result.json"), read_json(record / "config.json")
    with figure_style():
        sections = [
            *_film(record / FILM),
            *_returns(result["training_returns"]),
            *_attended(result.get("looks", {}), config),
            *_reward(result, config, record / REWARDS),
            *_table(result),
        ]
    runs = len(result["returns"])
    source = (
        f"{config['task']}, {config['noise']:.0%} of the features {config['noise_kind']} noise, "
        f"{config['steps']:,} steps, {runs} {'run' if runs == 1 else 'runs'}."
    )
    title = f"{config['task']} by {config['method']}"
    footer = f"Record: {record.name}"
    write_bytes(
        record / PAGE, page(title, source, _findings(result, config), sections, footer).encode()
    )
    return record / PAGE


def _findings(result: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    real, other = (_mean(result[name]) for name in ("real_features", "noise_features"))
    episodes = "1 episode" if config["episodes"] == 1 else f"{config['episodes']} episodes"
    mean = f"the mean of {episodes} a run without exploration"
    found = [
        f"Return {result['return']:.0f}, {mean}.",
        f"At the end critics read {real:.3g} real features and {other:.3g} noise features.",
    ]
    if config["reward"] == "true":
        return [*found, "Rewards were the true ones; nobody was asked."]
    asked = f"{_mean(result['comparisons']):.0f} comparisons of the {config['teacher']} teacher"
    found.append(f"Rewards were learnt from {asked}.")
    known = [value for value in result["reward_correlations"] if value is not None]
    if known:
        found.append(
            f"On the latest steps they correlate with the true ones by {_mean(known):.2f}."
        )
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


# ---------------------------------------------------------------------- parts


def _film(film: Path) -> Iterator[Section]:
    """Show the film inside of the page, so that the page may be passed on alone."""
    if not film.is_file():
        return
    bare = read_whole(film).decode().replace("</style>", f"{_BARE}</style>", 1)
    size = "display:block;width:100%;aspect-ratio:4/3;border:0"
    held = html.escape(bare, quote=True)
    text = "An episode of run 1 after training, without exploration."
    shown = f'<iframe srcdoc="{held}" title="Film of an episode" style="{size}"></iframe>'
    yield Section("The agent", text, shown)


def _returns(returns: Sequence[Sequence[float]]) -> Iterator[Section]:
    if not any(returns):
        return
    figures, (axes,) = plots("")
    for one in returns:
        axes.plot(range(1, len(one) + 1), one, _mark(one), color=SHARED, alpha=0.25, lw=0.8)
    length = min(len(one) for one in returns)
    if length > 1:
        means = np.array([one[:length] for one in returns]).mean(0)
        axes.plot(range(1, length + 1), _smooth(means), color=REAL, lw=2)
    axes.set(xlabel="episode of training", ylabel="return", ylim=(0, None))
    axes.locator_params(axis="x", integer=True)
    text = "True returns of training, with exploration."
    caption = "Thin: a run. Thick: the mean of all, over five episodes."
    yield Section("Returns", text, panels(figures, "Returns of training"), caption=caption)


def _smooth(values: Any, width: int = 5) -> Any:
    """Return means of as many values as there are up to each, at most ``width``."""
    sums = np.cumsum(np.concatenate([[0.0], values]))
    ends = np.arange(1, len(values) + 1)
    starts = np.maximum(ends - width, 0)
    return (sums[ends] - sums[starts]) / (ends - starts)


def _attended(looks: Mapping[str, Lines], config: Mapping[str, Any]) -> Iterator[Section]:
    if not looks or config["noise"] == 0:
        return
    steps = [one[0] for one in looks["step"]]
    parts = [("critic", "critics")]
    parts += [("reward_model", "reward models")] if config["reward"] != "true" else []
    figures: dict[str, Figure] = {}
    for name, words in parts:
        own, (left, right) = plots(f"Connections, {words}", f"Attention, {words}")
        figures |= own
        for kind, colour in (("real", REAL), ("noise", NOISE)):
            _line(left, steps, looks[f"{name}_{kind}_connections"], colour, f"a {kind} feature")
        left.set(xlabel="step", ylabel="connections", ylim=(0, None))
        left.legend(loc="best", fontsize=8)
        _line(right, steps, looks[f"{name}_attention"], REAL, "")
        right.axhline(1 - config["noise"], color=COLOURS[1], ls=":")
        right.set(xlabel="step", ylabel="share of real features", ylim=(0, 1))
    yield Section(
        "What is attended to",
        "Connections of the first layer by feature; attention: the share of real features in what "
        "moves the networks' outputs, as mean squared slope times variance.",
        panels(figures, "Connections and attention over time"),
        caption="Means over runs. Dotted: the share of features that are real.",
    )


def _line(axes: Axes, steps: Sequence[Any], values: Lines, colour: str, label: str) -> None:
    means = [
        _mean(known) if (known := [v for v in one if v is not None]) else None for one in values
    ]
    there = [(s, m) for s, m in zip(steps, means, strict=True) if m is not None]
    if there:
        axes.plot(*zip(*there, strict=True), _mark(there), color=colour, label=label)


def _mark(points: Sequence[Any]) -> str:
    return "o" if len(points) == 1 else ""  # a line of one point is nothing


def _reward(result: Mapping[str, Any], config: Mapping[str, Any], file: Path) -> Iterator[Section]:
    if config["reward"] == "true" or not file.is_file():
        return
    rewards = read_json(file)
    true, learned = np.array(rewards["true"]), np.array(rewards["learned"])
    figures, (trace, left, right) = plots("The latest steps", "Step by step", "Over training")
    for values, colour, label in ((true, SHARED, "true"), (learned, REAL, "learned")):
        shown = (values - values.mean()) / max(float(values.std()), 1e-9)
        trace.plot(shown[-_TRACED:], color=colour, label=label, lw=1.2)
    trace.set(xlabel=f"the last {min(_TRACED, len(true))} steps", ylabel="reward, in deviations")
    trace.legend(loc="best", fontsize=8, ncols=2)
    left.plot(true, learned, ".", color=REAL, alpha=0.4, ms=4, mec="none")
    left.set(xlabel="true reward of a step", ylabel="learned reward")
    looks = result.get("looks", {})
    if looks:
        _line(right, [one[0] for one in looks["step"]], looks["reward_correlation"], REAL, "")
    right.set(xlabel="step", ylabel="correlation", ylim=(min(0.0, right.get_ylim()[0]), 1))
    yield Section(
        "The learned reward",
        "Rewards are learnt up to a scale: both are shown in their own standard deviations.",
        panels(figures, "Learned against true reward"),
        caption=f"The latest {len(true)} steps of run 1; over training, the mean of all runs.",
    )


def _table(result: Mapping[str, Any]) -> Iterator[Section]:
    columns = (
        "run",
        "return",
        "late in training",
        "correlation",
        "real features",
        "noise features",
    )
    kinds = ("returns", "late_returns", "reward_correlations", "real_features", "noise_features")
    forms = (".0f", ".0f", ".2f", ".0f", ".0f")
    rows = [
        (
            str(run + 1),
            *("–" if v is None else f"{v:{form}}" for v, form in zip(one, forms, strict=True)),
        )
        for run, one in enumerate(zip(*(result[kind] for kind in kinds), strict=True))
    ]
    yield Section("Runs", "", table=Table(columns, rows))
