"""A trained network as an ONNX file."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from regrow.machine import needed
from regrow.motion.modes import modes
from regrow.motion.network import MotionTransformer

__all__ = ["export_onnx"]

_MOST = 4096


class _Forecast(nn.Module):
    def __init__(self, model: MotionTransformer, keep: int) -> None:
        super().__init__()
        self.model, self.keep = model, keep

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        return modes(self.model(inputs), self.keep)


def export_onnx(
    model: MotionTransformer, inputs: Mapping[str, Tensor], path: str | Path, keep: int = 6
) -> None:
    """Write a network, with the choice of its likeliest futures, as an ONNX file.

    Inputs of the file are named as the network's; numbers of targets, agents and LiDAR points may
    be any, at least 2; that of polylines is the example's, to which others are filled up with what
    is not valid. Outputs are ``trajectories``, shape (n, keep, steps, 7), and ``probabilities``.

    Args:
        model: on the CPU; its mode stays as it is.
        inputs: of a batch, such as :func:`regrow.motion.batches.collate` makes, with two targets,
            agents and points at least.
        path: of the file.
        keep: futures of a target.

    Raises:
        ValueError: the example is too small, so that sizes would be fixed.
        ImportError: onnx or onnxscript is missing.
    """
    sizes = _sizes(inputs)
    with needed("onnxscript", "onnx"):
        import onnxscript  # noqa: F401, PLC0415
    training = model.training
    with _quiet():
        try:
            program = torch.onnx.export(
                _Forecast(model, keep).eval(),
                (),
                kwargs={"inputs": dict(inputs)},
                input_names=list(inputs),
                output_names=["trajectories", "probabilities"],
                dynamic_shapes={"inputs": sizes},
                dynamo=True,
                verbose=False,
            )
        finally:
            model.train(training)
        assert program is not None
        program.save(str(path))


def _sizes(inputs: Mapping[str, Tensor]) -> dict[str, dict[int, Dim]]:
    """Return which dimensions of each input may have any size."""
    n, agents, points = (Dim(name, min=2, max=_MOST) for name in ("n", "agents", "points"))
    found: dict[str, dict[int, Dim]] = {name: {0: n} for name in inputs}
    for dim, size, names in (
        (1, agents, ("agents", "agents_valid")),
        (2, points, ("lidar", "lidar_valid")),
    ):
        for name in names:
            if name in found:
                found[name][dim] = size
    for name, dims in found.items():
        for dim in dims:
            if inputs[name].shape[dim] < 2:
                raise ValueError(
                    f"inputs[{name!r}]: has shape {tuple(inputs[name].shape)}; dimension {dim} "
                    "must be at least 2, or the file could take no other"
                )
    return found


@contextlib.contextmanager
def _quiet():  # type: ignore[no-untyped-def]
    """Keep to ourselves what the exporter says of itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
