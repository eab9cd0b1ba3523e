"""What made-up scenes are made of."""

from __future__ import annotations

from dataclasses import dataclass, field

from regrow.engine.checks import check_integer
from regrow.motion.simulator.sensor import Sensor

__all__ = ["Truth", "World"]


@dataclass(frozen=True)
class World:
    """What scenes are made of.

    Args:
        reliability: how often the cue of a body shows the intent, where the map leaves more than
            one way open; else it shows another. At most one over the number of cues, such as 0:
            at chance, the cue says nothing. Where the map leaves one way, it always says nothing.
        near: metres from the sensor to the nearest road users to predict, now.
        far: metres to the farthest.
        pedestrians: to predict in a scene; fewer where there is no room.
        cyclists: to predict in a scene.
        vehicles: to predict in a scene.
        others: vehicles that drive away, not to predict.
        limited: share of the arms of a crossing from which a single way leads on, and of the
            crosswalks that are missing: there map and track suffice.
        sensor: the LiDAR.
    """

    reliability: float = 0.9
    near: float = 5.0
    far: float = 50.0
    pedestrians: int = 3
    cyclists: int = 2
    vehicles: int = 1
    others: int = 2
    limited: float = 0.4
    sensor: Sensor = field(default_factory=Sensor)

    def __post_init__(self) -> None:
        for name in ("reliability", "limited"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name}={value}: must be from 0 to 1")
        for name in ("pedestrians", "cyclists", "vehicles", "others"):
            if not 0 <= check_integer(value := getattr(self, name), name) <= 8:
                raise ValueError(f"{name}={value}: must be from 0 to 8")
        if not self.pedestrians + self.cyclists + self.vehicles:
            raise ValueError("pedestrians, cyclists, vehicles: all 0; one to predict is needed")
        if not 0 <= self.near <= self.far - 15 or not 25 <= self.far <= 75:
            raise ValueError(
                f"near={self.near}, far={self.far}: far must be from 25 to 75 metres, and near at "
                "least 15 less, for a crossing is that large"
            )


@dataclass(frozen=True)
class Truth:
    """What was drawn for a road user, which no input holds.

    Args:
        story: "stand", "walk", "ride" or "drive".
        intent: what he or she will do.
        cue: what the body says; -1: bodies of this kind say nothing.
        ways: how many intents the map left open; 1: map and track suffice.
    """

    story: str
    intent: int
    cue: int
    ways: int
