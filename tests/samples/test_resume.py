"""A run that was stopped at any batch goes on as if it had not, on any number of ranks."""

import copy
import io
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.engine.schedules import Linear
from regrow.samples import (
    Coverage,
    Cyclic,
    EasyToHard,
    EpsilonGreedy,
    Forgetting,
    Hard,
    InfoBatch,
    Random,
    RootLoss,
    Samples,
    SeTa,
    Stratified,
)
from tests.samples.loops import learn, loss_of, run

N, EPOCHS = 37, 5
CRITERIA = [
    Cyclic(),
    Random(),
    RootLoss(),
    RootLoss(weighted=True),
    InfoBatch(),
    SeTa(),
    EasyToHard(),
    EpsilonGreedy(0.5),
    Forgetting(),
    Coverage(4),
    Stratified("length", RootLoss()),
]
IDS = [N, list(range(900, 900 - N, -1)), [f"clip {i}" for i in range(N)]]
LENGTHS = np.arange(N) % 11 + 1.0
OPTIONS = st.fixed_dictionaries(
    {
        "ids": st.sampled_from(IDS),
        "criterion": st.sampled_from(CRITERIA),
        "keep": st.sampled_from([0.4, 0.7, Linear(0.9, 0.3)]),
        "warmup": st.integers(0, 1),
        "every": st.sampled_from([1, 2]),
        "seed": st.integers(0, 3),
    }
)
SAMPLERS = st.sampled_from(
    [{"batch_size": 4}, {"batch_size": 6, "drop_last": True}, {"max_length": 30.0, "buckets": 3}]
)


def make(options):
    return Samples(epochs=EPOCHS, lengths=LENGTHS, **options)


