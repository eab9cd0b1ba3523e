"""In which order a model's weights are pruned: stages, each calibrated on what is pruned before it.

A stage is one of the blocks that a model repeats, with all its weights, as the published rules have
it; a weight outside of such blocks is a stage of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from regrow.engine.layouts import is_conv1d
from regrow.pruning.inputs import parts_of, readable

__all__ = ["Use", "stages", "uses"]


@dataclass(frozen=True)
class Use:
    """A module whose calls show what weights multiply.

    Args:
        path: of the module in the model.
        module: itself.
        names: the weights' names in the model, by their names in the module.
    """

    path: str
    module: nn.Module
    names: Mapping[str, str]

    def only(self, names: Collection[str]) -> Use:
        """Return the same of some of its weights, by their names in the model."""
        return replace(self, names={key: n for key, n in self.names.items() if n in names})


def uses(model: nn.Module, names: Sequence[str], rule: str) -> list[Use]:
    """Find every module that reads one of these weights; one that is shared has several.

    Raises:
        ValueError: a weight is held by a module whose vectors cannot be read.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        >>> model[1].weight = model[0].weight
        >>> [(use.path, dict(use.names)) for use in uses(model, ["0.weight"], "Wanda")]
        [('0', {'weight': '0.weight'}), ('1', {'weight': '0.weight'})]
    """
    wanted = {id(model.get_parameter(name)): name for name in names}
    # The last projection of an attention is never called: the attention reads its weight.
    inside = {id(m.out_proj) for m in model.modules() if isinstance(m, nn.MultiheadAttention)}
    found: list[Use] = []
    read: dict[str, tuple[bool, int]] = {}  # how a weight is read: which way round, in what parts
    for path, module in model.named_modules():
        keys = () if id(module) in inside else readable(module)
        held = {key: id(module.get_parameter(key)) for key in keys}
        own = {key: wanted[weight] for key, weight in held.items() if weight in wanted}
        for key, name in own.items():
            way = is_conv1d(module), parts_of(module, key)
            if read.setdefault(name, way) != way:
                raise ValueError(
                    f"{name} is shared by layers that read it in different ways; the other is "
                    f"{path}.{key}: exclude it, or prune it by OMP"
                )
        if own:
            found.append(Use(path, module, own))
        for key, parameter in module.named_parameters(recurse=False):
            if id(parameter) in wanted and key not in own and id(module) not in inside:
                raise ValueError(
                    f"{wanted[id(parameter)]} is held by a {type(module).__name__}, as "
                    f"{path}.{key}, and what it multiplies there is not known to {rule}, which "
                    "reads the inputs of linear and bilinear layers, convolutions that are not "
                    "transposed, attention and recurrent layers of torch, and Conv1D of "
                    "transformers: exclude it, or prune it by OMP"
                )
    return found


def stages(model: nn.Module, order: Sequence[Use]) -> list[list[str]]:
    """Group weights into stages, in the order in which their modules are first called.

    Args:
        model: the module.
        order: the modules that read weights, by their first calls.

    Returns:
        Names of weights, each once.

    Example:
        >>> block = lambda: nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
        >>> model = nn.ModuleList([block(), block()])
        >>> names = [name for name, one in model.named_parameters() if one.ndim > 1]
        >>> stages(model, uses(model, names, "Wanda"))
        [['0.a.weight', '0.b.weight'], ['1.a.weight', '1.b.weight']]
    """
    blocks = _blocks(model)
    grouped: dict[str, list[str]] = {}
    taken: set[str] = set()
    for use in order:
        for name in use.names.values():
            if name in taken:
                continue
            taken.add(name)
            inside = [path for path in blocks if use.path.startswith(f"{path}.")]
            grouped.setdefault(inside[0] if inside else name, []).append(name)
    return list(grouped.values())


def _blocks(model: nn.Module) -> list[str]:
    """Return the paths of modules that repeat: two or more of one class in a list, outermost."""
    found: list[str] = []
    for path, module in model.named_modules():
        if not isinstance(module, nn.ModuleList | nn.Sequential):
            continue
        if any(path.startswith(f"{block}.") for block in found):
            continue
        kinds = [type(child) for child in module]
        for key, child in module.named_children():
            lists = isinstance(child, nn.ModuleList | nn.Sequential)
            if not lists and next(child.children(), None) and kinds.count(type(child)) > 1:
                found.append(f"{path}.{key}".lstrip("."))
    return found
