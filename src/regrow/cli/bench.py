"""``regrow bench``."""

from __future__ import annotations

import json as json_format
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import nn

__all__ = ["bench", "model_of"]


def bench(
    what: Literal["execution", "model"],
    /,
    json: Path | None = None,
    parts: tuple[
        Literal["wide", "narrow", "resnet", "layers", "inference", "memory", "advice"], ...
    ] = ("wide", "narrow", "resnet", "layers", "inference", "memory", "advice"),
    turns: int = 5,
    threads: int | None = None,
    model: str = "mlp-1000-1000-1000",
    shape: tuple[int, ...] = (),
    classes: int = 10,
    width: int | None = None,
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
        model: For "model": a name as of "regrow train", such as mlp-300-100, conv-net, resnet20,
            deit-tiny.
        shape: For "model": of one input; else 784 for a perceptron, 3 32 32 for images, 3 16 64 64
            for clips.
        classes: For "model": outputs.
        width: For "model": channels of the first stage, or of tokens; else as the model has it. The
            name of a perceptron says its widths.
        batch: For "model": inputs in a batch.
        densities: For "model": shares of weights kept.
    """
    import torch  # noqa: PLC0415  (keeps --help fast)
    from rich.console import Console  # noqa: PLC0415

    from regrow.cli.checks import check_between, check_threads  # noqa: PLC0415
    from regrow.engine.tables import draw  # noqa: PLC0415
    from regrow.execution.advise import advise  # noqa: PLC0415
    from regrow.lab.files import check_writable  # noqa: PLC0415
    from regrow.studies.execution import bench as study  # noqa: PLC0415

    check_threads(threads)
    sizes = [("shape", size) for size in shape] + ([] if width is None else [("width", width)])
    for name, value in (("turns", turns), ("batch", batch), ("classes", classes), *sizes):
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
    built, inputs = model_of(model, shape, classes, width)
    with console.status("timing every layer, dense and stored"):
        advice = advise(built, torch.randn(batch, *inputs), densities)
    console.print(str(advice), soft_wrap=True, highlight=False)


def model_of(
    name: str, shape: Sequence[int], classes: int, width: int | None
) -> tuple[nn.Module, Sequence[int]]:
    """Build a model by its name in the catalogue; return it with the shape of its inputs.

    Without a shape it is that of CIFAR's images, or the nearest that the model takes.

    Raises:
        ValueError: there is none of this name, it takes no such inputs, or has no such width.
    """
    from regrow.vision.models import MODELS, build_model, check_model  # noqa: PLC0415

    check_model(name)
    known = MODELS.get(name)
    if width is not None and (known is None or not known.width):
        raise ValueError(f"width={width}: model={name!r} has none to set, or its name says it")
    usual: tuple[int, ...] = (784,)
    if known is not None:
        side = int(min(32, known.sides[1]))
        usual = (3, 16, 64, 64) if known.clips else (3, side, side)
    scale = 1.0 if width is None or known is None else width / known.width
    return build_model(name, shape or usual, classes, scale=scale), shape or usual
