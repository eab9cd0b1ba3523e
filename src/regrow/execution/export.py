"""Exports a trained network: dense or CSR tensors, a small file, a module for inference."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from regrow.engine.saved import pack, unpack
from regrow.execution.inference import inference_module
from regrow.machine import needed
from regrow.reading import check_size, decoding, open_file, refused

__all__ = ["csr_state_dict", "dense_state_dict", "inference_module", "load_packed", "save_packed"]

_BITS_FROM = 1 / 16  # density from which one bit a weight is smaller than a gap a nonzero


def dense_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's state with every weight dense: what the dense model would load.

    Example:
        >>> sorted(dense_state_dict(nn.Linear(2, 1)))
        ['bias', 'weight']
    """
    state = dict(model.state_dict())
    for name, module in model.named_modules():
        if hasattr(module, "dense_weight"):
            for key in [k for k in state if k.startswith(f"{name}.") and not k.endswith(".bias")]:
                del state[key]
            state[f"{name}.weight"] = module.dense_weight().detach()
    return state


def csr_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's state with sparse weights as compressed rows.

    A weight of at least two dimensions that holds zeros is replaced by four plain tensors:
    ``name.crow_indices``, ``name.col_indices``, ``name.values``, ``name.shape``, those of
    ``torch.sparse_csr_tensor`` on the weight flattened to (out, rest).

    Example:
        >>> layer = nn.Linear(3, 2, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[0.0, 2.0, 0.0], [1.0, 0.0, 0.0]]))
        >>> csr_state_dict(layer)["weight.col_indices"].tolist()
        [1, 0]
    """
    state: dict[str, Tensor] = {}
    for name, tensor in dense_state_dict(model).items():
        if not _is_sparse(tensor):
            state[name] = tensor
            continue
        matrix = tensor.flatten(1)
        nonzero = matrix != 0
        state[f"{name}.crow_indices"] = torch.cat(
            [torch.zeros(1, dtype=torch.int64, device="cpu"), nonzero.sum(1).cumsum(0).cpu()]
        )
        state[f"{name}.col_indices"] = nonzero.nonzero()[:, 1].contiguous()
        state[f"{name}.values"] = matrix[nonzero]
        state[f"{name}.shape"] = torch.tensor(tensor.shape, device="cpu")
    return state


def save_packed(model: nn.Module, path: str | os.PathLike[str]) -> None:
    """Write a model to a safetensors file that holds the nonzeros of its sparse weights.

    Where they are takes one bit a weight, or, below a density of 1/16, the gaps between nonzeros in
    two bytes each (four, should one be larger than 65,535). The file is written whole or not at
    all.

    Args:
        model: any model, stored or under masks.
        path: the file; its folder exists.

    Raises:
        ImportError: safetensors is not installed.
        OSError: the file cannot be written.
    """
    tensors: dict[str, Tensor] = {}
    shapes: dict[str, str] = {}
    for name, tensor in dense_state_dict(model).items():
        tensor = tensor.cpu()  # noqa: PLW2901
        if not _is_sparse(tensor):
            tensors[name] = tensor.contiguous().clone()
            continue
        flat = tensor.reshape(-1)
        tensors[f"{name}.values"] = flat[flat != 0]
        tensors[f"{name}.places"] = _places(flat != 0)
        shapes[name] = ",".join(map(str, tensor.shape))
    _, save_file = _safetensors()
    path = Path(path)
    # Written beside the target and then renamed: a process that is killed leaves the old file, not
    # half a new one.
    part = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, str(part), metadata={"regrow": "1", **shapes})
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def load_packed(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read what :func:`save_packed` wrote, as the state of the dense model.

    Raises:
        ImportError: safetensors is not installed.
        FileNotFoundError: there is no such file.
        UnreadableError: the file is damaged, or no packed model; file and tensor are named.
    """
    safe_open, _ = _safetensors()
    path = Path(path)
    open_file(path).close()  # no pipe, which would block
    with decoding(path), safe_open(str(path), framework="pt") as file:
        shapes = dict(file.metadata() or {})
        if shapes.pop("regrow", None) != "1":
            why = "was not written by save_packed: it has no mark of it"
            raise refused(path, why, "give a file that was")
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, text in shapes.items():
            with decoding(f"{path}, {name}"):
                parts = tensors.pop(f"{name}.values"), tensors.pop(f"{name}.places")
                shape = _shape(text)
                size = math.prod(shape) * parts[0].element_size()
                check_size(f"{path}, {name}", size, path.stat().st_size)
                tensors[name] = _dense(shape, *parts)
    return tensors


def _shape(text: str) -> tuple[int, ...]:
    sizes = text.split(",")
    if not all(size.isascii() and size.isdecimal() for size in sizes):
        raise ValueError(f"shape {text!r}")
    return tuple(map(int, sizes))


def _dense(shape: tuple[int, ...], values: Tensor, places: Tensor) -> Tensor:
    """Put values where they belong, after a look at whether they can be there."""
    count = math.prod(shape)
    if places.dtype == torch.uint8:
        positions = unpack(places, shape).reshape(-1).nonzero().squeeze(1)
    elif places.dtype in (torch.uint16, torch.int32) and places.ndim == 1:
        gaps = places.numpy().astype(np.int64)
        if (gaps < 1).any() or int(gaps.sum()) > count:
            raise ValueError(f"places that are none of {count}")
        positions = torch.from_numpy(gaps.cumsum() - 1)
    else:
        raise ValueError(f"places of {places.dtype} with {places.ndim} dimensions")
    if values.shape != positions.shape:
        raise ValueError(f"{tuple(values.shape)} values for {len(positions)} places")
    dense = values.new_zeros(count)
    dense[positions] = values
    return dense.reshape(shape)


def _is_sparse(tensor: Tensor) -> bool:
    floating = tensor.ndim >= 2 and tensor.is_floating_point() and tensor.numel() > 0
    return floating and bool((tensor == 0).any())


def _places(nonzero: Tensor) -> Tensor:
    """Pack where the nonzeros are: bits (uint8), or gaps (uint16 or int32) that sum to places."""
    if float(nonzero.sum()) >= _BITS_FROM * len(nonzero):
        return pack(nonzero)
    # Gaps are small numbers where positions are not: two bytes are nearly always enough.
    gaps = np.diff(np.flatnonzero(nonzero.numpy()) + 1, prepend=0)
    small = gaps.max(initial=0) <= np.iinfo(np.uint16).max
    return torch.from_numpy(gaps.astype(np.uint16 if small else np.int32))


def _safetensors() -> tuple[Any, Any]:
    """Return safetensors' functions that open and save a file."""
    with needed("safetensors", "export"):
        from safetensors import safe_open  # noqa: PLC0415
        from safetensors.torch import save_file  # noqa: PLC0415
    return safe_open, save_file
