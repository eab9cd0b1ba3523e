"""How well advice foretells training: what it says beside what the same network then takes."""

from __future__ import annotations

import time
from typing import Any

import torch

from regrow.execution.advise import advise
from regrow.studies.execution.steps import StepSetting, compare

__all__ = ["compare_advice"]


def compare_advice(
    setting: StepSetting, densities: tuple[float, ...], turns: int
) -> list[dict[str, Any]]:
    """Ask for advice as often as there are turns, and train between the questions.

    Args:
        setting: what is trained.
        densities: asked for at once.
        turns: of advice, and of training.

    Returns:
        By density: how much faster than dense steps were ("measured") and were to be ("told",
        number by number), and the seconds that advice took.
    """
    told: dict[float, list[float]] = {density: [] for density in densities}
    measured: dict[float, list[float]] = {density: [] for density in densities}
    took = []
    for _ in range(turns):
        torch.manual_seed(0)
        model, images = setting.build(), torch.randn(setting.inputs)
        started = time.perf_counter()
        advice = advise(
            model,
            images,
            densities,
            optimizer=setting.optimizer,
            exclude=list(setting.exclude) or None,
            update_every=setting.update_every,
        )
        took.append(time.perf_counter() - started)
        del model
        dense = advice.steps[0].time.median
        for step in advice.steps:
            if step.execution == "csr":
                told[step.density].append(dense / step.time.median)
        # Right after, so that the machine is as busy as it was.
        found = compare(setting, densities, turns=1)
        base = min(one.step.median for one in found if one.way == "dense float32")
        for one in found:
            if one.way == "csr":
                measured[one.density].append(base / one.step.median)
    return [
        {"way": "csr", "density": d, "told": told[d], "measured": measured[d], "took": took}
        for d in densities
    ]
