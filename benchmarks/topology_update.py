"""Time of one topology update over all layers of a model, beside a plain full-sort implementation.

    python benchmarks/topology_update.py --model resnet50 --method RigL --device cpu

Both are run in turn, several rounds; printed are medians, the range, and the ratio round by round.
The plain implementation is what most public codes do: sort all of a layer's magnitudes, mask, sort
all of its gradients, mask, with a count read back from the device for every layer."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
import warnings
from pathlib import Path

import torch
from shapes import MODELS, weights_only
from torch import nn

import regrow

FRACTION = 0.3


@torch.no_grad()
def plain_update(model: nn.ParameterDict, masks: dict[str, torch.Tensor], grow: str) -> None:
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


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def timed(call, device: str) -> float:
    synchronize(device)
    begin = time.perf_counter()
    call()
    synchronize(device)
    return time.perf_counter() - begin


def host_waits(call) -> int:
    """Count how often the host waits for the device in a call, by CUDA's own warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        call()
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchroniz" in str(w.message) for w in caught)


def measure(model_name: str, method: str, density: float, device: str, rounds: int) -> dict:
    model = weights_only(model_name, device)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    options = {"drop_fraction": FRACTION, "update_every": 1, "stop_at": 1.0}
    sparse = regrow.sparsify(
        model,
        optimizer,
        regrow.METHODS[method](density=density, **options),
        total_steps=10**6,
        include="*",
    )
    plain = weights_only(model_name, device)
    masks = {name: mask.to(plain[name].dtype) for name, mask in sparse.masks.items()}
    grow = "random" if method == "SET" else "gradient"
    ours, theirs = [], []
    for _ in range(rounds + 1):
        ours.append(timed(sparse.update_, device))
        theirs.append(timed(lambda: plain_update(plain, masks, grow), device))
    ratios = [b / a for a, b in zip(ours[1:], theirs[1:], strict=True)]
    row = {
        "model": model_name,
        "method": method,
        "density": density,
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "layers": len(sparse.masks),
        "ours_ms": spread([1e3 * t for t in ours[1:]]),
        "plain_ms": spread([1e3 * t for t in theirs[1:]]),
        "ratio": spread(ratios),
    }
    if device == "cuda":
        row["host_waits"] = host_waits(sparse.update_)
        row["host_waits_plain"] = host_waits(lambda: plain_update(plain, masks, grow))
    return row


def spread(values: list[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "median": round(statistics.median(ordered), 3),
        "min": round(ordered[0], 3),
        "max": round(ordered[-1], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=list(MODELS), choices=list(MODELS))
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
            print(
                f"{model:9s} {method:5s} {row['ours_ms']['median']:9.1f} ms"
                f"  plain {row['plain_ms']['median']:9.1f} ms"
                f"  ratio {row['ratio']['median']:.1f} ({row['ratio']['min']:.1f}"
                f"–{row['ratio']['max']:.1f})"
                + (f"  host waits {row['host_waits']}" if "host_waits" in row else ""),
                flush=True,
            )
    if arguments.json:
        environment = {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "threads": torch.get_num_threads(),
        }
        content = {"environment": environment, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
