"""What becomes a CUDA graph asks nothing of the host, and writes where it was captured."""

import pytest
import torch

from regrow.control.pixels.agent import PixelAgent
from regrow.control.pixels.eyes import Eyes
from regrow.control.pixels.frames import Frames
from regrow.control.pixels.method import PIXEL_METHODS
from tests.control.capturable import Refuse, places

CPU = torch.device("cpu")


@pytest.mark.parametrize("method", PIXEL_METHODS)
def test_graphs_ask_nothing_and_move_no_tensor(method, tiny, monkeypatch):
    kind = PIXEL_METHODS[method]
    agent = PixelAgent(kind, tiny(), 2, 0, CPU)
    ring = Frames(30, agent.channels, kind.rendered(16), 2, CPU)
    frame = torch.zeros(ring.frames.shape[1:], dtype=torch.uint8)
    ring.begin_(frame)
    for _ in range(12):
        ring.add_(torch.zeros(2), 1.0, False, frame)
    eyes = Eyes(agent, kind.rendered(16), test=False)
    # Of an Adam on a GPU everything lies there; on a CPU it reads its count of steps.
    steps = []
    for optimizer in agent.optimizers.values():
        monkeypatch.setattr(optimizer, "step", lambda: steps.append(1))
    agent.update_(ring, True, True, True)  # what is kept for later is there now
    eyes._act_()
    before = places([agent, ring, eyes])
    with Refuse():
        agent.update_(ring, True, True, True)
        eyes._act_()
    assert places([agent, ring, eyes]) == before
    assert len(before) > 40 and len(steps) >= 6


def test_what_is_added_is_seen_where_graphs_read_it(tiny):
    ring = Frames(30, 3, 16, 2, CPU)
    before = places(ring)
    ring.begin_(torch.zeros(3, 16, 16, dtype=torch.uint8))
    for number in range(40):
        ring.add_(torch.ones(2), 1.0, True, torch.full((3, 16, 16), number, dtype=torch.uint8))
    state = ring.state_dict()
    ring.load_state_dict(state)
    assert places(ring) == before
    assert ring._kept.tolist() == [ring.added - len(ring), len(ring)]
