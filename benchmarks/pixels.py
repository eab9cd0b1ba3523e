"""Agents that see: their updates, beside another eager loop, acting, and rendering.

    python benchmarks/pixels.py updates --json results/control/pixels.json
    python benchmarks/pixels.py loop rendering --task walker-walk --json ...

"updates" times whole updates, from sampling to targets, in turns in one run: eagerly in float32,
and as CUDA graphs in bfloat16, with --compiled also through torch.compile. An update of the actor
and the targets is due at every second one; the figure is the mean of both kinds. "loop" sets SVEA
of ours beside a loop of the kind in common use, at that one's size: an encoder of four layers,
batches of 256, all eager and in float32, seven numbers read from the device in every update; what
its replay buffer costs is left out. "acting" is one observation. "rendering" steps an environment,
and "processes" eight at once, in one process and in several, in turns.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from regrow.control.pixels.agent import PixelAgent
from regrow.control.pixels.augment import Augment
from regrow.control.pixels.eyes import Eyes
from regrow.control.pixels.frames import Frames
from regrow.control.pixels.images import overlay, windows
from regrow.control.pixels.masker import multiply_adds
from regrow.control.pixels.method import PIXEL_METHODS
from regrow.control.pixels.setting import PixelSetting
from regrow.control.pixels.tasks import make_task
from regrow.lab.environment import environment

METHODS = ("SAC", "SVEA", "MaDi", "MaDi-half", "MaDi-strided", "MaDi-shared")
ACTIONS = 6


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def milliseconds(call: Callable[[], object], device: torch.device, seconds: float) -> float:
    """Return what a call takes, in one stretch; calls come in pairs."""
    wait(device)
    started, calls = time.perf_counter(), 0
    while (spent := time.perf_counter() - started) < seconds or not calls:
        for _ in range(4):
            call()
        wait(device)
        calls += 4
    return 1000 * spent / calls if spent else math.inf


def filled(method: str, setting: PixelSetting, device: torch.device) -> Frames:
    """Make a ring of random frames, as if of episodes of 250 steps."""
    size = PIXEL_METHODS[method].rendered(setting.size)
    ring = Frames(2000 if size > 40 else 100, 3, size, ACTIONS, device)
    ring.frames.random_(0, 256)
    count = ring.capacity - 1
    ring.places[:count, 0] = torch.arange(count, device=device)
    ring.places[:count, 1] = torch.arange(count, device=device) % 250
    ring.actions.uniform_(-1, 1)
    ring.rewards.uniform_(0, 1)
    ring.frames_added, ring.added = ring.capacity, count
    ring._tell_()
    return ring


def photos(device: torch.device) -> torch.Tensor:
    return torch.randint(0, 256, (500, 3, 128, 128), dtype=torch.uint8, device=device)


def settings(options: argparse.Namespace, device: torch.device) -> dict[str, PixelSetting]:
    """Return settings by what an update is computed with."""
    small = {"layers": 4, "filters": 8, "projection": 16, "width": 32} if options.size < 48 else {}
    base = PixelSetting(
        size=options.size, batch=options.batch, augmentation="overlay", precision="float32", **small
    )
    found = {"eager float32": base}
    if device.type == "cuda":
        low = replace(base, precision="bfloat16")
        found |= {"eager bfloat16": low, "graph bfloat16": low}
        if options.compiled:
            found["graph bfloat16 compiled"] = replace(low, compiled=True)
    return found


def updates(options: argparse.Namespace, device: torch.device) -> list[dict[str, object]]:
    rows = []
    for method in options.methods:
        calls: dict[str, Callable[[], object]] = {}
        parts = {}
        for name, setting in settings(options, device).items():
            agent = PixelAgent(PIXEL_METHODS[method], setting, ACTIONS, 0, device, photos(device))
            ring = filled(method, setting, device)
            parts[name] = agent
            calls[name] = (
                eager(agent, ring) if "eager" in name else lambda a=agent, r=ring: a.learn_(r)
            )
        for call in calls.values():
            for _ in range(10):
                call()
        found: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(options.repetitions):
            for name, call in calls.items():
                found[name].append(milliseconds(call, device, options.seconds))
        agent = next(iter(parts.values()))
        row = {
            "method": method,
            "size": options.size,
            "batch": options.batch,
            "parameters": agent.parameters(),
            "mask_multiply_adds": multiply_adds(agent.masker, options.size) if agent.masker else 0,
            "milliseconds": {name: [round(v, 3) for v in values] for name, values in found.items()},
            "median": {name: round(median(values), 3) for name, values in found.items()},
            "finite": all(bool(a.losses.isfinite().all()) for a in parts.values()),
        }
        if device.type == "cuda":
            row["gigabytes"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        print(json.dumps(row), flush=True)
        rows.append(row)
        del calls, parts, agent
    return rows


def eager(agent: PixelAgent, ring: Frames) -> Callable[[], object]:
    """Return an update that is never captured."""

    def call() -> None:
        agent.updates += 1
        due = agent.updates % 2 == 0
        agent.update_(ring, due, due, due)

    return call


# ---------------------------------------------------------------------- another loop


class Common:
    """SVEA as commonly written: eager, float32, a batch that was gathered on the host.

    Four convolutions with a ReLU behind each, a projection to 50, the temperature learnt, actor and
    targets moved at every update, random shifts by interpolation, and seven numbers read from the
    device to be logged.
    """

    def __init__(self, size: int, batch: int, width: int, device: torch.device) -> None:
        self.device = device
        layers: list[nn.Module] = [nn.Conv2d(9, 32, 3, stride=2), nn.ReLU()]
        for _ in range(3):
            layers += [nn.Conv2d(32, 32, 3), nn.ReLU()]
        self.encoder = nn.Sequential(*layers, nn.Flatten()).to(device)
        features = self.encoder(torch.zeros(1, 9, size, size, device=device)).shape[1]
        self.actor = nn.Sequential(*trunk(features), *head(50, width, 2 * ACTIONS)).to(device)
        self.critic, self.target = (Twin(features, width).to(device) for _ in range(2))
        self.log_alpha = torch.zeros((), device=device, requires_grad=True)
        nets = (self.encoder, self.critic, self.actor)
        self.optimizers = [torch.optim.Adam(net.parameters(), 5e-4) for net in nets]
        self.optimizers.append(torch.optim.Adam([self.log_alpha], 5e-4))
        images = torch.randint(0, 256, (2, batch, 9, size, size), dtype=torch.uint8)
        self.batch = images.pin_memory() if device.type == "cuda" else images
        self.others = torch.rand(3, batch, 1)
        self.actions = torch.rand(batch, ACTIONS)
        self.pictures = 255 * torch.rand(batch, 9, size, size, device=device)

    def act(self, features: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean, log_std = self.actor(features).chunk(2, -1)
        log_std = -10 + 6 * (torch.tanh(log_std) + 1)
        normal = torch.distributions.Normal(mean, log_std.exp())
        before = normal.rsample()
        stretch = 2 * (math.log(2) - before - functional.softplus(-2 * before))
        return torch.tanh(before), (normal.log_prob(before) - stretch).sum(-1, keepdim=True)

    def update(self) -> list[float]:
        seen, following = (x.to(self.device, non_blocking=True).float() for x in self.batch)
        actions = self.actions.to(self.device)
        reward, discount, _ = (x.to(self.device) for x in self.others)
        seen, following = shifted(seen), shifted(following)
        strong = 0.5 * seen + 0.5 * self.pictures
        both = self.encoder(torch.cat([seen, strong]) / 255 - 0.5)
        with torch.no_grad():
            ahead = self.encoder(following / 255 - 0.5)
            action, log_prob = self.act(ahead)
            soft = torch.minimum(*self.target(ahead, action)) - self.log_alpha.exp() * log_prob
            wanted = (reward + discount * soft).repeat(2, 1)
        values = self.critic(both, actions.repeat(2, 1))
        loss = sum(functional.mse_loss(value, wanted) for value in values)
        self.step(loss, 0, 1)
        features = both[: len(seen)].detach()
        action, log_prob = self.act(features)
        alpha = self.log_alpha.exp()
        acting = (alpha.detach() * log_prob - torch.minimum(*self.critic(features, action))).mean()
        self.step(acting, 2)
        warming = (alpha * (ACTIONS - log_prob.detach())).mean()
        self.step(warming, 3)
        with torch.no_grad():
            for new, old in zip(self.target.parameters(), self.critic.parameters(), strict=True):
                new.copy_(0.01 * old + 0.99 * new)
        told = (loss, wanted.mean(), values[0].mean(), values[1].mean(), acting, log_prob.mean())
        return [float(x.detach()) for x in (*told, warming)]

    def step(self, loss: torch.Tensor, *which: int) -> None:
        for place in which:
            self.optimizers[place].zero_grad(set_to_none=True)
        loss.backward()
        for place in which:
            self.optimizers[place].step()


class Twin(nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*trunk(features))
        self.q1, self.q2 = (nn.Sequential(*head(50 + ACTIONS, width, 1)) for _ in range(2))

    def forward(self, features: torch.Tensor, actions: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = torch.cat([self.trunk(features), actions], 1)
        return self.q1(x), self.q2(x)


def trunk(features: int) -> list[nn.Module]:
    return [nn.Linear(features, 50), nn.LayerNorm(50), nn.Tanh()]


def head(inputs: int, width: int, outputs: int) -> list[nn.Module]:
    hidden = [nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, outputs)]
    return [nn.Linear(inputs, width), nn.ReLU(inplace=True), *hidden]


def shifted(x: torch.Tensor, pad: int = 4) -> torch.Tensor:
    """Shift images at random, by interpolation."""
    n, _, size, _ = x.shape
    x = functional.pad(x, (pad,) * 4, "replicate")
    whole = size + 2 * pad
    line = torch.linspace(-1 + 1 / whole, 1 - 1 / whole, whole, device=x.device)[:size]
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1).expand(n, -1, -1, -1)
    moved = torch.randint(0, 2 * pad + 1, (n, 1, 1, 2), device=x.device) * (2 / whole)
    return functional.grid_sample(x, grid + moved, align_corners=False)


def loop(options: argparse.Namespace, device: torch.device) -> list[dict[str, object]]:
    width = 1024 if options.size >= 48 else 32
    small = {} if options.size >= 48 else {"filters": 8}
    common = Common(options.size, options.loop_batch, width, device)
    setting = PixelSetting(
        size=options.size, batch=options.loop_batch, layers=4, projection=50, width=width,
        actor_every=1, target_every=1, auxiliary_every=1, augmentation="overlay", **small,
    )  # fmt: skip
    agent = PixelAgent(PIXEL_METHODS["SVEA"], setting, ACTIONS, 0, device, photos(device))
    ring = filled("SVEA", setting, device)
    calls = {"common, eager float32": common.update, "ours": lambda: agent.learn_(ring)}
    for call in calls.values():
        for _ in range(8):
            call()
    found: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(options.repetitions):
        for name, call in calls.items():
            found[name].append(round(milliseconds(call, device, options.seconds), 3))
    theirs, ours = found.values()
    ratios = [round(a / b, 2) for a, b in zip(theirs, ours, strict=True)]
    row = {"size": options.size, "batch": options.loop_batch, "milliseconds": found}
    row |= {"times_as_fast": median(ratios), "ratios": ratios}
    print(json.dumps(row), flush=True)
    return [row]


def acting(options: argparse.Namespace, device: torch.device) -> list[dict[str, object]]:
    rows = []
    for method in options.methods:
        setting = list(settings(options, device).values())[-1]
        agent = PixelAgent(PIXEL_METHODS[method], setting, ACTIONS, 0, device, photos(device))
        eyes = Eyes(agent, PIXEL_METHODS[method].rendered(setting.size), test=False)
        for _ in range(6):
            eyes.act()
        found = [
            milliseconds(eyes.act, device, options.seconds) for _ in range(options.repetitions)
        ]
        rows.append({"method": method, "milliseconds": [round(v, 3) for v in found]})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def augmentations(options: argparse.Namespace, device: torch.device) -> list[dict[str, object]]:
    images = torch.rand(options.batch, 9, options.size, options.size, device=device)
    starts = torch.randint(-4, 5, (options.batch, 2), device=device)
    calls: dict[str, Callable[[], object]] = {
        "shift": lambda: windows(images, starts, options.size)
    }
    for kind in ("overlay", "conv", "splice"):
        augment = Augment(kind, photos(device), 0.5, 0, device)
        calls[kind] = lambda augment=augment: augment(images)
    pictures = torch.rand(options.batch, 3, options.size, options.size, device=device)
    calls["overlay, pictures given"] = lambda: overlay(images, pictures)
    rows = []
    for name, call in calls.items():
        call()
        rows.append({name: round(milliseconds(call, device, options.seconds), 3)})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def rendering(options: argparse.Namespace, device: torch.device) -> list[dict[str, object]]:
    rows = []
    for quality in ("full", "fast"):
        made = make_task(options.task, 0, size=options.size, quality=quality)
        made.reset()
        action = np.zeros((1, made.actions))
        for _ in range(5):
            made.step(action)
        found = [
            milliseconds(partial(made.step, action), torch.device("cpu"), options.seconds)
            for _ in range(options.repetitions)
        ]
        rows.append({"task": options.task, "quality": quality, "milliseconds": found})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def processes(options: argparse.Namespace, device: torch.device) -> list[dict[str, object]]:
    rows, runs, cpu = [], 8, torch.device("cpu")
    for quality in ("full", "fast"):
        calls = {}
        for workers in (1, options.workers):
            made = make_task(
                options.task, 0, size=options.size, quality=quality, runs=runs, workers=workers
            )
            made.reset()
            calls[workers] = partial(made.step, np.zeros((runs, made.actions)))
            calls[workers]()
        found: dict[int, list[float]] = {workers: [] for workers in calls}
        for _ in range(options.repetitions):
            for workers, call in calls.items():
                spent = milliseconds(call, cpu, options.seconds)
                found[workers].append(round(1000 * runs / spent, 1))
        one, several = (median(rates) for rates in found.values())
        row = {"task": options.task, "size": options.size, "quality": quality, "runs": runs}
        row |= {"steps_per_second": found, "times_as_fast": round(several / one, 2)}
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


PARTS = {
    "updates": updates,
    "loop": loop,
    "acting": acting,
    "augmentations": augmentations,
    "rendering": rendering,
    "processes": processes,
}


def main(arguments: list[str] | None = None) -> dict[str, object]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=PIXEL_METHODS)
    parser.add_argument("--size", type=int, default=84)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--loop-batch", type=int, default=256)
    parser.add_argument("--task", default="walker-walk")
    parser.add_argument("--workers", type=int, default=2, help="processes that draw")
    parser.add_argument("--compiled", action="store_true", help="time torch.compile, too")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each repetition")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, help="write the record to this file")
    options = parser.parse_args(arguments)
    device = torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    record: dict[str, object] = {"environment": environment()}
    for part in options.parts:
        record[part] = PARTS[part](options, device)
        if options.json:  # part by part, so that a run that is cut off leaves what it has
            options.json.parent.mkdir(parents=True, exist_ok=True)
            options.json.write_text(json.dumps(record, indent=1) + "\n")
    return record


if __name__ == "__main__":
    main()
