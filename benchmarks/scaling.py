"""Trainings on 1, 2, 4 … GPUs of a host: samples a second, and what keeps them from doubling.

    python benchmarks/scaling.py --json OUT.json                    as many GPUs as there are
    python benchmarks/scaling.py --ranks 1 2 --size tiny --json OUT.json    gloo, on a CPU

Each number of ranks is started by torchrun. A training is that of the library (``Trainer``:
sparsify, DDP, precision), on a batch that is on the device already: no time goes into data. Timed
in turns, as medians over rounds: a step; a step whose gradients stay on their rank; all-reduces of
buckets as large as the gradients, and of nothing else. A step that waits for nobody is as fast on
any number of ranks; what it is slower by is what was not hidden behind the backward pass.

On one GPU passes are captured as CUDA graphs, as the library does, which several ranks do not have:
one rank is timed without them, too.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.nn import functional

import regrow
from regrow.lab.environment import environment
from regrow.segmentation import E2ENet, feature_fusion
from regrow.segmentation.loss import dice_ce
from regrow.speech.ctc import ctc_losses
from regrow.speech.features import MELS
from regrow.speech.recogniser import SIZES, Recogniser
from regrow.training import Batch, Setting, Source, Trainer
from regrow.vision.models import imagenet_resnet

MODES = ("same batch a rank", "same batch in all")
BUCKET = 25 * 2**20  # bytes of gradients that DDP sends together
UNITS, CLASSES = 30, 16


@dataclass(frozen=True)
class Training:
    """What is trained.

    Args:
        build: makes the model.
        data: makes inputs and targets of so many samples.
        loss: of outputs and targets.
        batch: samples.
        method: how it is kept sparse, and of what.
        steps: in a round.
        graphs: whether one rank is timed with CUDA graphs, too.
    """

    build: Callable[[], nn.Module]
    data: Callable[[int], tuple[Any, Any]]
    loss: Callable[[Any, Any], Tensor]
    batch: int
    method: dict[str, Any]
    steps: int = 10
    graphs: bool = True


def images(side: int) -> Callable[[int], tuple[Any, Any]]:
    return lambda n: (torch.randn(n, 3, side, side), torch.randint(1000, (n,)))


def cubes(side: int) -> Callable[[int], tuple[Any, Any]]:
    return lambda n: (
        torch.randn(n, 1, side, side, side),
        torch.randint(CLASSES, (n, side, side, side)),
    )


def utterances(frames: int) -> Callable[[int], tuple[Any, Any]]:
    def make(n: int) -> tuple[Any, Any]:
        labels = torch.randint(1, UNITS, (n, frames // 16))
        heard = torch.randn(n, frames, MELS), torch.full((n,), frames)
        return heard, (labels, torch.full((n,), frames // 16))

    return make


def of_volumes(outputs: Any, targets: Any) -> Tensor:
    halves = [0.5**i for i in range(len(outputs))]
    return dice_ce(outputs, targets, [weight / sum(halves) for weight in halves])


def of_speech(outputs: Any, targets: Any) -> Tensor:
    sums, _ = ctc_losses(outputs.log_probs, outputs.steps, *targets)
    return sums / targets[1]


def trainings(tiny: bool) -> dict[str, Training]:
    """Return what is trained, by name."""
    rigl = {"method": regrow.RigL(density=0.1, update_every=100)}
    depth, side, batch = (18, 32, 4) if tiny else (50, 224, 128)
    cube, volumes = (16, 4) if tiny else (128, 4)
    size, frames, spoken = ("tiny", 64, 4) if tiny else ("41m", 1600, 32)
    return {
        f"ResNet-{depth}, RigL": Training(
            lambda: imagenet_resnet(depth), images(side), functional.cross_entropy, batch, rigl
        ),
        "E2ENet, cubes": Training(
            lambda: E2ENet(1, CLASSES, *([(4, 8, 16)] if tiny else [])),
            cubes(cube),
            of_volumes,
            volumes,
            feature_fusion(0.2, update_every=100),
            steps=5,
        ),
        f"Conformer {size}, RigL": Training(
            lambda: Recogniser(UNITS, SIZES[size]),
            utterances(frames),
            of_speech,
            spoken,
            rigl,
            graphs=False,  # batches of speech differ in shape
        ),
    }


class Same:
    """The same batch for ever."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 10**9

    def epoch(self, number: int) -> Iterator[Batch]:
        while True:
            yield self.batch


