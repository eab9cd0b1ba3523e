"""Finds pairs of layers where the outputs of one are, unit by unit, the inputs of the next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from torch import nn

__all__ = ["follows", "is_activation", "is_layer", "uses_of"]

# Between two layers these leave every unit where it is: what comes out of a unit depends on that
# unit, or on how all are distributed.
_UNIT_BY_UNIT = (
    nn.Identity,
    nn.modules.dropout._DropoutNd,
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
_MIXING = (nn.MultiheadAttention, nn.GLU, nn.Softmax, nn.Softmin, nn.Softmax2d, nn.LogSoftmax)
_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def follows(model: nn.Module) -> dict[str, str]:
    """Return for weights the weight before it, where the model's structure leaves no doubt.

    Linear layers and convolutions follow one another in an ``nn.Sequential`` with nothing but
    activations, norms and dropout between them. The order in which a module of another kind calls
    its layers is unknown, and nothing is said of them.

    Args:
        model: any module.

    Example:
        >>> follows(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
        {'2.weight': '0.weight'}
        >>> follows(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten(), nn.Linear(4, 2)))
        {}
    """
    uses = uses_of(model)
    chains = [module for module in model.modules() if _is_chain(module)]
    inside = {id(child) for chain in chains for child in chain.children()}
    preceding: dict[str, str] = {}
    for name, module in model.named_modules():
        if _is_chain(module) and id(module) not in inside:
            preceding |= _in_chain(name, module, uses)
    return preceding


def _in_chain(name: str, chain: nn.Module, uses: Counter[int]) -> dict[str, str]:
    preceding, before = {}, None
    for path, module in _flat(name, chain):
        # A tied weight is used in more than one place.
        if is_layer(module) and uses[id(module._parameters.get("weight"))] == 1:
            weight = f"{path}.weight"
            if before is not None:
                preceding[weight] = before
            before = weight
        elif not _is_unit_by_unit(module):
            before = None
    return preceding


def _flat(name: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Yield what a chain calls, in order; chains inside it are taken apart."""
    if not _is_chain(module):
        yield name, module
        return
    for key, child in module._modules.items():  # each as often as it is called
        if child is not None:
            yield from _flat(f"{name}.{key}".lstrip("."), child)


def _is_chain(module: nn.Module) -> bool:
    # A subclass with a forward of its own may call its children in any order.
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def is_layer(module: nn.Module) -> bool:
    """Tell whether a module computes as a plain linear layer or convolution.

    FSDP puts subclasses in the place of layers.
    """
    return any(isinstance(module, k) and type(module).forward is k.forward for k in _LAYERS)


def is_activation(module: nn.Module) -> bool:
    """Tell whether a module is an activation of torch's that leaves every unit where it is."""
    kinds = (kind.__module__ for kind in type(module).__mro__)
    return nn.modules.activation.__name__ in kinds and not isinstance(module, _MIXING)


def uses_of(model: nn.Module) -> Counter[int]:
    """Count how often a model holds each parameter, by identity: tied ones more than once."""
    return Counter(id(p) for _, p in model.named_parameters(remove_duplicate=False))


def _is_unit_by_unit(module: nn.Module) -> bool:
    return is_activation(module) or isinstance(module, _UNIT_BY_UNIT)
