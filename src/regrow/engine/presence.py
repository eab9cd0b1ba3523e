"""Finds sparse weights in a model by name, or says what became of one and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine.wrappers import owner

__all__ = ["Place", "find", "holder", "parametrized_by", "places", "require_held", "why_not_free"]

# Where a weight or a module hangs: the dict it is in, its key, and what was there when looked at.
Place = tuple[dict[str, object], str, object]

# Parametrizations that only scale: a zero of the parameter is a zero of the weight.
_KEEP_ZEROS = {"_WeightNorm", "_SpectralNorm", "Identity"}

_AGAIN = "or call remove() on its Sparsifier and sparsify() again"


def find(model: nn.Module, name: str, shape: tuple[int, ...] | None = None) -> nn.Parameter:
    """Return a parameter by name.

    Args:
        model: that it was in when the model was made sparse.
        name: as ``named_parameters`` gives it.
        shape: it must have; None: any.

    Raises:
        RuntimeError: it is gone, hidden behind another, of another shape, or without values; says
            what to do.

    Example:
        >>> find(nn.Linear(3, 2), "weight", (2, 3)).shape
        torch.Size([2, 3])
    """
    _, weight = holder(model, name)
    if shape is not None and tuple(weight.shape) != shape:
        raise RuntimeError(
            f"{name} is sparse with shape {shape}, but its shape is {tuple(weight.shape)} now: "
            f"the layer was replaced; put it back, {_AGAIN}"
        )
    if weight.is_meta:
        raise RuntimeError(
            f"{name} is sparse, and is on the meta device now, without values: give the model "
            "memory by to_empty() and its weights by load_state_dict() before it is used"
        )
    return weight


def holder(model: nn.Module, name: str) -> tuple[nn.Module, nn.Parameter]:
    """Return the module that holds a parameter, and the parameter, by its name in the model.

    Raises:
        RuntimeError: it is gone, or hidden behind another; says what to do.

    Example:
        >>> type(holder(nn.Sequential(nn.Linear(3, 2)), "0.weight")[0]).__name__
        'Linear'
    """
    path, _, key = name.rpartition(".")
    module: nn.Module | None = model
    for part in filter(None, path.split(".")):
        module = module and owner(module, part)._modules.get(part)
    if module is None:
        raise RuntimeError(
            f"{name} is sparse, but the model has no layer {path!r} any more: it was removed or "
            f"renamed; put it back, {_AGAIN}"
        )
    module = owner(module, key)
    if (weight := module._parameters.get(key)) is not None:
        return module, weight
    if hidden := what_hides(module, key):
        raise RuntimeError(f"{name} is sparse, and was changed since: {hidden}, {_AGAIN}")
    raise RuntimeError(
        f"{name} is sparse, but {path or 'the model'} is a {type(module).__name__} without a "
        f"parameter {key!r} now: the layer was replaced; put it back, {_AGAIN}"
    )


def what_hides(module: nn.Module, key: str) -> str | None:
    """Return by what a layer's weight is computed anew at every call, and what takes that away.

    Example:
        >>> from torch.nn.utils import prune
        >>> layer = prune.random_unstructured(nn.Linear(4, 4), "weight", 0.5)
        >>> what_hides(layer, "weight")[:51]
        'it is pruned by torch.nn.utils.prune, whose mask mu'
    """
    if f"{key}_orig" in module._parameters and f"{key}_mask" in module._buffers:
        return (
            "it is pruned by torch.nn.utils.prune, whose mask multiplies the one of regrow: call "
            f"torch.nn.utils.prune.remove(layer, {key!r}) first, which keeps its zeros"
        )
    parametrized = getattr(module, "parametrizations", None)
    if parametrized is not None and key in parametrized:
        kinds = ", ".join(type(one).__name__ for one in parametrized[key])
        return (
            f"it is parametrized by {kinds}: call torch.nn.utils.parametrize."
            f"remove_parametrizations(layer, {key!r}) first"
        )
    if f"{key}_v" in module._parameters:
        return f"it has a weight norm: call torch.nn.utils.remove_weight_norm(layer, {key!r}) first"
    return None


def why_not_free(model: nn.Module, name: str) -> str | None:
    """Return why zeros written into a parameter would not be the layer's zeros; None if they are.

    Example:
        >>> why_not_free(nn.Linear(2, 2), "weight")
    """
    path, _, key = name.rpartition(".")
    module = model.get_submodule(path)
    if key.endswith("_orig") and (hidden := what_hides(module, key.removesuffix("_orig"))):
        return hidden
    kinds = parametrized_by(model, name)
    if kinds is None or set(kinds.split(", ")) <= _KEEP_ZEROS:
        return None
    return (
        f"it is parametrized by {kinds}, which need not keep zeros: call torch.nn.utils."
        "parametrize.remove_parametrizations() first"
    )


def parametrized_by(model: nn.Module, name: str) -> str | None:
    """Return what computes the layer's weight from this parameter, by class; None if nothing does.

    Example:
        >>> layer = nn.utils.parametrizations.orthogonal(nn.Linear(2, 2))
        >>> parametrized_by(layer, "parametrizations.weight.original")
        '_Orthogonal'
    """
    path, _, _ = name.rpartition(".")
    around = model.get_submodule(path)
    if not isinstance(around, nn.utils.parametrize.ParametrizationList):
        return None
    return ", ".join(type(one).__name__ for one in around)


def places(model: nn.Module, names: Iterable[str]) -> list[Place]:
    """Return where each parameter and the modules around it hang, each place once.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2))
        >>> [key for _, key, _ in places(model, ["0.weight", "0.bias"])]
        ['0', 'weight', 'bias']
    """
    found: dict[tuple[int, str], Place] = {}
    for name in names:
        *path, last = name.split(".")
        module = model
        for key in path:
            inside: dict[str, Any] = owner(module, key)._modules
            found[id(inside), key] = inside, key, inside[key]
            module = inside[key]
        held: dict[str, Any] = owner(module, last)._parameters
        found[id(held), last] = held, last, held[last]
    return list(found.values())


def require_held(optimizer: Optimizer, weights: Mapping[str, Tensor]) -> None:
    """Raise RuntimeError unless an optimizer holds these parameters.

    Example:
        >>> weight = nn.Parameter(Tensor(2))
        >>> from torch.optim import SGD
        >>> require_held(SGD([weight], lr=0.1), {"w": weight})
    """
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    if others := [name for name, weight in weights.items() if id(weight) not in held]:
        raise RuntimeError(
            f"{', '.join(others)}: the layer was replaced since sparsify(), or its parameter by "
            "load_state_dict(assign=True) or a conversion, and "
            f"{type(optimizer).__name__} does not hold its new weight: load without assign, put "
            "the old layer back, or call sparse.remove(), build the optimizer anew and call "
            "sparsify(..., state=sparse.state_dict()) with it"
        )
