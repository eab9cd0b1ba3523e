"""Time of one topology update over all layers of a model, beside what a user would write.

    python benchmarks/topology_update.py --model resnet50 --method RigL --device cpu
    python benchmarks/topology_update.py --model resnet50 gpt-353m --device cuda --json update.json

In one run and in turn, round by round; printed are medians, and each one's median over the first's.
Between two updates active weights are trained, which is not timed: weights that were grown and stay
at zero would be equal, all of them.

ours       ``sparse.update_()``: all of it, from the check of the weights to the record
layerwise  the same on a GPU without the kernels that look at all layers at once: as it was before
core       the kernels of an update, launched, without what a sparsifier does around them
graph      the same, replayed from a CUDA graph
topk       layer by layer ``torch.topk`` of only as many as are exchanged, counts known on the host
sort       what most public codes do: two full sorts a layer, and a count read from the device
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path

import torch
from shapes import MODELS, weights_only
from torch import nn

import regrow
from regrow.engine import many, swift
from regrow.engine.scores import Signals
from regrow.engine.selection import seeded_generator
from regrow.engine.update import Moves

FRACTION = 0.3
CONTENDERS = ("ours", "layerwise", "core", "graph", "topk", "sort")


@torch.no_grad()
def sorted_update(model: nn.ParameterDict, masks: dict[str, torch.Tensor], grow: str) -> None:
    """Two full sorts a layer, and a count read back."""
    for name, weight in model.items():
        mask = masks[name]
        n = int(mask.sum().item())
        k = int(FRACTION * n)
        score = weight.abs() * mask
        order = score.view(-1).sort()[1]
        zeros = mask.numel() - n
        mask.view(-1)[order[: zeros + k]] = 0
        if grow == "random":
            candidates = (mask.view(-1) == 0).nonzero().view(-1)
            chosen = candidates[torch.randperm(len(candidates), device=mask.device)[:k]]
        else:
            gradient = weight.grad.abs() * (mask == 0)
            chosen = gradient.view(-1).sort(descending=True)[1][:k]
        mask.view(-1)[chosen] = 1
        weight.mul_(mask)


@torch.no_grad()
def topk_update(
    model: nn.ParameterDict, masks: dict[str, torch.Tensor], grow: str, counts: dict[str, int]
) -> None:
    """Only as many as are exchanged are looked for, and nothing is read back."""
    for name, weight in model.items():
        mask, k = masks[name].view(-1), int(FRACTION * counts[name])
        magnitude = torch.where(mask > 0, weight.view(-1).abs(), torch.inf)
        mask[magnitude.topk(k, largest=False, sorted=False).indices] = 0
        score = weight.grad.view(-1).abs() if grow == "gradient" else torch.rand_like(mask)
        score = torch.where(mask > 0, -1.0, score)
        mask[score.topk(k, sorted=False).indices] = 1
        weight.view(-1).mul_(mask)


@lru_cache(maxsize=1)
def original(model_name: str, device: str) -> nn.ParameterDict:
    """Make a model once: random numbers for hundreds of millions of weights take long."""
    return weights_only(model_name, device)


def copied(model_name: str, device: str) -> nn.ParameterDict:
    """Return a copy of the model's weights, with the same gradients, which are only read."""
    model = nn.ParameterDict()
    for name, weight in original(model_name, device).items():
        model[name] = nn.Parameter(weight.detach().clone())
        model[name].grad = weight.grad
    return model


def core_update(model, masks, method, counts: dict[str, int]) -> Callable[[], object]:
    """Return a function that exchanges weights by the kernels alone."""
    layers = [
        swift.Layer(
            name,
            weight.detach(),
            masks[name],
            masks[name] > 0,
            (),
            counts[name],
            Moves(exchange=int(FRACTION * counts[name])),
        )
        for name, weight in model.items()
    ]
    seen = {name: Signals(weight.detach(), gradient=weight.grad) for name, weight in model.items()}

    @torch.no_grad()
    def update() -> object:
        # From the same seeds again: what a graph has captured draws the same again.
        made = swift.exchange(
            method, layers, lambda name, *_: seen[name], lambda *key: seeded_generator(0, *key)
        )
        made.write_()
        return made  # what a graph reads has to stay

    return update


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(call, device: str) -> float:
    synchronize(device)
    begin = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - begin


def without_kernels(call):
    """Run a call as if many layers could not be looked at at once."""
    available = many.available
    many.available = lambda _: False
    try:
        return call()
    finally:
        many.available = available


