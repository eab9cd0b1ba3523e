"""`sparsify`: checks all arguments, then makes a model sparse."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from operator import index
from typing import Any, SupportsIndex

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from regrow.engine.backends import MASKED, find_backend, stores
from regrow.engine.checks import check_integer, check_type
from regrow.engine.dimensions import keep_dimensions_
from regrow.engine.drivers import check_optimizer, check_together, driver
from regrow.engine.first_values import first_values
from regrow.engine.history import read_progress
from regrow.engine.layer import free_units
from regrow.engine.layouts import turned
from regrow.engine.method import Method
from regrow.engine.moments import check_slots
from regrow.engine.plan import Globs, make_plan
from regrow.engine.planned import Plan, PlannedLayer
from regrow.engine.ranks import replicas
from regrow.engine.saved import check_names, read_counts
from regrow.engine.selection import seeded_generator
from regrow.engine.sparse_layer import SparseLayer
from regrow.engine.sparsifier import Sparsifier
from regrow.engine.topology import Topology
from regrow.engine.usable import check_dtypes, check_not_sparse, not_on_meta
from regrow.engine.whole import unchanged_on_error
from regrow.engine.wrappers import under_names, unwrap

__all__ = ["driver", "sparsify"]

logger = logging.getLogger("regrow")


def sparsify(
    model: nn.Module,
    optimizer: Optimizer,
    method: Method,
    *,
    total_steps: int,
    include: Globs = None,
    exclude: Globs = None,
    available: Mapping[str, Tensor] | None = None,
    frozen: Mapping[str, Tensor] | None = None,
    rescale: bool = False,
    execution: str = "masked",
    example_inputs: Any = None,
    seed: int = 0,
    state: Mapping[str, Any] | None = None,
) -> Sparsifier:
    """Make a model sparse and keep it so while its optimizer steps.

    Weights outside the first topology are set to zero in place. From then on ``optimizer.step()``
    drives the method: no wrapper, no parametrisation, no line in the training loop. Call it once
    the model is on its device and the optimizer is built, on every rank alike.

    Args:
        model: any module; DDP, DataParallel and compiled modules are looked into.
        optimizer: any ``torch.optim`` optimizer that holds every weight to be sparse; Accelerate's
            wrapper is looked into.
        method: such as ``regrow.RigL(density=0.1)``.
        total_steps: optimizer steps of the whole run; schedules refer to it.
        include: globs over parameter names that become sparse, in place of the default choice
            (linear, bilinear, convolution, attention and recurrent).
        exclude: globs over parameter names that stay dense.
        available: bool tensors by parameter name; where False, a weight is held for ever at its
            present value: neither dropped, grown, nor moved by any optimizer.
        frozen: bool tensors by parameter name; where True, a weight is dropped and grown like any
            other, but is never moved by an optimizer, and always grown with its present value.
        rescale: multiply the kept weights of each layer by 1/√density, so that its outputs keep the
            variance a dense initialisation gives them (Evci et al. 2022, arXiv 2010.03533). For
            fresh weights only, never for trained ones.
        execution: how sparse layers are computed. "masked": dense weights times masks, which saves
            neither time nor memory; every method and layer. "csr": on the CPU, weights, gradients
            and optimizer state for active weights only. "block": the same for blocks of weights, on
            a GPU. "2:4": under masks, forward passes by a GPU's sparse tensor cores, for NM(2, 4).
            "auto": each layer the way that is fastest, timed. Stored layers replace those
            inside the model, and their parameters those inside the optimizer; a model made on the
            meta device is then never dense.
        example_inputs: for "auto": a batch as training will see it; a tensor, or a tuple of the
            model's arguments.
        seed: fixes every random choice, on any device and number of ranks.
        state: a saved ``Sparsifier.state_dict()`` to resume from. No new topology is then drawn, so
            that weights loaded into the model before are not masked by one.

    Returns:
        The sparsifier, to be saved with the model and the optimizer. ``print(sparse.summary())``
        shows which layers are sparse, how dense they are, and why others are not.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument is out of range, a glob matches nothing, the optimizer does not hold
            a weight, moves weights inside ``backward()`` or keeps state that grown weights cannot
            be given a first value in, a weight has 8 bits, or the model is sparse already. The
            model is then as it was, whatever was raised: also by Ctrl-C or for want of memory.

    Example:
        >>> import regrow
        >>> model = nn.Linear(8, 4)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        >>> sparse = regrow.sparsify(model, optimizer, regrow.RigL(density=0.25), total_steps=100)
        >>> int(torch.count_nonzero(model.weight)), sparse.density
        (8, 0.25)
    """
    # Order matters: what can be refused without drawing anything comes first, what changes the
    # model last, so that an error leaves the model as it was.
    total_steps, seed = _check_run(method, total_steps, seed)
    check_type(rescale, bool, "rescale", "True")
    backend = find_backend(execution)
    inner, optimizer = unwrap(model), driver(optimizer)
    keep_dimensions_(inner)
    plan = make_plan(inner, method, include, exclude)
    weights = {layer.name: inner.get_parameter(layer.name) for layer in plan.layers}
    check_dtypes(weights)
    check_optimizer(optimizer, weights)
    check_together(optimizer, method)
    check_not_sparse(weights)
    held = _check_masks({} if available is None else available, weights, "available")
    fixed = _check_masks({} if frozen is None else frozen, weights, "frozen")
    if reason := method.why_no_update(total_steps):
        logger.warning("%s will make no update: %s", method.name, reason)
    first: dict[str, Tensor] = {}
    if state is not None:
        read_progress(state, method.name)
        state = {**state, "layers": under_names(state["layers"], list(weights))}
        check_names(state["layers"], list(weights))
        # A start may have chosen other counts than the allocation gives; those it chose are in the
        # state.
        plan = _with_saved_counts(plan, method, state["layers"])
    elif method.start is not None:
        first = _first_units(model, method, plan, seed, held)
        plan = _with_counts(plan, first)
    if backend is not None and backend.assign is not None:
        # What is timed anew may be chosen otherwise, and weights that were stored would not fit.
        saved_how = (state or {}).get("execution")
        if saved_how is None:
            plan = backend.assign(model, optimizer, method, plan, example_inputs)
        else:
            plan = _as_saved(plan, saved_how)
    else:
        left = backend.leaves(inner, plan) if backend is not None and backend.leaves else {}
        for name, why in left.items():
            logger.warning(
                "%s stays under a mask, and takes a dense weight's memory: %s", name, why
            )
        plan = plan.changed(
            lambda layer: (
                {"why": left[layer.name]} if layer.name in left else {"execution": execution}
            )
        )
    # A method that grows nothing writes no state.
    policy = "keep" if method.next_update(0, total_steps) is None else method.on_grow
    slots = [(one.name, weights[one.name], stores(one.execution)) for one in plan.layers]
    check_slots(optimizer, slots, policy)
    masked = [layer for layer in plan.layers if layer.execution == MASKED]
    dense = [layer.name for layer in plan.layers if not stores(layer.execution)]
    written = [not_on_meta(name, weights[name]) for name in dense]
    # From here on the model changes, whole or not at all.
    with unchanged_on_error(inner, optimizer, written):
        layers: dict[str, SparseLayer] = {
            layer.name: method.layer(
                layer,
                weights[layer.name],
                seeded_generator(seed, layer.name, "start"),
                first.get(layer.name),
                held.get(layer.name),
            )
            for layer in masked
        }
        for name, layer in layers.items():
            if name in fixed:
                layer.freeze_(fixed[name], weights[name])
        if state is not None:
            for name, layer in layers.items():
                layer.check_state(state["layers"][name])
        if backend is not None and len(masked) < len(plan.layers):
            _check_replaceable(model, plan, held | fixed)
            saved = state and state["layers"]
            layers |= backend.convert(model, optimizer, method, plan, seed, first, saved)
        topology = Topology(inner, [layers[layer.name] for layer in plan.layers])
        logger.info("%s\n%s", method, plan)
        before = first_values(topology.pairs()) if state is None else {}
        if rescale and state is None:
            topology.apply_()
            topology.rescale_()
        # The hooks come last: what failed before has left no trace.
        return Sparsifier(topology, optimizer, method, plan, total_steps, seed, state, before)


def _first_units(
    model: nn.Module, method: Method, plan: Plan, seed: int, available: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Let the method's start choose the active units, on all ranks alike."""
    assert method.start is not None
    inner = unwrap(model)
    weights = {layer.name: inner.get_parameter(layer.name) for layer in plan.layers}
    if sharded := [name for name, weight in weights.items() if hasattr(weight, "full_tensor")]:
        raise ValueError(
            f"start={type(method.start).__name__}: {', '.join(sharded)} is sharded over ranks, and "
            "only whole models are scored: use a method that starts at random, or "
            "DistributedDataParallel"
        )
    patterns = {layer.name: turned(method.pattern, layer.layout) for layer in plan.layers}
    free = {name: free_units(patterns[name], mask) for name, mask in available.items()}
    if nothing := [name for name, units in free.items() if not units.any()]:
        raise ValueError(f"available: no unit of {', '.join(nothing)} is free: exclude it")
    # Each rank scores its own data: without averaging and broadcasting, replicas would start with
    # different masks and drift apart.
    ranks = replicas(model, weights)
    chosen = method.start.choose(inner, plan.layers, method.pattern, seed, free=free, ranks=ranks)
    return ranks.as_first(chosen)


