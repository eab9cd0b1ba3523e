"""Splits keep every class's share; batches share every sample out once, whenever one comes back."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.vision.data import Batches, Order, split_off


def joined(batches):
    return torch.cat([batch.targets for batch in batches])


@st.composite
def orders(draw):
    """Samples, size and ranks that make at least one batch."""
    ranks = draw(st.integers(1, 4))
    size = ranks * draw(st.integers(1, 5))
    return draw(st.integers(size, 60)), size, ranks


@given(orders(), st.booleans(), st.integers(0, 5), st.integers(0, 3))
def test_ranks_together_have_the_batches_of_one_process(order, drop_last, epoch, seed):
    samples, size, ranks = order
    inputs, labels = torch.arange(samples) * 10, torch.arange(samples)

    def batches(rank, ranks):
        made = Batches(inputs, labels, size, seed=seed, rank=rank, ranks=ranks, drop_last=drop_last)
        return list(made.epoch(epoch)), len(made)

    shares = [batches(rank, ranks) for rank in range(ranks)]
    whole, length = batches(0, 1)
    assert len({n for _, n in shares}) == 1
    for of_rank, n in shares:
        assert len(of_rank) == n
        assert all(torch.equal(b.inputs, 10 * b.targets) for b in of_rank)
        assert all(torch.equal(b.ids, b.targets) for b in of_rank)
    for step in range(shares[0][1]):
        parts = [of_rank[step].targets for of_rank, _ in shares]
        assert len({len(part) for part in parts}) == 1
        union = torch.cat(parts)
        assert torch.equal(union, whole[step].targets[: len(union)])
        assert len(whole[step]) - len(union) < ranks
    assert 0 <= length - shares[0][1] <= 1
    seen = joined([batch for of_rank, _ in shares for batch in of_rank])
    assert len(seen.unique()) == len(seen)
    left_out = samples % size if drop_last else (samples % size) % ranks
    assert len(seen) == samples - left_out


@given(orders(), st.integers(0, 5))
def test_an_epoch_is_the_same_whatever_came_before(order, epoch):
    samples, size, _ = order
    inputs = torch.arange(samples)
    noise = lambda x, g: x + torch.rand(len(x), generator=g)  # noqa: E731
    straight = Batches(inputs, inputs, size, seed=1, augment=noise)
    for number in range(epoch):
        list(straight.epoch(number))
    resumed = Batches(inputs, inputs, size, seed=1, augment=noise)
    for a, b in zip(straight.epoch(epoch), resumed.epoch(epoch), strict=True):
        assert torch.equal(a.inputs, b.inputs)
        assert torch.equal(a.targets, b.targets)
        assert torch.equal(a.ids, b.ids)


def test_epochs_seeds_steps_and_ranks_differ_in_order_and_augmentation():
    inputs = torch.zeros(64)
    noise = lambda x, g: torch.rand(len(x), generator=g)  # noqa: E731

    def epoch(seed=0, number=0, **rank):
        made = Batches(inputs, torch.arange(64), 32, seed=seed, augment=noise, **rank)
        return list(made.epoch(number))

    first, second = epoch()
    others = [second, epoch(seed=1)[0], epoch(number=1)[0]]
    for other in others:
        assert not torch.equal(other.inputs, first.inputs)
        assert not torch.equal(other.targets, first.targets)
    one, two = (epoch(rank=rank, ranks=2)[0].inputs for rank in (0, 1))
    assert not torch.equal(one, two)


def test_batches_leave_torchs_own_random_numbers_alone():
    before = torch.get_rng_state()
    list(Batches(torch.zeros(8), torch.zeros(8), 4, seed=0).epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "arguments, said",
    [
        ({"size": 3, "ranks": 2}, r"size=3: must be a positive multiple of ranks=2"),
        ({"size": 0}, "size=0"),
        ({"size": 2, "rank": 2, "ranks": 2}, r"rank=2: must lie in 0\.\.1"),
        ({"size": 2, "rank": -1}, "rank=-1"),
        ({"size": 12}, "10 samples make no batch of size=12.*drop_last=False"),
        ({"size": 24, "ranks": 12, "drop_last": False}, "10 samples make no batch"),
    ],
)
def test_what_cannot_be_is_refused(arguments, said):
    with pytest.raises(ValueError, match=said):
        Order(10, seed=0, **arguments)


def test_inputs_and_labels_must_fit():
    with pytest.raises(ValueError, match="3 labels for 4 inputs"):
        Batches(torch.zeros(4), torch.zeros(3), 2, seed=0)
    with pytest.raises(ValueError, match="labels are on meta, inputs on cpu"):
        Batches(torch.zeros(4), torch.zeros(4, device="meta"), 2, seed=0)


def test_an_epoch_before_the_first_is_refused_at_once():
    with pytest.raises(ValueError, match="epoch -1"):
        Batches(torch.zeros(4), torch.zeros(4), 2, seed=0).epoch(-1)


labels_of = st.lists(st.integers(0, 5), min_size=2, max_size=80).map(torch.tensor)


@given(labels_of, st.floats(0.01, 0.99), st.integers(0, 3))
def test_every_class_is_split_by_its_share(labels, share, seed):
    if not 0 < round(share * len(labels)) < len(labels):
        with pytest.raises(ValueError, match="leaves a part empty"):
            split_off(labels, share, seed)
        return
    stay, off = split_off(labels, share, seed)
    assert torch.equal(torch.cat([stay, off]).sort().values, torch.arange(len(labels)))
    assert torch.equal(stay, stay.sort().values)
    assert torch.equal(off, off.sort().values)
    assert len(off) == round(share * len(labels))
    exact = labels.bincount() * share
    assert ((labels[off].bincount(minlength=len(exact)) - exact).abs() < 1 + 1e-9).all()


def test_a_split_repeats_and_another_seed_gives_another():
    labels = torch.arange(200) % 4
    first, again, other = (split_off(labels, 0.25, seed)[1] for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_sample_may_be_split_off():
    labels = torch.tensor([0, 1] * 5)
    often = sum(split_off(labels, 0.2, s)[1].bincount(minlength=10) for s in range(200))
    assert (often > 15).all()  # 40 expected; below 15 once in a million
    assert (often < 70).all()


@pytest.mark.parametrize("share", [0, 1, -0.5, 2, float("nan")])
def test_a_share_beyond_0_and_1_is_refused(share):
    with pytest.raises(ValueError, match="share="):
        split_off(torch.arange(10), share, 0)


@pytest.mark.parametrize(
    "labels", [torch.zeros(4), torch.tensor([-1, 0]), torch.zeros(2, 2).long()]
)
def test_labels_that_are_no_classes_are_refused(labels):
    with pytest.raises(ValueError, match="labels of shape"):
        split_off(labels, 0.5, 0)