def host_waits(call) -> int:
    """Count how often the host waits for the device in a call, by CUDA's own warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        call()
        torch.cuda.set_sync_debug_mode("default")
    return sum("called a synchronizing" in str(w.message) for w in caught)


def captured(update) -> tuple[Callable[[], None], object]:
    """Capture an update in a CUDA graph; return its replay, and what has to be kept."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        update()
        update()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = update()
    return graph.replay, kept


@torch.no_grad()
def train(model: nn.ParameterDict, masks: dict[str, torch.Tensor]) -> None:
    """Move active weights by a hundredth of their gradients."""
    for name, weight in model.items():
        weight.addcmul_(weight.grad, masks[name].to(weight.dtype), value=-0.01)


def contenders(model_name: str, method: str, density: float, device: str) -> tuple[dict, dict]:
    """Return what is timed, and what trains before it, by name; each has a model of its own."""
    options = {"drop_fraction": FRACTION, "update_every": 1, "stop_at": 1.0}
    made = regrow.METHODS[method](density=density, **options)

    def begun():
        model = copied(model_name, device)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return model, regrow.sparsify(model, optimizer, made, total_steps=10**6, include="*")

    model, sparse = begun()
    calls = {"ours": sparse.update_}
    trains = {"ours": lambda: train(model, sparse.masks)}
    counts = {name: int(mask.sum()) for name, mask in sparse.masks.items()}
    grow = "random" if method == "SET" else "gradient"
    if device == "cuda":
        second, other = begun()
        calls["layerwise"] = lambda: without_kernels(other.update_)
        trains["layerwise"] = lambda: train(second, other.masks)
        for name in ("core", "graph"):
            own = copied(model_name, device)
            masks = {n: m.to(own[n].dtype) for n, m in sparse.masks.items()}
            with torch.no_grad():
                for n, weight in own.items():
                    weight.mul_(masks[n])
            update = core_update(own, masks, made, counts)
            if name == "graph":
                update, _kept = captured(update)
                calls[name] = lambda replay=update, _kept=_kept: replay()
            else:
                calls[name] = update
            trains[name] = partial(train, own, masks)
    for name in ("topk", "sort"):
        own = copied(model_name, device)
        masks = {n: m.to(own[n].dtype) for n, m in sparse.masks.items()}
        if name == "topk":
            calls[name] = lambda own=own, masks=masks: topk_update(own, masks, grow, counts)
        else:
            calls[name] = lambda own=own, masks=masks: sorted_update(own, masks, grow)
        trains[name] = partial(train, own, masks)
    return calls, trains


def measure(model_name: str, method: str, density: float, device: str, rounds: int) -> dict:
    """Time all contenders in turn; the first round, which compiles, is left out."""
    calls, trains = contenders(model_name, method, density, device)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds + 2):
        for name, call in calls.items():
            trains[name]()
            times[name].append(1e3 * timed(call, device))
    row = {
        "model": model_name,
        "method": method,
        "density": density,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "layers": len(MODELS[model_name]()),
        "first_ms": round(times["ours"][0], 3),
    }
    for name, spent in times.items():
        row[f"{name}_ms"] = spread(spent[2:])
        row[f"{name}_ratio"] = spread(
            [b / a for a, b in zip(times["ours"][2:], spent[2:], strict=True)]
        )
    if device == "cuda":
        row["host_waits"] = host_waits(calls["ours"])
        row["host_waits_core"] = host_waits(calls["core"])
        row["host_waits_layerwise"] = host_waits(calls["layerwise"])
        row["peak_mib"] = round(torch.cuda.max_memory_allocated() / 2**20)
        row["update_mib"] = {name: extra_memory(calls[name]) for name in ("ours", "layerwise")}
    return row


def extra_memory(call) -> int:
    """Return the MiB that a call takes on top of what is there."""
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return round((torch.cuda.max_memory_allocated() - before) / 2**20)


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 3),
        "min": round(ordered[0], 3),
        "max": round(ordered[-1], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["resnet50"], choices=list(MODELS))
    parser.add_argument("--method", nargs="+", default=["RigL", "SET"], choices=["RigL", "SET"])
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for model in arguments.model:
        for method in arguments.method:
            row = measure(model, method, arguments.density, arguments.device, arguments.rounds)
            rows.append(row)
            said = [
                f"{name} {row[name + '_ms']['median']:.2f} ms "
                f"(x {row[name + '_ratio']['median']:.1f})"
                for name in CONTENDERS
                if name + "_ms" in row
            ]
            waits = f"  host waits {row['host_waits']}" if "host_waits" in row else ""
            print(f"{model} {method}: " + ", ".join(said) + waits, flush=True)
            if arguments.json:
                write(arguments.json, rows)


def write(path: Path, rows: list[dict]) -> None:
    environment = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
    }
    path.write_text(json.dumps({"environment": environment, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