def _check_replaceable(model: nn.Module, plan: Plan, held: Mapping[str, Tensor]) -> None:
    """Raise ValueError unless layers may be replaced by a backend's own."""
    if any(layer.name in held for layer in plan.layers if layer.execution != MASKED):
        raise ValueError(
            "available, frozen: stored and 2:4 layers cannot hold weights; use execution='masked'"
        )
    names = [layer.name for layer in plan.layers if stores(layer.execution)]
    if names and unwrap(model) is not model:
        raise ValueError(
            f"{', '.join(names)} would be replaced, which the {type(model).__name__} around the "
            "model would not see: call sparsify() first, then wrap the model"
        )


def _with_counts(plan: Plan, units: Mapping[str, Tensor]) -> Plan:
    """Return the plan with as many units in each layer as were chosen."""
    layers = [_counted(layer, int(units[layer.name].sum())) for layer in plan.layers]
    return Plan(tuple(layers), plan.skipped)


def _with_saved_counts(plan: Plan, method: Method, saved: Mapping[str, Any]) -> Plan:
    """Return the plan with the counts that a start had chosen when the state was saved."""
    if method.start is None:
        return plan
    layers = [_counted(layer, read_counts(layer, saved[layer.name])[0]) for layer in plan.layers]
    return Plan(tuple(layers), plan.skipped)


