"""What an agent sees now: the latest frames on its device, and the action they lead to."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regrow.control.environments.base import Bools
from regrow.control.graphs import Graphed
from regrow.control.pixels.agent import PixelAgent

__all__ = ["Eyes", "frame_of"]

Bytes = npt.NDArray[np.uint8]


class Eyes:
    """The frames that an agent sees of an episode, and how it acts on them.

    Args:
        agent: acts.
        rendered: side of frames; where they are larger than what the agent sees, it sees their
            middle.
        test: whether it acts as in tests.

    Attributes:
        stacked: bytes, (1, stack · channels, rendered, rendered), on the device.
        action: the latest, (1, actions), on the device.
    """

    def __init__(self, agent: PixelAgent, rendered: int, *, test: bool) -> None:
        self._agent, self._test = agent, test
        shape = (1, agent.stack * agent.channels, rendered, rendered)
        self.stacked = torch.zeros(shape, dtype=torch.uint8, device=agent.device)
        self.action = torch.zeros(1, agent.actions, device=agent.device)
        self._act = Graphed(self._act_, agent.device)

    def begin_(self, frame: Tensor) -> None:
        """Begin an episode: its first frame stands for those before it."""
        self.stacked.copy_(frame.repeat(self._agent.stack, 1, 1)[None])

    def look_(self, frame: Tensor) -> None:
        """Take in the next frame."""
        channels = len(frame)
        self.stacked.copy_(torch.cat([self.stacked[0, channels:], frame])[None])

    def act(self) -> npt.NDArray[np.float32]:
        """Return an action (1, actions), on the host."""
        self._act()
        found: npt.NDArray[np.float32] = self.action.cpu().numpy()
        return found

    def _act_(self) -> None:
        self.action.copy_(self._agent.act(self._middle(), test=self._test))

    def _middle(self) -> Tensor:
        size = self._agent.setting.size
        edge = (self.stacked.shape[-1] - size) // 2
        return self.stacked[..., edge : edge + size, edge : edge + size]

    def mask(self) -> npt.NDArray[np.float32] | None:
        """Return the mask of the latest frame, (size, size) in 0..1; None: nothing is masked."""
        masks = self._agent.look(self._middle())
        return None if masks is None else masks[0, -1].float().cpu().numpy()


def frame_of(seen: Bytes, foreground: Bools | None, device: torch.device) -> Tensor:
    """Return a frame as replay buffers keep it: uint8, (channels, H, W), on the device.

    Args:
        seen: (H, W, 3).
        foreground: bool, (H, W), which becomes a fourth channel of 0 and 255.
        device: where it goes.
    """
    # Nothing waits for what the device computes: a GPU takes memory of this kind before it returns.
    frame = torch.from_numpy(np.ascontiguousarray(seen)).to(device, non_blocking=True)
    frame = frame.permute(2, 0, 1)
    if foreground is None:
        return frame
    known = torch.from_numpy(np.ascontiguousarray(foreground)).to(device, non_blocking=True)
    return torch.cat([frame, known[None].to(torch.uint8) * 255])
