"""Populations that learn from preferences: updates, environments, a whole closed loop.

    python benchmarks/control.py updates environments --json results/control/speed.json
    python benchmarks/control.py loop --runs 100 --steps 25000 --workers 16 --json ...
    python benchmarks/control.py updates rival --json ...

Updates are timed as CUDA graphs and eagerly, in turns in one run, on the GPU if there is one. An
update is a batch from the replay buffer, both critics, actor, temperature, targets, Adam and masks;
"with rewards" adds the ensemble's rewards of the batch, "with learning" a step of every reward
model. Environments count control steps by second of all threads' CPU time and by second. The rival
is Stable-Baselines3's SAC of the same sizes, one run, on the CPU."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from regrow.control.environments import PointMass, make
from regrow.control.environments.spread import Spread
from regrow.control.graphs import Graphed
from regrow.control.noise import NoiseFeatures
from regrow.control.population import Population
from regrow.control.setting import METHODS, Setting
from regrow.control.teachers import TEACHERS
from regrow.lab.environment import environment

ARMS = ("pebble", "static", "r2n", "r2n-rigl", "elimination", "oracle")


class Wide(PointMass):
    """A point mass, so that noise features make up all inputs but a few."""

    observations, actions = 4, 6

    def advance_(self, actions):
        return super().advance_(actions[:, :2])


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def rate(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return calls by second, in one stretch."""
    wait(device)
    started, calls = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < seconds or not calls:
        for _ in range(10):
            call()
        wait(device)
        calls += 10
    return calls / spent if spent else 0.0


def filled(runs: int, options: argparse.Namespace, device: torch.device) -> Population:
    """Make a population with a replay buffer full of random actions, and comparisons."""
    setting = Setting(
        steps=options.filled + 1,
        seed_steps=options.filled,
        width=options.width,
        batch=options.batch,
        feedbacks=1,
        reward_steps=1,
    )
    seeds = list(range(runs))
    noise = NoiseFeatures(seeds, 4, 1 - 4 / options.inputs, device=device)
    arms = [METHODS[ARMS[run % len(ARMS)]] for run in range(runs)]
    population = Population(Wide(seeds), TEACHERS["oracle"], arms, setting, noise, device)
    population.run_to_(options.filled)
    return population


