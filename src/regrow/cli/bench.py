"""``regrow bench``."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import Any, Literal

__all__ = ["bench"]


def bench(
    what: Literal["execution", "model"],
    /,
    json: Path | None = None,
    parts: tuple[
        Literal["wide", "narrow", "resnet", "layers", "inference", "memory", "advice"], ...
    ] = ("wide", "narrow", "resnet", "layers", "inference", "memory", "advice"),
    turns: int = 5,
    threads: int | None = None,
    model: Literal["perceptron", "conv-net", "resnet-20"] = "perceptron",
    width: int = 1000,
    batch: int = 128,
    densities: tuple[float, ...] = (0.2, 0.1, 0.05, 0.01),
) -> None:
    """Measure on this machine how fast and how small sparse training is.

    "execution" trains dense and stored networks in turns, a few minutes in all. "model" times one
    model's training step dense, under masks and stored, layer by layer, in seconds; for a model of
    your own call regrow.advise(model, example_inputs).

    Args:
        what: "execution" or "model".
        json: Write all numbers to this file.
        parts: For "execution": what is measured.
        turns: For "execution": repetitions.
        threads: Of torch; else as torch has it.
        model: For "model": which one.
        width: For "model": hidden units, or channels of the first stage.
        batch: For "model": images in a batch.
        densities: For "model": shares of weights kept.
    """
    import torch  # noqa: PLC0415  (keeps --help fast)
    from rich.console import Console  # noqa: PLC0415

    from regrow.cli.checks import check_between, check_threads  # noqa: PLC0415
    from regrow.engine.tables import draw  # noqa: PLC0415
    from regrow.execution.advise import advise  # noqa: PLC0415
    from regrow.lab.files import check_writable  # noqa: PLC0415
    from regrow.studies.execution import bench as study  # noqa: PLC0415
    from regrow.vision.models import conv_net, mlp, resnet  # noqa: PLC0415

    check_threads(threads)
    for name, value in (("turns", turns), ("width", width), ("batch", batch)):
        check_between(name, value, 1, 2**16)
    for density in densities:
        if not 0 < density <= 1:
            raise ValueError(f"densities={density}: must be above 0 and at most 1")
    if not densities or not parts:
        raise ValueError("densities, parts: name at least one of each")
    if json:
        check_writable(json, "json")
    console = Console()
    if threads:
        torch.set_num_threads(threads)
    if what == "execution":
        record: dict[str, Any] = {"environment": study.surroundings(), "parts": []}
        for name in parts:
            with console.status(study.title(name)):
                record["parts"].append(study.measure(name, turns))
            rows = study.table(record["parts"][-1])
            console.print(f"{study.title(name)}\n{draw(rows)}\n", soft_wrap=True, highlight=False)
            if json:
                json.write_text(json_format.dumps(record, indent=1) + "\n")
        for key, value in record["environment"].items():
            console.print(f"{key}: {value}", soft_wrap=True, highlight=False)
        return
    built = {
        "perceptron": lambda: mlp(784, width, 10, hidden=3),
        "conv-net": lambda: conv_net(3, width, 10),
        "resnet-20": lambda: resnet(3, width, 10),
    }[model]()
    shape = (784,) if model == "perceptron" else (3, 32, 32)
    with console.status("timing every layer, dense and stored"):
        advice = advise(built, torch.randn(batch, *shape), densities)
    console.print(str(advice), soft_wrap=True, highlight=False)
