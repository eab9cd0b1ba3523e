"""`prune`: makes a trained model sparse in one call, layer by layer."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from regrow.engine.checks import check_integer
from regrow.engine.dimensions import keep_dimensions_
from regrow.engine.layouts import outputs_first, turned
from regrow.engine.method import Method
from regrow.engine.patterns import Pattern
from regrow.engine.plan import Globs, make_plan
from regrow.engine.planned import Plan, PlannedLayer
from regrow.engine.undisturbed import evaluating, kept_random_state
from regrow.engine.usable import check_dtypes, check_not_sparse, not_on_meta
from regrow.engine.whole import finish
from regrow.engine.wrappers import peel, unwrap
from regrow.pruning.calibration import Forward, batches_of, called_in_order, sums
from regrow.pruning.pruned import Masks, Pruned
from regrow.pruning.rules import Rule
from regrow.pruning.stages import stages, uses

__all__ = ["prune"]

logger = logging.getLogger("regrow")


def prune(
    model: nn.Module,
    method: Method | Rule,
    data: Any = None,
    *,
    include: Globs = None,
    exclude: Globs = None,
    forward: Forward | None = None,
    seed: int = 0,
) -> Pruned:
    """Set weights of a trained model to zero, in place and for good; no optimizer is needed.

    Rules that look at activations (:class:`~regrow.pruning.rules.Wanda`,
    :class:`~regrow.pruning.rules.SparseGPT`) go through the model in the order in which it
    computes. A block that the model repeats, or a layer outside of such, is pruned by what it sees
    on the calibration data with all that comes before it pruned already; then the next. Beside the
    model there are the sums of one block at a time, and one bit a weight for the masks. The data
    are gone through once more than there are such blocks and layers.

    Methods whose first topology is chosen by a score (``OMP``, ``SNIP``, ``GraSP``, ``SynFlow``, or
    any with a ``start``) choose it as in :func:`regrow.sparsify`.

    The model's mode, buffers, gradients and all random states stay as they are; calibration runs in
    evaluation mode. Embeddings, norms, biases and what is tied to an embedding stay dense.

    Args:
        model: any module, trained; DataParallel and compiled modules are looked into.
        method: what decides which weights go, such as ``regrow.Wanda(density=0.5)``,
            ``regrow.SparseGPT(density=0.5, pattern=NM(2, 4))`` or ``regrow.OMP(density=0.2)``.
        data: calibration data, for rules that read activations alone: an iterable of batches as the
            model was trained on. A batch is a tensor, a tuple of the model's arguments, or a dict
            of its keyword arguments; tensors are moved to the model's device. 128 samples are what
            the papers take; padding counts like any other input.
        include: globs over parameter names that are pruned, in place of the default choice (linear,
            bilinear, convolution, attention and recurrent).
        exclude: globs over parameter names that stay dense, such as ``"lm_head.*"``.
        forward: calls the model on a batch, if that is not one of those above, such as
            ``lambda model, batch: model(batch[0])``.
        seed: fixes what is drawn at random (``scope="ratios"`` alone draws).

    Returns:
        What was done. Go on with the masks held, or moving, by
        ``regrow.sparsify(model, optimizer, method, total_steps=..., include=pruned.names)`` with
        ``Static`` or ``RigL(density=pruned.density, start=pruned.start)`` as the method.

    Raises:
        TypeError: an argument is of another type.
        ValueError: an argument is out of range, a glob matches nothing, no data reach a layer, what
            a layer sees cannot be read, or the model is sparse already.
        FloatingPointError: weights, scores or activations are NaN or infinite.

    After an error the model is as it was, unless calibration had begun to prune, for errors come in
    the middle of a model, too (Ctrl-C, no memory, activations that overflow only now, products that
    cannot be inverted). A note of the error names the weights that are pruned already, and they
    have to be loaded again.

    Example:
        >>> import regrow
        >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
        >>> pruned = regrow.prune(model, regrow.Wanda(density=0.25), [torch.randn(32, 8)])
        >>> [int(torch.count_nonzero(model[n].weight)) for n in (0, 2)], pruned.density
        ([32, 16], 0.25)
    """
    seed = check_integer(seed, "seed")
    planning = _planning(method, data, forward)
    inner = _whole(model)
    keep_dimensions_(inner)
    plan = make_plan(inner, planning, include, exclude, trained=False)
    weights = {layer.name: inner.get_parameter(layer.name) for layer in plan.layers}
    _check(weights)
    if isinstance(method, Rule):
        masks = _calibrated(inner, method, plan, weights, data, forward)
    else:
        masks = _chosen(inner, method, plan, weights, seed)
    kept = {name: int(mask.sum()) for name, mask in masks.items()}
    return Pruned(method, plan.changed(partial(_counted, planning.pattern, masks)), masks, kept)


def _planning(method: Method | Rule, data: Any, forward: Forward | None) -> Method:
    """Return the method that plans what is kept; raise unless method and data fit one another."""
    if isinstance(method, Rule):
        if data is None:
            raise TypeError(
                f"data: {method.name} looks at activations, so it needs batches as the model was "
                f"trained on: regrow.prune(model, {method.name}(...), data)"
            )
        if forward is not None and not callable(forward):
            raise TypeError(
                f"forward={forward!r}: a function is needed, such as "
                "lambda model, batch: model(batch[0])"
            )
        return method.static
    if not isinstance(method, Method):
        raise TypeError(
            f"method={method!r}: what decides which weights go is needed, such as "
            "regrow.Wanda(density=0.5), regrow.SparseGPT(density=0.5) or regrow.OMP(density=0.5)"
        )
    if method.start is None:
        raise ValueError(
            f"method={method.name}(...): its first topology is drawn at random, which throws away "
            "what was learnt: prune by Wanda, SparseGPT, OMP or SNIP, or give "
            "start=regrow.engine.saliency.LargestWeights()"
        )
    if data is not None or forward is not None:
        given = "data" if data is not None else "forward"
        raise TypeError(
            f"{given}: {method.name} reads no calibration data beyond what its own arguments are "
            "given (such as loss=): leave it out"
        )
    return method


def _whole(model: nn.Module) -> nn.Module:
    """Return the user's own module; raise ValueError if there are copies of it on other ranks."""
    if not isinstance(model, nn.Module):
        raise TypeError(f"model={type(model).__name__}: a torch.nn.Module is needed")
    if any(isinstance(one, nn.parallel.DistributedDataParallel) for one in peel(model)):
        raise ValueError(
            "model is a DistributedDataParallel, whose ranks would each prune by their own data: "
            "prune the module first, then wrap it, which gives all ranks the first one's weights"
        )
    return unwrap(model)


