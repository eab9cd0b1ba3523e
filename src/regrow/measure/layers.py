"""Parameters and multiply-adds of a model, layer by layer, dense and as a method leaves them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn

from regrow.engine.method import Method
from regrow.engine.plan import make_plan
from regrow.engine.tables import draw
from regrow.engine.wrappers import unwrap
from regrow.measure.flops import count_flops

__all__ = ["LayerCost", "cost_table", "layer_costs"]


@dataclass(frozen=True)
class LayerCost:
    """What one weight costs; biases, norms and scalars are one row of their own, "others".

    Args:
        name: the parameter's.
        shape: of the weight; of "others" their number.
        parameters: how many there are.
        kept: how many a method leaves.
        macs: multiply-adds of the forward pass that use the weight, were it dense.
        effective: multiply-adds that use the weights that are left.
    """

    name: str
    shape: tuple[int, ...]
    parameters: int
    kept: int
    macs: int
    effective: float


def layer_costs(
    model: nn.Module,
    shape: Sequence[int],
    *,
    method: Method | None = None,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
) -> tuple[LayerCost, ...]:
    """Return what each weight of a model costs for one input, without computing anything.

    The model is copied to the meta device, so that no input is too large. Multiply-adds follow
    :func:`regrow.measure.flops.count_flops`, two operations each; of a transposed convolution they
    are input elements × outputs × kernel. Effective ones are what the weights that are left would
    take; masks compute all of them. Products of activations are not in the list.

    Args:
        model: takes one tensor.
        shape: of the input, with the batch.
        method: what makes it sparse, at its final density; None: nothing does.
        include: as in :func:`regrow.sparsify`.
        exclude: as in :func:`regrow.sparsify`.

    Returns:
        One row a weight, in the model's order, then "others".

    Raises:
        ValueError: the method or a glob does not fit the model.

    Example:
        >>> from regrow.engine.method import Static
        >>> model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 2))
        >>> rows = layer_costs(model, (1, 8), method=Static(density=0.5), exclude="1.*")
        >>> [(row.name, row.kept, row.effective) for row in rows]
        [('0.weight', 16, 16.0), ('1.weight', 8, 8.0), ('others', 6, 0.0)]
    """
    twin = copy.deepcopy(unwrap(model)).to("meta")
    kinds = [p.dtype for p in twin.parameters() if p.is_floating_point()]
    kind = kinds[0] if kinds else None
    flops = count_flops(twin, torch.zeros(tuple(shape), dtype=kind, device="meta"))
    shares = {}
    if method is not None:
        plan = make_plan(twin, method, include, exclude)
        shares = {layer.name: (layer.final, layer.units) for layer in plan.layers}
    rows, others = [], 0
    for name, parameter in twin.named_parameters():
        if parameter.ndim < 2:
            others += parameter.numel()
            continue
        kept, units = shares.get(name, (1, 1))
        macs = flops.layers[name].forward // 2 if name in flops.layers else 0
        size = parameter.numel()
        # Units of one layer are equally large, but for blocks at an edge.
        rows.append(
            LayerCost(
                name, tuple(parameter.shape), size, round(size * kept / units), macs,
                macs * kept / units,
            )
        )  # fmt: skip
    return *rows, LayerCost("others", (others,), others, others, 0, 0.0)


def cost_table(costs: Sequence[LayerCost]) -> str:
    """Draw costs as a table, with a last row that sums them.

    Args:
        costs: of :func:`layer_costs`.

    Example:
        >>> print(cost_table(layer_costs(nn.Linear(1000, 500), (2, 1000))))
        weight     shape  parameters     kept   GMAC  effective
        weight  500×1000     500,000  500,000  0.001      0.001
        others       500         500      500  0.000      0.000
        sum                  500,500  500,500  0.001      0.001
    """
    header = ("weight", "shape", "parameters", "kept", "GMAC", "effective")
    total = LayerCost(
        "sum",
        (),
        sum(cost.parameters for cost in costs),
        sum(cost.kept for cost in costs),
        sum(cost.macs for cost in costs),
        math.fsum(cost.effective for cost in costs),
    )
    return draw([header, *(_row(cost) for cost in (*costs, total))])


def _row(cost: LayerCost) -> tuple[str, ...]:
    return (
        cost.name,
        "×".join(map(str, cost.shape)),
        f"{cost.parameters:,}",
        f"{cost.kept:,}",
        f"{cost.macs / 1e9:.3f}",
        f"{cost.effective / 1e9:.3f}",
    )
