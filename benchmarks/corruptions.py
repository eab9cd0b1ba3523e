"""Time of corruptions, beside the package imagecorruptions on one CPU core.

    python benchmarks/corruptions.py --json results/corruption-throughput/cpu.json

Both corrupt the same bytes with ImageNet-C's parameters, in turns; printed are seconds a thousand
images, all severities together, and median and quartiles of the ratio taken round by round. The
package is not among regrow's own: install it with opencv-python-headless and scikit-image. Without
it, or on a GPU, only this side is timed. ``--table cifar`` times this side with CIFAR-10-C's
parameters as well. Images are test images of CIFAR-10, or noise without $REGROW_DATA. The page on
corruptions shows every record in results/corruption-throughput."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import types
import warnings
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from regrow.lab.environment import environment
from regrow.vision.corruptions import CORRUPTIONS, EXTRA, corrupt
from regrow.vision.data import load_data

SEVERITIES = range(1, 6)
Call = Callable[[], object]


def images(count: int, side: int) -> tuple[Tensor, str]:
    try:
        some = load_data("cifar10", download=False).test_inputs[:count]
    except FileNotFoundError:
        print("CIFAR-10 is not there: noise instead")
        return torch.randint(256, (count, 3, side, side)).to(torch.uint8), "noise"
    if side == 32:
        return some, "test images of CIFAR-10"
    enlarged = functional.interpolate(some.float(), (side, side), mode="bicubic")
    return enlarged.round().clamp(0, 255).to(torch.uint8), "test images of CIFAR-10, enlarged"


def package() -> Callable[..., np.ndarray] | None:
    """Import imagecorruptions with what newer versions of its own needs have lost."""
    here = types.SimpleNamespace(
        resource_filename=lambda name, file: str(Path(sys.modules[name].__file__).parent / file)
    )
    try:
        import scipy.ndimage  # noqa: PLC0415
        from skimage.filters import gaussian  # noqa: PLC0415

        sys.modules.setdefault("pkg_resources", here)
        sys.modules.setdefault("scipy.ndimage.interpolation", scipy.ndimage)
        np.float_ = np.float64  # noqa: NPY201
        import imagecorruptions  # noqa: PLC0415
    except ImportError as error:
        print(f"imagecorruptions cannot be imported ({error}): nothing to compare with")
        return None
    imagecorruptions.corruptions.gaussian = lambda image, sigma, multichannel=False, **more: (
        gaussian(image, sigma, channel_axis=-1 if multichannel else None, **more)
    )
    return imagecorruptions.corrupt


def seconds(call: Call, device: str) -> float:
    begin = time.perf_counter()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - begin


def ours(name: str, some: Tensor, table: str) -> Call:
    return lambda: [corrupt(some, name, severity, table=table) for severity in SEVERITIES]


def theirs(corrupted: Callable[..., np.ndarray], name: str, some: Tensor) -> Call:
    arrays = list(some.permute(0, 2, 3, 1).contiguous().numpy())
    return lambda: [corrupted(a, severity, name) for severity in SEVERITIES for a in arrays]


def row(name: str, times: dict[str, list[float]], per: float) -> dict[str, object]:
    content: dict[str, object] = {"corruption": name}
    line = f"{name:18s}"
    for side, values in times.items():
        content[side] = per * statistics.median(values)
        line += f"  {side} {content[side]:8.3f} s"
    if "package" in times:
        pairs = zip(times["package"], times["imagenet"], strict=True)
        # Inclusive: quartiles of the rounds there are, never beyond the fastest and the slowest.
        ratios = [a / b for a, b in pairs]
        low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
        content["ratio"] = [low, middle, high]
        line += f"  {middle:6.1f} times as fast ({low:.1f}–{high:.1f})"
    print(line, flush=True)
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--table", choices=["cifar", "tiny-imagenet"], help="timed as well")
    parser.add_argument("--only", nargs="+", choices=CORRUPTIONS + EXTRA, help="default: the 15")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("--rounds must be at least 2: a ratio is given with its spread")
    torch.set_num_threads(arguments.threads)
    warnings.simplefilter("ignore")
    some, source = images(arguments.images, arguments.side)
    other = package() if arguments.device == "cpu" else None
    tables = ["imagenet"] + [arguments.table] * (arguments.table is not None)
    on_device = some.to(arguments.device)
    totals: dict[str, list[float]] = {}
    rows = []
    for name in arguments.only or CORRUPTIONS:
        calls = {table: ours(name, on_device, table) for table in tables}
        for call in calls.values():
            call()  # tables and matrices are made once
        if other is not None:
            calls["package"] = theirs(other, name, some)
        times: dict[str, list[float]] = {side: [] for side in calls}
        for _ in range(arguments.rounds):
            for side, call in calls.items():
                times[side].append(seconds(call, arguments.device))
        rows.append(row(name, times, 1000 / len(some)))
        for side, values in times.items():
            so_far = totals.setdefault(side, [0.0] * arguments.rounds)
            totals[side] = [a + b for a, b in zip(so_far, values, strict=True)]
    rows.append(row("all", totals, 1000 / len(some)))
    if "ratio" in rows[0]:
        median = statistics.median(each["ratio"][1] for each in rows[:-1])
        print(f"median of the ratios: {median:.1f}")
    if arguments.json:
        where = environment() | {
            "device": arguments.device,
            "threads": arguments.threads,
            "images": list(some.shape),
            "source": source,
            "rounds": arguments.rounds,
            "package": metadata.version("imagecorruptions") if other else "none",
        }
        content = {"environment": where, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