def _counted(layer: PlannedLayer, n: int) -> PlannedLayer:
    """Return a layer that begins with n units, and ends with them unless its density moves."""
    chosen = replace(layer, initial=n, initial_density=n / layer.units)
    if layer.final in (layer.initial, n):
        return replace(chosen, final=n, final_density=n / layer.units)
    return chosen


def _as_saved(plan: Plan, saved: Mapping[str, str]) -> Plan:
    """Return the plan with each layer computed as it was when the state was saved."""
    why = "as in the saved state"
    return replace(
        plan,
        layers=tuple(
            replace(one, execution=saved.get(one.name, MASKED), why=why) for one in plan.layers
        ),
    )


def _check_run(method: Method, total_steps: int, seed: int) -> tuple[int, int]:
    """Return the length of the run and the seed as Python's own numbers."""
    if not isinstance(method, Method):
        raise TypeError(
            f"method={method!r}: a method is needed, such as regrow.RigL(density=0.1); rules that "
            "prune by activations go to regrow.prune(model, rule, data) first"
        )
    seed = check_integer(seed, "seed")
    if isinstance(total_steps, bool) or not isinstance(total_steps, SupportsIndex):
        raise TypeError(f"total_steps={total_steps!r}: a number of optimizer steps is needed")
    if total_steps < 1:
        raise ValueError(f"total_steps={total_steps}: must be at least 1")
    return index(total_steps), seed


def _check_masks(
    masks: Mapping[str, Tensor], weights: Mapping[str, Tensor], argument: str
) -> dict[str, Tensor]:
    checked = {}
    check_type(masks, Mapping, argument, "{'fc.weight': mask}")
    for name, mask in masks.items():
        if name not in weights:
            raise ValueError(f"{argument}: {name!r} is no sparse weight; those are {list(weights)}")
        if not isinstance(mask, Tensor):
            raise TypeError(
                f"{argument}[{name!r}]={mask!r}: a bool tensor of shape "
                f"{tuple(weights[name].shape)} is needed"
            )
        if mask.dtype != torch.bool or mask.shape != weights[name].shape:
            raise ValueError(
                f"{argument}[{name!r}] is {mask.dtype} of shape {tuple(mask.shape)}: "
                f"a bool tensor of shape {tuple(weights[name].shape)} is needed"
            )
        checked[name] = mask.to(weights[name].device)
    return checked
