"""Task inference: which task an input belongs to, when that is not given."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from regrow.continual.network import TaskNetwork
from regrow.continual.task import Prototypes
from regrow.engine.checks import check_choice

__all__ = ["features", "infer_task", "measure_prototypes", "nearness", "sureness"]

By = Literal["entropy", "prototype"]


def sureness(logits: Tensor) -> Tensor:
    """Return 1 - H(p)/log K: how sure a task is of its answer, whatever its number of classes.

    Args:
        logits: (samples, K), K at least 2.

    Returns:
        (samples,), from 0 to 1.

    Example:
        >>> sureness(torch.tensor([[0.0, 0.0], [100.0, 0.0]])).tolist()
        [0.0, 1.0]
    """
    logs = logits.log_softmax(1)
    return 1 + (logs.exp() * logs).sum(1) / math.log(logits.shape[1])


def nearness(values: Tensor, prototypes: Prototypes) -> Tensor:
    """Return -d²/s²: how near features are to a class of a task, in terms of the task's spread.

    Args:
        values: (samples, features).
        prototypes: of the task.

    Returns:
        (samples,), at most 0.

    Example:
        >>> near = Prototypes(torch.tensor([[0.0, 0.0], [4.0, 0.0]]), spread=2.0)
        >>> nearness(torch.tensor([[4.0, 2.0]]), near).tolist()
        [-2.0]
    """
    means = prototypes.means.to(values)
    squares = (values[:, None, :] - means[None]).square().sum(2)
    return -squares.min(1).values / prototypes.spread


@torch.no_grad()
def features(network: TaskNetwork, inputs: Tensor, task: int | str) -> Tensor:
    """Return what a task's head is given; (samples, features).

    Raises:
        ValueError: there is no such task.
    """
    caught: list[Tensor] = []

    def catch(_: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        caught.append(arguments[0])

    with network.shown(task) as model:
        handle = network.view.head.register_forward_pre_hook(catch)
        try:
            model(inputs)
        finally:
            handle.remove()
    return caught[-1].flatten(1)


def measure_prototypes(
    network: TaskNetwork, task: int | str, batches: Iterable[tuple[Tensor, Tensor]]
) -> Prototypes:
    """Measure the mean features of a learnt task's classes, and keep them with the task.

    Args:
        network: any.
        task: one that is learnt.
        batches: (inputs, labels), labels as the head counts them, from 0; training data.

    Raises:
        ValueError: the task is not learnt, a label is out of range or a class has no sample.
    """
    one = network.tasks[network.number(task)]
    if not one.learnt:
        raise ValueError(f"task={task!r} is being learnt: finish_task() first")
    pairs = [(features(network, x, task).double().cpu(), y.cpu()) for x, y in batches]
    if not pairs:
        raise ValueError("batches: there is none, and each class needs samples")
    values, labels = (torch.cat(parts) for parts in zip(*pairs, strict=True))
    if labels.is_floating_point() or labels.dtype == torch.bool or bool((labels < 0).any()):
        raise ValueError(
            f"batches: labels of dtype {labels.dtype}, the least {float(labels.min()):g}, are no "
            "numbers of classes: integers from 0 are needed"
        )
    if not values.isfinite().all():
        raise ValueError("batches: features hold NaN or infinity: check the inputs and the model")
    counts = torch.bincount(labels, minlength=len(one.classes))
    if len(counts) > len(one.classes) or not counts.all():
        raise ValueError(
            f"batches: task {one.name} has the labels 0..{len(one.classes) - 1} and needs samples "
            f"of each, but the counts are {counts.tolist()}"
        )
    sums = torch.zeros(len(counts), values.shape[1], dtype=values.dtype)
    means = sums.index_add_(0, labels, values) / counts[:, None]
    spread = float((values - means[labels]).square().sum(1).mean())
    one.prototypes = Prototypes(means.float(), max(spread, torch.finfo(torch.float32).tiny))
    return one.prototypes


@torch.no_grad()
def infer_task(network: TaskNetwork, inputs: Tensor, *, by: By = "entropy") -> Tensor:
    """Tell which of the learnt tasks each input belongs to: the one that is surest of it.

    Every task is shown in turn, so this costs a forward pass a task.

    Args:
        network: with at least one learnt task.
        inputs: a batch; for a decision in common, take the commonest answer.
        by: "entropy": the lowest entropy of the logits, as a fraction of the highest possible.
            "prototype": the least distance to a class's mean features, in terms of the task's mean
            distance (:func:`measure_prototypes`).

    Returns:
        Task numbers, (samples,); ties go to the earlier task.

    Raises:
        ValueError: no task is learnt, one has no prototypes, or, by entropy, only one class, of
            which it is always sure; or what a task answers is NaN, which is no answer.

    Example:
        >>> import regrow
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> network = TaskNetwork(model, regrow.Static(density=0.5))
        >>> _ = network.add_task(2)
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
        >>> _ = network.sparsify(optimizer, total_steps=1)
        >>> _ = network.finish_task()
        >>> infer_task(network, torch.zeros(3, 4)).tolist()
        [0, 0, 0]

    Source: entropy among masks is the idea of Wortsman et al. 2020 (arXiv 2006.14769), from memory;
    there it is minimised over a superposition. The released code of continual learning with dynamic
    sparse training takes the largest summed maximum output instead. The rule by prototypes is our
    own form of nearest-mean classification.
    """
    check_choice(by, ("entropy", "prototype"), "by")
    learnt = range(len(network.learnt))
    if not network.learnt:
        raise ValueError("no task is learnt: there is nothing to choose from")
    scores = []
    for number in learnt:
        task = network.tasks[number]
        if by == "entropy":
            if len(task.classes) == 1:
                raise ValueError(
                    f"by='entropy': task {task.name} has one class, and so is always sure: use "
                    "by='prototype'"
                )
            scores.append(sureness(network.logits(inputs, number)))
            continue
        if task.prototypes is None:
            raise ValueError(
                f"by='prototype': task {task.name} has none: call measure_prototypes() first"
            )
        scores.append(nearness(features(network, inputs, number), task.prototypes))
    found = torch.stack(scores)
    if bad := int(found.isnan().any(0).sum()):
        raise ValueError(
            f"inputs: a task answers {bad} of them by NaN, so that they cannot be told apart: "
            "check that they are finite"
        )
    return found.argmax(0)
