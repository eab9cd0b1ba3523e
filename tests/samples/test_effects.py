"""What choices do to data: lengths, wrong labels, copies, and how much is computed."""

import numpy as np
import pytest
import torch

from regrow.samples import (
    UCB,
    Coverage,
    Cyclic,
    EpsilonGreedy,
    Hard,
    Random,
    RootLoss,
    Samples,
    Stratified,
)

N = 2000
LENGTHS = np.random.default_rng(0).gamma(4, 25, N).round() + 10
PER_TOKEN = torch.from_numpy(np.random.default_rng(1).exponential(1.0, N)).float()


@pytest.mark.parametrize(
    ("criterion", "per_token", "low", "high"),
    [
        (Hard(), False, 0.1, 1.0),  # sums over tokens: long ones are chosen
        (Hard(), True, 0.0, 0.05),
        (Stratified("length", Hard()), False, 0.0, 0.005),
        (Stratified("length", RootLoss()), False, 0.0, 0.005),
        (Random(), False, 0.0, 0.05),
    ],
)
def test_losses_that_grow_with_length_choose_long_samples_unless_it_is_seen_to(
    criterion, per_token, low, high
):
    samples = Samples(N, criterion, keep=0.5, lengths=LENGTHS)
    losses = PER_TOKEN if per_token else PER_TOKEN * torch.from_numpy(LENGTHS).float()
    samples.update(range(N), losses)
    assert samples.kept.sum() == N / 2
    told = samples.metrics()
    assert low <= told["samples/drift/length"] <= high
    longer = LENGTHS[samples.kept.numpy()].mean() / LENGTHS.mean()
    assert (longer > 1.1) == (low > 0)


@pytest.mark.parametrize("keep", [0.3, 0.7])
@pytest.mark.parametrize("share_of", ["samples", "length"])
def test_what_is_kept_is_what_is_computed(keep, share_of):
    """0.7 of the samples take 0.7 of the steps: 1.43 times fewer; of the hours, likewise."""
    samples = Samples(N, Cyclic(), keep=keep, lengths=LENGTHS, share_of=share_of)
    sampler = samples.batch_sampler(max_length=2000)
    frames = [LENGTHS[[p for batch in sampler for p in batch]].sum() for _ in range(8)]
    share = np.sum(frames) / (8 * LENGTHS.sum())
    assert share == pytest.approx(keep, abs=0.01)
    told = samples.metrics()
    assert told["samples/length"] == frames[-1]
    assert told["samples/length_share"] == pytest.approx(frames[-1] / LENGTHS.sum())


# ---------------------------------------------------------------------- wrong labels and copies

KINDS = np.array(["right"] * 1400 + ["wrong"] * 400 + ["copy"] * 200)


def learning(epoch, visits, rng):
    """Losses as of a network that learns what it sees: copies at once, wrong labels late."""
    loss = 2.3 * np.exp(-0.4 * visits) + rng.exponential(0.05, N)
    loss[KINDS == "copy"] = 0.01
    loss[KINDS == "wrong"] = 4.0 + rng.normal(0, 0.3, 400)
    return torch.from_numpy(loss).float()


def visits_by_kind(criterion):
    """Train ten epochs at half the data; visits a sample of each kind, as the table shows them."""
    samples = Samples(N, criterion, keep=0.5, strata={"kind": KINDS})
    sampler, rng = samples.batch_sampler(100), np.random.default_rng(0)
    for epoch in range(10):
        visits = samples.scores["seen"].numpy()
        losses = learning(epoch, visits, rng)
        for batch in sampler:
            samples.update(batch, losses[batch])
    rows = {line.split()[1]: line.split() for line in samples.summary().splitlines()[3:]}
    seen = samples.scores["seen"].double()
    for kind in rows:
        assert float(rows[kind][-2]) == pytest.approx(float(seen[kind == KINDS].mean()), abs=0.006)
    return {kind: float(seen[kind == KINDS].mean()) for kind in rows}


def test_visits_of_wrong_labels_and_copies_are_told_and_differ_by_criterion():
    """Against choice by chance: who chases wrong labels, who leaves them, who skips copies."""
    chance = visits_by_kind(Random())
    assert all(4.7 < visits < 5.3 for visits in chance.values())
    assert visits_by_kind(Cyclic()) == {"right": 5.0, "wrong": 5.0, "copy": 5.0}
    for chaser in (Hard(), UCB(), EpsilonGreedy()):
        found = visits_by_kind(chaser)
        assert found["wrong"] > 7
        assert found["copy"] < 4
    guarded = visits_by_kind(RootLoss())
    assert guarded["wrong"] < 3.5 < guarded["right"]
    assert guarded["copy"] < guarded["right"]
    assert visits_by_kind(RootLoss(guard=False))["wrong"] > 7
    covering = visits_by_kind(Coverage())
    assert all(4 < visits < 6 for visits in covering.values())
