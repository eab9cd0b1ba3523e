"""Each criterion against its definition, written a second time."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.engine.schedules import Linear
from regrow.samples import (
    UCB,
    Coverage,
    Cyclic,
    Easy,
    EasyToHard,
    EpsilonGreedy,
    Forgetting,
    Hard,
    InfoBatch,
    Known,
    Random,
    RHOLoss,
    RootLoss,
    Samples,
    SeTa,
    Stratified,
    strata,
)
from regrow.samples.rates import capped, otsu, spread
from regrow.samples.strata import at_random, bins, shared_out
from tests.samples.loops import run

N = 12
ALL = [
    Random(),
    Cyclic(),
    Easy(),
    Hard(),
    EasyToHard(),
    UCB(),
    EpsilonGreedy(),
    SeTa(),
    Forgetting(),
    RHOLoss(torch.zeros(N)),
    RootLoss(),
    RootLoss(weighted=True),
    Coverage(),
    InfoBatch(),
    InfoBatch(normalise=True),
    Stratified("class"),
    Stratified("class", Hard()),
    Stratified("class", RootLoss()),
    Stratified("class", InfoBatch()),
]
CLASSES = torch.tensor([0] * 6 + [1] * 4 + [2] * 2)


def known(losses, *, allowed=None, progress=0.0, round=0, seed=0, kept=None, start=1.0, seen=None):
    loss = torch.as_tensor(losses, dtype=torch.float32)
    n = len(loss)
    zeros = {name: torch.zeros(n) for name in ("credit", "visits", "forgotten", "learnt")}
    everyone = torch.ones(n, dtype=torch.bool)
    return Known(
        allowed=everyone if allowed is None else torch.as_tensor(allowed),
        loss=loss,
        last=loss,
        seen=torch.ones(n, dtype=torch.int16) if seen is None else torch.as_tensor(seen),
        start=start,
        round=round,
        progress=progress,
        generator=torch.Generator().manual_seed(seed),
        kept=zeros | (kept or {}),
        strata={"class": CLASSES[:n]},
    )


LOSS_LISTS = st.lists(st.floats(0, 100, width=32), min_size=N, max_size=N)


@pytest.mark.parametrize("criterion", ALL, ids=repr)
@settings(max_examples=40)
@given(losses=LOSS_LISTS, data=st.data())
def test_exactly_k_of_the_allowed_are_kept(criterion, losses, data):
    allowed = data.draw(st.lists(st.booleans(), min_size=N, max_size=N).filter(any))
    k = data.draw(st.integers(1, sum(allowed)))
    progress = data.draw(st.floats(0, 1))
    told = known(losses, allowed=allowed, progress=progress, round=data.draw(st.integers(0, 20)))
    choice = criterion(told, k)
    assert int(choice.mask.sum()) == k
    assert not (choice.mask & ~told.allowed).any()
    if choice.weights is not None:
        kept = choice.weights[choice.mask]
        assert kept.isfinite().all()
        assert (kept > 0).all()
    assert set(choice.fields) <= set(criterion.fields)


@pytest.mark.parametrize("criterion", ALL, ids=repr)
def test_a_choice_is_a_pure_function(criterion):
    """It changes nothing that it is told, nor anybody's random state."""
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    losses = torch.rand(N, generator=torch.Generator().manual_seed(3))
    told = known(losses)
    choices = [criterion(told if i == 0 else known(losses), 5) for i in range(2)]
    assert choices[0].mask.equal(choices[1].mask)
    assert told.loss.equal(losses)
    assert told.allowed.all()
    assert all(not values.any() for values in told.kept.values())
    assert torch.get_rng_state().equal(state)
    assert (np.random.get_state()[1] == numpy_state).all()  # noqa: NPY002


@given(LOSS_LISTS, st.integers(1, N))
def test_hard_and_easy_are_ends_of_a_sorted_list(losses, k):
    loss = torch.tensor(losses)
    for criterion, ordered in (
        (Hard(), sorted(range(N), key=lambda i: (-loss[i], i))),
        (Easy(), sorted(range(N), key=lambda i: (loss[i], i))),
    ):
        assert criterion(known(loss), k).mask.nonzero().flatten().tolist() == sorted(ordered[:k])


