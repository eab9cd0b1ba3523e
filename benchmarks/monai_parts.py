"""What regrow.segmentation computes itself, beside MONAI, on one CPU core.

    python benchmarks/monai_parts.py --json results/segmentation-monai/cpu.json

Figures of cases (Dice, surface Dice, HD95), class scores by sliding windows, the loss with its
gradient, and turned and scaled patches are computed by both, in turns; printed are median seconds,
median and quartiles of the ratio taken round by round, and how far the results are apart. Cases are
of the hippocampus, if $REGROW_DATA has it, with each label moved by a voxel as the prediction."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from monai import inferers, losses, metrics, transforms

from regrow.lab.environment import environment
from regrow.segmentation import E2ENet
from regrow.segmentation.augment import Augmentation
from regrow.segmentation.folders import open_folder
from regrow.segmentation.inference import predict_scores
from regrow.segmentation.loss import dice_ce
from regrow.segmentation.metrics import scores_of
from regrow.segmentation.survey import read

Call = Callable[[], object]
CLASSES = {"anterior": [1], "posterior": [2]}
PATCH = (40, 56, 40)


def truths(count: int) -> tuple[list[np.ndarray], str]:
    path = Path(os.environ.get("REGROW_DATA", "")) / "hippocampus"
    if (path / "dataset.json").is_file():
        folder = open_folder(path)
        return [read(case, folder).labels for case in folder.cases[:count]], "hippocampus"
    grid = np.stack(np.meshgrid(*map(np.arange, (36, 50, 35)), indexing="ij"), -1)
    away = np.abs(grid - np.array([18, 25, 17])).max(-1)
    return [np.where(away < 6, 2, np.where(away < 10 + i % 3, 1, 0)) for i in range(count)], "boxes"


def figures(cases: list[np.ndarray]) -> tuple[Call, Call, Callable[[object, object], float]]:
    said = [np.roll(truth, 1, 2) for truth in cases]

    def ours() -> np.ndarray:
        found = [
            scores_of(p, t, CLASSES, (1.0, 1.0, 1.0)) for p, t in zip(said, cases, strict=True)
        ]
        return np.array(
            [[(s.dice, s.surface_dice, s.hausdorff95) for s in f.values()] for f in found]
        )

    def theirs() -> np.ndarray:
        found = []
        for p, t in zip(said, cases, strict=True):
            pair = [
                torch.from_numpy(np.eye(3, dtype=np.float32)[x]).movedim(-1, 0)[None]
                for x in (p, t)
            ]
            options = {"include_background": False}
            dice = metrics.compute_dice(*pair, **options)
            near = metrics.compute_surface_dice(*pair, [1.0, 1.0], **options)
            far = metrics.compute_hausdorff_distance(*pair, percentile=95, **options)
            found.append(torch.stack([dice, near, far], -1)[0].numpy())
        return np.array(found)

    return ours, theirs, lambda a, b: float(np.abs(a - b).max())


def windows() -> tuple[Call, Call, Callable[[object, object], float]]:
    torch.manual_seed(0)
    model = E2ENet(1, 3, channels=(6, 12, 24, 48), strides=(2, 2, 2)).eval()
    model.deep_supervision = False
    image = torch.randn(1, 60, 84, 60)
    inferer = inferers.SlidingWindowInferer(PATCH, sw_batch_size=2, overlap=0.5, mode="gaussian")

    def theirs() -> torch.Tensor:
        with torch.no_grad():
            return inferer(image[None], model)[0]

    ours = lambda: predict_scores(model, image, PATCH)  # noqa: E731
    return ours, theirs, lambda a, b: float((a - b).abs().max())


def loss() -> tuple[Call, Call, Callable[[object, object], float]]:
    torch.manual_seed(0)
    scores = torch.randn(2, 3, *PATCH, requires_grad=True)
    labels = torch.randint(3, (2, *PATCH))
    kind = losses.DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True, smooth_nr=1e-5,
        smooth_dr=1e-5,
    )  # fmt: skip

    def gradient(value: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(value, scores)[0]

    ours = lambda: gradient(dice_ce(scores, labels))  # noqa: E731
    theirs = lambda: gradient(kind(scores, labels[:, None]))  # noqa: E731
    return ours, theirs, lambda a, b: float((a - b).abs().max())


def patches() -> tuple[Call, Call, None]:
    """Turn and scale two patches; both draw anew each time, so that there is nothing to compare."""
    augmentation = Augmentation(
        rotation=1.0, scaling=1.0, noise=0.0, brightness=0.0, contrast=0.0, gamma=0.0, inverted=0.0,
        mirror=(),
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)
    turned = transforms.RandAffined(
        ["image", "label"], prob=1.0, rotate_range=[np.pi / 6] * 3, scale_range=[0.3] * 3,
        mode=["bilinear", "nearest"], padding_mode="zeros", spatial_size=PATCH,
    )  # fmt: skip
    turned.set_random_state(0)
    image, label = torch.randn(2, 1, 60, 84, 60), torch.randint(3, (2, 60, 84, 60))

    def ours() -> object:
        changes = [augmentation.draw(generator, PATCH) for _ in range(2)]
        room = augmentation.room(changes, PATCH)
        cut = [
            slice(c - p // 2 - r, c - p // 2 + p + r)
            for c, p, r in zip((30, 42, 30), PATCH, (min(r, 10) for r in room), strict=True)
        ]
        return augmentation.apply(image[:, :, *cut], label[:, *cut], changes, PATCH)

    def theirs() -> object:
        return [turned({"image": image[i], "label": label[i][None]}) for i in range(2)]

    return ours, theirs, None


def compare(name: str, calls: Mapping[str, Call], apart, rounds: int) -> dict[str, object]:
    results = {side: call() for side, call in calls.items()}
    times: dict[str, list[float]] = {side: [] for side in calls}
    for _ in range(rounds):
        for side, call in calls.items():
            begin = time.perf_counter()
            call()
            times[side].append(time.perf_counter() - begin)
    ratios = [a / b for a, b in zip(times["MONAI"], times["regrow"], strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4, method="inclusive")
    content: dict[str, object] = {"what": name, "ratio": [low, middle, high]}
    content |= {side: statistics.median(values) for side, values in times.items()}
    content["apart"] = None if apart is None else apart(*results.values())
    far = "" if apart is None else f", {content['apart']:.1e} apart"
    print(
        f"{name:16} regrow {content['regrow']:.3f} s, MONAI {content['MONAI']:.3f} s: "
        f"{middle:.2f} times as long ({low:.2f}–{high:.2f}){far}",
        flush=True,
    )
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.rounds < 2:
        parser.error("--rounds must be at least 2: a ratio is given with its spread")
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    cases, source = truths(arguments.cases)
    parts = {"figures": figures(cases), "windows": windows(), "loss": loss(), "patches": patches()}
    rows = [
        compare(name, {"regrow": ours, "MONAI": theirs}, apart, arguments.rounds)
        for name, (ours, theirs, apart) in parts.items()
    ]
    if arguments.json:
        where = environment() | {"monai": metadata.version("monai"), "cases": source}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        content = {"environment": where | {"rounds": arguments.rounds}, "rows": rows}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
