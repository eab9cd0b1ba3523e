"""Samplers inside real loaders: every sample where it belongs, equal batches on all ranks."""

import gc
import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset, TensorDataset

from regrow.samples import Choice, Cyclic, Hard, InfoBatch, Random, RootLoss, Samples
from regrow.samples import batches as cutting
from regrow.samples.batches import by_length, by_size
from regrow.samples.choose import up_to_length
from regrow.samples.sampler import BatchSampler
from tests.samples.loops import learn, loss_of, run


class Numbers(Dataset):
    """Items that are their own position."""

    def __init__(self, n, fetches_lists=False):
        self.n = n
        if fetches_lists:
            self.__getitems__ = lambda positions: [self[p] for p in positions]

    def __len__(self):
        return self.n

    def __getitem__(self, position):
        return torch.tensor([position, -position])


# ---------------------------------------------------------------------- batches

SIZES = st.integers(1, 7)
RANKS = st.integers(1, 4)


@given(st.integers(0, 60), SIZES, RANKS, st.booleans())
def test_ranks_share_out_batches_evenly(n, size, ranks, drop_last):
    order = np.random.default_rng(n).permutation(n)
    cut = [by_size(order, size, r, ranks, drop_last=drop_last) for r in range(ranks)]
    shares = [list(batches) for batches in cut]
    assert [b.samples for b in cut] == [sum(map(len, batches)) for batches in shares]
    assert len({tuple(map(len, batches)) for batches in shares}) == 1
    flat = [int(p) for batches in shares for batch in batches for p in batch]
    assert len(set(flat)) == len(flat)
    left_out = n - len(flat)
    assert left_out < (size * ranks if drop_last else ranks)
    assert set(flat) == set(order[: len(flat)].tolist())
    assert all(len(b) == size for b in shares[0][:-1])


LENGTHS = st.lists(st.integers(0, 40), min_size=1, max_size=60)


def steps_by_length(order, lengths, budget, size, ranks, buckets):
    """The batches of all ranks, step by step."""
    how = budget, size, ranks, buckets, torch.Generator()
    positions, edges = by_length(order, lengths, *how)
    return [[positions[a:b] for a, b in itertools.pairwise(step)] for step in edges]