def stored(state):
    """What comes back from a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@given(OPTIONS, SAMPLERS, st.integers(0, EPOCHS - 1), st.data())
def test_what_is_left_of_a_run_is_as_it_would_have_been(options, how, epoch, data):
    whole = make(options)
    expected = run(whole, whole.batch_sampler(**how), range(EPOCHS))

    stopped = make(options)
    sampler = stopped.batch_sampler(**how)
    run(stopped, sampler, range(epoch))
    stop = data.draw(st.integers(1, len(expected[epoch]))) if expected[epoch] else 0
    if epoch:
        sampler.set_epoch(epoch)
    done = learn(stopped, sampler, stop=stop)
    assert done == expected[epoch][:stop]

    resumed = make(options)
    resumed.load_state_dict(stored(stopped.state_dict()))
    assert resumed.epoch == epoch
    sampler = resumed.batch_sampler(**how)
    assert len(sampler) == len(expected[epoch])
    if stop < len(expected[epoch]):
        assert learn(resumed, sampler) == expected[epoch][stop:]
    for later in range(epoch + 1, EPOCHS):
        sampler.set_epoch(later)
        assert learn(resumed, sampler) == expected[later]
    assert str(resumed.state_dict()) == str(whole.state_dict())
    assert resumed.progress == whole.progress == 1.0


@given(OPTIONS, SAMPLERS, st.integers(1, 4), st.integers(0, EPOCHS - 1), st.integers(0, 6))
def test_all_ranks_choose_alike_also_after_a_resume(options, how, ranks, epoch, stop):
    """Each rank has a store of its own, told everything: they draw the same, and share it out."""
    if "drop_last" in how and ranks == 4:
        how = how | {"batch_size": 2}  # else the smallest epochs have no batch
    if "drop_last" in how and ranks == 3:
        how = how | {"batch_size": 3}
    stores = [make(options) for _ in range(ranks)]
    samplers = [s.batch_sampler(**how, rank=r, ranks=ranks) for r, s in enumerate(stores)]

    def step(number, limit):
        for sampler in samplers:
            sampler.set_epoch(number)
        shares = [list(sampler) for sampler in samplers]
        assert len({len(batches) for batches in shares}) == 1
        flat = [p for batches in shares for batch in batches for p in batch]
        assert len(flat) == len(set(flat))
        assert set(flat) <= set(stores[0].kept.nonzero().flatten().tolist())
        for batches in zip(*shares, strict=True):
            if limit == 0:
                break
            limit -= 1
            for store in stores:
                for batch in batches:
                    store.update([store.ids.at(p) for p in batch], loss_of(batch, number))
        return shares

    shares = [step(number, stop if number == epoch else 99) for number in range(epoch + 1)]
    kept = {tuple(store.kept.tolist()) for store in stores}
    assert len(kept) == 1
    # What a rank has done of its own share is its own affair.
    states = {str(store.state_dict() | {"done": None}) for store in stores}
    assert len(states) == 1

    done = min(stop, len(shares[-1][0]))
    for rank in range(ranks):
        resumed = make(options)
        resumed.load_state_dict(stored(stores[0].state_dict()))
        sampler = resumed.batch_sampler(**how, rank=rank, ranks=ranks)
        if done < len(shares[-1][0]):
            assert list(sampler) == shares[-1][rank][done:]


@pytest.mark.parametrize("batch", [3, 8])
def test_another_batch_size_learns_what_is_left(batch):
    samples = Samples(N, RootLoss(), keep=0.7)
    done = learn(samples, samples.batch_sampler(4), stop=3)
    resumed = Samples(N, RootLoss(), keep=0.7)
    resumed.load_state_dict(samples.state_dict())
    left = learn(resumed, resumed.batch_sampler(batch))
    both = [p for b in done + left for p in b]
    assert sorted(both) == samples.kept.nonzero().flatten().tolist()


def test_indices_one_by_one_are_resumed_too():
    samples = Samples(N, Cyclic(), keep=0.7)
    whole = list(Samples(N, Cyclic(), keep=0.7).sampler())
    for position in whole[:8]:
        samples.update([position], torch.ones(1))
    list(zip(range(8), samples.sampler(), strict=False))
    assert samples.epoch == 0
    samples = Samples(N, Cyclic(), keep=0.7)
    found = []
    for position in samples.sampler():
        samples.update([position], torch.ones(1))
        found.append(position)
        if len(found) == 8:
            break
    resumed = Samples(N, Cyclic(), keep=0.7)
    resumed.load_state_dict(samples.state_dict())
    assert found + list(resumed.sampler()) == whole


def test_loaders_that_skip_by_themselves_are_given_the_whole_epoch():
    samples = Samples(N, RootLoss(), keep=0.7)
    sampler = samples.batch_sampler(4)
    run(samples, sampler, range(2))
    sampler.set_epoch(2)
    learn(samples, sampler, stop=3)
    resumed = Samples(N, RootLoss(), keep=0.7)
    resumed.load_state_dict(samples.state_dict(), from_start=True)
    whole = Samples(N, RootLoss(), keep=0.7)
    run(whole, other := whole.batch_sampler(4), range(2))
    other.set_epoch(2)
    assert list(resumed.batch_sampler(4)) == list(other)


def test_a_state_between_epochs_goes_on_with_the_next_one():
    samples = Samples(N, RootLoss(), keep=0.5)
    sampler = samples.batch_sampler(5)
    run(samples, sampler, range(2))
    resumed = Samples(N, RootLoss(), keep=0.5)
    resumed.load_state_dict(samples.state_dict())
    assert run(resumed, resumed.batch_sampler(5), range(1)) == run(samples, sampler, range(1))
    assert resumed.epoch == 2


# ---------------------------------------------------------------------- other samples


@pytest.mark.parametrize("kind", [str, int])
def test_scores_survive_filtering_and_another_order(kind):
    ids = [kind(i * 7) for i in range(20)]
    samples = Samples(ids, Hard(), keep=0.5)
    samples.update(ids, torch.arange(20).float())
    other = [kind(1000), *reversed(ids[5:]), kind(2000)]
    moved = Samples(other, Hard(), keep=0.5)
    moved.load_state_dict(samples.state_dict())
    assert moved.scores["last"].tolist() == [0.0, *range(19, 4, -1), 0.0]
    assert moved.scores["seen"].tolist() == [0, *[1] * 15, 0]
    assert moved.kept.nonzero().flatten().tolist() == [0, 1, 2, 3, 4, 5, 6, 16]  # new ones first


def test_in_another_order_nothing_is_learnt_twice_and_nothing_lost():
    ids = list(range(100, 140))
    samples = Samples(ids, Cyclic(), keep=0.5)
    done = [ids[p] for batch in learn(samples, samples.batch_sampler(4), stop=2) for p in batch]
    kept = {ids[p] for p in samples.kept.nonzero().flatten().tolist()}
    other = list(reversed(ids))
    moved = Samples(other, Cyclic(), keep=0.5)
    moved.load_state_dict(samples.state_dict())
    left = [other[p] for batch in learn(moved, moved.batch_sampler(4)) for p in batch]
    assert sorted(done + left) == sorted(kept)


def test_another_criterion_may_go_on():
    samples = Samples(10, Hard(), keep=0.5)
    samples.update(range(10), torch.arange(10).float())
    other = Samples(10, RootLoss(), keep=0.3)
    other.load_state_dict(samples.state_dict())
    assert int(other.kept.sum()) == 3


def test_what_is_excluded_stays_so():
    samples = Samples(list("abcd"), Cyclic(), keep=1.0)
    samples.exclude(["b"])
    resumed = Samples(list("dcba"), Cyclic(), keep=1.0)
    resumed.load_state_dict(samples.state_dict())
    assert sorted(resumed.sampler()) == [0, 1, 3]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda s: s.pop("ids"), "'ids' is missing"),
        (lambda s: s.update(version=99), "version 99"),
        (lambda s: s["scores"].pop("last"), "'last' is not there"),
        (lambda s: s["scores"].update(last=torch.zeros(3)), "'last' is not there"),
        (lambda s: s.update(available=torch.zeros(1)), "a mask is not of 20"),
        (lambda s: s["selection"].update(mask=torch.zeros(1, dtype=torch.uint8)), "a mask is not"),
        (lambda s: s["selection"].update(weights=torch.ones(2)), "'weights' is not there"),
        (lambda s: s["scores"].pop("updates"), "counts of updates"),
        (lambda s: s.update(ids=[1, 1]), "twice"),
        (lambda s: s.update(ids=None), "integers or texts"),
        (lambda s: s.update(scores=3), "'scores' is a int"),
        (lambda s: s["scores"].update(credit=torch.ones(3)), "'credit' is not there"),
        (lambda s: s["scores"]["last"].fill_(math.nan), "'last' has values that are not finite"),
        (lambda s: s["scores"].update(updates="x"), "counts of updates"),
        (lambda s: s["scores"].update(start=[math.nan, 3]), "counts of updates"),
        (lambda s: s.update(epoch=None), "'epoch' is None"),
        (lambda s: s.update(epoch=9), "state of epoch 9: the run has epochs=5"),
        (lambda s: s.update(seed="x"), "'seed' is 'x'"),
        (lambda s: s.update(done=[1]), r"'done' is \[1\]"),
        (lambda s: s.update(selection=3), "selection is a int"),
        (lambda s: s["selection"].pop("round"), "'round' is missing"),
        (lambda s: s["selection"].update(chosen=torch.ones(2)), "'chosen' is"),
        (lambda s: s["selection"].update(epoch=-1), "'epoch' is -1"),
    ],
)
def test_a_state_that_is_none_changes_nothing(spoil, words):
    samples = Samples(20, InfoBatch(), keep=0.5, epochs=EPOCHS)
    run(samples, samples.batch_sampler(5), range(3))
    state = copy.deepcopy(samples.state_dict())
    spoil(state)
    other = Samples(20, InfoBatch(), keep=0.5, epochs=EPOCHS)
    learn(other, other.batch_sampler(5), stop=1)
    before = str(other.state_dict())
    with pytest.raises(ValueError, match=words):
        other.load_state_dict(state)
    assert str(other.state_dict()) == before


@pytest.mark.parametrize("other", [None, 3, [], torch.zeros(2)])
def test_what_is_no_state_at_all_is_told_by_its_kind(other):
    with pytest.raises(ValueError, match=r"give what Samples\.state_dict"):
        Samples(20, InfoBatch()).load_state_dict(other)


def test_a_state_holds_plain_numbers_whatever_epochs_are_counted_with():
    samples = Samples(6, Cyclic(), keep=1.0)
    samples.set_epoch(np.int64(3))
    assert stored(samples.state_dict())["epoch"] == 3


def test_a_state_is_a_copy():
    samples = Samples(6, Cyclic(), keep=1.0)
    state = samples.state_dict()
    samples.update(range(6), torch.ones(6))
    assert state["scores"]["seen"].sum() == 0
