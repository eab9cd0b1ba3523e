"""Hardness scores from the gradients of single samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.functional import cross_entropy

from regrow.vision.hardness.scores import el2n

__all__ = ["grand", "grand_last"]

_AT_ONCE = 1 << 26  # numbers in the gradients that are held at a time: a quarter of a GiB


def grand(model: nn.Module, inputs: Tensor, labels: Tensor, *, chunk: int | None = None) -> Tensor:
    """Measure the gradient a sample gives: ‖∇_w loss(f(x; w), y)‖₂ over all parameters, exactly.

    The loss is the cross-entropy. Gradients of single samples are computed side by side.

    Args:
        model: in eval mode, or a batch's statistics would make samples depend on one another. It is
            not changed, nor are its gradients.
        inputs: shape (n, ...).
        labels: int64, shape (n,).
        chunk: samples at a time; None: as many as a quarter of a GiB of gradients holds.

    Returns:
        Shape (n,), at least 0.

    Raises:
        ValueError: the model is in training mode, it has no parameters, counts differ, or the
            chunk is below 1.

    Source: Paul, Ganguli and Dziugaite 2021 (arXiv 2107.07075), definition 2.1: there the mean over
    initialisations, at one moment early in training.

    Example:
        >>> layer = nn.Linear(1, 2).eval()
        >>> _ = [nn.init.zeros_(p) for p in layer.parameters()]
        >>> grand(layer, torch.tensor([[0.0], [1.0]]), torch.tensor([0, 0])).tolist()
        [0.7071067690849304, 1.0]
    """
    if model.training:
        raise ValueError("model is in training mode: call model.eval() first")
    if len(inputs) != len(labels):
        raise ValueError(f"{len(labels)} labels for {len(inputs)} inputs: must be one each")
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())
    count = sum(p.numel() for p in parameters.values())
    if not count:
        raise ValueError("model has no parameters: there is no gradient to measure")
    size = max(_AT_ONCE // count, 1) if chunk is None else chunk
    if size < 1:
        raise ValueError(f"chunk={chunk}: must be at least 1")

    def sample_loss(weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        logits = functional_call(model, (weights, buffers), (x.unsqueeze(0),))
        return cross_entropy(logits, y.unsqueeze(0))

    per_sample = vmap(grad(sample_loss), in_dims=(None, 0, 0))
    norms = [
        sum(
            (g.flatten(1).square().sum(1) for g in per_sample(parameters, x, y).values()),
            torch.zeros(len(y), device=inputs.device),
        ).sqrt()
        for x, y in zip(inputs.split(size), labels.split(size), strict=True)
    ]
    return torch.cat(norms) if norms else inputs.new_zeros(0)


def grand_last(logits: Tensor, labels: Tensor, features: Tensor, *, bias: bool = True) -> Tensor:
    """Measure a sample's gradient in the last layer alone: ‖p - y‖₂ · ‖(h, 1)‖₂.

    Of a linear layer W h + b under the cross-entropy this is exact: ∇_W = (p - y) hᵀ, ∇_b = p - y.

    Args:
        logits: outputs of the layer, shape (n, classes).
        labels: int64, shape (n,).
        features: its inputs h, shape (n, width).
        bias: whether the layer has one; else ‖p - y‖₂ · ‖h‖₂.

    Returns:
        Shape (n,), at least 0.

    Raises:
        ValueError: shapes do not fit, or a label is no class.

    Example:
        >>> h, y = torch.tensor([[2.0]]), torch.tensor([0])
        >>> grand_last(torch.zeros(1, 2), y, h, bias=False).tolist()
        [1.4142135381698608]
    """
    if features.ndim != 2 or len(features) != len(labels):
        raise ValueError(
            f"features of shape {tuple(features.shape)} for {len(labels)} labels: must be "
            "(n, width)"
        )
    squares = features.float().square().sum(1) + bool(bias)
    return el2n(logits, labels) * squares.sqrt()
