"""What ``regrow methods`` and ``regrow study list`` print, kept where torch need not be imported.

Methods are told from their docstrings and defaults, studies from their presets; importing them
takes a second and more. ``python -m regrow.cli.listed`` writes the file beside this one again, and
a test says when it is to be.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regrow.lab.study import Study

__all__ = ["Listed", "kept_list", "made_list", "study_text"]

_FILE = Path(__file__).with_name("listed.json")


@dataclass(frozen=True)
class Listed:
    """Texts to print.

    Args:
        methods: all of them, a paragraph each.
        method: all about each, by name.
        studies: each with its presets, by name.
    """

    methods: str
    method: dict[str, str]
    studies: dict[str, str]


def kept_list() -> Listed:
    """Read what was written last.

    Example:
        >>> kept_list().methods.splitlines()[0]
        'Dense()'
    """
    return Listed(**json.loads(_FILE.read_text("utf-8")))


def made_list() -> Listed:
    """Find it out from the methods and studies themselves."""
    from regrow.catalogue import describe, listing  # noqa: PLC0415  (slow)
    from regrow.engine.methods import METHODS  # noqa: PLC0415
    from regrow.studies.registry import STUDIES, load_study  # noqa: PLC0415

    studies = {name: study_text(load_study(name)) for name in sorted(STUDIES)}
    about = {name: describe(name) for name in METHODS}
    return Listed(listing(), about, studies)


def study_text(study: Study) -> str:
    """Write a study's title, and what each preset takes."""
    presets = [f"  --preset {name:6} {one.cost}" for name, one in study.presets.items()]
    return "\n".join([f"{study.name}: {study.title}", *presets])


if __name__ == "__main__":
    _FILE.write_text(json.dumps(asdict(made_list()), indent=1, ensure_ascii=False) + "\n", "utf-8")
