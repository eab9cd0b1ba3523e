"""The trial: a population learns a task from preferences, among noise features."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from regrow.control.environments import TASKS, Environments, make
from regrow.control.environments.base import Bools, Floats
from regrow.control.environments.catalogue import Engine, repeat_of
from regrow.control.environments.collect import random_observations
from regrow.control.noise import NoiseFeatures, NoiseKind, total_features
from regrow.control.people import People, Preferences, drawing_of, film_page
from regrow.control.people.drawings import DRAWN
from regrow.control.population import Population
from regrow.control.setting import METHODS, Arm, Setting
from regrow.control.teachers import TEACHERS, Teacher
from regrow.control.train import train_from_preferences
from regrow.engine.checks import check_choice
from regrow.lab.files import write_bytes, write_json
from regrow.lab.run import Run
from regrow.lab.trial import Trial
from regrow.training.run import device_of
from regrow.training.train import keep_weights

__all__ = ["FILM", "REWARDS", "WEIGHTS", "LearnFromPreferences", "result_of", "results_of", "train"]

MethodName = Literal[
    "pebble", "surf", "rune", "mrn", "static", "r2n", "r2n-rigl", "group-lasso", "moved",
    "elimination", "elimination-fixed", "autocorrelation", "oracle", "r2n-fast", "r2n-reward",
    "r2n-agent", "oracle-reward", "oracle-agent",
]  # fmt: skip
FILM, WEIGHTS, REWARDS = "film.html", "agent.pt", "rewards.json"
_LATEST = 500  # steps of which rewards are kept for the page
_SAMPLED = 1000  # steps from which histograms are taken
_OTHER = 1_000_000  # added to seeds: environments of evaluation begin elsewhere


@dataclass(frozen=True, kw_only=True)
class LearnFromPreferences(Setting, Trial):
    """Train runs of one method on one task from a simulated teacher's preferences.

    Args:
        task: its name, such as cartpole-swingup.
        method: how inputs are treated: pebble, surf, rune, mrn, static, r2n, r2n-rigl,
            group-lasso, moved, elimination, autocorrelation or oracle; elimination-fixed keeps a
            fifth of the features; r2n-fast exchanges more; r2n-reward, r2n-agent, oracle-reward
            and oracle-agent treat the reward model's inputs only, or the actor's and critics'.
        reward: what is learnt from: rewards learnt from comparisons, or the true ones.
        noise: the share of features that is noise, 0 to 0.99.
        noise_kind: gaussian, autoregressive, or histogram: values that real features take.
        noise_stored: whether noise is kept in the replay buffer, or drawn anew at every look.
        permuted: whether features stand in an order drawn for each run; else real ones come first.
        teacher: who compares: oracle, noisy, myopic, mistake, skip or equal, or people: those who
            answer on the page of regrow preferences serve.
        runs: trained together, of consecutive seeds from seed on.
        repeat: control steps of a step of the agent; None: 4 on cartpoles, else 1.
        engine: what steps environments: mujoco and dm_control, or EnvPool.
        episodes: each run is evaluated on at the end.

    Raises:
        ValueError: a choice is unknown or a number out of its range; the message says which.
    """

    task: str
    method: MethodName = "r2n"
    reward: Literal["learned", "true"] = "learned"
    noise: float = 0.95
    noise_kind: NoiseKind = "gaussian"
    noise_stored: bool = True
    permuted: bool = False
    teacher: Literal["oracle", "noisy", "myopic", "mistake", "skip", "equal", "people"] = "oracle"
    runs: int = 1
    repeat: int | None = None
    engine: Engine = field(default="own", metadata={"later": True})
    episodes: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice(self.task, TASKS, "task")
        check_choice(self.method, tuple(METHODS), "method")
        check_choice(self.reward, ("learned", "true"), "reward")
        check_choice(self.engine, get_args(Engine), "engine")
        check_choice(self.teacher, (*TEACHERS, "people"), "teacher")
        total_features(1, self.noise)
        if self.seed < 0:
            raise ValueError(f"seed={self.seed}: must be 0 or above")
        for name in ("runs", "episodes", "repeat"):
            if (number := getattr(self, name)) is not None and number < 1:
                raise ValueError(f"{name}={number}: must be at least 1")

    @property
    def seeds(self) -> range:
        """Those of the runs."""
        return range(self.seed, self.seed + self.runs)

    @property
    def arms(self) -> list[Arm]:
        """Those of the runs."""
        return [replace(METHODS[self.method], true_reward=self.reward == "true")] * self.runs

    def run(self, run: Run) -> Mapping[str, Any]:
        """Train, resuming from the run's checkpoint if there is one, and evaluate.

        Options of the run: ``device``, ``threads``, or processes, that step environments,
        ``keep_weights``, ``people``, the file of their answers, and ``results``: those that a
        population gave for several trials at once, by identity.

        Raises:
            ValueError: people are to teach, and no file is named, or the task has no drawing.
        """
        known: Mapping[str, Mapping[str, Any]] = run.options.get("results", {})
        if self.identity in known:
            return known[self.identity]
        population = train([self], run)
        keep_weights(run, population.agent.actor.state_dict(), WEIGHTS)
        shown: list[Floats] = []
        ended = np.zeros(self.runs, dtype=bool)

        def watch(observations: Floats, over: Bools) -> None:
            if not ended[0]:  # the first episode of the first run
                shown.append(observations[0].astype(np.float64))
            ended[:] |= over

        others = self.environments([seed + _OTHER for seed in self.seeds], run)
        result = result_of(population, population.evaluate(others, self.episodes, watch))
        if run.options.get("keep_weights"):
            if self.task in DRAWN:
                self._film(np.stack(shown), result, run)
            write_json(run.folder / REWARDS, rewards_of(population))
        return result

    def _film(self, seen: Floats, result: Mapping[str, Any], run: Run) -> None:
        """Write a page that plays an episode of the first run."""
        clip = drawing_of(self.task)(seen, repeat_of(self.task, self.repeat))
        title = f"{self.task}, {self.method}, {self.noise:.0%} noise"
        mean = result["returns"][0]
        words = f"An episode of the first run. Mean return of {self.episodes} episodes: {mean:.1f}."
        write_bytes(run.folder / FILM, film_page(clip, title, words).encode())

    def teacher_for(self, noise: NoiseFeatures, run: Run) -> Teacher | str | None:
        """Return who compares; nobody, if rewards are the true ones."""
        if self.reward == "true":
            return None
        return self._people(noise, run) if self.teacher == "people" else self.teacher

    def _people(self, noise: NoiseFeatures, run: Run) -> People:
        file = run.options.get("people")
        if file is None:
            raise ValueError("teacher='people' needs a file of preferences: --people FILE")
        told = f"open questions are shown by: regrow preferences serve {file}"
        return People(
            preferences=Preferences(Path(file)),
            draw=drawing_of(self.task),
            places=noise.places,
            repeat=repeat_of(self.task, self.repeat),
            tell=lambda answered, asked: run.tell(0.0, f"{answered} of {asked} answered; {told}"),
        )

    def environments(self, seeds: Sequence[int], run: Run) -> Environments:
        """Make the task's environments for runs of some seeds."""
        threads = run.options.get("threads") or 1
        return make(self.task, seeds, repeat=self.repeat, workers=threads, engine=self.engine)

    def noise_for(
        self, environments: Environments, run: Run, device: torch.device
    ) -> NoiseFeatures:
        """Make the noise that is added to what these show."""
        samples = None
        if self.noise_kind == "histogram":
            others = self.environments([self.seed + _OTHER], run)
            samples = torch.from_numpy(random_observations(others, _SAMPLED))
        return NoiseFeatures(
            environments.seeds,
            environments.observations,
            self.noise,
            kind=self.noise_kind,
            samples=samples,
            permuted=self.permuted,
            stored=self.noise_stored,
            device=device,
        )