def test_easy_to_hard_moves_from_one_end_to_the_other():
    losses = torch.tensor([5.0, 1.0, 3.0, 2.0, 4.0])
    windows = [
        losses[EasyToHard()(known(losses, progress=p), 2).mask].tolist() for p in (0, 1 / 3, 1)
    ]
    assert [sorted(w) for w in windows] == [[1, 2], [2, 3], [4, 5]]


def test_ucb_brings_back_what_was_not_seen_for_long():
    losses, seen = torch.full((4,), 1.0), torch.tensor([9, 9, 1, 9], dtype=torch.int16)
    assert UCB()(known(losses, seen=seen, round=3), 1).mask.tolist() == [False, False, True, False]
    losses = torch.tensor([1.0, 3.0, 1.5, 2.5])
    by_hand = losses + 0.5 * 2.0 * (2 * math.log(5) / seen).sqrt()
    told = known(losses, seen=seen, round=3)
    assert UCB(0.5)(told, 2).mask.equal(by_hand >= by_hand.sort().values[-2])


@pytest.mark.parametrize(("epsilon", "hardest"), [(0.0, 6), (0.5, 3), (1.0, 0)])
def test_epsilon_is_the_share_drawn_at_random(epsilon, hardest):
    losses = torch.arange(N).float()
    masks = [EpsilonGreedy(epsilon)(known(losses, seed=seed), 6).mask for seed in range(200)]
    often = torch.stack(masks).float().mean(0)
    assert (often[N - hardest :] == 1).all()
    others = often[: N - hardest]
    assert (others - (6 - hardest) / (N - hardest)).abs().max() < 0.12


def test_seta_slides_over_the_groups_and_begins_again():
    losses = torch.arange(20).float()
    spans = []
    for round in range(8):
        kept = losses[SeTa(groups=10, window=0.5)(known(losses, round=round), 10).mask]
        spans.append((int(kept.min()), int(kept.max())))
    assert spans == [(2 * s, 2 * s + 9) for s in (0, 1, 2, 3, 4, 5, 0, 1)]


def test_forgotten_samples_go_before_hard_ones():
    losses = torch.tensor([9.0, 1.0, 2.0, 0.1])
    kept = {
        "forgotten": torch.tensor([0, 2, 2, 0], dtype=torch.int16),
        "learnt": torch.tensor([1, 2, 1, 0], dtype=torch.int8),
    }
    order = [
        Forgetting()(known(losses, kept=kept), k).mask.nonzero().flatten().tolist()
        for k in (1, 2, 3)
    ]
    assert order == [[3], [2, 3], [1, 2, 3]]


def test_rho_leaves_out_what_the_reference_cannot_learn_either():
    losses, reference = torch.tensor([9.0, 5.0, 1.0]), torch.tensor([9.5, 1.0, 0.5])
    assert RHOLoss(reference)(known(losses), 1).mask.tolist() == [False, True, False]
    with pytest.raises(ValueError, match="3 losses for 4 samples"):
        Samples(4, RHOLoss(reference))
    with pytest.raises(ValueError, match="one finite loss"):
        RHOLoss(torch.tensor([math.nan]))


# ---------------------------------------------------------------------- visits over many epochs


@pytest.mark.parametrize("keep", [0.1, 0.3, 0.5, 0.7, 1.0])
def test_cyclic_visits_differ_by_at_most_one(keep):
    samples = Samples(30, Cyclic(), keep=keep)
    sampler = samples.sampler()
    visits = np.zeros(30, dtype=int)
    for _ in range(11):
        visits[list(sampler)] += 1
        assert visits.max() - visits.min() <= 1


def test_cyclic_passes_are_made_of_other_sets_each_time():
    """Two halves of a pass are not the two halves of the next one."""
    samples = Samples(40, Cyclic(), keep=0.5)
    sampler = samples.sampler()
    firsts = [frozenset(sampler) for _ in range(20)][::2]
    assert len(set(firsts)) == 10