def plain(order, lengths, budget, size, ranks, buckets):
    """The same by the book: sorted, cut sample by sample, halved, put in another order."""
    found = []
    for part in np.array_split(np.argsort(lengths[order], kind="stable"), min(buckets, len(order))):
        batch = []
        for position in order[np.sort(part)].tolist():
            longer = [*batch, position]
            over = len(longer) * max(lengths[p] for p in longer) > budget
            if batch and (over or (size is not None and len(longer) > size)):
                found.append(batch)
                longer = [position]
            batch = longer
        found.append(batch)
    while len(found) % ranks and max(map(len, found)) > 1:
        at = max(range(len(found)), key=lambda i: len(found[i]))
        half = len(found[at]) // 2
        found[at : at + 1] = [found[at][:half], found[at][half:]]
    steps = [found[at : at + ranks] for at in range(0, len(found) // ranks * ranks, ranks)]
    return [steps[at] for at in torch.randperm(len(steps), generator=torch.Generator()).tolist()]


@pytest.mark.parametrize("tenth", [0.1, 0.7, 1.0])
def test_as_many_fit_as_the_product_allows(tenth):
    """Quotients and products are rounded, and not alike: 3 × 0.1 is above 0.3."""
    lengths = np.append(np.arange(1, 60) * tenth, [0.0, 1e-320])
    for budget in np.arange(60, 120) * tenth:
        fits = cutting._fitting(lengths, budget, None)
        most = [max(c for c in range(1, 62) if c == 1 or c * x <= budget) for x in lengths]
        assert fits.tolist() == most


@pytest.mark.parametrize(("few", "part"), [(64, 1 << 16), (0, 3)])
@given(LENGTHS, st.integers(40, 200), st.none() | SIZES, RANKS, st.integers(1, 8), st.booleans())
def test_batches_by_length_are_those_cut_sample_by_sample(
    few, part, lengths, budget, size, ranks, buckets, tenths
):
    lengths, budget = np.array(lengths) * (0.1 if tenths else 1.0), budget * (0.1 if tenths else 1)
    order = np.random.default_rng(len(lengths)).permutation(len(lengths)).astype(np.int32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cutting, "_FEW", few)
        patch.setattr(cutting, "_PART", part)
        steps = steps_by_length(order, lengths, budget, size, ranks, buckets)
    whole = [[batch.tolist() for batch in step] for step in steps]
    assert whole == plain(order, lengths, budget, size, ranks, buckets)


@given(LENGTHS, st.integers(40, 200), st.none() | SIZES, RANKS, st.integers(1, 8))
def test_batches_by_length_stay_within_their_budget(lengths, budget, size, ranks, buckets):
    lengths = np.array(lengths, dtype=np.float64)
    order = np.random.default_rng(len(lengths)).permutation(len(lengths))
    steps = steps_by_length(order, lengths, budget, size, ranks, buckets)
    assert all(len(step) == ranks for step in steps)
    flat = [int(p) for step in steps for batch in step for p in batch]
    assert len(set(flat)) == len(flat)
    for step in steps:
        for batch in step:
            assert len(batch) >= 1
            assert len(batch) * lengths[batch].max() <= budget
            assert size is None or len(batch) <= size
    # Only if there are fewer samples than would make another round of batches is anything left out.
    assert len(flat) == len(lengths) or len(lengths) - len(flat) < ranks


def test_batches_by_length_pad_little():
    rng = np.random.default_rng(0)
    lengths = rng.gamma(2, 400, 5000) + 50
    order = rng.permutation(5000)

    def padded(buckets):
        steps = steps_by_length(order, lengths, 20_000, None, 1, buckets)
        return sum(len(b) * lengths[b].max() for step in steps for b in step) / lengths.sum()

    assert padded(20) < 1.1
    assert padded(1) > 1.8


def test_batches_by_length_come_in_mixed_order():
    lengths = np.arange(1.0, 1001)
    steps = steps_by_length(np.arange(1000), lengths, 4000, None, 1, 20)
    means = [lengths[batch].mean() for step in steps for batch in step]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


# ---------------------------------------------------------------------- epochs


def test_each_pass_is_the_next_epoch():
    samples = Samples(20, Cyclic(), keep=0.5)
    sampler = samples.sampler()
    one, other = list(sampler), list(sampler)
    assert sorted(one + other) == list(range(20))
    assert samples.epoch == 1


def test_told_or_not_epochs_are_the_same():
    told, counted = (Samples(20, RootLoss(), keep=0.5, seed=3) for _ in range(2))
    one = run(told, told.batch_sampler(4), range(5), told=True)
    other = run(counted, counted.batch_sampler(4), range(5))
    assert one == other


def test_both_samplers_have_one_order():
    samples = [Samples(20, Cyclic(), keep=0.55) for _ in range(2)]
    sampler, batches = samples[0].sampler(), samples[1].batch_sampler(4)
    for _ in range(3):
        assert list(sampler) == [p for batch in batches for p in batch]


def test_another_seed_is_another_choice_and_another_order():
    one, other = (list(Samples(50, Random(), keep=0.5, seed=s).sampler()) for s in (0, 1))
    assert sorted(one) != sorted(other)
    full = [list(Samples(50, Random(), keep=1.0, seed=s).sampler()) for s in (0, 1)]
    assert full[0] != full[1]
    assert sorted(full[0]) == sorted(full[1])


def test_an_epoch_before_the_present_one_is_refused():
    samples = Samples(10, Random(), keep=0.5)
    samples.set_epoch(3)
    with pytest.raises(ValueError, match="epoch=2: epoch 3 has begun"):
        samples.set_epoch(2)
    with pytest.raises(TypeError, match="epoch="):
        samples.set_epoch(1.0)


def test_an_epoch_that_is_over_is_not_begun_again_in_silence():
    samples = Samples(10, Random(), keep=0.5)
    sampler = samples.sampler()
    sampler.set_epoch(0)
    list(sampler)
    with pytest.raises(ValueError, match=r"epoch 0 is over.*set_epoch\(1\)"):
        list(sampler)
    sampler.set_epoch(1)
    assert len(list(sampler)) == 5


def test_a_run_ends_where_it_was_planned():
    samples = Samples(10, Random(), keep=0.5, epochs=2)
    sampler = samples.sampler()
    list(sampler), list(sampler)
    with pytest.raises(ValueError, match="epochs=2"):
        list(sampler)
    with pytest.raises(ValueError, match="epochs=2"):
        samples.set_epoch(2)


def test_too_few_samples_for_all_ranks_are_refused():
    samples = Samples(4, Random(), keep=0.5)
    with pytest.raises(ValueError, match="make no batch for each of 3 ranks"):
        list(samples.sampler(rank=0, ranks=3))


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({}, "give the samples of a batch"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batch_size": 2, "rank": 2, "ranks": 2}, "rank=2"),
        ({"batch_size": 2, "ranks": 0}, "ranks=0"),
        ({"batch_size": 2.5}, "batch_size=2.5: an integer is needed"),
        ({"batch_size": 2, "rank": 0.5, "ranks": 2}, "rank=0.5: an integer is needed"),
        ({"max_length": "9"}, "max_length='9': a number is needed"),
        ({"batch_size": 2, "buckets": 0}, "buckets=0"),
        ({"max_length": 3}, "1 samples are longer, up to 4"),
        ({"max_length": 9, "drop_last": True}, "drop_last=True"),
    ],
)
def test_samplers_refuse_what_does_not_fit(how, words):
    with pytest.raises((TypeError, ValueError), match=words):
        Samples(4, Random(), lengths=[1, 2, 3, 4]).batch_sampler(**how)
    with pytest.raises(ValueError, match="needs Samples"):
        Samples(4, Random()).batch_sampler(max_length=9)


def test_an_excluded_sample_may_be_longer_than_the_budget():
    samples = Samples(4, Random(), keep=1.0, lengths=[1, 2, 3, 400])
    samples.exclude([3])
    batches = list(samples.batch_sampler(max_length=6))
    assert sorted(p for batch in batches for p in batch) == [0, 1, 2]


# ---------------------------------------------------------------------- schedules


def test_warmup_and_annealing_are_on_all_data():
    samples = Samples(20, RootLoss(), keep=0.5, epochs=8, warmup=2, anneal=0.25)
    found = run(samples, samples.batch_sampler(20), range(8))
    assert [len(batches[0]) for batches in found] == [20, 20, 10, 10, 10, 10, 20, 20]


def test_a_choice_may_last_for_several_epochs():
    samples = Samples(30, Random(), keep=0.5, every=3)
    sampler = samples.sampler()
    sets = [frozenset(sampler) for _ in range(9)]
    assert [len(set(sets[at : at + 3])) for at in (0, 3, 6)] == [1, 1, 1]
    assert len(set(sets)) == 3


def test_a_static_choice_follows_warmup():
    samples = Samples(30, Hard(), keep=0.5, warmup=1, every=None)
    found = run(samples, samples.batch_sampler(30), range(4))
    sets = [frozenset(batches[0]) for batches in found]
    assert len(sets[0]) == 30
    hardest = sorted(range(30), key=lambda p: -loss_of([p], 0))[:15]
    assert sets[1] == sets[2] == sets[3] == frozenset(hardest)


@pytest.mark.parametrize("keep", [0.3, 0.7])
def test_a_share_may_be_of_hours(keep):
    lengths = np.random.default_rng(0).gamma(2, 3, 500)
    samples = Samples(500, Hard(), keep=keep, lengths=lengths, share_of="length", warmup=1)
    found = run(samples, samples.batch_sampler(500), range(3))
    for batches in found[1:]:
        kept = lengths[batches[0]].sum() / lengths.sum()
        assert keep - 0.03 < kept <= keep


@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.floats(0.01, 1), st.booleans())
def test_a_total_length_is_met_as_closely_as_samples_allow(lengths, share, nested):
    lengths, asked = torch.tensor(lengths, dtype=torch.float64), []
    n = len(lengths)

    def chosen(k):
        asked.append(k)
        first = 0 if nested else 7 * k  # else other samples with every count
        mask = torch.zeros(n, dtype=torch.bool)
        mask[(torch.arange(k) + first) % n] = True
        return Choice(mask)

    budget = share * float(lengths.sum())
    mask = up_to_length(chosen, lengths, budget, n).mask
    total, kept = float(lengths[mask].sum()), int(mask.sum())
    assert total <= budget or kept == 1
    if nested and kept < n:
        assert float(lengths[: kept + 1].sum()) > budget or budget - total < 1e-4 * budget
    assert len(asked) <= 3 * math.log2(n) + 3


