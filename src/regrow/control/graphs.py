"""Functions that become CUDA graphs where there is a GPU, and stay plain calls elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import torch

__all__ = ["Graphed"]

_WARM_UP = 3


class Graphed:
    """Calls a function without arguments; from the fourth call on, on a GPU, as one CUDA graph.

    The first calls are real ones, made eagerly on another stream, as capturing asks for: no state
    has to be put back. The function must read and write tensors that stay where they are, and must
    not wait for the device.

    Args:
        function: what is called.
        device: on a CPU the function is called plainly, always.

    Example:
        >>> total = torch.zeros(())
        >>> add = Graphed(lambda: total.add_(1), torch.device("cpu"))
        >>> add(), add(), float(total)
        (None, None, 2.0)
    """

    def __init__(self, function: Callable[[], object], device: torch.device) -> None:
        self._function, self._device = function, device
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    def __call__(self) -> None:
        """Call it."""
        if self._device.type != "cuda":
            self._function()
            return
        with torch.cuda.device(self._device):
            if self._calls < _WARM_UP:
                self._calls += 1
                self._warm_up()
            else:
                self._replay()

    def _replay(self) -> None:
        if self._graph is None:
            graph = torch.cuda.CUDAGraph()
            # Torch keeps one stream for all captures, and makes it on the GPU that was first.
            with torch.cuda.graph(graph, stream=torch.cuda.Stream()):
                self._function()
            self._graph = graph
        self._graph.replay()

    def _warm_up(self) -> None:
        now = torch.cuda.current_stream()
        stream = torch.cuda.Stream()
        stream.wait_stream(now)
        with torch.cuda.stream(stream):
            self._function()
        now.wait_stream(stream)
