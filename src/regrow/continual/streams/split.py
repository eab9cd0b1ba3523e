"""Split streams: the classes of a data set are shared out among tasks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from regrow.continual.streams.task import Arrays, Part, Stream, TaskData, check_arrays
from regrow.engine.selection import seeded_generator

__all__ = ["class_order", "split"]


def split(
    data: Arrays,
    tasks: int | Sequence[int],
    *,
    order: Sequence[int] | None = None,
    name: str = "split",
) -> Stream:
    """Share out the classes among tasks; a task's targets count from 0.

    Args:
        data: the arrays of a data set.
        tasks: how many tasks of equally many classes; or how many classes each task has, at least
            1 each, which need not be equal and sum to all classes.
        order: the classes as they are shared out; None is by their label.
        name: of the stream.

    Returns:
        A stream whose tasks keep their samples in the data set's order.

    Raises:
        ValueError: classes cannot be shared out so, ``order`` is no order of the classes, or a
            class has no samples.

    Source: Zenke, Poole & Ganguli 2017 (arXiv 1703.04200), section 5 (Split-MNIST, Split-CIFAR).

    Example:
        >>> from types import SimpleNamespace
        >>> x, y = torch.arange(6.0), torch.tensor([0, 1, 2, 0, 1, 2])
        >>> data = SimpleNamespace(
        ...     train_inputs=x, train_labels=y, test_inputs=x, test_labels=y, classes=3
        ... )
        >>> stream = split(data, (2, 1))
        >>> [task.labels for task in stream], stream[0].train.targets.tolist()
        ([(0, 1), (2,)], [0, 1, 0, 1])
    """
    check_arrays(data)
    sizes = _sizes(tasks, data.classes)
    classes = list(range(data.classes)) if order is None else list(order)
    if sorted(classes) != list(range(data.classes)):
        raise ValueError(f"order={order}: must hold each of 0..{data.classes - 1} once")
    _check_samples(data)
    ends = torch.tensor(sizes).cumsum(0).tolist()
    groups = [tuple(classes[end - n : end]) for n, end in zip(sizes, ends, strict=True)]

    def make(index: int) -> TaskData:
        labels = groups[index]
        said = ", ".join(map(str, labels)) if len(labels) <= 5 else f"{len(labels)} classes"
        return TaskData(
            f"{name} {index}: {said}",
            labels,
            _of(data.train_inputs, data.train_labels, labels, data.classes),
            _of(data.test_inputs, data.test_labels, labels, data.classes),
        )

    return Stream(name, make, len(groups))


def class_order(classes: int, seed: int) -> list[int]:
    """Return the classes in a random order, which depends on the seed alone.

    Args:
        classes: how many, at least 1.
        seed: of the order.

    Example:
        >>> sorted(class_order(4, seed=1))
        [0, 1, 2, 3]
    """
    return torch.randperm(classes, generator=seeded_generator(seed, "classes")).tolist()


def _sizes(tasks: int | Sequence[int], classes: int) -> list[int]:
    if isinstance(tasks, int):
        if tasks < 1 or classes % tasks:
            raise ValueError(
                f"tasks={tasks}: {classes} classes cannot be shared out equally; give the number "
                f"of classes of each task, such as {(classes - 1, 1)}"
            )
        return [classes // tasks] * tasks
    sizes = list(tasks)
    if not sizes or min(sizes) < 1 or sum(sizes) != classes:
        raise ValueError(
            f"tasks={tuple(sizes)}: class counts of at least 1 that sum to {classes} are needed"
        )
    return sizes


def _check_samples(data: Arrays) -> None:
    for part, labels in (("train", data.train_labels), ("test", data.test_labels)):
        counts = torch.bincount(labels.cpu(), minlength=data.classes)
        if empty := (counts == 0).nonzero().flatten().tolist():
            raise ValueError(f"{part}_labels: class {empty[0]} has no sample: leave the class out")


def _of(inputs: Tensor, labels: Tensor, wanted: tuple[int, ...], classes: int) -> Part:
    place = torch.full((classes,), -1, dtype=torch.int64, device=labels.device)
    place[torch.tensor(wanted, device=labels.device)] = torch.arange(
        len(wanted), device=labels.device
    )
    targets = place[labels]
    index = (targets >= 0).nonzero().flatten()
    return Part(inputs[index.to(inputs.device)], targets[index])
