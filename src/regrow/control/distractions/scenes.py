"""Tasks of the DeepMind Control Suite, as physics that can be stepped, drawn and resumed."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from regrow.control.distractions.painter import gl_library
from regrow.control.environments.base import Floats
from regrow.control.environments.models import suite_model
from regrow.engine.checks import check_type
from regrow.machine import needed

__all__ = ["Scene", "background_geoms", "check_task"]

_CAMERAS = {"quadruped": 2, "rodent": 3}  # of a domain; 0 in all others


@contextlib.contextmanager
def _told(name: str, value: str) -> Iterator[None]:
    """Set a variable of the environment, for what is imported inside."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@functools.cache
def _suite() -> Any:
    suite_model("cartpole")  # whether mujoco is there, and of a version that fits
    # dm_control looks for a screen where it is not told.
    with _told("MUJOCO_GL", gl_library()), needed("dm_control", "control"):
        from dm_control import suite  # noqa: PLC0415  an extra
    return suite


def check_task(task: str) -> tuple[str, str]:
    """Return domain and name of a task such as "ball_in_cup-catch".

    Raises:
        ValueError: the suite has no such task.
        ImportError: mujoco or dm_control is missing, or no GL library is there.
    """
    domain, _, name = task.partition("-")
    known = _suite().ALL_TASKS
    if (domain, name) not in known:
        all_names = ", ".join("-".join(pair) for pair in known)
        raise ValueError(f"task={task!r}: the DeepMind Control Suite has {all_names}")
    return domain, name


class Scene:
    """A task's physics. Where an episode begins follows from what it is begun with.

    Args:
        task: "domain-name".
    """

    def __init__(self, task: str) -> None:
        import mujoco  # noqa: PLC0415  an extra

        self.domain, name = check_task(task)
        environment = _suite().load(self.domain, name, task_kwargs={"random": 0})
        self._physics, self._task = environment.physics, environment.task
        self.model, self.data = self._physics.model.ptr, self._physics.data.ptr
        self.camera = _CAMERAS.get(self.domain, 0)
        limit = environment._step_limit
        self.frames = int(limit) if np.isfinite(limit) else 1000  # of an episode
        self._substeps = round(environment.control_timestep() / self._physics.timestep())
        spec = environment.action_spec()
        self.actions, self._low, self._high = spec.shape[0], spec.minimum, spec.maximum
        self._mujoco: Any = mujoco
        self._kind = mujoco.mjtState.mjSTATE_INTEGRATION

    def begin(self, random: np.random.Generator) -> None:
        """Begin an episode, which may change the model, too."""
        self._task.random.seed(random.integers(2**32, size=4, dtype=np.uint32))
        with self._physics.reset_context():
            self._task.initialize_episode(self._physics)

    def step(self, action: Floats, repeat: int) -> tuple[float, bool]:
        """Hold an action for some control steps; return their rewards' sum and if it is over."""
        action, total = self._low + (action + 1) / 2 * (self._high - self._low), 0.0
        for _ in range(repeat):
            self._task.before_step(action, self._physics)
            self._physics.step(self._substeps)
            self._task.after_step(self._physics)
            total += float(self._task.get_reward(self._physics))
            if self._task.get_termination(self._physics) is not None:
                return total, True
        return total, False

    def state(self) -> Floats:
        """Return all that steps depend on, where the solver starts among it."""
        state = np.zeros(self._mujoco.mj_stateSize(self.model, self._kind))
        self._mujoco.mj_getState(self.model, self.data, state, self._kind)
        return state

    def set_state(self, state: Floats) -> None:
        """Go on from a state of an episode that was begun here."""
        self._mujoco.mj_setState(self.model, self.data, state, self._kind)
        self._mujoco.mj_step1(self.model, self.data)


def background_geoms(scene: Scene, names: Sequence[str] | None) -> list[int]:
    """Return the numbers of the geoms that are background, such as the floor.

    Args:
        scene: a task's.
        names: of these geoms; None: those of the material "grid", as the published benchmark has.

    Raises:
        ValueError: there is no such geom.
        TypeError: it is one name, not a list of them.
    """
    model = scene.model
    there = [model.geom(i).name for i in range(model.ngeom)]
    if names is not None:
        check_type(names, (list, tuple), "background", "['floor']")
        for name in names:
            if name not in there:
                said = ", ".join(filter(None, there))
                raise ValueError(f"background={name!r}: {scene.domain} has the geoms {said}")
        return [there.index(name) for name in names]
    grid = [i for i in range(model.nmat) if model.mat(i).name == "grid"]
    found = np.flatnonzero(np.isin(model.geom_matid, grid)).tolist()
    if not found:
        raise ValueError(
            f"background=None: {scene.domain} has no geom of the material 'grid'; name those that "
            f"are background, among {', '.join(filter(None, there))}"
        )
    return found
