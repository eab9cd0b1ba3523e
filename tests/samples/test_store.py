"""The store: what is updated, what is not, and what it is told wrong."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.samples import Cyclic, Forgetting, Hard, Random, RootLoss, Samples
from regrow.samples.arrivals import Arrived
from regrow.samples.merge import joined
from regrow.samples.store import Store

LOSSES = st.floats(-1e6, 1e6, width=32)
UPDATES = st.lists(
    st.dictionaries(st.integers(0, 9), LOSSES, min_size=1, max_size=10), min_size=1, max_size=8
)


@given(UPDATES, st.sampled_from([0.25, 0.5, 1.0]))
def test_scores_are_those_of_one_sample_after_the_other(updates, newest):
    store, last, average, seen = Store(10, newest), {}, {}, dict.fromkeys(range(10), 0)
    for epoch, batch in enumerate(updates):
        store.update(np.array(list(batch)), np.array(list(batch.values()), np.float32), epoch)
        for sample, loss in batch.items():
            old = average.get(sample, np.float32(loss))
            average[sample] = old + np.float32(newest) * (np.float32(loss) - old)
            last[sample] = np.float32(loss)
            seen[sample] += 1
    for sample in range(10):
        assert store.seen[sample] == seen[sample]
        assert store.last[sample] == last.get(sample, 0)
        assert store.average[sample] == average.get(sample, 0)
        when = [e for e, batch in enumerate(updates) if sample in batch]
        assert store.epoch[sample] == (when[-1] if when else -1)


def test_the_start_is_the_mean_of_three_updates():
    store = Store(4, 0.5)
    for number, loss in enumerate((1.0, 2.0, 6.0, 100.0)):
        store.update(np.array([number]), np.array([loss], np.float32), 0)
    assert store.start == 3.0


def test_visits_are_counted_up_to_what_fits():
    store = Store(1, 0.5)
    store.seen[:] = np.iinfo(np.int16).max
    store.update(np.array([0]), np.ones(1, np.float32), 0)
    assert store.seen.tolist() == [32767]


@pytest.mark.parametrize("told", [True, False])
def test_forgetting_counts_what_was_learnt_and_is_not_now(told):
    samples = Samples(3, Forgetting(), keep=1 / 3)
    answers = [[1, 1, 0], [0, 1, 0], [1, 1, 0], [0, 0, 0]]
    for right in answers:
        correct = torch.tensor(right, dtype=torch.bool)
        losses = torch.where(correct, 0.5, 0.8)  # ln 2 lies between
        samples.update([0, 1, 2], torch.ones(3) if told else losses, correct if told else None)
    assert samples.scores["forgotten"].tolist() == [2, 1, 0]
    assert samples.kept.tolist() == [False, False, True]  # never learnt


@pytest.mark.parametrize("newest", [0, -1, 1.5, math.nan])
def test_a_weight_out_of_range_is_refused(newest):
    with pytest.raises(ValueError, match="newest="):
        Samples(3, Random(), newest=newest)


# ---------------------------------------------------------------------- what update refuses


def tiny(**options):
    return Samples(5, Hard(), keep=0.6, **options)


@pytest.mark.parametrize(
    ("ids", "losses", "error", "words"),
    [
        ([0, 1], torch.tensor(1.0), ValueError, "reduction='none'"),
        ([0, 1], torch.ones(3), ValueError, r"shape \(2,\) is needed"),
        ([0, 1], torch.ones(2, 1), ValueError, r"shape \(2, 1\) for 2 ids"),
        ([0, 1], torch.tensor([1.0, math.nan]), ValueError, "nan of id 1"),
        ([0, 1], torch.tensor([math.inf, 1.0]), ValueError, "inf of id 0"),
        ([0, 5], torch.ones(2), ValueError, "5 is not known"),
        ([0, -1], torch.ones(2), ValueError, "-1 is not known"),
        ([0, 1], torch.ones(2, dtype=torch.int64), TypeError, "floats"),
        ([0, 1], [1.0, 2.0], TypeError, "a tensor of floats"),
        ([0, 1], 1.0, TypeError, "a tensor of floats"),
        (torch.tensor([0.0, 1.0]), torch.ones(2), TypeError, "integers are needed"),
        (["0", "1"], torch.ones(2), TypeError, "integers or texts"),
        (3, torch.ones(1), TypeError, "ids=3: one id a sample"),
        (torch.tensor(3), torch.ones(1), TypeError, "one id a sample"),
    ],
)
def test_what_is_no_loss_a_sample_is_refused_at_the_first_call(ids, losses, error, words):
    samples = tiny()
    before = samples.state_dict()
    with pytest.raises(error, match=words):
        samples.update(ids, losses)
    after = samples.state_dict()
    assert str(before) == str(after)
    with pytest.raises(error, match=words):  # at once the next time, too
        samples.update(ids, losses)


def test_too_large_for_float32_is_infinite():
    with pytest.raises(ValueError, match="not finite"):
        tiny().update([0], torch.tensor([1e300], dtype=torch.float64))


def test_correct_has_the_shape_of_the_losses():
    with pytest.raises(ValueError, match="correct of shape"):
        tiny().update([0, 1], torch.ones(2), torch.ones(1, dtype=torch.bool))
    with pytest.raises(TypeError, match="correct of list"):
        tiny().update([0, 1], torch.ones(2), [True, False])


def test_an_id_twice_in_a_batch_counts_once_with_the_mean():
    samples = tiny()
    samples.update([3, 1, 3, 3], torch.tensor([1.0, 5.0, 2.0, 6.0]))
    assert samples.scores["last"].tolist() == [0, 5, 0, 3, 0]
    assert samples.scores["seen"].tolist() == [0, 1, 0, 1, 0]


def test_an_id_twice_was_right_only_if_it_always_was():
    samples = Samples(2, Forgetting(), keep=0.5)
    samples.update([0, 0, 1, 1], torch.ones(4), torch.tensor([True, False, True, True]))
    assert samples.scores["learnt"].tolist() == [0, 1]


def test_no_samples_in_a_batch_is_no_mistake():
    samples = tiny()
    samples.update(torch.zeros(0, dtype=torch.int64), torch.zeros(0))
    assert samples.metrics()["samples/seen"] == 0


def test_losses_keep_no_graph():
    weight = torch.ones(2, requires_grad=True)
    samples = tiny()
    samples.update([0, 1], weight * 2)
    assert not samples.scores["last"].requires_grad


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_losses_of_any_floating_dtype_are_taken(dtype):
    samples = tiny()
    samples.update(torch.tensor([2, 0]), torch.tensor([1.5, 0.25], dtype=dtype))
    assert samples.scores["last"].tolist() == [0.25, 0, 1.5, 0, 0]


def test_scores_cannot_be_changed_from_outside():
    samples = tiny()
    samples.scores["last"].fill_(9)
    assert samples.scores["last"].sum() == 0


# ---------------------------------------------------------------------- what Samples refuses


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"keep": 0.0}, ValueError, "keep=0.0"),
        ({"keep": 1.5}, ValueError, "keep=1.5"),
        ({"keep": math.nan}, ValueError, "keep=nan"),
        ({"keep": 0.01}, ValueError, "keeps none"),
        ({"keep": "0.7"}, TypeError, "keep='0.7': a number is needed"),
        ({"keep": True}, TypeError, "keep=True: a number is needed"),
        ({"keep": lambda progress: "x", "epochs": 4}, ValueError, "gives no number in epoch 0"),
        ({"keep": None}, ValueError, "needs to be told"),
        ({"keep": lambda progress: 0.5}, ValueError, "needs epochs="),
        ({"keep": lambda progress: 0.5 - progress, "epochs": 4}, ValueError, "keep="),
        ({"epochs": 0}, ValueError, "epochs=0"),
        ({"epochs": 10**12}, ValueError, "epochs=1000000000000: must be at most 32768"),
        ({"epochs": 2.5}, TypeError, "epochs=2.5"),
        ({"anneal": 1}, ValueError, "needs epochs="),
        ({"warmup": 3, "anneal": 2, "epochs": 4}, ValueError, "together more"),
        ({"warmup": 0.5}, ValueError, "needs epochs="),
        ({"warmup": 5, "epochs": 4}, ValueError, "warmup=5: must be a number of epochs"),
        ({"anneal": -1, "epochs": 4}, ValueError, "anneal=-1: must be a number of epochs"),
        ({"warmup": "2"}, TypeError, "warmup='2': must be a number of epochs"),
        ({"every": 0}, ValueError, "every=0"),
        ({"share_of": "hours"}, ValueError, "share_of='hours'"),
        ({"share_of": "length"}, ValueError, "needs lengths"),
        ({"lengths": [1, 2]}, ValueError, "lengths of shape"),
        ({"lengths": [1, 2, 3, -1, 5]}, ValueError, "-1.0 at position 3"),
        ({"lengths": [1, 2, 3, math.nan, 5]}, ValueError, "nan at position 3"),
        ({"lengths": list("abcde")}, ValueError, "lengths of shape"),
        ({"strata": {"class": [0, 1]}}, ValueError, r"strata\['class'\] of shape"),
        ({"strata": {"class": [0.5] * 5}}, ValueError, "integer or text"),
        ({"strata": [0] * 5}, TypeError, "strata="),
        ({"newest": "0.5"}, TypeError, "newest='0.5'"),
        ({"seed": "x"}, TypeError, "seed="),
        ({"criterion": "hard"}, TypeError, "criterion='hard'"),
        ({"criterion": RootLoss}, TypeError, "criterion="),
    ],
)
def test_arguments_that_do_not_fit_are_refused(options, error, words):
    with pytest.raises(error, match=words):
        Samples(5, **{"criterion": Random(), "keep": 0.6} | options)


def test_a_data_set_of_another_length_is_refused():
    with pytest.raises(ValueError, match="dataset has 4 items, and there are 5"):
        tiny().with_ids([1, 2, 3, 4])


def test_a_position_from_the_end_has_its_own_id():
    assert tiny().with_ids(list("abcde"))[-1] == ("e", 4)
    with pytest.raises(TypeError, match="slice"):
        tiny().with_ids(list("abcde"))[:2]


def test_a_key_that_is_taken_is_refused():
    with pytest.raises(ValueError, match="has a key 'ids' already"):
        Samples(1, Random(), keep=1.0).with_ids([{"ids": 3}])[0]


def test_excluded_samples_are_never_kept_again():
    samples = Samples(["a", "b", "c", "d"], Cyclic(), keep=0.5)
    samples.exclude(["b", "d"])
    sampler = samples.sampler()
    kept = [sorted(sampler) for _ in range(6)]
    assert {tuple(k) for k in kept} == {(0,), (2,)}
    assert samples.metrics()["samples/excluded"] == 2
    with pytest.raises(ValueError, match="no sample would be left"):
        samples.exclude(["a", "c"])
    with pytest.raises(ValueError, match="'x' is not known"):
        samples.exclude(["x"])


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True),
            st.integers(0, 1),
            st.booleans(),
        ),
        max_size=8,
    )
)
def test_batches_put_together_leave_what_they_leave_one_by_one(plan):
    rng = np.random.default_rng(len(plan))
    batches = [
        Arrived(
            np.array(at),
            rng.random(len(at), dtype=np.float32),
            rng.random(len(at)) < 0.5 if told else None,
            epoch,
        )
        for at, epoch, told in plan
    ]
    one_by_one, together = (Store(10, 0.5, ["forgotten", "learnt"]) for _ in range(2))
    for batch in batches:
        one_by_one.update(batch.at, batch.losses, batch.epoch, batch.correct)
    counts = []
    for batch, count in joined(batches):
        together.update(batch.at, batch.losses, batch.epoch, batch.correct, count)
        counts.append(count)
    assert sum(counts) == len(batches) == together.updates
    for name, values in one_by_one.tensors().items():
        assert values.equal(together.tensors()[name]), name