def train(trials: Sequence[LearnFromPreferences], run: Run) -> Population:
    """Train the runs of trials together, which differ in seed, method and reward only.

    Args:
        trials: at least one.
        run: takes metrics and checkpoints; its options are those of the trials.
    """
    learning = next((trial for trial in trials if trial.reward == "learned"), trials[0])
    environments = learning.environments([seed for t in trials for seed in t.seeds], run)
    device = device_of(run.options)
    noise = learning.noise_for(environments, run, device)
    return train_from_preferences(
        environments,
        learning.teacher_for(noise, run),
        method=[arm for trial in trials for arm in trial.arms],
        setting=Setting(**{f.name: getattr(learning, f.name) for f in fields(Setting)}),
        noise=noise,
        device=str(device),
        run=run,
    )


def results_of(trials: Sequence[LearnFromPreferences], run: Run) -> dict[str, dict[str, Any]]:
    """Train and evaluate the runs of trials together; return the results, by identity.

    Args:
        trials: which differ in seed, method and reward only.
        run: of the population.
    """
    population = train(trials, run)
    seeds = [seed + _OTHER for trial in trials for seed in trial.seeds]
    evaluated = population.evaluate(trials[0].environments(seeds, run), trials[0].episodes)
    results, at = {}, 0
    for trial in trials:
        results[trial.identity] = result_of(population, evaluated, range(at, at + trial.runs))
        at += trial.runs
    return results


def rewards_of(population: Population) -> dict[str, list[float]]:
    """Return true and learned rewards of the latest steps of the first run."""
    replay = population.replay
    number = min(len(replay), _LATEST)
    steps = torch.arange(number, 0, -1, device=replay.added.device)
    places = (replay.added - steps) % replay.capacity
    learned = population.models.reward(
        replay.inputs[:1, places].expand(len(population.arms), -1, -1)
    )
    return {"true": replay.rewards[0, places].tolist(), "learned": learned[0].tolist()}


def result_of(
    population: Population, evaluated: Sequence[float], runs: Sequence[int] | None = None
) -> dict[str, Any]:
    """Return what a record keeps of runs: a number a run, training returns, and looks on the way.

    Args:
        population: trained.
        evaluated: the return of each run's most likely actions.
        runs: of the population; None: all.
    """
    chosen = range(len(population.arms)) if runs is None else runs
    taught = [not population.arms[run].true_reward for run in chosen]

    def of(values: Sequence[float]) -> list[float | None]:
        return _plain([values[run] for run in chosen])

    def of_taught(values: Sequence[float]) -> list[float | None]:
        return [value if one else None for value, one in zip(of(values), taught, strict=True)]

    real, other = population.features()
    returns = [evaluated[run] for run in chosen]
    compared = population.models.count[:, 0].tolist()
    names = list(population.looks[0]) if population.looks else []
    return {
        "population": len(population.arms),
        "return": sum(returns) / len(returns),
        "returns": returns,
        "late_returns": of(population.late_returns()),
        "reward_correlations": of_taught(population.correlations()),
        "real_features": of(real),
        "noise_features": of(other),
        "comparisons": [compared[run] if t else 0 for run, t in zip(chosen, taught, strict=True)],
        "training_returns": [list(population.returns[run]) for run in chosen],
        "looks": {
            name: [(of_taught if "reward" in name else of)(one[name]) for one in population.looks]
            for name in names
        },
    }


def _plain(values: Sequence[float]) -> list[float | None]:
    """Write what there is none of as JSON can."""
    return [None if math.isnan(value) else value for value in values]
