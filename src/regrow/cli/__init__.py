"""The command line: a function a command, whose signature is its options and docstring its help."""

from __future__ import annotations

import json as json_format
import os
import sys
from pathlib import Path
from typing import Any, Literal

__all__ = ["bench", "demo", "main", "methods"]


def demo(
    out: Path = Path("demo-results"),
    seeds: int = 10,
    data: Literal["digits", "fashion-mnist", "cifar10"] = "digits",
    data_dir: Path | None = None,
    first_seed: int = 0,
    jobs: int = -1,
) -> None:
    """Train sparse networks beside dense ones, and write a report.

    A dense network, dense networks with as many parameters as the sparse ones, static sparse
    networks, SET and RigL at densities 0.1 and 0.05: about two minutes on two cores with the
    digits. The other data sets take longer and must be on this machine.

    Args:
        out: Folder for report.html and results.json.
        seeds: Repetitions of everything; verdicts need at least three.
        data: What to learn.
        data_dir: Folder that holds the data set's folder; else $REGROW_DATA and the user's cache.
        first_seed: The first seed. The same seeds give the same numbers.
        jobs: Networks trained side by side, one thread each; -1 is one a core.
    """
    from rich.console import Console  # noqa: PLC0415  (keeps --help fast)

    from regrow.studies.demo.run import run_demo  # noqa: PLC0415

    if seeds < 1:
        raise ValueError(f"seeds={seeds}: must be at least 1")
    console = Console()
    out.mkdir(parents=True, exist_ok=True)
    chosen = range(first_seed, first_seed + seeds)
    run = run_demo(data, chosen, str(data_dir) if data_dir else None, jobs, console)
    (out / "results.json").write_text(json_format.dumps(run.record(), indent=1) + "\n")
    (out / "report.html").write_text(run.page(), "utf-8")
    console.print(f"\nReport with figures: {out / 'report.html'}", soft_wrap=True)


def bench(
    what: Literal["execution", "model"],
    /,
    json: Path | None = None,
    parts: tuple[Literal["wide", "narrow", "resnet", "layers", "memory"], ...] = (
        "wide",
        "narrow",
        "resnet",
        "layers",
        "memory",
    ),
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

    from regrow.engine.tables import draw  # noqa: PLC0415
    from regrow.execution.advise import advise  # noqa: PLC0415
    from regrow.studies.execution import bench as study  # noqa: PLC0415
    from regrow.vision.models import conv_net, mlp, resnet  # noqa: PLC0415

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


def methods(name: str | None = None, /) -> None:
    """List the methods with their sources, or tell all about one.

    Args:
        name: A method's name, or how it begins; without one, all are listed.
    """
    from regrow.catalogue import describe, listing  # noqa: PLC0415  (keeps --help fast)

    print(listing() if name is None else describe(name))


def main() -> None:
    """Run the command line; an error a user can mend is one line, not a traceback."""
    try:
        import tyro  # noqa: PLC0415  (an extra)

        tyro.extras.subcommand_cli_from_dict(
            {"bench": bench, "demo": demo, "methods": methods},
            prog="regrow",
            description="Train neural networks on less: sparse training in PyTorch.",
        )
    except ModuleNotFoundError as error:
        sys.exit(f"regrow: {error.name} is missing; install it with: pip install 'regrow[all]'")
    except BrokenPipeError:  # what reads our output, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (ValueError, FileNotFoundError, PermissionError) as error:
        sys.exit(f"regrow: {error}")