def test_random_is_independent_and_static_is_not():
    samples = Samples(40, Random(), keep=0.5)
    sampler = samples.sampler()
    assert len({frozenset(sampler) for _ in range(10)}) == 10
    samples = Samples(40, Random(), keep=0.5, every=None)
    sampler = samples.sampler()
    assert len({frozenset(sampler) for _ in range(10)}) == 1


@given(st.lists(st.floats(2**-10, 100, width=32), min_size=1, max_size=30), st.data())
def test_rates_sum_to_k_and_none_is_above_one(worth, data):
    k = data.draw(st.integers(1, len(worth)))
    u = torch.tensor(worth)
    rates = capped(u.clone(), k)
    assert float(rates.double().sum()) == pytest.approx(k, rel=1e-5)
    assert rates.max() <= 1
    free = rates < 1 - 1e-6  # in proportion to the worth, where they are not at the cap
    if free.any():
        ratio = (rates / u)[free]
        assert float(ratio.max() / ratio.min()) == pytest.approx(1, rel=1e-4)
        capped_worth = u[~free]
        assert not len(capped_worth) or capped_worth.min() * ratio.max() >= 1 - 1e-4


@given(st.lists(st.floats(2**-6, 1, width=32), min_size=2, max_size=20), st.data())
def test_visits_follow_rates_within_about_one(worth, data):
    k = data.draw(st.integers(1, len(worth)))
    everyone, g = torch.ones(len(worth), dtype=torch.bool), torch.Generator()
    rates = capped(torch.tensor(worth), k)
    credit, visits = torch.zeros(len(worth)), torch.zeros(len(worth))
    for epoch in range(1, 60):
        mask, credit = spread(credit, rates.clone(), k, everyone, g)
        visits += mask
        assert int(mask.sum()) == k
        assert (visits - epoch * rates).abs().max() < 2.5


# ---------------------------------------------------------------------- ours


def by_hand(losses, k, start, sure=True):
    """The rates of the guarded rule, as its page writes them, by sorting."""
    loss = np.asarray(losses, dtype=np.float64)
    cut = np.minimum(loss, 3 * start)
    ordered = np.sort(cut)
    n = len(ordered)
    best, threshold, above = -1.0, np.inf, 0.0
    for low in range(1, n):
        between = low / n * (1 - low / n) * (ordered[:low].mean() - ordered[low:].mean()) ** 2
        if between > best:
            best, threshold, above = between, ordered[low - 1], 1 - low / n
    least, fewest = (0.68, 0.05) if sure else (0.72, 0.03)
    bad = (loss > threshold) & (best / cut.var() > least) & (fewest < above < 0.45)
    if sure and cut[loss > threshold].mean() < 1.1 * start:
        bad[:] = False
    u = np.sqrt(np.clip(loss / loss[~bad].mean(), 0.06, 4))
    u[bad] = 0.1
    pi = np.minimum(u * k / u.sum(), 1)
    for _ in range(100):
        free = pi < 1
        pi = np.where(free, u * (k - (~free).sum()) / u[free].sum(), 1.0)
        pi = np.minimum(pi, 1)
    return pi, bad


def told(losses, start, classes=None, allowed=None):
    """What a criterion is told of losses alone, and of classes."""
    strata = {} if classes is None else {"class": torch.as_tensor(classes)}
    return Known(**{**vars(known(losses, start=start, allowed=allowed)), "strata": strata})


def suspected(losses, start, guard="sure", **more):
    """Return which samples the guard suspects, as numbers."""
    found = RootLoss(guard=guard).suspect(told(losses, start, **more))
    return set() if found is None else set(found.nonzero().flatten().tolist())


