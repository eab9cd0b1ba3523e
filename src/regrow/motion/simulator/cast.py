"""Who is in a made-up scene, and where: road users at a crossing, at the wanted distances."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.motion.simulator.crossing import CROSSING, Road
from regrow.motion.simulator.draws import Purpose, draws
from regrow.motion.simulator.on_foot import Stand, Walk
from regrow.motion.simulator.on_wheels import Drive, Passed, Ride
from regrow.motion.simulator.stories import Story
from regrow.motion.simulator.world import World

__all__ = ["OTHERS", "Cast", "draw_arms", "draw_cast"]

Array = npt.NDArray[Any]

OTHERS = 1000
"""Numbers of road users that are not predicted begin here; 0 is the sensor's car."""

_TRIES = 60  # of a place

Cast = list[tuple[int, Story]]
"""Road users by number, the sensor's car first."""


def draw_arms(draw: np.random.Generator, limited: float) -> tuple[Road, ...]:
    """Draw the roads; two neighbours always have crosswalks, for who stands between them.

    Args:
        draw: random numbers.
        limited: share of arms with a single way on, and of crosswalks that are missing.
    """
    turns = draw.integers(3, size=4)
    single, missing = draw.random((2, 4)) < limited
    return tuple(
        Road(int(turns[k]) if single[k] else None, k < 2 or not missing[k]) for k in range(4)
    )


def draw_cast(seed: int, world: World, arms: Sequence[Road], draw: np.random.Generator) -> Cast:
    """Place everyone, the sensor anew while nobody is at the wanted distances.

    Args:
        seed: of the scene.
        world: who is wanted, and where.
        arms: the roads.
        draw: random numbers for the sensor's car.

    Raises:
        ValueError: nobody to predict could be placed, however often it was tried.
    """
    makers = (
        *(_on_foot for _ in range(world.pedestrians)),
        *(Ride.drawn for _ in range(world.cyclists)),
        *(Drive.drawn for _ in range(world.vehicles)),
    )
    for _ in range(_TRIES):
        cast: Cast = [(0, _sensor_car(draw, world))]
        for number, make in enumerate(makers, 1):
            _place(cast, number, make, arms, seed, (world.near, world.far))
        if len(cast) > 1:
            break
    else:
        raise ValueError(
            f"seed={seed}: nobody of pedestrians={world.pedestrians}, cyclists={world.cyclists}, "
            f"vehicles={world.vehicles} is from near={world.near} to far={world.far}; widen them"
        )
    for number in range(OTHERS, OTHERS + world.others):
        _place(cast, number, Passed.drawn, arms, seed, (0, np.inf))
    return cast


def _place(
    cast: Cast,
    number: int,
    make: Callable[[np.random.Generator, Sequence[Road]], Story],
    arms: Sequence[Road],
    seed: int,
    ranges: tuple[float, float],
) -> None:
    """Add a road user where there is room and the distance is right, if that is to be found."""
    draw = draws(seed, number, Purpose.PLACE)
    there = np.array([_now(story) for _, story in cast])
    room = np.array([story.size(1)[0] for _, story in cast]) / 2
    for _ in range(_TRIES):
        story = make(draw, arms)
        apart = np.linalg.norm(there - _now(story), axis=1)
        if ranges[0] <= apart[0] <= ranges[1] and (apart > room + story.size(1)[0] / 2 + 0.3).all():
            cast.append((number, story))
            return


def _now(story: Story) -> Array:
    places, _ = story.track(0 if story.cues else 1, np.zeros(1))
    return np.asarray(places[0])


def _on_foot(draw: np.random.Generator, arms: Sequence[Road]) -> Story:
    return (Stand, Walk)[draw.integers(2)].drawn(draw, arms)


def _sensor_car(draw: np.random.Generator, world: World) -> Story:
    """Draw the sensor's car, which stands or drives on an arm, as often one as the other."""
    distance = draw.uniform(max(world.near, CROSSING + 5), world.far)
    speed = max(float(draw.uniform(-6, 6)), 0.0)
    return Drive(int(draw.integers(4)), speed, float(distance) - CROSSING)
