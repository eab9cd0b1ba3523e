"""A training step of the motion transformer, beside MTR's own way: milliseconds, peak memory.

    python benchmarks/motion.py --eager --json OUT.json     full MTR, 10 scenes, GPU
    python benchmarks/motion.py --json OUT.json             the same, and compiled
    python benchmarks/motion.py --simulator --json OUT.json         the simulator, one core
    python benchmarks/motion.py --rate --threads 2 --json OUT.json   regrow motion train, CPU
    torchrun --nproc-per-node 2 benchmarks/motion.py --rate --threads 1 --json OUT.json

MTR's own way gathers keys and values by index and picks out what is valid; both compute the same,
which is checked first. All forms share one model and its optimizer, and are timed in turns. A step
is forward pass, loss, backward pass and AdamW. What is eager comes first; the graph of the full MTR
takes minutes to compile in each precision. The file is written after every part, so that a run that
is cut off leaves what it has found.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import numpy as np
import torch
from motion_gathered import gathered
from torch import Tensor, distributed

import regrow
from regrow.cli.forecasts import _DEFAULTS
from regrow.lab.run import Run
from regrow.measure.timing import interleaved
from regrow.motion import SIZES, Featurer, MotionTransformer, Scene
from regrow.motion.batches import collate
from regrow.motion.loss import motion_losses
from regrow.motion.scene import LINES
from regrow.motion.simulator import simulate
from regrow.studies.lidar_motion.predict import Predict
from regrow.training.train import start


def made_scene(
    seed: int, agents: int, targets: int, lines: int, points: int, past: int = 11, future: int = 80
) -> Scene:
    """Return a made-up scene: agents on straight courses, lines of so many points, 0.5 m apart."""
    rng = np.random.default_rng(seed)
    steps = past + future
    times = np.arange(steps) / 10
    heading, speed = rng.uniform(-3, 3, agents), rng.uniform(0, 15, agents)
    velocity = np.stack([np.cos(heading), np.sin(heading)], -1) * speed[:, None]
    states = np.zeros((agents, steps, 9))
    states[..., :2] = rng.uniform(-80, 80, (agents, 1, 2)) + velocity[:, None] * times[:, None]
    states[..., 3:6], states[..., 6] = (4.5, 2.0, 1.6), heading[:, None]
    states[..., 7:] = velocity[:, None]
    valid = rng.random((agents, steps)) < 0.85
    valid[:targets, past - 1] = True
    turn = rng.uniform(-3, 3, lines)
    along = np.arange(points)[None, :, None] * 0.5
    line = (
        rng.uniform(-100, 100, (lines, 1, 2))
        + along * np.stack([np.cos(turn), np.sin(turn)], -1)[:, None]
    )
    numbers = np.array(list(LINES.values()))
    return Scene(
        f"made-{seed}",
        times,
        past - 1,
        np.arange(agents),
        rng.integers(1, 4, agents),
        states,
        valid,
        np.arange(targets),
        ego=agents - 1,
        line_points=np.concatenate([line, np.zeros((lines, points, 1))], -1).reshape(-1, 3),
        line_lengths=np.full(lines, points),
        line_kinds=numbers[rng.integers(0, len(numbers), lines)],
    )


def scenes_of(options: argparse.Namespace) -> list[Scene]:
    """Return scenes; every other has a target more, as 45 targets of 10 scenes have."""
    return [
        made_scene(
            i, options.agents, int(options.targets + (i % 2) / 2), options.lines, options.points
        )
        for i in range(options.scenes)
    ]


def network(options: argparse.Namespace) -> MotionTransformer:
    """Return a network with intention points all around."""
    torch.manual_seed(0)
    model = MotionTransformer(SIZES[options.size])
    model.decoder.intentions.normal_(0, 30)
    return model.to(options.device)


def difference(model: MotionTransformer, inputs: dict[str, Tensor]) -> float:
    """Return the largest relative difference of both forms' predictions, in evaluation."""
    model.eval()
    with torch.no_grad():
        ours = model(inputs).trajectories
        with gathered(model):
            theirs = model(inputs).trajectories
    model.train()
    return float((ours - theirs).abs().max() / theirs.abs().max())


