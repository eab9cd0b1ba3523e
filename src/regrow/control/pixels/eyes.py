"""What an agent sees now: the latest frames on its device, and the actions they lead to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.control.environments.base import Bools
from regrow.control.graphs import Graphed
from regrow.control.pixels.agent import PixelAgent

__all__ = ["Eyes", "frames_of"]

Bytes = npt.NDArray[np.uint8]


class Eyes:
    """The frames that an agent sees of an episode, or of several at once, and how it acts on them.

    Args:
        agent: acts.
        rendered: side of frames; where they are larger than what the agent sees, it sees their
            middle.
        test: whether it acts as in tests.
        runs: episodes at once.

    Attributes:
        stacked: bytes, (runs, stack · channels, rendered, rendered), on the device.
        action: the latest, (runs, actions), on the device.
    """

    def __init__(self, agent: PixelAgent, rendered: int, *, test: bool, runs: int = 1) -> None:
        self._agent, self._test = agent, test
        shape = (runs, agent.stack * agent.channels, rendered, rendered)
        self.stacked = torch.zeros(shape, dtype=torch.uint8, device=agent.device)
        self.action = torch.zeros(runs, agent.actions, device=agent.device)
        self._act = Graphed(self._act_, agent.device)

    def begin_(self, frames: Tensor) -> None:
        """Begin episodes: first frames, (runs, channels, H, W), stand for those before them."""
        self.stacked.copy_(frames.repeat(1, self._agent.stack, 1, 1))

    def look_(self, frames: Tensor) -> None:
        """Take in the next frames, (runs, channels, H, W)."""
        self.stacked.copy_(torch.cat([self.stacked[:, frames.shape[1] :], frames], 1))

    def act(self) -> npt.NDArray[np.float32]:
        """Return actions (runs, actions), on the host."""
        self._act()
        found: npt.NDArray[np.float32] = self.action.cpu().numpy()
        return found

    def _act_(self) -> None:
        self.action.copy_(self._agent.act(self._middle(), test=self._test))

    def _middle(self) -> Tensor:
        size = self._agent.setting.size
        edge = (self.stacked.shape[-1] - size) // 2
        return self.stacked[..., edge : edge + size, edge : edge + size]

    def masks(self, runs: int) -> npt.NDArray[np.float32] | None:
        """Return the masks of the latest frames of the first runs, (runs, size, size) in 0..1.

        Returns:
            None: nothing is masked.
        """
        masks = self._agent.look(self._middle()[:runs])
        return None if masks is None else masks[:, -1].float().cpu().numpy()


def frames_of(seen: Bytes, foreground: Bools | None, device: torch.device) -> Tensor:
    """Return frames as replay buffers keep them: uint8, (runs, channels, H, W), on the device.

    Args:
        seen: (runs, H, W, 3).
        foreground: bool, (runs, H, W), which becomes a fourth channel of 0 and 255.
        device: where they go.
    """
    # Nothing waits for what the device computes: a GPU takes memory of this kind before it returns.
    frames = torch.from_numpy(np.ascontiguousarray(seen)).to(device, non_blocking=True)
    frames = frames.permute(0, 3, 1, 2)
    if foreground is None:
        return frames
    known = torch.from_numpy(np.ascontiguousarray(foreground)).to(device, non_blocking=True)
    return torch.cat([frames, known[:, None].to(torch.uint8) * 255], 1)
