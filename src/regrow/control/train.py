"""`train_from_preferences`: the whole of a training, with checkpoints."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from regrow.control.environments.base import Environments
from regrow.control.noise import NoiseFeatures
from regrow.control.population import Population
from regrow.control.setting import METHODS, Arm, Setting
from regrow.control.teachers import TEACHERS, Teacher
from regrow.engine.checks import check_choice
from regrow.training.run import RunLike, device_of

__all__ = ["train_from_preferences"]

_LOOK_EVERY = 100  # steps


def train_from_preferences(
    environments: Environments,
    teacher: Teacher | str | None = "oracle",
    *,
    method: str | Arm | Sequence[str | Arm] = "r2n",
    setting: Setting | None = None,
    noise: float | NoiseFeatures = 0.0,
    device: str = "auto",
    run: RunLike | None = None,
) -> Population:
    """Train agents on rewards that are learnt from comparisons of what they did.

    Args:
        environments: one for each run.
        teacher: who compares; or a name of ``TEACHERS``; None: arms learn from the true reward.
        method: how inputs are treated, by a name of ``METHODS`` or an
            :class:`regrow.control.setting.Arm`; one for all runs, or one for each.
        setting: sizes, rates and schedule.
        noise: the share of features that is noise, standard normal; or noise of any kind.
        device: "cpu", "cuda" or "auto".
        run: takes metrics, progress and checkpoints; from its checkpoint training goes on bit for
            bit.

    Returns:
        The population, trained.

    Raises:
        ValueError: an argument is out of its range, or a name unknown.
        FloatingPointError: an environment gave NaN; the last checkpoint is still there.

    Example:
        >>> from regrow.control.environments import PointMass
        >>> setting = Setting(steps=120, seed_steps=100, queries=5, feedbacks=1, reward_steps=5)
        >>> trained = train_from_preferences(PointMass([0, 1]), setting=setting, noise=0.5)
        >>> trained.noise.total, trained.step
        (8, 120)
    """
    setting = setting or Setting()
    if isinstance(teacher, str):
        check_choice(teacher, tuple(TEACHERS), "teacher")
        teacher = TEACHERS[teacher]
    where = device_of({"device": device})
    if not isinstance(noise, NoiseFeatures):
        noise = NoiseFeatures(environments.seeds, environments.observations, noise, device=where)
    arms = _arms(method, environments.runs)
    population = Population(environments, teacher, arms, setting, noise, where)
    if run is not None and (state := run.load()) is not None:
        population.load_state_dict(state)
    _train(population, run)
    return population


def _arms(method: str | Arm | Sequence[str | Arm], runs: int) -> list[Arm]:
    given = [method] * runs if isinstance(method, str | Arm) else list(method)
    for one in given:
        if not isinstance(one, Arm):
            check_choice(one, tuple(METHODS), "method")
    return [one if isinstance(one, Arm) else METHODS[one] for one in given]


def _train(population: Population, run: RunLike | None) -> None:
    steps, asked = population.setting.steps, population.asked
    while population.step < steps:
        population.step_()
        if run is None:
            continue
        if population.asked > asked or population.step == steps:
            asked = population.asked
            run.log(**metrics(population))
        if population.step % _LOOK_EVERY == 0:
            run.tell(population.step / steps, _words(population))
            if run.due():
                run.save(population.state_dict())


def metrics(population: Population) -> dict[str, float]:
    """Return a line of metrics: means over the runs."""
    real, other = population.features()
    of_real, of_noise = population.layers["critic"].connections(population.noise.real)
    late = torch.tensor(population.late_returns())
    found = {
        "return": float(late.nanmean()),
        "comparisons": float(population.models.count.float().mean()),
        "reward_accuracy": float(population.models.accuracy.mean()),
        "reward_correlation": _mean(population.correlations()),
        "real_features": _mean(real),
        "noise_features": _mean(other),
        "real_connections": float(of_real.mean()),
        "noise_connections": float(of_noise.mean()),
    }
    told = {name: value for name, value in found.items() if value == value}  # noqa: PLR0124 NaN
    return {"step": population.step, **told}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _words(population: Population) -> str:
    late = [value for value in population.late_returns() if value == value]  # noqa: PLR0124 NaN
    said = f"step {population.step}"
    return f"{said}, return {_mean(late):.1f}" if late else said