Step = Callable[[], None]
Found = dict[str, Any]


def forms(
    model: MotionTransformer,
    inputs: dict[str, Tensor],
    targets: dict[str, Tensor],
    options: argparse.Namespace,
) -> dict[str, dict[str, Step]]:
    """Return a training step of each form, by part of the comparison."""
    device = torch.device(options.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=device.type == "cuda")
    compiled = torch.compile(model)

    def step(call: Any, half: bool, own: bool) -> None:
        way = gathered(model) if own else nullcontext()
        with way:
            with torch.autocast(device.type, torch.bfloat16, enabled=half):
                predicted = call(inputs)
            motion_losses(predicted, targets)["total"].mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == "cuda":
            torch.cuda.synchronize()

    parts: dict[str, dict[str, Step]] = {"eager": {}}
    for way, own in (("gathered", True), ("masked", False)):
        for name, half in (("float32", False), ("bfloat16", True)):
            parts["eager"][f"{way}, {name}"] = partial(step, model, half, own)
    if not options.eager:
        for name, half in (("bfloat16", True), ("float32", False)):
            form = f"masked, {name}, compiled"
            parts[form] = {form: partial(step, compiled, half, False)}
    return parts


def peak(call: Callable[[], None], device: str) -> float | None:
    """Return GiB at the peak of a call on a GPU, parameters and optimizer among them."""
    if not device.startswith("cuda"):
        return None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    call()
    return torch.cuda.max_memory_allocated() / 2**30


_BEGAN = perf_counter()


def say(text: str) -> None:
    """Say what is going on, and since when."""
    print(f"{perf_counter() - _BEGAN:6.1f} s  {text}", flush=True)


def tried(name: str, call: Step, options: argparse.Namespace) -> Found:
    """Make a step for the first time, and return its seconds and a later one's peak memory."""
    say(f"{name}: first step")
    began = perf_counter()
    try:
        call()
        seconds = perf_counter() - began
        call()
        return {"first step, seconds": seconds, "GiB": peak(call, options.device)}
    except torch.cuda.OutOfMemoryError:
        return {"error": "out of memory"}


def compare(options: argparse.Namespace) -> Iterator[Found]:
    """Time a step of each form; after each part, all forms so far in turns."""
    say(f"network of size {options.size}, {options.scenes} scenes")
    model = network(options)
    examples = [Featurer()(one) for one in scenes_of(options)]
    inputs, targets = (
        {name: x.to(options.device) for name, x in part.items()} for part in collate(examples)
    )
    say("predictions of both ways")
    told: Found = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "shapes": {name: list(x.shape) for name, x in inputs.items()},
        "valid tokens": {
            name: float(inputs[f"{name}_valid"].any(-1).float().mean())
            for name in ("agents", "map")
        },
        "difference": difference(model, inputs),
    }
    yield told
    rows: dict[str, Found] = {}
    calls: dict[str, Step] = {}
    for part, added in forms(model.train(), inputs, targets, options).items():
        for name, call in added.items():
            rows[name] = tried(name, call, options)
            if "error" in rows[name]:
                model.zero_grad()
            else:
                calls[name] = call
            yield {**told, "forms": rows}
        say(f"{part}: {len(calls)} forms in turns")
        for name, timing in timed(calls, options).items():
            rows[name] |= timing
            say(f"{name}: {timing['ms']:.1f} ms, {rows[name]['GiB']} GiB")
        yield {**told, "forms": rows}


def timed(calls: dict[str, Step], options: argparse.Namespace) -> dict[str, Found]:
    """Time steps in turns."""
    found = interleaved(calls, seconds=options.seconds, warmup=1, least=options.least, most=200)
    return {
        name: {
            "ms": 1e3 * one.median,
            "quartiles": [1e3 * q for q in one.quartiles],
            "steps": len(one.seconds),
        }
        for name, one in found.items()
    }


