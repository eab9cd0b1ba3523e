"""What a model calls, in order, and with tensors of which shapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn

__all__ = ["trace"]

Shapes = dict[fx.Node, tuple[int, ...]]


def trace(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[fx.Graph, Shapes]:
    """Return the calls of a model as a graph, and the shapes of the tensors in it.

    Args:
        model: in evaluation mode.
        inputs: arguments to call it with.

    Raises:
        ValueError: its own forward hangs on values, or takes other arguments, so that it cannot be
            traced.
    """
    tracer = _Tracer()
    try:
        graph = tracer.trace(model)
        recorder = _Recorder(fx.GraphModule(model, graph))
        recorder.run(*inputs)
    except Exception as error:
        raise ValueError(
            f"{type(model).__name__} cannot be traced by torch.fx, so that nothing is known of "
            f"what reads which channel: {error}"
        ) from error
    return graph, recorder.shapes


class _Tracer(fx.Tracer):
    """Traces into modules; one whose forward cannot be traced is left whole."""

    def call_module(
        self,
        m: nn.Module,
        forward: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Any:
        """Trace a module's forward, or note that it is called."""
        last = next(iter(reversed(self.graph.nodes)))
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            # What was noted of it before it failed would look like others that read its input.
            for node in reversed(self.graph.nodes):
                if node is last:
                    break
                self.graph.erase_node(node)
            return self.create_proxy("call_module", self.path_of_module(m), args, kwargs)


class _Recorder(fx.Interpreter):
    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module)
        self.shapes: Shapes = {}

    def run_node(self, n: fx.Node) -> Any:
        with torch.no_grad():
            made = super().run_node(n)
        if isinstance(made, Tensor):
            self.shapes[n] = tuple(made.shape)
        return made
