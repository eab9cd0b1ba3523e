"""Models of the DeepMind Control Suite, read without importing it, which asks for a display."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from regrow.machine import how_to_install, needed

__all__ = ["check_mujoco", "suite_model"]


def check_mujoco() -> Any:
    """Return mujoco.

    Raises:
        ImportError: it is missing, or of a version that does not fit.
    """
    with needed("mujoco", "control"):
        import mujoco  # noqa: PLC0415  an extra
    version = str(mujoco.__version__)
    if int(version.split(".", maxsplit=1)[0]) != 3:
        raise ImportError(
            f"mujoco {version}: dm_control needs 3.17 or above, below 4: "
            f"{how_to_install('mujoco<4', 'control')}"
        )
    return mujoco


def suite_model(domain: str) -> Any:
    """Return the model of a domain, such as "cartpole", a ``mujoco.MjModel``.

    Raises:
        ImportError: mujoco or dm_control is missing, or mujoco is of a version that does not fit.
    """
    mujoco = check_mujoco()
    found = find_spec("dm_control")
    if found is None or not found.submodule_search_locations:
        raise ImportError(f"dm_control is missing: {how_to_install('dm_control', 'control')}")
    folder = Path(found.submodule_search_locations[0])
    return mujoco.MjModel.from_xml_path(str(folder / "suite" / f"{domain}.xml"))
