"""Adversarial attacks by projected gradient descent, and accuracy under attack."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from regrow.engine.checks import check_integer
from regrow.vision.corruptions.draws import Draws

__all__ = ["RobustAccuracy", "pgd", "robust_accuracy"]


class RobustAccuracy(NamedTuple):
    """Shares of images classified right, and of how many.

    Args:
        clean: of images as they are.
        adversarial: of the same images, attacked.
        images: how many there were.

    Example:
        >>> RobustAccuracy(clean=0.9, adversarial=0.4, images=1000).adversarial
        0.4
    """

    clean: float
    adversarial: float
    images: int


def pgd(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    model: nn.Module | None = None,
    radius: float = 8 / 255,
    step: float = 2 / 255,
    steps: int = 10,
    random_start: bool = True,
    seed: int = 0,
    first: int = 0,
) -> Tensor:
    """Attack images by projected gradient descent: raise the loss, near the images.

    x ← clip(x + step · sign(∂L/∂x)), L the cross-entropy, into [0, 1] and to within the radius of
    the image, from a point drawn uniformly within the radius.

    The model is attacked in the mode it is in. In training mode batch norm takes the statistics of
    the attacked batch, as the training pass after it does, and the running ones do not move:
    attacks run on copies of the model's buffers. Gradients of parameters, what sparse layers
    gather for an update, and PyTorch's random state stay as they are, too.

    Source: Madry et al. 2018 (arXiv 1706.06083), section 2.1, for the maximum norm; radius and
    step are those of its CIFAR-10 models, which trained with 7 steps and were tested with 20.

    Args:
        predict: from images in [0, 1] to logits, shape (n, classes); it standardizes by itself. A
            ``DistributedDataParallel`` is attacked through its ``module``.
        images: floats in [0, 1], shape (n, ...).
        labels: integers, shape (n,): the classes to lead away from.
        model: the network behind ``predict``, where that is a function.
        radius: the most by which a value may change, in [0, 1].
        step: by how much each step changes a value, above 0.
        steps: how many, at least 0; each is a forward and a backward pass.
        random_start: begin anywhere within the radius, not at the image.
        seed: another one, another start. Where an image starts follows from seed and index alone.
        first: index of the first of these images, for one batch of many. In training, count on
            from batch to batch, or change the seed, so that starts differ from epoch to epoch.

    Returns:
        New images of the same shape, in float32 (float64 stays): the change is computed in it
        under autocast, too. They leave the radius by no more than its rounding.

    Raises:
        TypeError: images are no floats, labels no integers, or ``predict`` is a function and no
            ``model`` is given.
        ValueError: a value is NaN or outside [0, 1], shapes do not fit, a label is no class, or an
            argument is out of range.
        FloatingPointError: the gradient is NaN.

    Example:
        >>> predict = nn.Linear(2, 2, bias=False)
        >>> _ = predict.weight.data.copy_(torch.tensor([[1.0, -1.0], [0.0, 0.0]]))
        >>> image, label = torch.tensor([[0.5, 1.0]]), torch.tensor([0])
        >>> pgd(predict, image, label, radius=0.25, step=0.125).tolist()
        [[0.25, 1.0]]
    """
    predict, model = _attacked(predict, model)
    _check_options(radius, step, steps)
    seed, first = check_integer(seed, "seed"), check_integer(first, "first")
    _check_batch(images, labels)
    with torch.inference_mode(False), torch.enable_grad(), _unmoved(model, images.device):
        clean = images.detach().to(torch.promote_types(images.dtype, torch.float32), copy=True)
        if not clean.numel():
            return clean
        classes = labels.to(torch.int64, copy=True)
        highest = int(classes.max())
        low, high = (clean - radius).clamp_(min=0), (clean + radius).clamp_(max=1)
        changed, broken = clean, torch.zeros((), dtype=torch.bool, device=clean.device)
        if random_start:
            index = torch.arange(first, first + len(clean), device=clean.device)
            noise = Draws((seed, "pgd"), index).uniform(*clean.shape[1:])
            changed = (clean + radius * (2 * noise - 1)).clamp_(low, high)
        for _ in range(steps):
            gradient = _gradient(predict, changed, classes, highest)
            broken |= gradient.isnan().any()  # the sign of NaN is 0
            changed = (changed + step * gradient.sign()).clamp_(low, high)
    if bool(broken):
        raise FloatingPointError("the gradient of the loss by the images is NaN: check the model")
    return changed


def robust_accuracy(
    predict: Callable[[Tensor], Tensor],
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    model: nn.Module | None = None,
    radius: float = 8 / 255,
    step: float = 2 / 255,
    steps: int = 20,
    random_start: bool = True,
    seed: int = 0,
    tell: Callable[[int], None] = lambda _: None,
) -> RobustAccuracy:
    """Measure accuracy on images as they are and as :func:`pgd` changes them, in eval mode.

    The modes of all modules are put back. The result does not depend on how images are split into
    batches, but for rounding.

    Args:
        predict: as of :func:`pgd`.
        batches: images and labels, on the model's device.
        model: as of :func:`pgd`.
        radius: as of :func:`pgd`.
        step: as of :func:`pgd`.
        steps: as of :func:`pgd`.
        random_start: as of :func:`pgd`.
        seed: as of :func:`pgd`.
        tell: is told after each batch how many images are done.

    Raises:
        TypeError: as :func:`pgd`.
        ValueError: as :func:`pgd`, or there is no image.
        FloatingPointError: as :func:`pgd`, or ``predict`` gives NaN.

    Example:
        >>> predict = nn.Linear(2, 2, bias=False)
        >>> _ = predict.weight.data.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
        >>> images = torch.tensor([[0.9, 0.1], [0.5, 0.4]])
        >>> robust_accuracy(predict, [(images, torch.tensor([0, 0]))], radius=0.1)
        RobustAccuracy(clean=1.0, adversarial=0.5, images=2)
    """
    predict, model = _attacked(predict, model)
    done, clean, adversarial = 0, 0, 0
    with torch.inference_mode(False), _evaluated(model):
        for images, labels in batches:
            attacked = pgd(
                predict,
                images,
                labels,
                model=model,
                radius=radius,
                step=step,
                steps=steps,
                random_start=random_start,
                seed=seed,
                first=done,
            )
            if not len(images):
                continue
            clean += _right(predict, images.to(attacked.dtype), labels)
            adversarial += _right(predict, attacked, labels)
            done += len(images)
            tell(done)
    if not done:
        raise ValueError("batches hold no image: accuracy of none is undefined")
    return RobustAccuracy(clean / done, adversarial / done, done)


def _attacked(
    predict: Callable[[Tensor], Tensor], model: nn.Module | None
) -> tuple[Callable[[Tensor], Tensor], nn.Module]:
    """Return what to call, and the module behind it."""
    if isinstance(predict, nn.parallel.DistributedDataParallel):
        predict = predict.module  # whose reducer would wait for gradients that never come
    if model is None and isinstance(predict, nn.Module):
        model = predict
    if not isinstance(model, nn.Module):
        raise TypeError(
            f"model={model!r}: predict is a function; pass the network that it calls as model=, so "
            "that its batch statistics can be left alone"
        )
    return predict, model


def _check_options(radius: float, step: float, steps: int) -> None:
    if not 0 <= radius <= 1:
        raise ValueError(f"radius={radius}: must be in [0, 1]; of bytes, divide by 255")
    if not 0 < step < math.inf:
        raise ValueError(f"step={step}: must be above 0 and finite")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise ValueError(f"steps={steps!r}: must be an integer, at least 0")


def _check_batch(images: Tensor, labels: Tensor) -> None:
    if not images.is_floating_point():
        raise TypeError(
            f"images of dtype {images.dtype}: must be floats in [0, 1]; divide bytes by 255"
        )
    if labels.is_floating_point() or labels.dtype == torch.bool or labels.is_complex():
        raise TypeError(f"labels of dtype {labels.dtype}: must be integers, one class an image")
    if images.ndim < 2 or labels.shape != images.shape[:1]:
        raise ValueError(
            f"images of shape {tuple(images.shape)} and labels of shape {tuple(labels.shape)}: "
            "must be (n, ...) and (n,)"
        )
    if len(labels) and int(labels.min()) < 0:
        raise ValueError(f"labels from {int(labels.min())}: must be classes, counted from 0")
    if images.numel():
        low, high = (float(end) for end in images.detach().aminmax())
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"images have values from {low:g} to {high:g}: must be in [0, 1], none NaN; "
                "standardize in predict"
            )


def _gradient(
    predict: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, highest: int
) -> Tensor:
    """Differentiate the summed loss: a mean's gradients are smaller in larger batches."""
    images = images.detach().requires_grad_()
    logits = predict(images)
    if logits.ndim != 2 or len(logits) != len(images):
        raise ValueError(
            f"predict gave shape {tuple(logits.shape)} for {len(images)} images: must be "
            "(n, classes)"
        )
    if highest >= logits.shape[1]:
        raise ValueError(f"labels up to {highest}: predict tells {logits.shape[1]} classes, from 0")
    loss = cross_entropy(logits.to(images.dtype), labels, reduction="sum")
    return torch.autograd.grad(loss, images)[0]


