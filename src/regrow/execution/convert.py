"""Replaces dense layers by stored ones in a model and its optimizer, or says why it cannot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine.dynamic import Dynamic
from regrow.engine.heap import give_back
from regrow.engine.method import Method
from regrow.engine.moments import slots
from regrow.engine.optimizers import inside
from regrow.engine.patterns import NM, Block, Element, Pattern
from regrow.engine.planned import Plan, PlannedLayer
from regrow.engine.scores import Gradient, Random
from regrow.engine.selection import sample, seeded_generator
from regrow.engine.sparse_layer import SparseLayer
from regrow.engine.update import Moves
from regrow.execution.empty import Unmade
from regrow.execution.materialize import drawn_bias, drawn_values, exchange_, materialize_
from regrow.execution.modules import kind_of, stored_module
from regrow.execution.positions import narrow
from regrow.execution.stored import StoredLayer, positions_of
from regrow.execution.stored_module import StoredModule
from regrow.execution.two_four.masked import TwoFourLayer

__all__ = ["convert", "left_masked", "stored_copy", "why_not", "why_not_method"]


def convert(
    model: nn.Module,
    optimizer: Optimizer,
    method: Method,
    plan: Plan,
    seed: int,
    first: Mapping[str, Tensor],
    state: Mapping[str, Any] | None,
) -> dict[str, SparseLayer]:
    """Replace every layer planned as csr or block by one that stores its active weights, in place.

    Those planned as 2:4 keep their weights, and learn to compute by their masks. Layers on the meta
    device are made without ever being dense: their active values are drawn as the dense layer's own
    initialisation draws them. Everything is checked before anything changes.

    Args:
        model: holds the dense layers.
        optimizer: holds their weights; gets the stored ones in their place, state included.
        method: whose topology the layers will follow.
        plan: which layers, how dense, and how executed.
        seed: draws the first topology, as for masks.
        first: the first active units, where a start has chosen them; bool tensors on the grids.
        state: saved layers to resume from.

    Returns:
        The layers that were replaced, by the weight's name.

    Raises:
        ValueError: a layer, or the method, cannot run this way; the message says why, and what can.
    """
    others = [layer for layer in plan.layers if layer.execution != "masked"]
    # Checked layer by layer before any is replaced: a model half converted could not be given back.
    _refuse(model, method, others)
    stored = [layer for layer in others if layer.execution != "2:4"]
    if state is not None:
        for planned in stored:
            _positions(planned, method, seed, first, state)
    layers: dict[str, SparseLayer] = {}
    gathers = method.reads_inactive([Moves(exchange=1, expand=1)])
    for planned in stored:
        positions = _positions(planned, method, seed, first, state)
        parent, _, name = planned.name.removesuffix(".weight").rpartition(".")
        owner = model.get_submodule(parent)
        dense = getattr(owner, name)
        module = stored_copy(dense, positions, method.pattern)
        module.gathers = gathers
        _hand_over_all_(optimizer, dense, module, positions, method.pattern)
        # Under the same name, so that the rest of the model, and its state_dict, find it.
        setattr(owner, name, module)
        layers[planned.name] = StoredLayer(planned, method.pattern, module)
    for planned in others:
        if planned.execution == "2:4":
            dense = cast(nn.Linear, model.get_submodule(planned.name.removesuffix(".weight")))
            draws, units = seeded_generator(seed, planned.name, "start"), first.get(planned.name)
            layers[planned.name] = TwoFourLayer(planned, method.pattern, dense, draws, units)
    if not stored:
        return layers
    _leave_fused_(model)
    materialize_(model, optimizer)
    give_back()
    # Sparse convolutions put out images with the batch innermost; torch's batch norm would copy
    # them into its own layout and back.
    if any(len(layer.shape) > 2 for layer in stored):
        from regrow.execution.csr.norm import with_batch_last  # noqa: PLC0415 no kernels for blocks

        with_batch_last(model)
    return layers


def _leave_fused_(model: nn.Module) -> None:
    """Keep torch's encoder layers from reading the weights of layers that are stored now.

    In inference they hand all their weights to one fused kernel, which takes dense ones only.
    """
    for module in model.modules():
        if not isinstance(module, nn.TransformerEncoderLayer | nn.TransformerEncoder):
            continue
        if not any(isinstance(inner, StoredModule) for inner in module.modules()):
            continue
        if isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0  # by which they tell that they cannot be fused
        else:
            module.use_nested_tensor = False  # which only fused ones take


def left_masked(model: nn.Module, plan: Plan) -> dict[str, str]:
    """Return why weights of ``nn.MultiheadAttention`` stay under a mask, by name.

    It computes with its weights themselves, not by layers that could be replaced, and is part of
    every transformer of torch's: to refuse the whole model for it would help nobody.

    Args:
        model: holds the layers.
        plan: which layers.

    Returns:
        Nothing if no other layer is left to be stored: then that is the error.

    Example:
        >>> from regrow.engine.method import Static
        >>> from regrow.engine.plan import make_plan
        >>> model = nn.TransformerEncoderLayer(8, 2, 16)
        >>> list(left_masked(model, make_plan(model, Static(density=0.5))))
        ['self_attn.in_proj_weight', 'self_attn.out_proj.weight']
    """
    inside_attention = {
        f"{path}.{name}" if path else name
        for path, module in model.named_modules()
        if isinstance(module, nn.MultiheadAttention)
        for name, _ in module.named_parameters()
    }
    left = [layer.name for layer in plan.layers if layer.name in inside_attention]
    why = "nn.MultiheadAttention computes with the weight itself, which only a mask leaves in place"
    return dict.fromkeys(left, why) if len(left) < len(plan.layers) else {}


def stored_copy(dense: nn.Module, positions: Tensor, pattern: Pattern) -> StoredModule:
    """Make the stored layer of a dense one, which stays as it is but for a shared bias."""
    weight, bias = cast(nn.Parameter, dense.weight), cast("nn.Parameter | None", dense.bias)
    if weight.is_meta:
        values, new_bias = drawn_values(dense, positions, pattern), drawn_bias(dense)
    else:
        values, new_bias = _stored_values(weight.detach(), positions, pattern), bias
    stored = stored_module(dense, positions, values, new_bias, pattern)
    stored.train(dense.training)
    stored.weight.requires_grad_(weight.requires_grad)
    return stored


def why_not(model: nn.Module, planned: PlannedLayer, execution: str) -> str | None:
    """Return why a layer cannot be stored this way, or None if it can.

    Example:
        >>> from regrow.engine.method import Static
        >>> from regrow.engine.plan import make_plan
        >>> method, model = Static(density=0.5), nn.Sequential(nn.Bilinear(2, 2, 2))
        >>> layer = make_plan(model, method, include="0.weight").layers[0]
        >>> why_not(model, layer, "csr")
        'it is the weight of a Bilinear; csr is for Linear, Conv1d, Conv2d and Conv3d'
    """
    path, _, attribute = planned.name.rpartition(".")
    module = model.get_submodule(path)
    allowed = _ALLOWED[execution]
    if kind_of(module) not in allowed or attribute != "weight":
        *names, last = (kind.__name__ for kind in allowed)
        listed = f"{', '.join(names)} and {last}" if names else last
        return f"it is the {attribute} of a {type(module).__name__}; {execution} is for {listed}"
    if getattr(module, "parametrizations", None):
        return "it is parametrized: remove the parametrization first"
    if hasattr(module.weight, "full_tensor"):
        return f"it is sharded over ranks, and {execution} computes whole weights"
    if execution == "2:4":  # it stays the module that it is
        return None
    if not path:
        return "it is the model itself, which cannot be replaced: wrap it in nn.Sequential"
    if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
        return "it carries hooks, which would be lost: register them afterwards"
    return _why_not_weight(model, module, execution)


_ALLOWED: dict[str, tuple[type[nn.Module], ...]] = {
    "csr": (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d),
    "block": (nn.Linear,),
    "2:4": (nn.Linear,),
}


def _why_not_weight(model: nn.Module, module: nn.Module, execution: str) -> str | None:
    weight = cast(Tensor, module.weight)
    named = model.named_parameters(remove_duplicate=False)
    # A stored copy would no longer move with the other place that uses the weight.
    if sum(parameter is weight for _, parameter in named) > 1:
        return "its weight is tied to another parameter, which stays dense"
    if getattr(module, "padding_mode", "zeros") != "zeros":
        return f"padding_mode={module.padding_mode!r}: only 'zeros' can be computed"
    if isinstance(weight, Unmade) and (reason := weight.why_not()):
        return reason
    if execution == "csr" and weight.device.type not in ("cpu", "meta"):
        return f"it is on {weight.device}: csr layers compute on the CPU"
    if execution == "csr" and weight.dtype != torch.float32:
        return f"it is {weight.dtype}: csr layers compute in torch.float32"
    return None


def _refuse(model: nn.Module, method: Method, layers: Sequence[PlannedLayer]) -> None:
    """Raise ValueError unless this method can move these layers, stored as planned."""
    for execution in {layer.execution for layer in layers}:
        if reason := why_not_method(method, execution):
            raise ValueError(f"execution={execution!r} with {method.name}: {reason}")
    reasons = {layer.name: why_not(model, layer, layer.execution) for layer in layers}
    if bad := [f"{name}: {reason}" for name, reason in reasons.items() if reason]:
        raise ValueError(
            f"execution={layers[0].execution!r} cannot compute {'; '.join(bad)}. Exclude these "
            "weights, or use execution='masked' or 'auto'"
        )


def why_not_method(method: Method, execution: str) -> str | None:
    """Return why a method cannot move layers stored this way, or None if it can.

    Example:
        >>> from regrow.engine.methods import SET
        >>> why_not_method(SET(density=0.1), "block")
        'pattern=Element(): block stores units of Block(64) or another size; change one of them'
    """
    if execution == "2:4":
        if method.pattern != NM(2, 4):
            return f"pattern={method.pattern}: 2:4 computes units of NM(2, 4); change one of them"
        if type(method).layer is not Method.layer:
            return "its layers keep dropped weights; use execution='masked'"
        return None
    kind, needed = (
        (Block, "Block(64) or another size") if execution == "block" else (Element, "Element()")
    )
    if type(method.pattern) is not kind:
        return f"pattern={method.pattern}: {execution} stores units of {needed}; change one of them"
    # A method that makes layers of its own (Top-KAST) keeps something of weights that are not
    # stored.
    if type(method).layer is not Method.layer:
        return "it keeps dropped weights, which stored layers forget; use execution='masked'"
    if not isinstance(method, Dynamic):
        return None
    if type(method).propose is not Dynamic.propose:
        return "its update looks at whole masks; use execution='masked'"
    if not method.drop.elementwise:
        return f"drop={method.drop!r} looks at whole masks; use Magnitude() or the like"
    if not isinstance(method.grow, Gradient | Random):
        return f"grow={method.grow!r} reads what is not stored; use Gradient() or Random()"
    if method.on_grow == "keep":
        return "on_grow='keep': nothing is kept of inactive weights; use 'zero' or 'mean'"
    return None


def _positions(
    planned: PlannedLayer,
    method: Method,
    seed: int,
    first: Mapping[str, Tensor],
    state: Mapping[str, Any] | None,
) -> Tensor:
    """Return the first active units as ascending positions: those a mask would have drawn."""
    if state is not None:
        if planned.name not in state:
            raise ValueError(f"state: it has no mask of {planned.name}: use the same model")
        return positions_of(planned, method.pattern, state[planned.name])
    if planned.name in first:
        return first[planned.name].flatten().nonzero().squeeze(1).cpu()
    # The same key as for masks: both executions start with the same topology.
    generator = seeded_generator(seed, planned.name, "start")
    return narrow(sample(planned.units, planned.initial, generator), planned.units)


def _hand_over_all_(
    optimizer: Optimizer,
    dense: nn.Module,
    stored: StoredModule,
    positions: Tensor,
    pattern: Pattern,
) -> None:
    """Give the optimizer the stored layer's parameters for the dense one's."""
    hand_over_(
        optimizer,
        cast(nn.Parameter, dense.weight),
        stored.weight,
        lambda slot: _stored_values(slot, positions, pattern),
    )
    if stored.bias is not None and dense.bias is not stored.bias:
        hand_over_(optimizer, cast(nn.Parameter, dense.bias), stored.bias, lambda slot: slot)


def _stored_values(dense: Tensor, positions: Tensor, pattern: Pattern) -> Tensor:
    if isinstance(pattern, Block):
        from regrow.execution.block import gather_blocks  # noqa: PLC0415 no Triton for csr

        return gather_blocks(dense, positions, pattern.size)
    return dense.reshape(-1)[positions.to(dense.device)].clone()


def hand_over_(
    optimizer: Optimizer,
    old: nn.Parameter,
    new: nn.Parameter,
    convert_slot: Callable[[Tensor], Tensor],
) -> None:
    """Put one parameter in the place of another, with the optimizer's state of it."""
    dense_slots = slots(optimizer, old)
    exchange_(optimizer, old, new)
    for one in inside(optimizer):
        if old in one.state:
            kept = one.state.pop(old)
            moved = {n: convert_slot(s) for n, s in dense_slots.items() if n in kept}
            one.state[new] = kept | moved