def trainer_of(training: Training, batch: int, device: torch.device, graphs: bool) -> Trainer[Any]:
    """Make the trainer of a rank, whose batch is there already."""
    rank, ranks = distributed.get_rank(), distributed.get_world_size()
    torch.manual_seed(rank)
    own = batch // ranks
    inputs, targets = training.data(own)
    to = lambda x: x.to(device) if isinstance(x, Tensor) else tuple(t.to(device) for t in x)  # noqa: E731
    source = Source(
        batches=Same(Batch(to(inputs), to(targets), torch.arange(own, device=device))),
        # CUDA graphs are captured for the shapes of a whole batch, which is that of one rank.
        example=lambda n: training.data(n)[0],
        steps=10**9,
    )
    torch.manual_seed(0)
    return Trainer(
        Setting(
            seed=0,
            epochs=1,
            batch=batch,
            learning_rate=1e-3,
            precision="bfloat16" if device.type == "cuda" else "float32",
            **training.method,
        ),
        training.build(),
        source,
        lambda outputs, batch: training.loss(outputs, batch.targets),
        lambda outputs, batch: {},
        device,
        graphs=graphs,
    )


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Return the seconds of the rank that takes longest."""
    distributed.barrier()
    synchronize(device)
    begin = time.perf_counter()
    work()
    synchronize(device)
    took = torch.tensor(time.perf_counter() - begin, device=device)
    distributed.all_reduce(took, distributed.ReduceOp.MAX)
    return float(took)


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(trainer: Trainer[Any], rounds: int, steps: int) -> dict[str, Any]:
    """Time a step, a step whose gradients are kept, and all-reduces of as many bytes, in turns."""
    device = trainer.device
    gradients = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    left, buckets = 4 * gradients, []
    while left > 0:
        buckets.append(torch.zeros(min(left, BUCKET) // 4, device=device))
        left -= BUCKET
    taken = trainer.epoch_steps()
    quiet = getattr(trainer.forward, "no_sync", nullcontext)

    def take(context: Callable[[], Any]) -> None:
        with context():
            for _ in range(steps):
                next(taken)

    def send() -> None:
        for _ in range(steps):
            for work in [distributed.all_reduce(one, async_op=True) for one in buckets]:
                work.wait()

    parts = {
        "step": lambda: take(nullcontext),
        "step, gradients kept": lambda: take(quiet),
        "all-reduce alone": send,
    }
    found: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(rounds + 2):  # the first two warm up
        for name, work in parts.items():
            found[name].append(1e3 * timed(work, device) / steps)
    row: dict[str, Any] = {"gradient_mbytes": 4 * gradients / 1e6}
    for name, values in found.items():
        low, middle, high = statistics.quantiles(values[2:], n=4, method="inclusive")
        row[name] = {"ms": middle, "quartiles": [low, high]}
    return row


def be_a_rank(tiny: bool, rounds: int, steps: int | None, only: list[str], out: Path) -> None:
    """Measure everything on the ranks that there are."""
    on_gpu = torch.cuda.is_available() and not tiny
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"])) if on_gpu else torch.device("cpu")
    if on_gpu:
        torch.cuda.set_device(device)
        torch.backends.cudnn.benchmark = True
    else:
        torch.set_num_threads(1)
    distributed.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo")
    ranks, rows = distributed.get_world_size(), []
    for name, training in trainings(tiny).items():
        if only and not any(one.lower() in name.lower() for one in only):
            continue
        for mode in MODES if ranks > 1 else MODES[:1]:
            batch = training.batch * (ranks if mode == MODES[0] else 1)
            if batch % ranks:
                continue
            captured = training.graphs and ranks == 1 and on_gpu
            for graphs in (True, False) if captured else (False,):
                trainer = trainer_of(training, batch, device, graphs)
                row = {"training": name, "ranks": ranks, "mode": mode, "graphs": graphs}
                row |= {"batch": batch, **measure(trainer, rounds, steps or training.steps)}
                row["samples_per_second"] = 1e3 * batch / row["step"]["ms"]
                rows.append(row)
                if distributed.get_rank() == 0:
                    print(json.dumps(row), flush=True)
                del trainer
                if on_gpu:
                    torch.cuda.empty_cache()
    if distributed.get_rank() == 0:
        where = environment() | {"backend": distributed.get_backend()}
        if on_gpu:
            where["nccl"] = ".".join(map(str, torch.cuda.nccl.version()))
        out.write_text(json.dumps({"environment": where, "rows": rows}))
    distributed.destroy_process_group()


def launch(ranks: int, words: list[str]) -> dict[str, Any]:
    """Let torchrun start so many ranks of this file, and return what they measured."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rows.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        command += ["--nproc-per-node", str(ranks), __file__, *words, "--rank-writes", str(out)]
        subprocess.run(command, check=True)
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def show(rows: list[dict[str, Any]]) -> None:
    """Print a line for each row, beside one rank without CUDA graphs."""
    plain = [row for row in rows if row["ranks"] == 1 and not row["graphs"]]
    alone = {row["training"]: row["samples_per_second"] for row in plain}
    print(f"{'training':22}{'ranks':>6}  {'mode':18}{'batch':>6}{'step':>9}{'quiet':>9}", end="")
    print(f"{'reduce':>9}{'samples/s':>11}{'times':>7}")
    for r in rows:
        parts = (r[name]["ms"] for name in ("step", "step, gradients kept", "all-reduce alone"))
        mode = "with CUDA graphs" if r["graphs"] else r["mode"]
        print(f"{r['training']:22}{r['ranks']:6}  {mode:18}{r['batch']:6}", end="")
        print("".join(f"{ms:9.2f}" for ms in parts), end="")
        speed = r["samples_per_second"]
        times = f"{speed / alone[r['training']]:7.2f}" if r["training"] in alone else ""
        print(f"{speed:11.1f}{times}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", help="numbers of ranks, one after another")
    parser.add_argument("--size", choices=("full", "tiny"), default="full", help="tiny: on the CPU")
    parser.add_argument("--only", nargs="*", default=[], help="trainings, by a part of their names")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, help="in a round; 10, of cubes 5")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rank-writes", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.rounds < 7:
        parser.error(f"--rounds {given.rounds}: medians are of at least 7")
    tiny = given.size == "tiny"
    if given.rank_writes:
        be_a_rank(tiny, given.rounds, given.steps, given.only, given.rank_writes)
        return
    gpus = torch.cuda.device_count()
    if not tiny and not gpus:
        parser.error("torch sees no GPU here: give --size tiny, which runs on the CPU")
    numbers = given.ranks or [n for n in (1, 2, 4, 8) if n <= max(gpus, 1)]
    words = ["--size", given.size, "--rounds", str(given.rounds)]
    words += ["--steps", str(given.steps)] if given.steps else []
    words += ["--only", *given.only] if given.only else []
    whole: dict[str, Any] = {"rows": []}
    for number in numbers:
        found = launch(number, words)
        whole = {"environment": found["environment"], "rows": whole["rows"] + found["rows"]}
        if given.json:  # after each, so that what was measured stays
            given.json.write_text(json.dumps(whole, indent=1) + "\n")
    show(whole["rows"])


if __name__ == "__main__":
    main()