def test_a_total_length_of_many_is_met_in_few_choices():
    """Lengths that have nothing to do with the order, and such that fall along it."""
    for falling in (False, True):
        lengths = np.random.default_rng(0).gamma(2, 400, 200_000)
        lengths = torch.from_numpy(np.sort(lengths)[::-1].copy() if falling else lengths)
        asked = []
        budget = 0.7 * float(lengths.sum())
        order = torch.arange(len(lengths))
        choice = up_to_length(
            lambda k, asked=asked, order=order: asked.append(k) or Choice(order < k),
            lengths,
            budget,
            len(lengths),
        )
        assert 0 <= budget - float(lengths[choice.mask].sum()) < 1e-4 * budget
        assert len(asked) <= (8 if falling else 4)


STEPS = st.fixed_dictionaries(
    {
        "keep": st.sampled_from([0.3, 0.5, 1.0]),
        "warmup": st.integers(0, 2),
        "anneal": st.integers(0, 2),
        "every": st.sampled_from([1, 2, None]),
    }
)


@given(STEPS, SIZES, RANKS, st.integers(1, 3), st.booleans())
def test_planned_steps_are_those_that_are_taken(options, size, ranks, accumulate, drop_last):
    samples = Samples(50, Cyclic(), epochs=6, **options)
    planned = samples.steps(size, accumulate=accumulate, drop_last=drop_last, ranks=ranks)
    sampler = samples.batch_sampler(size, drop_last=drop_last, rank=ranks - 1, ranks=ranks)
    taken = sum(-(-len(batches) // accumulate) for batches in run(samples, sampler, range(6)))
    assert taken == planned


@given(STEPS, SIZES, st.booleans())
def test_progress_ends_at_exactly_one(options, size, by_budget):
    samples = Samples(50, InfoBatch(), epochs=6, lengths=np.arange(50) % 9 + 1, **options)
    sampler = samples.batch_sampler(size, max_length=20 if by_budget else None)
    before = -1.0
    for _ in range(6):
        for batch in sampler:
            assert before < samples.progress < 1
            before = samples.progress
            samples.update(batch, loss_of(batch, samples.epoch))
    assert samples.progress == 1.0


def test_a_learning_rate_ends_where_training_ends():
    """Also where epochs have other numbers of batches: cosine to 0 at the last step."""
    samples = Samples(64, RootLoss(), keep=0.5, epochs=6, warmup=1, anneal=1)
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    total, sampler = samples.steps(8), samples.batch_sampler(8)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, total)
    by_progress = []
    for _ in range(6):
        for batch in sampler:
            samples.update(batch, loss_of(batch, samples.epoch))
            weight.grad = torch.ones(1)
            optimizer.step()
            schedule.step()
            by_progress.append(samples.progress)
    assert len(by_progress) == total == 8 * 2 + 4 * 4
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)
    assert by_progress[-1] == 1.0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "epochs=None"),
        ({"epochs": 3, "keep": None}, "known only when they are chosen"),
        ({"epochs": 3, "share_of": "length", "lengths": [1] * 9}, "known only when"),
    ],
)
def test_steps_that_nobody_knows_are_not_told(options, words):
    with pytest.raises(ValueError, match=words):
        Samples(9, InfoBatch(), **options).steps(2)


