"""How a convolution is laid out in memory: per axis, and as the structure the C kernels take.

Everything is written for three spatial axes; images with fewer have leading axes of size one.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from dataclasses import dataclass
from functools import cached_property

__all__ = ["Axis", "OffsetPlan", "Pass", "Planes"]

_AXES = ctypes.c_int64 * 3
_SCRATCH = 1 << 20  # bytes that stay in the second-level cache
_MIN_TASKS = 8  # pieces for threads to share; fixed, so that results do not depend on threads


class Pass(ctypes.Structure):
    """`struct conv` of the C sources."""

    _fields_ = (
        ("batch", ctypes.c_int64),
        ("chunk", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("source_channel", ctypes.c_int64),
        ("source_size", _AXES),
        ("source_stride", _AXES),
        ("step", _AXES),
        ("phases", _AXES),
        ("low", _AXES),
        ("extent", _AXES),
        ("size", _AXES),
        ("stride", _AXES),
        ("row_stride", ctypes.c_int64),
        ("band", _AXES),
    )


class Planes(ctypes.Structure):
    """`struct planes` of the C sources."""

    _fields_ = (
        ("samples", ctypes.c_int64),
        ("channels", ctypes.c_int64),
        ("width", ctypes.c_int64),
        ("source_size", _AXES),
        ("source_stride", ctypes.c_int64 * 4),
        ("step_depth", ctypes.c_int64),
        ("step", ctypes.c_int64),
        ("low", _AXES),
        ("high", ctypes.c_int64),
        ("size", _AXES),
    )


@dataclass(frozen=True)
class Axis:
    """One spatial axis of a convolution.

    Output position o reads pixel o * stride + tap * dilation - low. With pixels sorted by their
    *phase* (pixel + low) mod stride, tap t always reads phase `phase(t)`, `shift(t)` further on.
    """

    size: int
    kernel: int = 1
    stride: int = 1
    dilation: int = 1
    low: int = 0
    high: int = 0

    @property
    def out(self) -> int:
        """The number of output positions."""
        return (self.size + self.low + self.high - self.reach - 1) // self.stride + 1

    @property
    def reach(self) -> int:
        """Pixels from the first to the last tap."""
        return self.dilation * (self.kernel - 1)

    @property
    def phases(self) -> int:
        """How many phases are kept in scratch: up to the last one that some tap reads."""
        return max(self.phase(tap) for tap in range(self.kernel)) + 1

    @property
    def last_shift(self) -> int:
        """The shift of the last tap, the largest."""
        return self.reach // self.stride

    def phase(self, tap: int) -> int:
        """Return which phase a tap reads."""
        return tap * self.dilation % self.stride

    def shift(self, tap: int) -> int:
        """Return how far into its phase a tap reads."""
        return tap * self.dilation // self.stride

    def first(self, phase: int) -> int:
        """Return the first place of a phase that is a pixel and not padding."""
        return max(0, -(-(self.low - phase) // self.stride))

    def count(self, phase: int) -> int:
        """Return how many pixels of the image a phase has."""
        end = -(-(self.size + self.low - phase) // self.stride)
        return max(0, end - self.first(phase))


def _chunk(width: int, batch: int, lanes: int, largest: int) -> int:
    """Choose how many samples lie side by side: narrow images take more, to fill the vectors."""
    chunk = max(16, lanes)
    while chunk * max(1, width) < lanes * largest and chunk < min(batch, lanes * largest):
        chunk *= 2
    return chunk


def _band(size: list[int], reach: list[int], bytes_each: int, chunks: int) -> list[int]:
    """Choose how many positions share one scratch: as many as fit, for enough tasks."""
    band = list(size)

    def too_much() -> bool:
        extent = math.prod(b + r for b, r in zip(band, reach, strict=True))
        tasks = chunks * math.prod(-(-s // b) for s, b in zip(size[:2], band[:2], strict=True))
        return extent * bytes_each > _SCRATCH or tasks < _MIN_TASKS

    for axis in (0, 1):
        while band[axis] > 1 and too_much():
            band[axis] = -(-band[axis] // 2)
    return band


@dataclass(frozen=True)
class OffsetPlan:
    """A convolution of images of one size.

    Args:
        axes: depth, height, width.
        batch: samples.
        channels: (input, output) channels.
        groups: blocks of channels that do not see each other.
        lanes: floats in a vector register.
        largest: vectors in a tile.
    """

    axes: tuple[Axis, Axis, Axis]
    batch: int
    channels: tuple[int, int]
    groups: int
    lanes: int
    largest: int

    @property
    def out(self) -> tuple[int, ...]:
        """Output positions per axis."""
        return tuple(axis.out for axis in self.axes)

    @cached_property
    def taps(self) -> list[tuple[int, ...]]:
        """All taps in the weight's order."""
        return list(itertools.product(*(range(axis.kernel) for axis in self.axes)))

    @cached_property
    def phase_list(self) -> list[tuple[int, ...]]:
        """All phases in scratch's order."""
        return list(itertools.product(*(range(axis.phases) for axis in self.axes)))

    def phase_of(self, tap: tuple[int, ...]) -> int:
        """Return the number of the phase that a tap reads."""
        phase = tuple(axis.phase(t) for axis, t in zip(self.axes, tap, strict=True))
        return self.phase_list.index(phase)

    def shift_of(self, tap: tuple[int, ...]) -> list[int]:
        """Return the shift of a tap on every axis."""
        return [axis.shift(t) for axis, t in zip(self.axes, tap, strict=True)]

    @cached_property
    def last_shifts(self) -> list[int]:
        """The largest shift on every axis."""
        return [axis.last_shift for axis in self.axes]

    @cached_property
    def forward(self) -> Pass:
        """How outputs read inputs; strides are filled in by the caller."""
        return self._pass(
            self.channels[0],
            [axis.size for axis in self.axes],
            [axis.stride for axis in self.axes],
            [axis.phases for axis in self.axes],
            [axis.low for axis in self.axes],
            list(self.out),
            list(self.out),
        )

    def backward(self, phase: tuple[int, ...]) -> Pass:
        """Return how the input gradients of one phase read output gradients."""
        pairs = list(zip(self.axes, phase, strict=True))
        return self._pass(
            self.channels[1],
            list(self.out),
            [1, 1, 1],
            [1, 1, 1],
            [axis.last_shift - axis.first(f) for axis, f in pairs],
            [axis.count(f) for axis, f in pairs],
            [-(-axis.size // axis.stride) for axis in self.axes],
        )

    def _pass(
        self,
        channels: int,
        source: list[int],
        step: list[int],
        phases: list[int],
        low: list[int],
        size: list[int],
        largest_size: list[int],
    ) -> Pass:
        chunk = _chunk(largest_size[2], self.batch, self.lanes, self.largest)
        bytes_each = 4 * channels * math.prod(phases) * chunk
        band = _band(largest_size, self.last_shifts, bytes_each, -(-self.batch // chunk))
        extent = [b + r for b, r in zip(band, self.last_shifts, strict=True)]
        return Pass(
            batch=self.batch,
            chunk=chunk,
            channels=channels,
            source_size=_AXES(*source),
            step=_AXES(*step),
            phases=_AXES(*phases),
            low=_AXES(*low),
            extent=_AXES(*extent),
            size=_AXES(*size),
            band=_AXES(*band),
        )
