"""The plan of a model as data: which weights become sparse, how dense, and why others do not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from regrow.engine.layouts import LINEAR, Layout
from regrow.engine.tables import draw

__all__ = ["Plan", "PlannedLayer"]


_FEW = 3  # parameters that stay dense for one reason and are told line by line


@dataclass(frozen=True)
class PlannedLayer:
    """One weight that becomes sparse.

    Args:
        name: the parameter's name in the model.
        shape: the weight's shape.
        units: how many units the pattern makes of it.
        initial: units active at the start of training.
        final: units active at the end.
        initial_density: the density asked for at the start, before rounding to units.
        final_density: the density asked for at the end.
        last: whether it is the last of the sparse weights, usually the outputs'.
        after: the name of the weight, sparse or dense, whose outputs its inputs surely are, unit by
            unit; None where that cannot be told (:func:`regrow.engine.chains.follows`).
        layout: which dimension is the output (:mod:`regrow.engine.layouts`).
        execution: how the layer is computed: "masked", "csr", "block" or "2:4".
        why: what decided that, if it was not the caller.
    """

    name: str
    shape: tuple[int, ...]
    units: int
    initial: int
    final: int
    initial_density: float
    final_density: float
    last: bool = False
    after: str | None = None
    execution: str = "masked"
    why: str = ""
    layout: Layout = LINEAR

    @property
    def outputs(self) -> str:
        """Which dimension is the output, and of what kind of layer, as the plan says it."""
        if self.layout.output is None:
            return f"{self.layout.kind}: output unknown"
        return f"{self.layout.kind}: output {self.layout.output}"


@dataclass(frozen=True)
class Plan:
    """What :func:`regrow.sparsify` is about to do.

    Args:
        layers: the weights that become sparse, in the model's order.
        skipped: why each other parameter stays dense, by name.
    """

    layers: tuple[PlannedLayer, ...]
    skipped: dict[str, str]

    def changed(self, change: Callable[[PlannedLayer], Mapping[str, Any]]) -> Plan:
        """Return the plan with new values of some fields of each layer."""
        return replace(self, layers=tuple(replace(one, **change(one)) for one in self.layers))

    def __str__(self) -> str:
        """Draw the plan as a table."""
        stored = any(layer.execution != "masked" or layer.why for layer in self.layers)
        rows: list[tuple[str, ...]] = [("weight", "shape", "units", "start", "end", "density")]
        if stored:
            rows[0] += ("execution",)
        for layer in self.layers:
            shape = "×".join(map(str, layer.shape))
            counts = (f"{n:,}" for n in (layer.units, layer.initial, layer.final))
            row = (layer.name, shape, *counts, f"{layer.final / layer.units:.4f}")
            rows.append((*row, layer.execution) if stored else row)
        lines = [draw(rows)]
        # Most weights are (out, in, ...): those that are not are told.
        lines += [f"{one.name}: {one.outputs}" for one in self.layers if not one.layout.plain]
        decided = [layer for layer in self.layers if layer.why]
        lines += [f"{layer.execution}: {layer.name} ({layer.why})" for layer in decided]
        return "\n".join([*lines, *self._dense()])

    def _dense(self) -> list[str]:
        """Tell what stays dense: a line each, or one for many that do for the same reason."""
        by_why: dict[str, list[str]] = {}
        for name, why in self.skipped.items():
            by_why.setdefault(why, []).append(name)
        lines = []
        for why, names in by_why.items():
            if len(names) <= _FEW:
                lines += [f"dense: {name} ({why})" for name in names]
            else:
                shown = ", ".join(names[:_FEW])
                lines.append(f"dense: {len(names)} parameters ({why}): {shown}, …")
        return lines