@pytest.mark.parametrize("name", ["batch_size", "accumulate", "ranks"])
@pytest.mark.parametrize("value", [0, -1, 2.5, "2"])
def test_steps_of_no_batches_are_refused(name, value):
    samples = Samples(9, Random(), epochs=3)
    with pytest.raises((TypeError, ValueError), match=f"{name}="):
        samples.steps(**{"batch_size": 2, name: value})


# ---------------------------------------------------------------------- loaders


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("ids", [23, list(range(1000, 1023)), [f"clip {i}" for i in range(23)]])
def test_scores_land_on_the_right_ids(workers, lists, ids):
    """Unequal last batch, workers, integers and texts: id, item and loss stay together."""
    if workers and (lists or ids == 23):
        pytest.skip("one form of items with workers is enough")
    samples = Samples(ids, Cyclic(), keep=0.6)
    data = samples.with_ids(Numbers(23, lists))
    loader = DataLoader(data, batch_size=5, sampler=samples.sampler(), num_workers=workers)
    for _ in range(2):
        for numbers, names in loader:
            samples.update(names, numbers[:, 0].float())
    assert (samples.scores["seen"] > 0).all()
    assert samples.scores["last"].tolist() == list(range(23))


def test_workers_that_stay_serve_the_next_epoch():
    samples = Samples(20, Cyclic(), keep=0.5)
    data = samples.with_ids(Numbers(20))
    how = {"num_workers": 2, "persistent_workers": True, "prefetch_factor": 4}
    loader = DataLoader(data, batch_size=3, sampler=samples.sampler(), **how)
    for epoch in range(3):
        positions = []
        for numbers, names in loader:
            samples.update(names, numbers[:, 0].float())
            positions += names.tolist()
        assert samples.epoch == epoch
        assert len(positions) == 10
        assert samples.kept.nonzero().flatten().tolist() == sorted(positions)