@torch.no_grad()
def _right(predict: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> int:
    logits = predict(images)
    if bool(logits.isnan().any()):  # whose argmax would be a class like any other
        raise FloatingPointError("predict gave NaN: check the model")
    return int((logits.argmax(1) == labels).sum())


@contextmanager
def _unmoved(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Let passes change copies of buffers, capture no gradients and draw from a copied state.

    Buffers are exchanged, not written back: a graph that was made before and is walked back later
    finds its tensors unchanged.
    """
    gathering: list[Any] = [m for m in model.modules() if getattr(m, "captures", None) is True]
    places = [
        (module, name, buffer)
        for module in model.modules()
        for name, buffer in module.named_buffers(recurse=False)
    ]
    copies = {id(buffer): buffer.clone() for _, _, buffer in places}  # shared ones stay shared
    try:
        for layer in gathering:
            layer.captures = False
        for module, name, buffer in places:
            setattr(module, name, copies[id(buffer)])
        with torch.random.fork_rng([device] if device.type == "cuda" else []):
            yield
    finally:
        for module, name, buffer in places:
            setattr(module, name, buffer)
        for layer in gathering:
            layer.captures = True


@contextmanager
def _evaluated(model: nn.Module) -> Iterator[None]:
    """Put all modules into eval mode for a while."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