@pytest.mark.parametrize("guard", ["sure", True])
@pytest.mark.parametrize("wrong", [0, 0.04, 0.2, 0.4])
@pytest.mark.parametrize("keep", [0.3, 0.5, 0.7])
def test_ours_follows_its_formula(keep, wrong, guard):
    rng = np.random.default_rng(int(10 * keep + wrong))
    losses = rng.gamma(1.0, 0.2, 1000)
    noisy = rng.random(1000) < wrong
    losses[noisy] = rng.normal(4.0, 0.4, noisy.sum())
    criterion, here = RootLoss(guard=guard), told(losses, start=2.3)
    pi, bad = by_hand(losses.astype(np.float32), int(keep * 1000), 2.3, sure=guard == "sure")
    found = criterion.suspect(here)
    assert (np.zeros(1000, bool) if found is None else found.numpy()).tolist() == bad.tolist()
    assert bad.any() == (wrong > (0.05 if guard == "sure" else 0))
    rates = criterion.rates(here, int(keep * 1000))
    assert np.abs(rates.numpy() - pi).max() < 1e-4


def group(n, loss, seed):
    return np.random.default_rng(seed).gamma(200, loss / 200, n)


EASY = group(900, 0.1, 0)
# What stands apart from 900 samples that are learnt, the untrained model's loss being 2.3: the
# losses of 100 more, and whether each guard is to suspect them.
KINDS_OF_LOSSES = {
    "learnt, too": (group(100, 0.1, 1), set()),
    "hard: between two classes": (group(100, np.log(2), 1), {True}),
    "hard: among five": (group(100, np.log(5), 1), {True}),
    "wrong, any of nine others, a tenth": (group(100, np.log(9 / 0.1), 1), {"sure", True}),
    "wrong, but few; a rare class": (group(40, 4.0, 1), {True}),
    "a tail without a gap": (np.random.default_rng(1).exponential(0.5, 3000), set()),
}


@pytest.mark.parametrize("guard", ["sure", True, False])
@pytest.mark.parametrize("kind", KINDS_OF_LOSSES)
def test_the_guard_suspects_what_the_model_is_sure_of_and_no_hard_samples(kind, guard):
    upper, by = KINDS_OF_LOSSES[kind]
    found = suspected(np.concatenate([EASY, upper]), 2.3, guard)
    assert found == (set(range(900, 900 + len(upper))) if guard in by else set())


@given(st.integers(2, 100), st.floats(0.06, 0.4), st.floats(0.1, 10), st.integers(0, 2**16))
def test_wrong_labels_known_by_their_rate_are_suspected_if_they_go_to_all_classes(
    classes, rate, scale, seed
):
    """A model that knows the rate gives a wrong label ln((C - 1) / ε), whatever losses' unit is."""
    wrong = np.random.default_rng(seed).random(2000) < rate
    losses = np.where(wrong, np.log((classes - 1) / rate), -np.log(1 - rate))
    clear = wrong.mean() > 0.051 and np.log((classes - 1) / rate) > 1.12 * np.log(classes)
    found = suspected(scale * losses, scale * np.log(classes))
    if clear and wrong.mean() < 0.44:
        assert found == set(np.flatnonzero(wrong).tolist())
    mixed_up = np.where(wrong, -np.log(rate), -np.log(1 - rate))  # all with one other class
    if -np.log(rate) < 1.09 * np.log(classes):
        assert suspected(mixed_up, np.log(classes)) == set()


