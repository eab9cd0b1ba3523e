"""Batches of utterances: all of them once, on all ranks alike, of about equal computation."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.speech import TimePruning
from regrow.speech.batches import All, UtteranceBatches, grouped
from regrow.speech.features import Features

lengths = st.lists(st.integers(1, 3000), min_size=4, max_size=80)


@given(lengths, st.integers(1, 12), st.integers(1, 4), st.integers(0, 99))
def test_groups_hold_every_utterance_once(made, number, ranks, seed):
    many = torch.tensor(made)
    ids = torch.arange(len(many)) * 10
    groups = grouped(ids, many, number, torch.Generator().manual_seed(seed), ranks)
    flat = torch.cat(groups)
    assert len(flat.unique()) == len(flat) == len(many) // ranks * ranks
    assert len(groups) == min(number, len(many) // ranks)
    assert all(len(group) and len(group) % ranks == 0 for group in groups)


def test_groups_are_about_equally_much_and_of_equal_length():
    draw = torch.Generator().manual_seed(0)
    many = torch.randint(50, 1600, (2000,), generator=draw)
    groups = grouped(torch.arange(2000), many, 60, draw)
    padded = torch.tensor([len(g) * int(many[g].max()) for g in groups], dtype=torch.float64)
    assert padded.sum() / many.sum() < 1.1
    assert padded.max() / padded.mean() < 1.7  # the shortest differ most, as shares of their length


def test_fewer_utterances_than_ranks_are_refused():
    with pytest.raises(ValueError, match="2 utterances for 3 ranks"):
        grouped(torch.arange(2), torch.tensor([3, 4]), 1, torch.Generator(), 3)


def made(n=20, chosen=None, **options):
    draw = torch.Generator().manual_seed(0)
    many = torch.randint(8, 60, (n,), generator=draw)
    frames = torch.randn(int(many.sum()), 80, generator=draw).half()
    labels = torch.randint(1, 5, (n, 3), generator=draw)
    label_lengths = torch.randint(1, 4, (n,), generator=draw)
    options = {"batch": 4, "seed": 3, "chosen": chosen or All(n)} | options
    return UtteranceBatches(Features.of((frames, many)), labels, label_lengths, **options)


def test_an_epoch_has_every_utterance_with_its_frames_and_labels():
    batches = made()
    seen = []
    for batch in batches.epoch(0):
        frames, n = batch.inputs
        for row, i in enumerate(batch.ids.tolist()):
            seen.append(i)
            torch.testing.assert_close(frames[row, : n[row]], batches.features[i].float())
            many = int(batch.targets[1][row])
            assert batch.targets[0][row, :many].equal(batches.labels[i, :many])
    assert sorted(seen) == list(range(20))
    assert len(batches) == 5 and batches.total(3) == 15


def test_epochs_differ_and_repeat():
    def ids(epoch):
        return [batch.ids.tolist() for batch in made().epoch(epoch)]

    assert ids(1) == ids(1) != ids(2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    ids(0)
    assert torch.get_rng_state().equal(state)  # nobody else's random numbers are touched


def test_ranks_share_the_batches_of_one():
    whole = [set(batch.ids.tolist()) for batch in made().epoch(2)]
    ranks = [list(made(rank=r, ranks=2).epoch(2)) for r in range(2)]
    assert len({len(of) for of in ranks}) == 1
    both = [set(a.ids.tolist()) | set(b.ids.tolist()) for a, b in zip(*ranks, strict=True)]
    assert all(len(a) == len(b) for a, b in zip(*ranks, strict=True))
    assert len(set().union(*both)) == 20
    assert sum(map(len, whole)) == 20


def test_time_is_pruned_before_the_network_sees_it():
    whole, pruned = made(), made(pruning=TimePruning(0.5, 2))
    frames = [sum(int(b.inputs[1].sum()) for b in one.epoch(0)) for one in (whole, pruned)]
    assert 0.4 < frames[1] / frames[0] < 0.65
    assert pruned.told.hours == pytest.approx(frames[1] * 0.01 / 3600, rel=0.02)
    assert pruned.told.whole_hours == whole.told.hours
    for batch in pruned.epoch(1):
        steps = (batch.inputs[1] + 3) // 4
        assert (
            steps >= pruned.needed[batch.ids].minimum((whole.features.lengths[batch.ids] + 3) // 4)
        ).all()


class Half(All):
    """Chooses every second utterance, others in odd epochs."""

    def chosen(self, epoch):
        return torch.arange(epoch % 2, len(self.losses), 2)

    def count(self, epoch):
        return len(self.losses) // 2


def test_what_is_chosen_is_what_is_learnt_and_the_plan_knows_how_much():
    batches = made(chosen=Half(20))
    for epoch in range(2):
        ids = torch.cat([batch.ids for batch in batches.epoch(epoch)])
        assert ids.sort().values.equal(torch.arange(epoch, 20, 2))
        assert batches.told.ids.equal(torch.arange(epoch, 20, 2))
    assert batches.total(2) == 6  # ceil(10 / 4), twice


def test_losses_are_remembered_by_utterance():
    memory = All(6)
    memory.update(torch.tensor([4, 1]), torch.tensor([0.5, 2.0]))
    memory.finish()
    memory.update(torch.tensor([1]), torch.tensor([1.0]))
    memory.finish()
    assert memory.losses[[1, 4]].tolist() == [1.0, 0.5] and memory.losses[0].isnan()
    assert memory.seen.tolist() == [0, 2, 0, 0, 1, 0]
    other = All(6)
    other.load_state_dict(memory.state_dict())
    assert other.seen.equal(memory.seen) and memory.weights(torch.tensor([0])) is None


def test_a_speed_is_drawn_for_each_utterance_and_epoch_unless_it_is_too_short():
    whole = made()
    half = whole.features.lengths // 2  # as if played twice as fast
    frames = torch.ones(int(half.sum()), 80).half()
    both = made(others=[Features.of((frames, half))])
    fits = (half + 3) // 4 >= whole.needed
    assert fits.any() and not fits.all()
    drawn = torch.zeros(20, dtype=torch.int64)
    for epoch in range(12):
        seconds = 0
        for batch in both.epoch(epoch):
            lengths = batch.inputs[1]
            seconds += 0.01 * int(lengths.sum())
            fast = lengths == half[batch.ids]
            assert ((lengths == whole.features.lengths[batch.ids]) | fast).all()
            assert (batch.inputs[0][fast][:, 0] == 1).all()
            drawn[batch.ids] += fast
        assert both.told.hours == pytest.approx(seconds / 3600)
    assert (drawn[~fits] == 0).all() and (drawn[fits] > 0).all() and (drawn[fits] < 12).all()
    orders = [[b.ids.tolist() for b in both.epoch(5)] for _ in range(2)]
    assert orders[0] == orders[1]


def test_at_a_larger_stride_fewer_are_long_enough_at_another_speed():
    whole = made()
    half = whole.features.lengths // 2
    other = Features.of((torch.ones(int(half.sum()), 80).half(), half))
    fine, coarse = ((half + stride - 1) // stride >= whole.needed for stride in (4, 8))
    assert (fine & ~coarse).any()
    both = made(others=[other], stride=8)
    for epoch in range(12):
        for batch in both.epoch(epoch):
            fast = batch.inputs[1] == half[batch.ids]
            assert coarse[batch.ids[fast]].all()


def test_one_speed_is_as_none():
    one, other = made(), made(others=())
    for a, b in zip(one.epoch(1), other.epoch(1), strict=True):
        assert a.ids.equal(b.ids) and a.inputs[0].equal(b.inputs[0])
