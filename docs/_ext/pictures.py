"""Pictures of the start page and the gallery, drawn from a run at build time or from records."""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean

import torch
from drawings import COLOURS, DRAWINGS, INK, MARKS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from records import RESULTS
from sklearn.datasets import load_digits
from sphinx.application import Sphinx
from torch import nn

import regrow
from regrow.features import SparseFeatureSelector
from regrow.lab.study_page import find
from regrow.motion.scene import KINDS
from regrow.motion.simulator.stored import Simulated
from regrow.studies.registry import load_study


def _grid(axes: Axes, values: torch.Tensor, title: str) -> None:
    """Draw 8×8 values as tiles, in a colour that the page shows through."""
    scaled = (values / values.max()).reshape(8, 8)
    for row in range(8):
        for column in range(8):
            alpha = float(scaled[row, column])
            place = (column, 7 - row)
            axes.add_patch(Rectangle(place, 0.92, 0.92, color=INK, alpha=0.06, linewidth=0))
            axes.add_patch(Rectangle(place, 0.92, 0.92, color=COLOURS[0], alpha=alpha, linewidth=0))
    axes.set(xlim=(-0.1, 8), ylim=(-0.1, 8), xticks=[], yticks=[])
    axes.set_aspect("equal")
    axes.spines[:].set_visible(False)
    axes.set_title(title, fontsize=15)


def pixels() -> Figure:
    """Train a sparse network on digits, and draw how many connections each pixel has."""
    digits = load_digits()
    images = torch.tensor(digits.data / 16, dtype=torch.float32)
    labels = torch.tensor(digits.target)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    method = regrow.RigL(density=0.1, update_every=25)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=1200)
    seen = {"mean digit": images.mean(0)}
    for step in range(1201):
        if step in (0, 200, 1200):
            links = sparse.masks["0.weight"].sum(0).float()
            seen[f"{step:,} steps" if step else "at the start"] = links
        rows = torch.randint(len(images), (64,))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images[rows]), labels[rows]).backward()
        if step < 1200:
            optimizer.step()
    figure = Figure(figsize=(10, 2.7), layout="constrained")
    for axes, (title, values) in zip(figure.subplots(1, 4), seen.items(), strict=True):
        _grid(axes, values, title)
    return figure


def chosen() -> Figure:
    """Draw the ten pixels that a selector keeps, beside the scores of all."""
    X, y = load_digits(return_X_y=True)
    selector = SparseFeatureSelector(10, max_iter=200, random_state=0).fit(X, y)
    figure = Figure(figsize=(5, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    scores = torch.as_tensor(selector.scores_, dtype=torch.float32)
    _grid(left, scores - scores.min(), "scores")
    _grid(right, torch.as_tensor(selector.get_support(), dtype=torch.float32), "the ten kept")
    return figure


def criteria() -> Figure:
    """Draw accuracy by density of what drops weights, from the records of that study."""
    found: dict[tuple[str, float], list[float]] = defaultdict(list)
    for told, record in find((RESULTS / "pruning-criteria",), load_study).view.rows:
        control = told["arm"] in ("static", "small dense")
        usual = told.get("part") == "grid" and told.get("growth") == "gradient"
        if told["task"] == "ResNet-20 on CIFAR-10" and "density" in told and (control or usual):
            at = (str(told["arm"]), float(told["density"]))
            found[at].append(100 * record.result["accuracy"])
    figure = Figure(figsize=(5, 3), layout="constrained")
    axes = figure.subplots()
    arms = ("magnitude", "SNIP", "random", "static", "small dense")
    for arm, colour, mark in zip(arms, COLOURS, MARKS, strict=False):
        line = sorted((density, fmean(v)) for (one, density), v in found.items() if one == arm)
        axes.plot(*zip(*line, strict=True), color=colour, linestyle=mark, marker="o", label=arm)
    axes.set(xscale="log", xlabel="density", ylabel="accuracy, %")
    axes.set_xticks([0.05, 0.1, 0.2], ["0.05", "0.1", "0.2"])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    return figure


def crossing() -> Figure:
    """Draw a made-up scene: the map, who is on it, and where those to be predicted go."""
    scene = Simulated(8)[3]
    figure = Figure(figsize=(5, 3.4), layout="constrained")
    axes = figure.subplots()
    start = 0
    for length in scene.line_lengths:
        line = scene.line_points[start : start + length]
        start += length
        axes.plot(line[:, 0], line[:, 1], color=INK, alpha=0.35, linewidth=0.8)
    for agent in range(len(scene.ids)):  # each in its kind's colour
        valid, states = scene.valid[agent], scene.states[agent]
        colour = COLOURS[int(scene.kinds[agent]) % len(KINDS)]
        past, to_come = valid.copy(), valid.copy()
        past[scene.now + 1 :], to_come[: scene.now] = False, False
        axes.plot(*states[past, :2].T, color=colour, linewidth=2)
        if agent in scene.targets:
            axes.plot(*states[to_come, :2].T, color=colour, linestyle=":", linewidth=2)
        axes.plot(*states[scene.now, :2], "o", color=colour, markersize=5)
    middle = scene.states[:, scene.now, :2][scene.valid[:, scene.now]].mean(0)
    axes.set_aspect("equal")
    axes.set(xlim=(middle[0] - 34, middle[0] + 34), ylim=(middle[1] - 23, middle[1] + 23))
    axes.set_axis_off()
    return figure


def setup(app: Sphinx) -> dict[str, bool]:
    """Add them to what ``{drawing}`` draws."""
    DRAWINGS.update(pixels=pixels, chosen=chosen, criteria=criteria, crossing=crossing)
    return {"parallel_read_safe": True}