def rate(options: argparse.Namespace) -> Iterator[Found]:
    """Find scenes a second of ``regrow motion train`` with its defaults, on a CPU.

    The scenes are made up by the simulator, with LiDAR; all of a step counts: arrays of scenes,
    passes, clipping, optimizer. Under torchrun each rank has its share of a batch.
    """
    if (ranks := int(os.environ.get("WORLD_SIZE", "1"))) > 1:
        distributed.init_process_group("gloo")
    fields = {**_DEFAULTS, "scenes_learnt": options.scenes, "scenes_tested": 2}
    trial = Predict(**fields, method=regrow.Dense())
    with tempfile.TemporaryDirectory() as folder:
        trainer = start(
            trial, trial, Run(Path(folder), {"device": "cpu", "data_dir": folder}, writes=False)
        )
        walls, cores = [], []
        for number in range(options.epochs + 1):
            began, before = perf_counter(), process_time()
            for _ in trainer.epoch_steps():
                done, used = perf_counter(), process_time()
                if number:  # the first epoch warms up
                    walls.append(done - began)
                    cores.append(used - before)
                began, before = done, used
    quartiles = [float(trial.batch / q) for q in np.percentile(walls, [75, 25])]
    found = {
        "parameters": sum(p.numel() for p in trainer.model.parameters()),
        "fields": {name: fields[name] for name in sorted(fields)},
        "batches": len(walls),
        "scenes a second": trial.batch / float(np.median(walls)),
        "quartiles": quartiles,
        "scenes a second of one core": trial.batch / ranks / float(np.median(cores)),
    }
    if ranks > 1:
        found["ranks"] = ranks
        distributed.destroy_process_group()
        if int(os.environ["RANK"]):
            return
    print(found, flush=True)
    yield found


def simulator(options: argparse.Namespace) -> Iterator[Found]:
    """Find how many scenes the simulator makes in an hour of one core."""
    simulate(0)
    before = process_time()
    for seed in range(1, options.scenes + 1):
        simulate(seed)
    seconds = (process_time() - before) / options.scenes
    found = {"scenes an hour of one core": 3600 / seconds, "seconds a scene": seconds}
    print(found, flush=True)
    yield found


# What each way takes, and its usual values; the device of the last two is the CPU.
TAKEN: dict[Callable[[argparse.Namespace], Iterator[Found]], Found] = {
    compare: {
        "size": "mtr",
        "scenes": 10,
        "agents": 130,
        "targets": 4.5,
        "lines": 400,
        "points": 35,
        "seconds": 5.0,
        "least": 5,
        "eager": False,
        "device": "cuda" if torch.cuda.is_available() else "cpu",
    },
    rate: {"scenes": 64, "epochs": 3},
    simulator: {"scenes": 64},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--rate", action="store_true", help="scenes a second of regrow motion train")
    ways.add_argument("--simulator", action="store_true", help="scenes an hour of one core")
    parser.add_argument("--size")
    parser.add_argument("--scenes", type=int)
    parser.add_argument("--agents", type=int)
    parser.add_argument("--targets", type=float)
    parser.add_argument("--lines", type=int)
    parser.add_argument("--points", type=int, help="of a line")
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--least", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--eager", action="store_true", default=None)
    parser.add_argument("--device")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    run = simulator if options.simulator else rate if options.rate else compare
    usual = {**TAKEN[run], "threads": None}
    given = {name: value for name, value in vars(options).items() if value is not None}
    # A record tells what was used: what would be ignored is refused.
    others = given.keys() - usual.keys() - {"rate", "simulator", "json"}
    if others:
        parser.error(f"{run.__name__} takes no {', '.join(sorted(others))}")
    told = {name: given.get(name, value) for name, value in usual.items()}
    if options.threads:
        torch.set_num_threads(options.threads)
    on_gpu = str(told.get("device", "cpu")).startswith("cuda")
    name = torch.cuda.get_device_name() if on_gpu else platform.machine()
    used = {k: v for k, v in told.items() if v is not None}
    way = {"device": name, "torch": torch.__version__, "what": run.__name__, "options": used}
    for found in run(argparse.Namespace(**told)):
        if options.json:
            options.json.write_text(json.dumps({**way, **found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
