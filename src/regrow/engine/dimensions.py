"""Keeps what a parameter says of its dimensions (``weight.output_dim = 1``) for its copies."""

from __future__ import annotations

from typing import Any

from torch import nn

__all__ = ["keep_dimensions_"]

_SAID = ("output_dim", "input_dim")
_KEPT = "_regrow_dimensions"


def keep_dimensions_(model: nn.Module) -> None:
    """Note on each module what its parameters say, and tell parameters that have lost it.

    ``copy.deepcopy`` and ``load_state_dict(assign=True)`` make parameters without the attributes of
    the old ones, modules keep theirs: the copy of a sparse model goes by the same outputs.

    Example:
        >>> import copy
        >>> layer = nn.Linear(2, 2)
        >>> layer.weight.output_dim = 1
        >>> keep_dimensions_(layer)
        >>> twin = copy.deepcopy(layer)
        >>> hasattr(twin.weight, "output_dim"); keep_dimensions_(twin); twin.weight.output_dim
        False
        1
    """
    for module in model.modules():
        kept: dict[str, dict[str, Any]] = dict(getattr(module, _KEPT, {}))
        for name, parameter in module.named_parameters(recurse=False):
            said = {key: getattr(parameter, key) for key in _SAID if hasattr(parameter, key)}
            if said:  # anew, perhaps
                kept[name] = said
            for key, value in kept.get(name, {}).items():
                setattr(parameter, key, value)
        if kept:
            setattr(module, _KEPT, kept)
