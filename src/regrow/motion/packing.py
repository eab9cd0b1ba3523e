"""Packs a scene into few bytes, and back: what is stored more coarsely than harms is not."""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.scene import FARTHEST, Points, Scene, plausible

__all__ = ["pack", "unpack"]

Array = npt.NDArray[Any]

_ALIGN = 8


def pack(scene: Scene) -> bytes:
    """Return a scene as bytes, for :func:`unpack`.

    Only valid states are kept. Positions of agents are float32 around the scene's origin, good to
    0.1 mm within a kilometre; all other numbers of states, and map points, are 16 bits between
    their least and greatest value: good to 0.05 mrad, 1 mm/s and 1 mm at usual ranges, 1 cm on
    maps of a kilometre. Where an odd value would make this coarser than 2.5 mm, and 2.5 cm on the
    map, they are float32, too. LiDAR points are float16: good to 1 mm at 2 m from the box's centre.

    Args:
        scene: the scene.

    Raises:
        ValueError: a map point, or a number of a valid state, is beyond ``FARTHEST``.
    """
    rows = scene.states[scene.valid]
    for name, values in (("line_points", scene.line_points), ("states", rows)):
        if not plausible(values).all():
            raise ValueError(f"scene {scene.name}: {name} has a number beyond {FARTHEST:,.0f}")
    origin = np.round(rows[:, :2].mean(0)) if len(rows) else np.zeros(2)
    arrays: dict[str, Array] = {
        "times": np.asarray(scene.times, np.float64),
        "ids": np.asarray(scene.ids, np.int64),
        "kinds": np.asarray(scene.kinds, np.uint8),
        "valid": np.packbits(scene.valid),
        "targets": np.asarray(scene.targets, np.uint32),
        "origin": np.asarray(origin, np.float64),
        "places": (rows[:, :2] - origin).astype(np.float32),
        "line_lengths": np.asarray(scene.line_lengths, np.uint32),
        "line_kinds": np.asarray(scene.line_kinds, np.int8),
        **_coarse("rest", rows[:, 2:], 5e-3),
        **_coarse("line_points", scene.line_points, 5e-2),
    }
    if scene.points is not None:
        most = float(np.finfo(np.float16).max)
        arrays["points"] = scene.points.values.clip(-most, most).astype(np.float16)
        arrays["counts"] = np.asarray(scene.points.counts, np.uint32)
        arrays["sensor"] = np.asarray(scene.points.sensor, np.float64)
    about = {"name": scene.name, "now": int(scene.now), "ego": scene.ego}
    return _joined(about, arrays)


def unpack(data: bytes | memoryview) -> Scene:
    """Return the scene that was packed.

    Args:
        data: what :func:`pack` returned.

    Raises:
        ValueError: it is something else.
    """
    about, arrays = _parted(memoryview(data))
    steps, agents = len(arrays["times"]), len(arrays["ids"])
    valid = np.unpackbits(arrays["valid"], count=agents * steps).astype(bool).reshape(agents, steps)
    states = np.zeros((agents, steps, 9))
    places = arrays["places"] + arrays["origin"]
    states[valid] = np.concatenate([places, _fine("rest", arrays)], axis=1)
    points = None
    if "points" in arrays:
        values, counts = arrays["points"].astype(np.float32), arrays["counts"].astype(np.int64)
        points = Points(values, counts, arrays["sensor"].copy())
    return Scene(
        name=about["name"],
        times=arrays["times"].copy(),
        now=about["now"],
        ids=arrays["ids"].copy(),
        kinds=arrays["kinds"].astype(np.int64),
        states=states,
        valid=valid,
        targets=arrays["targets"].astype(np.int64),
        ego=about["ego"],
        line_points=_fine("line_points", arrays),
        line_lengths=arrays["line_lengths"].astype(np.int64),
        line_kinds=arrays["line_kinds"].astype(np.int64),
        points=points,
    )


def _coarse(name: str, values: Array, most: float) -> dict[str, Array]:
    """Return columns as 16 bits between each one's least and greatest value.

    Where steps would be longer than ``most``, they are float32 from the least value.
    """
    low = values.min(0, initial=np.inf) if len(values) else np.zeros(values.shape[1])
    high = values.max(0, initial=-np.inf) if len(values) else low
    step = (high - low) / 65535
    if step.max(initial=0.0) > most:
        return {
            name: (values - low).astype(np.float32),
            f"{name}_scale": np.stack([low, step * 0 + 1]),
        }
    codes = np.round((values - low) / np.where(step > 0, step, 1.0)).astype(np.uint16)
    return {name: codes, f"{name}_scale": np.stack([low, step])}


def _fine(name: str, arrays: dict[str, Array]) -> Array:
    low, step = arrays[f"{name}_scale"]
    values: Array = low + arrays[name] * step
    return values


def _joined(about: dict[str, Any], arrays: dict[str, Array]) -> bytes:
    """Return a header that names all arrays, and the arrays, each where a multiple of 8 begins."""
    shapes = {name: [array.dtype.str, array.shape] for name, array in arrays.items()}
    header = json.dumps({**about, "arrays": shapes}).encode()
    parts = [struct.pack("<I", len(header)) + header]
    parts += [np.ascontiguousarray(array).tobytes() for array in arrays.values()]
    return b"".join(part + bytes(-len(part) % _ALIGN) for part in parts)


def _parted(data: memoryview) -> tuple[dict[str, Any], dict[str, Array]]:
    (size,) = struct.unpack_from("<I", data)
    about = json.loads(bytes(data[4 : 4 + size]))
    place, arrays = 4 + size + -(4 + size) % _ALIGN, {}
    for name, (kind, shape) in about.pop("arrays").items():
        dtype, count = np.dtype(kind), int(np.prod(shape, dtype=np.int64))
        arrays[name] = np.frombuffer(data, dtype, count, place).reshape(shape)
        place += dtype.itemsize * count
        place += -place % _ALIGN
    return about, arrays
