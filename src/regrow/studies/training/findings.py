"""What a trained network cost and how its topology moved, as plain numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import regrow
from regrow.measure.flops import count_flops, training_flops
from regrow.measure.memory import bytes_allocated, bytes_of_nonzeros, nonzeros
from regrow.measure.movement import distance, exploration
from regrow.studies.training.loop import Training

__all__ = ["costs", "movement"]


def costs(training: Training) -> dict[str, Any]:
    """Count parameters, operations and bytes of a finished run.

    Returns:
        ``parameters``, ``nonzeros``, ``inference_flops`` of one input, ``training_flops`` of the
        whole run (dense gradients where the method reads them included), what both would be if all
        weights were kept (``dense_...``), ``bytes_allocated`` of weights, gradients and optimizer
        state as held here, ``bytes_needed`` if only active weights were stored, and on a GPU
        ``peak_memory_bytes``.
    """
    model, optimizer, sparse = training.model, training.optimizer, training.sparse
    dense = isinstance(training.setting.method, regrow.Dense)
    allocated = bytes_allocated(model, optimizer, None if dense else sparse).total
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "nonzeros": nonzeros(model),
        "bytes_allocated": allocated,
        "bytes_needed": allocated if dense else bytes_of_nonzeros(model, optimizer, sparse).total,
    }
    if training.execution == "masked":
        flops = count_flops(model, torch.zeros(2, *training.source.shape, device=training.device))
        density = {name: _share(mask) for name, mask in sparse.masks.items()}
        found["inference_flops"] = flops.forward(density) / 2
        found["training_flops"] = training_flops(flops, sparse) * training.setting.batch / 2
        found["dense_inference_flops"] = flops.forward() / 2
        found["dense_training_flops"] = sparse.steps * flops.step() * training.setting.batch / 2
    if training.device.type == "cuda":
        found["peak_memory_bytes"] = torch.cuda.max_memory_allocated(training.device)
    return found


def movement(training: Training, first: dict[str, Tensor]) -> dict[str, Any]:
    """Measure how far the topology went from the first one.

    Args:
        training: the run.
        first: the masks it started with.

    Returns:
        ``density`` and ``densities`` by layer, ``updates``, ``explored`` (the share of all weights
        ever active) and ``moved`` (the share of the last topology that the first did not have).
    """
    sparse = training.sparse
    masks = sparse.masks
    if not masks:
        return {"density": 1.0, "densities": {}, "updates": 0, "explored": 1.0, "moved": 0.0}
    return {
        "density": sparse.density,
        "densities": {name: _share(mask) for name, mask in masks.items()},
        "updates": len(sparse.history),
        "explored": exploration(sparse)["total"],
        "moved": distance(first, masks)["total"],
    }


def _share(mask: Tensor) -> float:
    return float(mask.float().mean())
