"""``{corruptions} PART``: what the page on corruptions shows, made when it is built."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any

import torch
from docutils import nodes
from PIL import Image
from records import RESULTS, Rows, table
from sklearn.datasets import load_sample_image
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from torch import Tensor

from regrow.vision.corruptions import CORRUPTIONS, EXTRA, FAMILIES, corrupt
from regrow.vision.corruptions.catalogue import _FUNCTIONS
from regrow.vision.corruptions.severities import TABLES

SIDE = 224
SEVERITY = 3
FOLDER = RESULTS / "corruption-throughput"
_FAMILY = {name: family for family, names in FAMILIES.items() for name in names}
_FAMILY |= dict(zip(EXTRA, FAMILIES, strict=True))  # one more of each, in the families' order


def names() -> list[nodes.Node]:
    """Tell what each corruption does, in the words of its function."""
    rows: Rows = [("name", "family", "what it does")]
    for name in CORRUPTIONS + EXTRA:
        said = (_FUNCTIONS[name].__doc__ or "").partition("\n")[0].replace("``", "")
        rows.append((name, _FAMILY[name] + (", extra" if name in EXTRA else ""), said))
    return [table(rows, "The fifteen, and the four for validation.")]


def severities() -> list[nodes.Node]:
    """Write out ImageNet-C's parameters."""
    rows: Rows = [("name", *(f"severity {i}" for i in range(1, 6)))]
    for name, strengths in TABLES["imagenet"].items():
        rows.append((name, *(", ".join(f"{x:.3g}" for x in strength) for strength in strengths)))
    return [table(rows, "Parameters for images of about 224 pixels, those of ImageNet-C.")]


def gallery(names: Sequence[str] = CORRUPTIONS + EXTRA) -> list[nodes.Node]:
    """Show one photograph, and under each corruption."""
    photograph = torch.from_numpy(
        load_sample_image("china.jpg")[100 : 100 + SIDE, 200 : 200 + SIDE].copy()
    )
    image = photograph.permute(2, 0, 1).unsqueeze(0)
    shown = {"clean": image}
    shown |= {name: corrupt(image, name, SEVERITY) for name in names}
    html = "".join(_picture(name, picture[0]) for name, picture in shown.items())
    return [nodes.raw("", f'<div class="gallery">{html}</div>', format="html")]


def _picture(name: str, image: Tensor) -> str:
    written = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(written, "webp", quality=80)
    data = base64.b64encode(written.getvalue()).decode()
    words = "the photograph" if name == "clean" else f"the photograph under {name}"
    return (
        f'<figure><img width="{SIDE}" height="{SIDE}" loading="lazy" alt="{escape(words)}" '
        f'src="data:image/webp;base64,{data}"><figcaption>{escape(name)}</figcaption></figure>'
    )


def speed(folder: Path = FOLDER) -> list[nodes.Node]:
    """Make a table of each record of ``benchmarks/corruptions.py``."""
    found = [json.loads(path.read_text("utf-8")) for path in sorted(folder.glob("*.json"))]
    if not found:
        return [nodes.paragraph("", "There is no record of it yet.")]
    return [table(*_record(record)) for record in found]


def _record(record: dict[str, Any]) -> tuple[Rows, str]:
    where, rows = record["environment"], record["rows"]
    sides = [side for side in ("imagenet", "cifar", "tiny-imagenet", "package") if side in rows[0]]
    compared = "ratio" in rows[0]
    heads = [side if side == "package" else f"regrow, {side}" for side in sides]
    made: Rows = [("", *heads, *(["× faster", "middle half"] if compared else []))]
    for row in rows:
        cells = [_seconds(row[side]) for side in sides]
        if compared:
            low, middle, high = row["ratio"]
            cells += [f"{middle:.1f}", f"{low:.1f}–{high:.1f}"]
        made.append((row["corruption"], *cells))
    return made, _caption(where)


def _caption(where: dict[str, Any]) -> str:
    count, _, height, width = where["images"]
    machine = where["cpu"] if where["device"] == "cpu" else where["gpu"]
    threads = f", {_many(where['threads'], 'thread')}" if where["device"] == "cpu" else ""
    package = f"; imagecorruptions {where['package']}" if where["package"] != "none" else ""
    return (
        f"Time of a thousand images, five severities each: {count} {where['source']}, "
        f"{height}×{width}, {where['rounds']} rounds. {machine}{threads}, torch {where['torch']}"
        f"{package}."
    )


def _seconds(value: float) -> str:
    return f"{value:.2f} s" if value >= 0.05 else f"{1000 * value:.1f} ms"


def _many(count: int, word: str) -> str:
    return f"{count} {word}" + "s" * (count != 1)


PARTS: dict[str, Callable[[], Sequence[nodes.Node]]] = {
    "names": names,
    "severities": severities,
    "gallery": gallery,
    "few": lambda: gallery(("fog", "pixelate")),
    "speed": speed,
}


class Corruptions(SphinxDirective):
    """One part of the page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make it; the page is built again when a record has changed."""
        for path in FOLDER.glob("*.json"):
            self.env.note_dependency(str(path))
        return list(PARTS[self.arguments[0]]())


def setup(app: Sphinx) -> dict[str, bool]:
    """Register the directive."""
    app.add_directive("corruptions", Corruptions)
    return {"parallel_read_safe": True}
