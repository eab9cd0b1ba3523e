"""Environments that are seen in pixels: one for each run of a population, stepped together."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from regrow.control.distractions.modes import Clean
from regrow.control.distractions.painter import Ids, painter
from regrow.control.distractions.scenes import Scene
from regrow.control.distractions.videos import Frames
from regrow.control.environments.base import Bools, Environments, Floats
from regrow.control.environments.spread import Spread

__all__ = ["Pixels", "SpreadPixels", "SuitePixels"]


class Pixels(Environments):
    """Environments whose observations are pictures: uint8, (runs, size, size, 3).

    One frame is given; whoever learns from several stacks them. ``torch.from_numpy(frames)
    .permute(0, 3, 1, 2)`` is a batch of pictures in the layout channels-last, without a copy.

    Args:
        seeds: of the runs.
        episode: steps after which an episode is over for its length.
        size: pixels of a frame's side.
    """

    def __init__(self, seeds: Sequence[int], episode: int, size: int) -> None:
        super().__init__(seeds, episode)
        self.size = size
        self.shape = (size, size, 3)
        self.observations = 3 * size * size

    def count_anew_(self, seeds: Sequence[int]) -> None:
        """Count episodes from 0 again, with other seeds."""
        self.seeds[:] = seeds
        self._numbers[:] = 0

    @abstractmethod
    def observe(self) -> Frames:
        """Return what is seen now, uint8, (runs, size, size, 3)."""

    def foreground(self) -> npt.NDArray[np.bool_]:
        """Return where agent and objects are seen now, bool, (runs, size, size).

        Raises:
            NotImplementedError: these environments cannot tell.
        """
        raise NotImplementedError(
            f"{type(self).__name__} cannot tell what is foreground; tasks of the DeepMind Control "
            "Suite can"
        )


class SuitePixels(Pixels):
    """Tasks of the DeepMind Control Suite, in pixels, with what distracts.

    Episodes begin alike in all modes, which draw their random numbers apart.

    Args:
        scenes: the tasks, one for each run.
        seeds: of the runs.
        mode: what is done to pictures.
        background: numbers of the geoms that are no foreground.
        repeat: control steps of a step, whose rewards are added.
    """

    def __init__(
        self,
        scenes: Sequence[Scene],
        seeds: Sequence[int],
        mode: Clean,
        *,
        background: Sequence[int],
        repeat: int = 4,
    ) -> None:
        super().__init__(seeds, -(-scenes[0].frames // repeat), mode.size)
        self.actions = scenes[0].actions
        self.mode, self.repeat = mode, repeat
        self._scenes, self._background = list(scenes), list(background)

    def begin_(self, run: int, random: np.random.Generator) -> None:
        """Begin an episode of a run."""
        self._scenes[run].begin(random)
        key = [self.seeds[run], int(self._numbers[run])]
        self.mode.begin(run, key, np.random.default_rng([*key, 1]))

    def advance_(self, actions: Floats) -> tuple[Floats, Bools]:
        """Step.

        Raises:
            ValueError: actions are of another shape, or not finite.
        """
        _check_actions(actions, self)
        each = zip(self._scenes, actions, strict=True)
        done = [scene.step(action, self.repeat) for scene, action in each]
        return np.array([reward for reward, _ in done]), np.array([over for _, over in done])

    def observe(self) -> Frames:
        """Return what is seen now, uint8, (runs, size, size, 3)."""
        drawn = painter().do(lambda: [self._draw(run) for run in range(self.runs)])
        steps = self._steps.tolist()
        return np.stack([self.mode.finish(i, steps[i], *one) for i, one in enumerate(drawn)])

    def _draw(self, run: int) -> tuple[Frames, Ids | None]:
        self.mode.prepare(run, int(self._steps[run]))
        scene, look = self._scenes[run], self.mode.looks[run]
        seen = (scene.model, scene.data, scene.camera)
        return look.picture(*seen), look.ids(*seen) if self.mode.needs_ids else None

    def foreground(self) -> npt.NDArray[np.bool_]:
        """Return where agent and objects are seen now: neither sky nor floor."""
        ids = np.stack(painter().do(lambda: [self._ids(run) for run in range(self.runs)]))
        seen: npt.NDArray[np.bool_] = (ids != -1) & ~np.isin(ids, self._background)
        return seen

    def _ids(self, run: int) -> Ids:
        self.mode.prepare(run, int(self._steps[run]))
        scene = self._scenes[run]
        return self.mode.looks[run].ids(scene.model, scene.data, scene.camera)

    def state(self) -> dict[str, Floats]:
        """Return the physical states."""
        return {"states": np.stack([scene.state() for scene in self._scenes])}

    def set_state_(self, state: Mapping[str, Floats]) -> None:
        """Go on: begin the same episodes again, then take over the states."""
        expected = self.state()["states"].shape
        if state["states"].shape != expected:
            raise ValueError(
                f"states of shape {state['states'].shape}, where this task and these runs have "
                f"{expected}: they are of another task, or of other runs"
            )
        for run in np.flatnonzero(self._numbers):
            self._numbers[run] -= 1
            key = [self.seeds[run], int(self._numbers[run])]
            self.begin_(int(run), np.random.default_rng(key))
            self._numbers[run] += 1
            self._scenes[run].set_state(state["states"][run])


class SpreadPixels(Spread, Pixels):
    """Environments in pixels that are stepped and drawn by processes, with a GL context each.

    Args:
        make: a function of a module, which makes the environments of some seeds.
        seeds: of the runs.
        size: pixels of a frame's side.
        processes: at most one for each run.
        **arguments: of ``make``.
    """

    def __init__(
        self,
        make: Callable[..., Pixels],
        seeds: Sequence[int],
        *,
        size: int,
        processes: int,
        **arguments: Any,
    ) -> None:
        Spread.__init__(self, make, seeds, processes=processes, size=size, **arguments)
        self.size, self.shape = size, (size, size, 3)

    def advance_(self, actions: Floats) -> tuple[Floats, Bools]:
        """Step all runs, those of different processes at once."""
        _check_actions(actions, self)  # else some would step, and others not
        return super().advance_(actions)

    def foreground(self) -> npt.NDArray[np.bool_]:
        """Return where agent and objects are seen now."""
        seen: npt.NDArray[np.bool_] = self.all_("foreground")
        return seen


def _check_actions(actions: Floats, where: Environments) -> None:
    if actions.shape != (where.runs, where.actions):
        raise ValueError(f"actions of shape {actions.shape}: {(where.runs, where.actions)}")
    if not np.isfinite(actions).all():
        run = int(np.flatnonzero(~np.isfinite(actions).all(1))[0])
        raise ValueError(f"an action of run {run} is not finite: {actions[run].tolist()}")
