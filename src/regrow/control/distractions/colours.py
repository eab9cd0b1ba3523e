"""Colours of sky, floor and agent: drawn by a seed, or read from a file of the user's."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np

from regrow.data.pickles import read_pickles
from regrow.engine.checks import check_choice
from regrow.reading import check_size, decoding, read_file

__all__ = ["KEY", "Colours", "checked_colours", "draw_colours", "paint", "read_colours",
           "write_colours"]  # fmt: skip

Colours = Mapping[str, Sequence[float]]
"""Colours by name, each red, green and blue in 0..1; names are those of the published benchmark."""

_TEXTURES = {  # names in the published benchmark, and what they are in dm_control's XML files
    "skybox_rgb": ("skybox", "rgb1"),
    "skybox_rgb2": ("skybox", "rgb2"),
    "skybox_markrgb": ("skybox", "markrgb"),
    "grid_rgb1": ("grid", "rgb1"),
    "grid_rgb2": ("grid", "rgb2"),
    "grid_markrgb": ("grid", "markrgb"),
}
_FILES = {"skybox": "./common/skybox.xml", "grid": "./common/materials.xml"}
_LENGTHS = {**dict.fromkeys(_TEXTURES, 3), "self_rgb": 3, "grid_texrepeat": 2}
_USUAL = {
    "grid_rgb1": (0.1, 0.2, 0.3),
    "self_rgb": (0.7, 0.5, 0.3),
    "skybox_rgb": (0.4, 0.6, 0.8),
}
_SPREAD = {"easy": 0.1, "hard": 0.2}
KEY: Colours = dict.fromkeys(_TEXTURES, (0.2, 0.8, 0.2))
"""The green that the published benchmark replaces by a video."""


def draw_colours(level: str, count: int = 100, seed: int = 0) -> list[dict[str, list[float]]]:
    """Draw colours of sky, floor and agent.

    Each of red, green and blue is its usual value + N(0, σ²), within 0..1; σ = 0.1 at "easy", 0.2
    at "hard". The floor's second colour is its first + 0.1. So are the 100 of either level that the
    published benchmark has stored, as far as one sees: :func:`read_colours` reads those.

    Args:
        level: "easy" or "hard".
        count: how many.
        seed: of the draws.

    Source: Hansen & Wang 2021 (arXiv 2011.13389), section 5; spreads as measured in its files.

    Example:
        >>> drawn = draw_colours("hard", count=2)
        >>> sorted(drawn[0]), len(drawn[0]["self_rgb"])
        (['grid_rgb1', 'grid_rgb2', 'self_rgb', 'skybox_rgb'], 3)
    """
    check_choice(level, tuple(_SPREAD), "level")
    random = np.random.default_rng(seed)
    return [_draw(random, _SPREAD[level]) for _ in range(count)]


def _draw(random: np.random.Generator, spread: float) -> dict[str, list[float]]:
    drawn = {name: rgb + spread * random.standard_normal(3) for name, rgb in _USUAL.items()}
    drawn["grid_rgb2"] = drawn["grid_rgb1"].clip(0, 1) + 0.1
    return {name: rgb.clip(0, 1).round(4).tolist() for name, rgb in drawn.items()}


def read_colours(path: str | Path) -> list[dict[str, list[float]]]:
    """Read colours: JSON as :func:`write_colours` writes it, or the published benchmark's ``.pt``.

    Nothing in a ``.pt`` file is run.

    Args:
        path: of the file.

    Raises:
        ValueError: it is damaged, or holds something else than colours; it is named.
    """
    path = Path(path)
    with decoding(path):
        content = read_file(path)
        return checked_colours(
            _published(content, path) if path.suffix == ".pt" else json.loads(content)
        )


def _published(content: bytes, path: Path) -> Any:
    """Return what ``torch.save`` wrote: alone in a zip file, or the fourth of five pickles."""
    if not zipfile.is_zipfile(io.BytesIO(content)):
        return read_pickles(content, str(path))[3]
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        name = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        check_size(path, archive.getinfo(name).file_size, len(content))
        return read_pickles(archive.read(name), str(path))[0]


def write_colours(path: str | Path, colours: Sequence[Colours]) -> None:
    """Write colours as JSON: a list of objects, each a list of numbers by name."""
    Path(path).write_text(
        json.dumps(checked_colours(list(colours)), indent=1) + "\n", encoding="utf-8"
    )


def checked_colours(found: Any) -> list[dict[str, list[float]]]:
    """Return sets of colours; raise ValueError if a name is unknown, or a number out of 0..1."""
    if not isinstance(found, list) or not found:
        raise ValueError("a list of at least one set of colours is needed")
    return [_checked_one(one, i) for i, one in enumerate(found)]


def _checked_one(one: Any, place: int) -> dict[str, list[float]]:
    if not isinstance(one, Mapping) or not one:
        raise ValueError(f"set {place} is no object of colours by name")
    checked = {}
    for name, value in one.items():
        if name not in _LENGTHS:
            raise ValueError(f"set {place} has {name!r}; known are {', '.join(_LENGTHS)}")
        numbers = np.asarray(value, dtype=float)
        if numbers.shape != (_LENGTHS[name],) or not np.isfinite(numbers).all():
            raise ValueError(f"set {place}, {name!r}: {_LENGTHS[name]} numbers are needed")
        if name != "grid_texrepeat" and (numbers.min() < 0 or numbers.max() > 1):
            raise ValueError(f"set {place}, {name!r} is {numbers.tolist()}: colours are in 0..1")
        checked[name] = numbers.tolist()
    return checked


def paint(model: Any, colours: Colours) -> Any:
    """Return a copy of a model whose sky, floor and agent have other colours.

    Its textures are made as dm_control's XML files say, but for the colours.

    Args:
        model: a ``mujoco.MjModel``.
        colours: by name; what is not named stays.
    """
    painted = copy.copy(model)
    names = [model.tex(i).name for i in range(model.ntex)]
    for texture in _FILES:
        said = {of[1]: colours[name] for name, of in _TEXTURES.items()
                if of[0] == texture and name in colours}  # fmt: skip
        if said and texture in names:
            start, pixels = model.tex_adr[names.index(texture)], _texture(texture, said)
            painted.tex_data[start : start + len(pixels)] = pixels
    materials = {model.mat(i).name: i for i in range(model.nmat)}
    if "self_rgb" in colours and "self" in materials:
        painted.mat_rgba[materials["self"], :3] = colours["self_rgb"]
    if "grid_texrepeat" in colours and "grid" in materials:
        painted.mat_texrepeat[materials["grid"]] = colours["grid_texrepeat"]
    return painted


def _texture(name: str, colours: Mapping[str, Sequence[float]]) -> Any:
    """Return a texture of dm_control's with other colours, as MuJoCo makes it: uint8."""
    import mujoco  # noqa: PLC0415  an extra
    from dm_control.suite import common  # noqa: PLC0415

    found = ElementTree.fromstring(common.ASSETS[_FILES[name]]).find(
        f"asset/texture[@name='{name}']"
    )
    if found is None:
        raise RuntimeError(f"dm_control's {_FILES[name]} has no texture {name!r}")
    for attribute, rgb in colours.items():
        found.set(attribute, " ".join(str(float(x)) for x in rgb))
    xml = ElementTree.tostring(found, encoding="unicode")
    model = mujoco.MjModel.from_xml_string(f"<mujoco><asset>{xml}</asset></mujoco>")
    return model.tex_data
