"""The ring of transitions against a list of all that was ever added."""

import pytest
import torch

from regrow.control.replay import Replay


def filled(lengths, capacity):
    """Add episodes of these lengths; each transition is its own number."""
    ring, everything, number = Replay(1, capacity, 1, 1, "cpu"), [], 0
    for episode, length in enumerate(lengths):
        for _ in range(length):
            one = torch.tensor([[float(number)]])
            ring.add_(one.expand(1, 2), one + 1, one[:, 0], -one[:, 0], one[:, 0], one[:, 0] % 2,
                      torch.tensor([episode]))  # fmt: skip
            everything.append((number, episode))
            number += 1
    return ring, everything


@pytest.mark.parametrize("capacity", [10, 13, 40])
def test_segments_lie_in_one_episode_and_every_place_is_as_likely(capacity):
    lengths, length = [5, 3, 9, 4, 7], 4
    ring, everything = filled(lengths, capacity)
    kept = everything[-capacity:]
    legal = {first for (first, a), (_, b) in zip(kept, kept[length - 1 :], strict=False) if a == b}
    n = 40_000
    uniform = (torch.arange(n) + 0.5)[None] / n
    starts = ring.starts(uniform, length, capacity)
    rewards = ring.segments(starts, length, "rewards")[0]
    assert torch.equal(rewards - rewards[:, :1], torch.arange(4.0).expand(n, -1))
    counts = rewards[:, 0].long().bincount()
    assert set(counts.nonzero()[:, 0].tolist()) == legal
    assert (counts[counts > 0] - n / len(legal)).abs().max() <= 1


def test_segments_come_from_the_latest_steps_only():
    ring, _ = filled([10, 10, 10], 30)
    starts = ring.starts(torch.linspace(0.001, 0.999, 500)[None], 3, 12)
    firsts = ring.segments(starts, 3, "rewards")[0, :, 0]
    assert set(firsts.tolist()) == set(range(20, 28))  # of 18 and 19 but two steps are left


def test_a_run_without_a_long_episode_is_told():
    ring, _ = filled([3, 3, 3], 9)
    with pytest.raises(ValueError, match=r"run 0: no episode.*segment=4"):
        ring.starts(torch.full((1, 2), 0.5), 4, 9)


@pytest.mark.parametrize("count", [4, 9, 23])
def test_the_latest_are_kept_and_sampled_evenly(count):
    ring, everything = filled([count], 9)
    kept = {float(number) for number, _ in everything[-9:]}
    uniform = torch.linspace(1e-7, 1 - 1e-7, 999)[None]
    inputs, following, learned, ended = ring.sample(ring.places(uniform))
    assert set(inputs[0, :, 0].tolist()) == kept == set((-learned[0]).tolist())
    assert torch.equal(following[0, :, 0], inputs[0, :, 0] + 1)
    assert torch.equal(ended, inputs[..., 0] % 2)
    assert len(ring) == min(count, 9)


def test_a_ring_goes_on_after_it_was_saved():
    ring, _ = filled([5, 9], 9)
    again = Replay(1, 9, 1, 1, "cpu")
    again.load_state_dict(ring.state_dict())
    for one in (ring, again):
        value = torch.tensor([[99.0]])
        numbers = [value[:, 0]] * 4
        one.add_(value.expand(1, 2), value, *numbers, torch.tensor([7]))
    for name, value in ring.state_dict().items():
        assert torch.equal(value, again.state_dict()[name])
