"""Captures passes as CUDA graphs: for small models, launching kernels takes most of a step."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

__all__ = ["graphed"]


def check_outputs(outputs: Any) -> None:
    """Raise an error unless a model returns tensors alone, as CUDA graphs need it.

    Raises:
        ValueError: one is not.

    Example:
        >>> check_outputs({"logits": torch.ones(2), "states": None})
        Traceback (most recent call last):
        ValueError: graphs=True: the model returns a NoneType: leave it out, or give graphs=False
    """
    for output in tree_leaves(outputs):
        if not isinstance(output, Tensor):
            raise ValueError(
                f"graphs=True: the model returns a {type(output).__name__}: leave it out, or give "
                "graphs=False"
            )


def graphed(
    model: nn.Module,
    example: tuple[Tensor, ...],
    autocast: Callable[[], AbstractContextManager[Any]],
) -> Callable[..., Any]:
    """Capture a model's training passes for inputs of one shape.

    Args:
        model: on a GPU; its state and its own ``forward`` stay as they are.
        example: its arguments, of the shapes that those of all batches have.
        autocast: the context it will be called in, without a cache.

    Returns:
        What to call in training, over the same parameters.

    Raises:
        ValueError: the model returns something besides tensors.
    """
    before = copy.deepcopy(model.state_dict())  # warming up moves the batch norms' averages
    model.train()
    with autocast(), warnings.catch_warnings():
        # It warms up on one stream and captures on another, which newer torch remarks on.
        warnings.filterwarnings("ignore", "The AccumulateGrad node's stream")
        # Torch keeps one stream for all captures, and makes it on the GPU that was first.
        torch.cuda.graph.default_capture_stream = None
        with torch.no_grad(), torch.random.fork_rng([torch.cuda.current_device()]):
            check_outputs(model(*example))
        torch.cuda.make_graphed_callables(model, example)
    forward: Callable[..., Any] = model.__dict__.pop("forward")
    model.load_state_dict(before)
    return forward
