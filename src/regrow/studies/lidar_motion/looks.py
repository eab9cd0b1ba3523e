"""Colours of pictures of scenes, on light and on dark paper."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from regrow.motion.scene import LINES

__all__ = ["DARK", "LIGHT", "ON_DARK", "Palette"]


@dataclass(frozen=True)
class Palette:
    """Colours by what they show; safe for the colour-blind.

    Args:
        paper: the background.
        ink: text, and the past of the target.
        quiet: scales and what is beside the point.
        target: who is predicted.
        truth: where the target went.
        predicted: where it may go.
        road: edges of the road.
        lane: middles of lanes.
        bike: middles of bike lanes.
        marking: lines painted on the road.
        crossing: crosswalks, speed bumps and driveways.
        others: road users who are not predicted.
    """

    paper: str
    ink: str
    quiet: str
    target: str
    truth: str
    predicted: str
    road: str
    lane: str
    bike: str
    marking: str
    crossing: str
    others: str

    def line(self, kind: int) -> tuple[str, float, bool]:
        """Return colour, width in points, and whether it is dashed, of a map line.

        Args:
            kind: a value of ``LINES``.
        """
        name = _NAMES.get(kind, "unknown")
        if name in ("road edge", "median"):
            return self.road, 1.6, False
        if name in ("freeway", "street"):
            return self.lane, 0.8, True
        if name == "bike lane":
            return self.bike, 0.8, True
        return (self.marking if "yellow" in name else self.quiet), 0.9, False


_NAMES = {value: name for name, value in LINES.items()}

LIGHT = Palette(
    paper="#ffffff",
    ink="#22252b",
    quiet="#8d939e",
    target="#d55e00",
    truth="#00805c",
    predicted="#0072b2",
    road="#9aa1ac",
    lane="#ccd1d9",
    bike="#b5dccb",
    marking="#e6c65c",
    crossing="#eceff4",
    others="#b9c0cb",
)
DARK = Palette(
    paper="#14171c",
    ink="#e8eaee",
    quiet="#7f8792",
    target="#ff8a3c",
    truth="#3ddaa5",
    predicted="#6cc0f5",
    road="#5d6570",
    lane="#363d47",
    bike="#2c5446",
    marking="#7d6a26",
    crossing="#20252d",
    others="#525b68",
)
ON_DARK: dict[str, str] = {
    light: getattr(DARK, name) for name, light in asdict(LIGHT).items() if name != "paper"
}
"""What a light colour is on a dark page, whose paper is its own."""