def updates(runs: int, options: argparse.Namespace, device: torch.device) -> dict[str, object]:
    population = filled(runs, options, device)
    models = population.models

    def with_rewards() -> None:
        inputs, following, _, ended = population._batch()
        population.agent.update_(inputs, following, models.reward(inputs), ended)

    def with_learning() -> None:
        population._learn_()
        models.step_()

    functions = {
        "agent": population._learn_,
        "agent with rewards": with_rewards,
        "agent with learning": with_learning,
        "reward models": models.step_,
    }
    calls: dict[str, Callable[[], object]] = {f"{n}, eager": f for n, f in functions.items()}
    if device.type == "cuda":
        calls |= {f"{name}, graph": Graphed(f, device) for name, f in functions.items()}
    for call in calls.values():
        for _ in range(8):
            call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.repetitions):
        for name, call in calls.items():
            found[name].append(round(rate(call, device, options.seconds), 1))
    inputs = population.noise.total
    row = {
        "runs": runs,
        "inputs": inputs,
        "updates_per_second": found,
        "run_updates_per_second": {n: round(runs * median(v), 1) for n, v in found.items()},
        "finite": bool(population.agent.critic.rows.isfinite().all()),
    }
    if device.type == "cuda":
        row["gigabytes"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
        torch.cuda.reset_peak_memory_stats()
    return row


def rival(options: argparse.Namespace) -> dict[str, object]:
    """Return updates a second of Stable-Baselines3's SAC on the CPU, at the same sizes."""
    import gymnasium  # noqa: PLC0415  extras
    import numpy as np  # noqa: PLC0415
    import stable_baselines3  # noqa: PLC0415

    class Still(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(-1.0, 1.0, (options.inputs,), np.float32)
        action_space = gymnasium.spaces.Box(-1.0, 1.0, (Wide.actions,), np.float32)

        def reset(self, *, seed=None, options=None):
            super().reset(seed=seed)
            return self.observation_space.sample(), {}

        def step(self, action):
            return self.observation_space.sample(), 0.0, False, False, {}

    model = stable_baselines3.SAC(
        "MlpPolicy",
        Still(),
        learning_starts=options.filled,
        batch_size=options.batch,
        policy_kwargs={"net_arch": [options.width, options.width]},
        device="cpu",
    )
    model.learn(options.filled + 1)
    found = []
    for _ in range(options.repetitions):
        calls, started = 0, time.perf_counter()
        while (spent := time.perf_counter() - started) < options.seconds:
            model.train(gradient_steps=10, batch_size=options.batch)
            calls += 10
        found.append(round(calls / spent, 1))
    return {"version": stable_baselines3.__version__, "updates_per_second": found}


def environments(options: argparse.Namespace) -> list[dict[str, object]]:
    rows = []
    for task in ("cartpole-swingup", "walker-walk", "cheetah-run"):
        for workers in sorted({1, options.workers}):
            made = make(task, list(range(64)), repeat=1, workers=workers)
            made.reset()
            actions = torch.rand(64, made.actions).mul(2).sub(1).numpy()
            made.step(actions)
            started, cpu = time.perf_counter(), time.process_time()
            steps = 0
            while time.perf_counter() - started < options.seconds:
                made.step(actions)
                steps += 64
            by_cpu = steps / (time.process_time() - cpu)
            by_wall = steps / (time.perf_counter() - started)
            row = {"task": task, "threads": workers, "per_second": round(by_wall)}
            if not isinstance(made, Spread):  # whose processes have clocks of their own
                row["per_cpu_second"] = round(by_cpu)
            rows.append(row)
            print(rows[-1], flush=True)
    return rows


def loop(options: argparse.Namespace, device: torch.device) -> dict[str, object]:
    """Train all arms side by side, as `train_from_preferences` does, and time it."""
    seeds = [run // len(ARMS) for run in range(options.runs)]
    arms = [METHODS[ARMS[run % len(ARMS)]] for run in range(options.runs)]
    made = make(options.task, seeds, workers=options.workers)
    noise = NoiseFeatures(seeds, made.observations, options.noise, device=device)
    setting = Setting(steps=options.steps)
    population = Population(made, TEACHERS["oracle"], arms, setting, noise, device)
    started = time.perf_counter()
    while population.step < options.steps:
        population.run_to_(min(population.step + 1000, options.steps))
        print(population.step, round(time.perf_counter() - started, 1), flush=True)
    wait(device)
    seconds = time.perf_counter() - started
    late = population.late_returns()
    returns = {
        arm: [round(r, 1) for r in late[place :: len(ARMS)]] for place, arm in enumerate(ARMS)
    }
    said = {"task": options.task, "noise": options.noise, "runs": options.runs}
    said |= {"width": setting.width, "batch": setting.batch}
    return said | {"steps": options.steps, "seconds": round(seconds, 1), "late_returns": returns}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=["updates", "rival", "environments", "loop"])
    parser.add_argument("--population", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--inputs", type=int, default=240, help="features; actions come on top")
    parser.add_argument("--filled", type=int, default=2000, help="transitions in the buffer")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--steps", type=int, default=25_000)
    parser.add_argument("--task", default="cartpole-swingup")
    parser.add_argument("--noise", type=float, default=0.95)
    parser.add_argument("--workers", type=int, default=1, help="that step environments")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--tf32", action="store_true", help="of matrix products")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.backends.cuda.matmul.allow_tf32 = options.tf32
    device = torch.device(options.device)
    record: dict[str, object] = {"environment": environment(), "tf32": options.tf32}
    record |= {"width": options.width, "batch": options.batch}
    if "updates" in options.parts:
        record["updates"] = []
        for runs in options.population:
            record["updates"].append(updates(runs, options, device))
            print(record["updates"][-1], flush=True)
    if "rival" in options.parts:
        record["rival"] = rival(options)
        print(record["rival"], flush=True)
    if "environments" in options.parts:
        record["environments"] = environments(options)
    if "loop" in options.parts:
        record["loop"] = loop(options, device)
        print(record["loop"], flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
