"""Pruning in time: exact counts, cuts at strides, labels that still fit, draws that repeat."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.speech import TimePruning
from regrow.speech.conformer import STRIDE, steps_of
from regrow.speech.granularity import _drawn


def batch(lengths):
    """Frames that tell their own place: 1, 2, 3 ...; 0 beyond the end."""
    lengths = torch.tensor(lengths)
    place = torch.arange(1.0, int(lengths.max()) + 1)
    return (place * (place <= lengths[:, None]))[..., None].repeat(1, 1, 2), lengths


utterances = st.lists(st.tuples(st.integers(1, 90), st.integers(0, 40)), min_size=1, max_size=5)


@given(
    utterances, st.floats(0.05, 1.0), st.integers(1, 12), st.sampled_from(["random", "loud"]),
    st.integers(0, 2**62),
)  # fmt: skip
def test_what_stays_is_exact_and_cut_at_strides(made, keep, chunk, by, key):
    frames, lengths = batch([n for n, _ in made])
    needed = torch.tensor([m for _, m in made])
    pruning = TimePruning(keep, chunk, by)
    left, counts = pruning(frames, lengths, needed, torch.arange(len(made)), key)
    steps = steps_of(lengths)
    wanted = torch.maximum((keep * steps).round().long(), torch.minimum(needed, steps))
    assert steps_of(counts).equal(wanted)
    # What could be aligned can still be.
    assert bool((steps_of(counts) >= torch.minimum(needed, steps)).all())
    assert left.shape[1] == int(counts.max())
    for i, n in enumerate(counts.tolist()):
        kept = left[i, :n, 0].long() - 1
        assert (kept[1:] > kept[:-1]).all() and (left[i, n:] == 0).all()
        whole = torch.zeros(int(steps[i]) * STRIDE, dtype=torch.bool)
        whole[kept] = True
        by_step = whole.unflatten(0, (-1, STRIDE))
        full = by_step.sum(1)
        last = int(lengths[i]) - (int(steps[i]) - 1) * STRIDE
        full[-1] = full[-1] * STRIDE // last if full[-1] else 0
        assert set(full.tolist()) <= {0, STRIDE}  # a step stays whole or not at all


def runs(kept):
    """How many stretches of kept steps there are."""
    return int((kept[1:] & ~kept[:-1]).sum() + kept[0])


def kept_steps(chunk, by="random", key=1, ids=None, keep=0.5, length=800):
    frames, lengths = batch([length])
    ids = torch.tensor([3]) if ids is None else ids
    left, n = TimePruning(keep, chunk, by)(frames, lengths, torch.tensor([1]), ids, key)
    kept = torch.zeros(length, dtype=torch.bool)
    kept[left[0, : int(n[0]), 0].long() - 1] = True
    return kept[::STRIDE]


def test_chunks_hold_together_and_points_do_not():
    points, chunks = runs(kept_steps(1)), runs(kept_steps(20))
    assert points > 30 and chunks <= 6
    assert kept_steps(1).sum() == kept_steps(20).sum() == 100


def test_draws_follow_from_key_and_id_alone():
    assert kept_steps(5).equal(kept_steps(5))
    assert not kept_steps(5).equal(kept_steps(5, key=2))
    assert not kept_steps(5).equal(kept_steps(5, ids=torch.tensor([4])))
    frames, lengths = batch([100, 60, 80])
    needed, ids = torch.tensor([1, 1, 1]), torch.tensor([7, 8, 9])
    pruning = TimePruning(0.6, 3)
    whole, n = pruning(frames, lengths, needed, ids, 5)
    alone, m = pruning(frames[1:2, :60], lengths[1:2], needed[1:2], ids[1:2], 5)
    assert n[1] == m[0] and whole[1, : n[1]].equal(alone[0])


def test_loud_chunks_stay():
    frames = torch.zeros(1, 400, 3)
    frames[:, 100:180] = 1.0
    left, n = TimePruning(0.2, 5, "loud")(
        frames, torch.tensor([400]), torch.tensor([1]), torch.tensor([0]), 0
    )
    assert n.tolist() == [80] and left.sum() > 0.8 * frames.sum()


def test_all_kept_changes_nothing():
    frames, lengths = batch([40, 33])
    left, n = TimePruning(1.0, 4)(frames, lengths, torch.tensor([1, 1]), torch.tensor([0, 1]), 0)
    assert left.equal(frames) and n.equal(lengths)


def test_keep_of_both_kinds_multiplies():
    """0.7 of the utterances and 0.7 of their time are 0.49 of the frames: 2.04 times less."""
    lengths = torch.full((700,), 400)  # 0.7 of 1000 utterances
    kept = TimePruning(0.7).steps_kept(steps_of(lengths), torch.ones(700, dtype=torch.int64))
    share = float(kept.sum() * STRIDE) / (1000 * 400)
    assert share == pytest.approx(0.49) and 1 / share == pytest.approx(2.04, abs=0.01)


def test_hashes_are_even_and_differ():
    place = torch.arange(20_000)
    found = _drawn(7, place, place * 0)
    assert len(found.unique()) == len(found)
    assert float(found.mean()) == pytest.approx(0.5, abs=0.01)
    assert float(found.std()) == pytest.approx(12**-0.5, abs=0.01)
    other = _drawn(8, place, place * 0)
    assert abs(float(torch.corrcoef(torch.stack([found, other]))[0, 1])) < 0.03


@pytest.mark.parametrize("wrong", [{"keep": 0.0}, {"keep": 1.1}, {"chunk": 0}, {"by": "soft"}])
def test_what_is_out_of_range_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        TimePruning(**wrong)
