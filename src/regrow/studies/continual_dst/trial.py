"""The trial: a learner goes through a stream, and is tested on it after each task."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from regrow.continual.baselines import Learner, Setup, Training, accuracy
from regrow.continual.metrics import (
    average_incremental_accuracy,
    backward_transfer,
    capacity_used,
    final_accuracy,
    mask_overlap,
    reused_share,
)
from regrow.continual.streams import STREAMS, Stream
from regrow.lab.run import Run
from regrow.lab.trial import Trial
from regrow.studies.continual_dst.data import open_stream
from regrow.studies.continual_dst.learners import BuildContext, LearnerSpec
from regrow.training.run import device_of
from regrow.vision.data import standard
from regrow.vision.models import build_model, narrowed

__all__ = ["LearnStream"]


@dataclass(frozen=True, kw_only=True)
class LearnStream(Trial):
    """Learn the tasks of a stream one after another, and test after each.

    Task-incremental: a task's own logits are compared with each other, and with no other's. Test
    images are as they are.

    Args:
        stream: of :data:`regrow.continual.streams.STREAMS`.
        model: of :func:`regrow.vision.models.build_model`.
        learner: who learns.
        training: how each task is trained.
        samples: training images of the data set that are used; None is all.
        tests: test images of the data set that are used; None is all.
        augment: whether to change training images as is usual for the data set.
    """

    stream: str
    model: str
    learner: LearnerSpec
    training: Training
    samples: int | None = None
    tests: int | None = None
    augment: bool = False

    def run(self, run: Run) -> Mapping[str, Any]:
        """Learn and test, resuming after the last task that a checkpoint holds.

        Options of the run: ``data_dir``, ``device``.
        """
        tasks, learner, weights = self._start(run)
        rows: list[list[float]] = []
        used: list[int] = []
        seconds = 0.0
        if (saved := run.load()) is not None:
            learner.load_state_dict(saved["learner"])
            rows, used, seconds = saved["rows"], saved["used"], saved["seconds"]
        tests = [tasks[i].test for i in range(len(rows))]
        for number in range(len(rows), len(tasks)):
            task = tasks[number]
            begin = time.perf_counter()
            learner.learn(task, self._tell(run, number, len(tasks)))
            seconds += time.perf_counter() - begin
            tests.append(task.test)
            rows.append([accuracy(learner, i, test) for i, test in enumerate(tests)])
            used.append(learner.weights_used)
            run.log(task=number + 1, accuracy=rows[-1][-1], mean=sum(rows[-1]) / len(rows[-1]))
            if run.due() and number + 1 < len(tasks):
                state = {"rows": rows, "used": used, "seconds": seconds}
                run.save(state | {"learner": learner.state_dict()})
        return {
            **_accuracies(rows),
            **_masks(learner),
            "weights_used": used,
            "weights": weights,
            "train_seconds": seconds,
        }

    def _start(self, run: Run) -> tuple[Stream, Learner, int]:
        """Open the stream, make the learner, count the network's weights."""
        device = device_of(run.options)
        tasks = open_stream(
            self.stream,
            data_dir=run.options.get("data_dir"),
            seed=self.seed,
            device=device,
            samples=self.samples,
            tests=self.tests,
        )
        first = tasks[0]
        shape, classes = tuple(first.train.inputs.shape[1:]), first.classes

        def network(share: float = 1.0) -> Callable[[], nn.Module]:
            scale = narrowed(self.model, shape, classes, share) if share < 1 else 1.0
            return lambda: build_model(self.model, shape, classes, scale=scale)

        augment = standard(STREAMS[self.stream].data) if self.augment else None
        setup = Setup(network(), self.training, self.seed, device, augment)
        steps = self.training.steps(len(first.train))
        learner = self.learner.make(BuildContext(setup, tasks, network, steps))
        return tasks, learner, _weights(network())

    def _tell(self, run: Run, number: int, tasks: int) -> Callable[[float], None]:
        words = f"task {number + 1} of {tasks}"
        return lambda share: run.tell((number + share) / tasks, words)


def _weights(build: Callable[[], nn.Module]) -> int:
    """Count the weights of linear layers and convolutions, those of the head left out."""
    with torch.device("meta"):
        layers = [m for m in build().modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    return sum(layer.weight.numel() for layer in layers[:-1])


def _accuracies(rows: Sequence[Sequence[float]]) -> dict[str, Any]:
    return {
        "accuracies": [list(row) for row in rows],
        "ACC": final_accuracy(rows),
        "BWT": backward_transfer(rows),
        "incremental": average_incremental_accuracy(rows),
    }


def _masks(learner: Learner) -> dict[str, Any]:
    if not (masks := learner.masks):
        return {}
    return {
        "capacity": capacity_used(masks),
        "reused": reused_share(masks),
        "overlap": [[round(value, 5) for value in row] for row in mask_overlap(masks)],
    }