def test_dicts_get_their_id_too():
    data = [{"x": torch.tensor(float(p))} for p in range(6)]
    samples = Samples(6, Cyclic(), keep=1.0)
    loader = DataLoader(samples.with_ids(data), batch_size=4, sampler=samples.sampler())
    for batch in loader:
        samples.update(batch["ids"], batch["x"])
    assert samples.scores["last"].tolist() == [0, 1, 2, 3, 4, 5]


def test_two_loaders_at_once_do_not_mix_up_their_scores():
    one, other = Samples(12, Cyclic(), keep=1.0), Samples(range(100, 112), Cyclic(), keep=1.0)
    loaders = [
        DataLoader(s.with_ids(Numbers(12)), batch_size=5, sampler=s.sampler()) for s in (one, other)
    ]
    for (a, a_ids), (b, b_ids) in zip(*loaders, strict=True):
        other.update(b_ids, b[:, 0].float() + 50)  # the second first
        one.update(a_ids, a[:, 0].float())
    assert one.scores["last"].tolist() == list(range(12))
    assert other.scores["last"].tolist() == list(range(50, 62))


def test_two_loaders_of_one_store_do_not_mix_up_their_scores():
    samples = Samples(12, Cyclic(), keep=1.0)
    loaders = [
        DataLoader(samples.with_ids(Numbers(12)), batch_size=b, sampler=samples.sampler())
        for b in (5, 4)
    ]
    for (a, a_ids), (b, b_ids) in zip(*loaders, strict=False):
        samples.update(b_ids, b[:, 0].float())
        samples.update(a_ids, a[:, 0].float())
    assert samples.scores["last"].tolist() == list(range(12))


def test_batches_that_are_gathered_before_they_are_learnt():
    """Gradient accumulation over loaded batches: updates may come late and in any order."""
    samples = Samples(12, Cyclic(), keep=1.0)
    loader = DataLoader(samples.with_ids(Numbers(12)), batch_size=3, sampler=samples.sampler())
    for numbers, ids in reversed(list(loader)):
        samples.update(ids, numbers[:, 0].float())
    assert samples.scores["last"].tolist() == list(range(12))
    assert (samples.scores["epoch"] == 0).all()


def test_nobody_elses_random_state_is_touched():
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    samples = Samples(50, RootLoss(), keep=0.5, lengths=np.arange(50) + 1)
    run(samples, samples.batch_sampler(8, max_length=300), range(4))
    assert torch.get_rng_state().equal(before[0])
    assert (np.random.get_state()[1] == before[1]).all()  # noqa: NPY002


def test_evaluation_sees_all_data():
    """Nothing is patched: another loader of the same data set is as it was."""
    data = TensorDataset(torch.arange(20))
    samples = Samples(20, Cyclic(), keep=0.5)
    train = DataLoader(samples.with_ids(data), batch_size=5, sampler=samples.sampler())
    evaluation = DataLoader(data, batch_size=5)
    for _ in train:
        assert torch.cat([x for (x,) in evaluation]).tolist() == list(range(20))