def test_a_class_that_is_mostly_suspected_is_rare_and_not_wrong():
    """Of three classes one has all of its 80 samples far above, another 100 of its 400."""
    losses = np.concatenate([EASY, group(80, 4.0, 1), group(100, 4.0, 2)])
    classes = np.concatenate([np.arange(900) % 3 // 2, np.full(80, 2), np.ones(100)]).astype(int)
    rare, wrong = set(range(900, 980)), set(range(980, 1080))
    assert suspected(losses, 2.3) == rare | wrong
    assert suspected(losses, 2.3, classes=classes) == wrong
    assert suspected(losses, 2.3, True, classes=classes) == rare | wrong
    # Just half of a class is suspected; one more is too many, and those not allowed do not count.
    half = np.where(np.arange(1080) < 820, 0, 1)
    half[980:] = 0
    assert suspected(losses, 2.3, classes=half) == rare | wrong
    half[899] = 0
    assert suspected(losses, 2.3, classes=half) == wrong
    half[899], allowed = 1, np.arange(1080) != 899
    assert suspected(losses, 2.3, classes=half, allowed=allowed) == wrong
    # However classes are numbered, and whether or not one has no sample left.
    assert suspected(losses, 2.3, classes=7 - 2 * classes) == wrong


@pytest.mark.parametrize("guard", ["none", "", None, 1, 0.0])
def test_an_unknown_guard_is_refused(guard):
    with pytest.raises(ValueError, match=r"guard=.*'sure'"):
        RootLoss(guard=guard)


def test_ours_refuses_negative_losses():
    with pytest.raises(ValueError, match="losses of at least 0"):
        RootLoss()(known(torch.tensor([1.0, -0.5])), 1)


def test_equal_losses_are_visited_equally():
    samples = Samples(20, RootLoss(), keep=0.5)
    sampler = samples.sampler()
    visits = np.zeros(20, dtype=int)
    for _ in range(12):
        kept = list(sampler)
        visits[kept] += 1
        samples.update(kept, torch.ones(len(kept)))
    assert visits.tolist() == [6] * 20


@given(st.lists(st.floats(0, 10, width=32), min_size=2, max_size=200))
def test_otsu_is_the_best_of_all_thresholds(values):
    v = torch.tensor(values)
    threshold, above, apart, mean = otsu(v)
    x = np.sort(v.double().numpy())
    n = len(x)
    total = x.var()
    if total < 1e-9 or x[-1] - x[0] < 1e-6:
        return
    best = max(k / n * (1 - k / n) * (x[:k].mean() - x[k:].mean()) ** 2 for k in range(1, n))
    assert apart == pytest.approx(best / total, abs=0.02)
    assert 0 <= above < 1
    assert x[0] <= threshold <= x[-1] + 1e-6
    assert mean == pytest.approx(x[n - round(above * n) :].mean(), abs=(x[-1] - x[0]) / 1000 + 1e-4)


# ---------------------------------------------------------------------- strata and InfoBatch


@given(st.lists(st.integers(0, 30), min_size=1, max_size=8).filter(any), st.data())
def test_what_is_shared_out_is_a_floor_or_a_ceiling(counts, data):
    k = data.draw(st.integers(0, sum(counts)))
    shares = shared_out(torch.tensor(counts), k)
    exact = np.array(counts) * k / sum(counts)
    assert int(shares.sum()) == k
    assert ((shares.numpy() - exact) > -1 - 1e-9).all()
    assert ((shares.numpy() - exact) < 1 + 1e-9).all()
    assert (shares.numpy() <= counts).all()


@pytest.mark.parametrize("within", [Random(), Hard(), Cyclic(), RootLoss()], ids=repr)
def test_every_stratum_keeps_its_share(within):
    samples = Samples(N, Stratified("class", within), keep=0.5, strata={"class": CLASSES})
    samples.update(range(N), torch.arange(N).float())
    assert CLASSES[samples.kept].bincount().tolist() == [3, 2, 1]
    assert samples.metrics()["samples/drift/class"] == 0


ALIKE = [Hard(), Easy(), UCB(), Forgetting(), RootLoss(), RootLoss(weighted=True), Coverage(1)]
ALIKE += [RHOLoss(torch.arange(N) % 5), Stratified("parity", Hard()), InfoBatch()]


@pytest.mark.parametrize("within", ALIKE, ids=repr)
@given(losses=LOSS_LISTS, allowed=st.lists(st.booleans(), min_size=N, max_size=N), data=st.data())
def test_a_stratum_by_itself_is_chosen_from_as_among_all(within, losses, allowed, data):
    """The plain way: all samples are shown, and those of one stratum allowed."""
    allowed = torch.tensor(allowed)
    k = data.draw(st.integers(0, int(allowed.sum())))
    credit = torch.rand(N, generator=torch.Generator().manual_seed(1)) + 0.01  # none is drawn
    told = known(losses, allowed=allowed, kept={"credit": credit})
    told = replace(told, strata={**told.strata, "parity": torch.arange(N) % 2})
    choice = Stratified("class", within)(told, k)
    mask, weights, fields = torch.zeros(N, dtype=torch.bool), torch.ones(N), dict(told.kept)
    counts = CLASSES[allowed].bincount(minlength=3)
    for label, share in enumerate(shared_out(counts, k).tolist()):
        if not share:
            continue
        here = allowed & (label == CLASSES)
        one = within(replace(told, allowed=here), share)
        if isinstance(within, Coverage | InfoBatch):  # which draw: other samples, as many
            one = replace(one, mask=choice.mask & here)
            assert int(one.mask.sum()) == share
        mask |= one.mask
        weights = weights if one.weights is None else one.weights.where(one.mask, weights)
        fields |= {name: values.where(here, fields[name]) for name, values in one.fields.items()}
    assert choice.mask.equal(mask)
    if choice.weights is not None:
        assert choice.weights.allclose(weights)
    assert (choice.weights is None) == (k == 0 or within(told, k).weights is None)
    for name, values in choice.fields.items():
        assert values.allclose(fields[name])


def test_values_of_a_criterions_own_are_looked_up_inside_strata_of_strata():
    reference = torch.tensor([0.0, 9.0, 0.0, 9.0] * 3)
    told = replace(
        known([5.0] * N), strata={"a": torch.arange(N) // 6, "b": torch.arange(N) // 2 % 3}
    )
    mask = Stratified("a", Stratified("b", RHOLoss(reference)))(told, N // 2).mask
    assert mask.nonzero().flatten().tolist() == list(range(0, N, 2))


@pytest.mark.parametrize("few", [0, 32])
def test_strata_draw_exact_shares_evenly_one_by_one_and_by_sorting(monkeypatch, few):
    monkeypatch.setattr(strata, "_FEW", few)
    labels = torch.arange(60) % 3
    allowed = torch.arange(60) >= 6
    generator, drawn = torch.Generator().manual_seed(0), torch.zeros(60)
    for _ in range(2000):
        mask = at_random(labels, torch.tensor([9, 0, 6]), allowed, generator)
        assert labels[mask].bincount(minlength=3).tolist() == [9, 0, 6]
        drawn += mask
    expected = torch.tensor([0.5, 0.0, 1 / 3])[labels] * allowed * 2000
    assert (drawn - expected).abs().max() < 5 * 22  # five standard deviations


def test_strata_cover_all_samples_over_the_epochs():
    samples = Samples(N, Stratified("class", Cyclic()), keep=0.5, strata={"class": CLASSES})
    sampler = samples.sampler()
    one, other = list(sampler), list(sampler)
    assert sorted(one + other) == list(range(N))


def test_strata_that_are_not_there_are_refused():
    with pytest.raises(ValueError, match=r"by='speaker': there are no such strata, but 'length'"):
        Samples(3, Stratified("speaker"), lengths=[1, 2, 3])


def test_coverage_keeps_the_same_share_of_easy_and_hard():
    losses = torch.rand(1000, generator=torch.Generator().manual_seed(0)) ** 4
    told = Known(**{**vars(known(losses)), "strata": {}})
    kept = Coverage(groups=10)(told, 300).mask
    assert bins(losses, 10)[kept].bincount().tolist() == [30] * 10


def test_infobatch_keeps_what_is_hard_and_half_of_the_rest():
    """As published: keep=None."""
    losses = torch.tensor([0.0] * 8 + [4.0] * 4)
    choice = InfoBatch(prune=0.5)(known(losses), None)
    assert choice.mask[8:].all()
    assert int(choice.mask[:8].sum()) == 4
    assert set(choice.weights[:8].tolist()) == {2.0}
    assert set(choice.weights[8:].tolist()) == {1.0}


@pytest.mark.parametrize("k", [None, 3, 6, 9, 11])
def test_infobatch_leaves_the_sum_over_all_unbiased(k):
    """The mean, over draws, of the weighted sum of the kept is the sum of all."""
    losses = torch.tensor([0.1, 0.2, 0.3, 0.1, 0.5, 0.2, 0.4, 0.1, 3.0, 2.0, 5.0, 4.0])
    values = torch.arange(12).double()
    sums = []
    for seed in range(1500):
        choice = InfoBatch(prune=0.5)(known(losses, seed=seed), k)
        sums.append(float((choice.weights.double() * values)[choice.mask].sum()))
    error = np.std(sums) / np.sqrt(len(sums))
    assert abs(np.mean(sums) - float(values.sum())) < 4 * error + 1e-6


@pytest.mark.parametrize("k", [2, 5, 9])
def test_normalised_weights_have_a_mean_of_one(k):
    losses = torch.tensor([0.1] * 8 + [3.0] * 4)
    choice = InfoBatch(normalise=True)(known(losses), k)
    assert float(choice.weights[choice.mask].mean()) == pytest.approx(1, abs=1e-6)


def test_infobatch_never_prunes_more_than_nine_tenths_of_the_easy():
    losses = torch.cat([torch.zeros(100), torch.ones(20)])
    told = Known(**{**vars(known(losses)), "strata": {}})
    choice = InfoBatch()(told, 12)
    assert float(choice.weights.max()) <= 10 + 1e-6
    assert int(choice.mask[:100].sum()) == 10


def test_the_first_epoch_of_infobatch_is_full_as_published():
    samples = Samples(20, InfoBatch(), keep=None)
    first, second = run(samples, samples.batch_sampler(20), range(2))
    assert [len(batch) for batch in first] == [20]
    assert 10 <= len(second[0]) < 20


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: UCB(-1), "c=-1"),
        (lambda: UCB(math.nan), "c=nan"),
        (lambda: EpsilonGreedy(1.1), "epsilon=1.1"),
        (lambda: SeTa(groups=0), "groups=0"),
        (lambda: SeTa(window=0), "window=0"),
        (lambda: Coverage(0), "groups=0"),
        (lambda: SeTa(groups=2.5), "groups=2.5: an integer is needed"),
        (lambda: Stratified("class", "hard"), "within='hard'"),
        (lambda: InfoBatch(prune=1.0), "prune=1.0"),
    ],
)
def test_arguments_out_of_range_are_refused(make, words):
    with pytest.raises((TypeError, ValueError), match=words):
        make()


# ---------------------------------------------------------------------- unseen samples


def test_what_was_never_seen_comes_first():
    samples = Samples(10, Easy(), keep=0.4)
    sampler = samples.batch_sampler(4)
    seen = [run(samples, sampler, [e])[0] for e in range(3)]
    first = {p for epoch in seen[:2] for batch in epoch for p in batch}
    assert len(first) == 8
    third = {p for batch in seen[2] for p in batch}
    assert set(range(10)) - first <= third


def test_one_that_never_gets_a_loss_does_not_block_the_others():
    """Say, its file cannot be read: the others are still chosen by their losses."""
    samples = Samples(10, Hard(), keep=0.3)
    samples.update(range(9), torch.arange(9).float())
    assert samples.kept.nonzero().flatten().tolist() == [7, 8, 9]


def test_a_curriculum_needs_to_know_its_length():
    with pytest.raises(ValueError, match="changes with progress"):
        Samples(10, EasyToHard())
    with pytest.raises(ValueError, match="changes with progress"):
        Samples(10, Stratified("length", EasyToHard()), lengths=range(10))


def test_losses_that_never_come_are_noticed():
    samples = Samples(10, Hard(), keep=0.5)
    sampler = samples.sampler()
    list(sampler)
    with pytest.raises(ValueError, match=r"call samples\.update"):
        list(sampler)


def test_keep_follows_a_schedule():
    samples = Samples(100, Random(), keep=Linear(1.0, 0.5), epochs=6)
    sampler = samples.sampler()
    assert [len(list(sampler)) for _ in range(6)] == [100, 90, 80, 70, 60, 50]
