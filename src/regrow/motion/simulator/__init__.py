"""A made-up world in which the bodies of road users tell what they will do next."""

from regrow.motion.simulator.sensor import Sensor
from regrow.motion.simulator.simulate import simulate
from regrow.motion.simulator.world import Truth, World

__all__ = ["Sensor", "Truth", "World", "simulate"]