def test_a_sampler_tells_loaders_what_they_ask():
    """Accelerate and Lightning look for these names."""
    sampler = Samples(20, Cyclic(), keep=0.5).batch_sampler(4, drop_last=True)
    assert isinstance(sampler, BatchSampler)
    assert (sampler.batch_size, sampler.drop_last, len(sampler)) == (4, True, 2)
    assert sampler.sampler is sampler
    sampler.sampler.set_epoch(2)
    assert sampler.samples.epoch == 2


def test_nothing_is_kept_of_a_batch_after_its_update():
    samples = Samples(8, Cyclic(), keep=1.0)
    losses = (torch.ones(8, requires_grad=True) * 2).clone()
    samples.update(range(8), losses)
    assert len(gc.get_referrers(losses)) <= 2


def test_a_broken_pass_goes_on_with_what_is_left():
    samples = Samples(20, Cyclic(), keep=0.6)
    sampler = samples.batch_sampler(4)
    first = learn(samples, sampler, stop=2)
    rest = learn(samples, sampler)
    assert len({p for batch in first + rest for p in batch}) == 12
    assert samples.epoch == 0


def test_scores_from_before_training_do_not_count_as_learnt():
    """A pass over all data, say by a trained model, tells losses and trains nothing."""
    samples = Samples(20, Hard(), keep=0.5)
    samples.update(range(20), torch.arange(20).float())
    assert len(samples.sampler()) == 10
    (batches,) = run(samples, samples.batch_sampler(10), range(1))
    assert sorted(batches[0]) == list(range(10, 20))
    assert (samples.scores["epoch"] == 0).sum() == 10


def test_a_table_tells_what_became_of_the_samples():
    samples = Samples(
        8, Hard(), keep=0.5, strata={"class": list("aaaabbbb")}, lengths=[1] * 4 + [2] * 4
    )
    assert samples.metrics()["samples/never_seen"] == 8
    assert samples.metrics()["samples/kept"] == 0  # asking chooses nothing
    samples.update(range(8), torch.arange(8).float())
    assert int(samples.kept.sum()) == 4
    told = samples.metrics()
    assert told["samples/kept"] == 4
    assert told["samples/kept_share"] == 0.5
    assert told["samples/never_seen"] == 0
    assert told["samples/loss"] == 3.5
    assert told["samples/drift/class"] == told["samples/drift/length"] == 0.5
    lines = samples.summary().splitlines()
    assert "class b" in lines[-1]
    assert lines[-1].split()[-6:] == ["4", "4", "1.000", "0", "1.00", "5.5000"]
    assert lines[-2].split()[-6:] == ["4", "0", "0.000", "0", "1.00", "1.5000"]


# ---------------------------------------------------------------------- weights


def test_weights_are_those_of_the_choice():
    samples = Samples([10, 20, 30, 40, 50, 60], InfoBatch(), keep=4 / 6)
    assert samples.weights([10, 20]).tolist() == [1, 1]
    samples.update([10, 20, 30, 40, 50, 60], torch.tensor([0.1, 0.1, 0.1, 0.1, 5.0, 5.0]))
    samples.set_epoch(1)
    kept = torch.tensor([10, 20, 30, 40, 50, 60])[samples.kept]
    weights = samples.weights(kept)
    assert dict(zip(kept.tolist(), weights.tolist(), strict=True)) == {
        i: (2.0 if i < 50 else 1.0) for i in kept.tolist()
    }
    with pytest.raises(ValueError, match="70 is not known"):
        samples.weights([70])


def test_the_last_eighth_of_infobatch_is_on_full_data_without_weights():
    samples = Samples(40, InfoBatch(), keep=None, epochs=16, anneal=0.125)
    found = run(samples, samples.batch_sampler(40), range(16))
    sizes = [len(batches[0]) for batches in found]
    assert sizes[0] == sizes[14] == sizes[15] == 40
    assert all(size < 40 for size in sizes[1:14])
    assert samples.weights(range(40)).tolist() == [1] * 40