def _check(weights: Mapping[str, Tensor]) -> None:
    """Raise an error unless these weights can be pruned."""
    check_dtypes(weights)
    check_not_sparse(weights)
    for name, weight in weights.items():
        not_on_meta(name, weight)
        if hasattr(weight, "full_tensor"):
            raise ValueError(
                f"{name} is sharded over ranks: prune the whole model first, then shard it"
            )
    finite = {name: weight.detach().isfinite().all() for name, weight in weights.items()}
    if bad := [name for name, fine in finite.items() if not bool(fine)]:
        raise FloatingPointError(f"{', '.join(bad)} holds NaN or infinite weights: load others")


def _counted(pattern: Pattern, masks: Masks, layer: PlannedLayer) -> dict[str, Any]:
    """Return how many units of a layer are kept, as fields of the plan."""
    n = int((turned(pattern, layer.layout).reduce(masks[layer.name].float()) > 0).sum())
    density = n / layer.units
    return {"initial": n, "final": n, "initial_density": density, "final_density": density}


def _chosen(
    model: nn.Module, method: Method, plan: Plan, weights: Mapping[str, Tensor], seed: int
) -> Masks:
    """Let the method's start choose, then set to zero what it did not choose."""
    start = method.start
    assert start is not None
    alone = start.scope == "layer" and not start.uses_up
    groups = [[layer] for layer in plan.layers] if alone else [list(plan.layers)]

    def chosen() -> Iterator[tuple[str, Tensor]]:
        for layers in groups:
            units = start.choose(model, layers, method.pattern, seed)
            for layer in layers:
                pattern = turned(method.pattern, layer.layout)
                yield layer.name, pattern.expand(units[layer.name], layer.shape)

    with kept_random_state(model):
        masks = Masks(chosen())
    with torch.no_grad():
        finish(partial(_zero_, weights[name], masks, name) for name in masks)
    return masks


def _zero_(weight: Tensor, masks: Masks, name: str) -> None:
    weight.masked_fill_(~masks[name].to(weight.device), 0)


def _calibrated(
    model: nn.Module,
    rule: Rule,
    plan: Plan,
    weights: Mapping[str, Tensor],
    data: Any,
    forward: Forward | None,
) -> Masks:
    """Prune stage by stage, each by what it sees behind the pruned ones."""
    layers = {layer.name: layer for layer in plan.layers}
    readers = uses(model, list(layers), rule.name)
    done: list[str] = []
    zeros: list[str] = []

    def pruned() -> Iterator[tuple[str, Tensor]]:
        batches = batches_of(data)
        # All data once through the dense model: what can be refused is refused before any change.
        order = called_in_order(model, readers, batches, forward)
        for names in stages(model, order):
            here = [use for use in (one.only(names) for one in readers) if use.names]
            seen = sums(model, here, batches, forward, products=rule.products)
            for name in names:
                if name not in seen:
                    raise ValueError(f"no calibration data reached {name} any more")
                own = outputs_first(weights[name].detach(), layers[name].layout)
                new, mask = _pruned(own, layers[name], rule, seen.pop(name))
                if bool((mask & (own == 0)).any()):
                    zeros.append(name)
                done.append(name)
                own.copy_(new)
                yield name, outputs_first(mask, layers[name].layout)

    try:
        with evaluating(model):
            masks = Masks(pruned())
    except BaseException as error:
        if done:
            error.add_note(f"pruned already, so load them again: {', '.join(done)}")
        raise
    if zeros:
        logger.warning(
            "%s keeps weights that were zero before, of %s: they were pruned already, to a lower "
            "density, or never trained",
            rule.name,
            ", ".join(zeros),
        )
    return masks


def _pruned(own: Tensor, layer: PlannedLayer, rule: Rule, seen: Tensor) -> tuple[Tensor, Tensor]:
    """Return a weight as the rule leaves it, and its mask; errors name the layer."""
    exact = own.to(torch.promote_types(own.dtype, torch.float32))
    try:
        return rule.prune(exact, seen.to(exact.dtype), layer.initial)
    except ValueError as error:
        raise ValueError(f"{layer.name}: {error}") from None
