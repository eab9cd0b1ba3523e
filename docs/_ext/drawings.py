"""``{drawing} NAME``: a picture drawn when the pages are built, in the colours of the page.

The SVG is part of the page, its text and axes are ``currentColor``: it is readable in
light and dark.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
import torch
from docutils import nodes
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from records import cpu_part
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from regrow.engine.allocation import ER, ERK, Allocation, Uniform
from regrow.engine.patterns import (
    NM,
    Block,
    Channel,
    Element,
    FanIn,
    InputChannel,
    Kernel,
    Pattern,
)
from regrow.engine.schedules import Constant, Cosine, Cubic, Early, Linear, Schedule, Sigmoid, Steps
from regrow.engine.selection import seeded_generator
from regrow.vision.models import conv_net

INK = "#010203"  # stands for the page's own colour
COLOURS = ("#3987e5", "#e08a1e", "#1f9d73", "#cf5f9e", "#8a78e0")
MARKS = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
STYLE: Any = {
    "font.family": "sans-serif",
    "svg.fonttype": "none",
    "svg.hashsalt": "regrow",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "font.size": 10,
    **dict.fromkeys(
        ["text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"], INK
    ),
}


def schedules() -> Figure:
    """Draw drop fractions and densities over progress."""
    fractions: dict[str, Schedule] = {
        "Constant(0.3)": Constant(0.3),
        "Cosine(0.3)": Cosine(0.3),
        "Linear(0.3)": Linear(0.3),
        "Steps: MEST": Steps(((0.0, 0.2), (0.5625, 0.1), (0.75, 0.0))),
    }
    paths: dict[str, Schedule] = {
        "Cubic(1.0)": Cubic(1.0),
        "Sigmoid(1.0)": Sigmoid(1.0),
        "Early(Cubic(1.0), 0.55)": Early(Cubic(1.0), 0.55),
        "Linear(1.0)": Linear(1.0),
    }
    figure = Figure(figsize=(8, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    progress = [i / 400 for i in range(401)]
    for axes, lines in ((left, fractions), (right, paths)):
        for (name, line), colour, mark in zip(lines.items(), COLOURS, MARKS, strict=False):
            values = [line(p) for p in progress]
            axes.plot(progress, values, label=name, color=colour, linestyle=mark, linewidth=2)
        axes.set(xlabel="progress through the window", xlim=(0, 1), ylim=(0, None))
        axes.legend(fontsize=9)
    left.set_title("drop_fraction: share exchanged", fontsize=10)
    right.set_title("density_path: weight of the initial density", fontsize=10)
    return figure


def densities() -> Figure:
    """Draw layer densities of a small convolutional network at a total density of 0.1."""
    shapes = {
        name: tuple(weight.shape)
        for name, weight in conv_net(3, 32, 10).named_parameters()
        if weight.ndim > 1
    }
    figure = Figure(figsize=(8, 2.7), layout="constrained")
    axes = figure.subplots()
    rules: dict[str, Allocation] = {"Uniform()": Uniform(), "ER()": ER(), "ERK()": ERK()}
    for i, (name, rule) in enumerate(rules.items()):
        places = [x + 0.27 * (i - 1) for x in range(len(shapes))]
        bars = axes.bar(
            places, list(rule(shapes, 0.1).values()), 0.25, label=name, color=COLOURS[i]
        )
        axes.bar_label(bars, fmt="{:.2f}", fontsize=8, padding=1)
    labels = ["×".join(map(str, shape)) for shape in shapes.values()]
    axes.set_xticks(range(len(shapes)), labels)
    axes.set(ylabel="density", ylim=(0, 1.1), xlabel="weight (out × in × kernel)")
    axes.legend()
    return figure


def patterns() -> Figure:
    """Draw masks of the same weight under every pattern."""
    shape = (8, 4, 2, 2)
    chosen = (
        *(Element(), Kernel(), Channel(), InputChannel()),
        *(Block(4), FanIn(), NM(1, 4)),
    )
    figure = Figure(figsize=(10, 3.3), layout="constrained")
    *places, empty = figure.subplots(2, 4).flat
    empty.set_axis_off()
    for axes, pattern in zip(places, chosen, strict=True):
        _mask(axes, pattern, shape, 0.25)
    return figure


def _mask(axes: Axes, pattern: Pattern, shape: tuple[int, ...], density: float) -> None:
    free = torch.ones(pattern.grid(shape), dtype=torch.bool)
    made = seeded_generator(5, repr(pattern))
    units = pattern.draw(pattern.kept(density, shape), free, free.numel(), made)
    mask = pattern.expand(units, shape).flatten(1)
    for row, column in mask.nonzero().tolist():
        axes.add_patch(Rectangle((column, row), 0.92, 0.92, color=COLOURS[0]))
    for edge in range(0, mask.shape[1] + 1, 4):
        axes.axvline(edge - 0.04, color=INK, linewidth=0.4, alpha=0.5)
    axes.set(xlim=(-0.2, mask.shape[1] + 0.2), ylim=(len(mask) + 0.2, -0.2), xticks=[], yticks=[])
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)
    axes.set_title(re.sub(r"\w+=", "", repr(pattern)), fontsize=10)


def execution() -> Figure:
    """Draw how much faster and smaller stored layers make training, by density."""
    figure = Figure(figsize=(8, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (part, label), colour in zip(
        {
            "wide": "3072-4000-1000-4000-10",
            "narrow": "784-1000-1000-1000-10",
        }.items(),
        COLOURS,
        strict=False,
    ):
        ways = cpu_part(part)
        dense = np.median(ways[0]["seconds"])
        csr = [way for way in ways if way["way"] == "csr"]
        left.plot(
            [way["density"] for way in csr],
            [dense / np.median(way["seconds"]) for way in csr],
            "o-",
            color=colour,
            label=label,
        )
    ways = cpu_part("memory")
    right.plot(
        [way["density"] for way in ways if way["way"] == "csr"],
        [ways[0]["bytes"] / way["bytes"] for way in ways if way["way"] == "csr"],
        "o-",
        color=COLOURS[2],
        label="3072-8000-8000-8000-10",
    )
    for axes, title in ((left, "times faster: a training step"), (right, "times less peak memory")):
        axes.axhline(1, color=INK, linewidth=0.6)
        axes.set(xscale="log", yscale="log", xlabel="density", title=title)
        axes.set_xticks([0.01, 0.05, 0.1], ["0.01", "0.05", "0.1"], minor=False)
        axes.set_yticks([1, 2, 5, 10, 20], ["1", "2", "5", "10", "20"], minor=False)
        axes.minorticks_off()
        axes.legend()
    return figure


DRAWINGS: dict[str, Callable[[], Figure]] = {
    "schedules": schedules,
    "densities": densities,
    "patterns": patterns,
    "execution": execution,
}


def svg(name: str, words: str) -> str:
    """Return a drawing as an SVG element that says in words what it shows."""
    with mpl.rc_context(STYLE):
        written = io.StringIO()
        figure = DRAWINGS[name]()
        figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    text = written.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)  # unique on the page
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    head = f'<svg role="img" aria-label="{escape(words)}" class="drawing"'
    return text.replace("<svg", head, 1)


class Drawing(SphinxDirective):
    """A picture; its content is the caption, and what a reader hears who cannot see it."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Draw it."""
        words = " ".join(self.content)
        picture = nodes.raw("", svg(self.arguments[0], words), format="html")
        figure = nodes.figure("", picture)
        figure += nodes.caption("", "", *self.parse_inline(words)[0])
        return [figure]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("drawing", Drawing)
    return {"parallel_read_safe": True}
