"""Counts what a trained network cost and how far its topology moved."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import regrow
from regrow.measure.flops import count_flops, training_flops
from regrow.measure.memory import bytes_allocated, bytes_of_nonzeros, nonzeros
from regrow.measure.movement import churn, distance, exploration
from regrow.training.batch import arguments
from regrow.training.trainer import Trainer

__all__ = ["costs", "movement", "topology"]


def costs(trainer: Trainer[Any]) -> dict[str, Any]:
    """Count parameters, operations and bytes of a finished run.

    Returns:
        ``parameters``, ``nonzeros``, ``inference_flops`` of one input, ``training_flops`` of the
        whole run (dense gradients where the method reads them included), what both would be if all
        weights were kept (``dense_...``), ``bytes_allocated`` of weights, gradients and optimizer
        state as held here, ``bytes_needed`` if only active weights were stored, and on a GPU
        ``peak_memory_bytes``.
    """
    model, optimizer, sparse = trainer.model, trainer.optimizer, trainer.sparse
    dense = isinstance(trainer.setting.method, regrow.Dense)
    allocated = bytes_allocated(model, optimizer, None if dense else sparse).total
    found: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "nonzeros": nonzeros(model),
        "bytes_allocated": allocated,
        "bytes_needed": allocated if dense else bytes_of_nonzeros(model, optimizer, sparse).total,
    }
    if trainer.execution == "masked":
        flops = count_flops(model, *arguments(trainer.example(2)))
        density = {name: _share(mask) for name, mask in sparse.masks.items()}
        found["inference_flops"] = flops.forward(density) / 2
        found["training_flops"] = training_flops(flops, sparse) * trainer.setting.batch / 2
        found["dense_inference_flops"] = flops.forward() / 2
        found["dense_training_flops"] = sparse.steps * flops.step() * trainer.setting.batch / 2
    if trainer.device.type == "cuda":
        found["peak_memory_bytes"] = torch.cuda.max_memory_allocated(trainer.device)
    return found


def movement(trainer: Trainer[Any], first: dict[str, Tensor]) -> dict[str, Any]:
    """Measure how far the topology went from the first one.

    Args:
        trainer: of the run.
        first: the masks it started with.

    Returns:
        ``density`` and ``densities`` by layer, ``updates``, ``explored`` (the share of all weights
        ever active) and ``moved`` (the share of the last topology that the first did not have).
    """
    sparse = trainer.sparse
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


def topology(trainer: Trainer[Any], since: int) -> dict[str, float]:
    """Return where the topology is, and what became of it in the last steps.

    Args:
        trainer: of the run.
        since: the steps it had made before.

    Returns:
        ``density``; once there was an update ``updates`` so far, and ``exchanged``: units grown
        since then as a share of those active, the sum over updates.
    """
    sparse = trainer.sparse
    if not sparse.plan.layers:
        return {"density": 1.0}
    found = {"density": sparse.density}
    if sparse.history:
        found["updates"] = len(sparse.history)
        found["exchanged"] = sum((share for step, share in churn(sparse) if step > since), 0.0)
    return found


def _share(mask: Tensor) -> float:
    return float(mask.float().mean())
