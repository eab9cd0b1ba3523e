"""The execution backends that `sparsify(execution=...)` knows: csr, block, and auto."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.optim import Optimizer

from regrow.engine.backends import Backend
from regrow.engine.method import Method
from regrow.engine.planned import Plan
from regrow.execution.choose import choose
from regrow.execution.convert import convert

__all__ = ["BACKENDS", "fastest"]


def fastest(
    model: nn.Module, optimizer: Optimizer, method: Method, plan: Plan, inputs: Any
) -> Plan:
    """Time each layer as the model calls it, and keep what is faster, and why.

    Raises:
        ValueError: there is no example batch.
    """
    if inputs is None:
        raise ValueError(
            "execution='auto' times layers as the model calls them: pass example_inputs, a batch "
            "of the size that training will use"
        )
    choices = choose(model, optimizer, method, plan, inputs)
    chosen = {name: {"execution": c.execution, "why": c.reason} for name, c in choices.items()}
    return plan.changed(lambda layer: chosen[layer.name])


BACKENDS = (Backend("csr", convert), Backend("block", convert), Backend("auto", convert, fastest))
