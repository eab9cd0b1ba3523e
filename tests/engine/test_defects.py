"""Known defects of public codes, one test each: what went wrong there does not go wrong here.

The list is that of the field's reference page (sections 2.4, 7 and 9). Tested elsewhere: layers
that ERK or a linear allocation fills beyond their capacity (test_allocation.py), norms that are
masked (test_plan.py), schedulers and closures that break a wrapped step (test_integration.py,
test_rigl.py), scaled gradients (test_integration.py), SRigL's boolean rows (test_srigl.py), copies
that cannot be made (test_conformance.py).
"""

from __future__ import annotations

import contextlib
import gc
import io
import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.saliency import LargestWeights
from regrow.engine.schedules import Cosine
from regrow.engine.scores import Gradient, Random

# ---------------------------------------------------------------------- as shipped


def dettmers_set(weight, rho):
    """sparse_learning: of an ascending order all but the first half of the share goes."""
    keep = torch.zeros_like(weight, dtype=torch.bool)
    keep[weight.argsort()[: math.ceil(rho * weight.numel() / 2)]] = True
    return keep


def study_set(weight, rho):
    """magnitude_and_negativity: negatives stay only if below the k-th most negative."""
    positive, negative = weight[weight > 0].sort().values, weight[weight < 0].sort().values
    above = positive[math.ceil(rho * len(positive)) - 1]
    below = negative[math.ceil(rho * len(negative)) - 1]
    return (weight > above) | (weight < below)


def by_threshold(magnitude, k):
    """ITOP, GraNet, sparselab: whoever is not above the k-th smallest goes."""
    return magnitude > magnitude.sort().values[k - 1]


def bernoulli(candidates, k):
    """The pruning study, ITOP: each candidate grows with probability k/n."""
    return candidates & (torch.rand(candidates.shape) < k / candidates.sum())


# ---------------------------------------------------------------------- loops


@pytest.fixture
def sparse_weights(weights):
    """sparse_weights(method, *layers, ...): weights by hand, their optimizer and sparsifier."""

    def begin(method, *shapes, kind="normal", total_steps=1000, rate=0.0, momentum=0.0):
        model = weights(list(shapes), kind)
        optimizer = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
        made = regrow.sparsify(model, optimizer, method, total_steps=total_steps, include="*")
        return model, optimizer, made

    return begin


def step(model, optimizer, *gradients):
    for weight, gradient in zip(model.parameters(), gradients, strict=True):
        weight.grad = gradient.clone()
    optimizer.step()


# ---------------------------------------------------------------------- dropping


@pytest.mark.parametrize("rho", [0.5, 0.2, 0.05])
@pytest.mark.parametrize("shipped", [study_set, dettmers_set])
def test_set_that_removes_large_weights_and_never_anneals(sparse_weights, shipped, rho):
    """However small the share, the shipped rules remove half of the weights or more."""
    method = regrow.SET(density=0.2, drop_fraction=rho, update_every=1, regrow_dropped=False)
    model, optimizer, sparse = sparse_weights(method, (200, 300))
    before = model.w0.detach()[was := sparse.masks["w0"]]
    assert (~shipped(before, rho)).float().mean() > 0.49
    step(model, optimizer, torch.zeros(200, 300))
    gone = ~sparse.masks["w0"][was]
    assert int(gone.sum()) == math.floor(rho * 12_000)
    for sign in (1, -1):
        of_sign = (before * sign)[before * sign > 0]
        gone_of_sign = gone[before * sign > 0]
        assert float(gone_of_sign.float().mean()) == pytest.approx(rho, abs=1e-3)
        assert of_sign[gone_of_sign].max() <= of_sign[~gone_of_sign].min()


@pytest.mark.parametrize("kind", ["equal", "signs"])
def test_ties_at_the_threshold_that_all_go(sparse_weights, kind):
    """Where weights are equal a threshold takes all of them, or nearly all."""
    method = regrow.RigL(density=0.2, drop_fraction=0.3, update_every=1, regrow_dropped=False)
    model, optimizer, sparse = sparse_weights(method, (40, 50), kind=kind)
    magnitude = model.w0.detach()[sparse.masks["w0"]].abs()
    k = math.floor(method.drop_fraction * 400)
    assert not by_threshold(magnitude, k).any()
    step(model, optimizer, torch.ones(40, 50))
    change = sparse.history[0].layers["w0"]
    assert (change.dropped, change.grown, change.active) == (k, k, 400)


def test_ties_at_the_global_threshold_that_empty_a_layer(sparse_weights):
    """The smaller of two layers of equal weights lies below one threshold over both."""
    method = regrow.GMP(density=0.1, shrink="global", update_every=1, start_at=0, stop_at=1)
    model, optimizer, sparse = sparse_weights(method, (8, 10), (40, 50), kind="equal")
    with torch.no_grad():
        model.w0.mul_(0.1)
    everything = torch.cat([weight.detach().flatten() for weight in model.parameters()])
    k = everything.numel() - 208
    assert not by_threshold(everything, k).any()
    step(model, optimizer, torch.zeros(8, 10), torch.zeros(40, 50))
    assert [int(mask.sum()) for mask in sparse.masks.values()] == [1, 207]


def test_noise_that_lets_an_inactive_weight_outrank_an_active_one(sparse_weights):
    """RigL's TensorFlow code adds noise of 10⁻⁵: among weights of 10⁻⁷ it decides."""
    method = regrow.RigL(density=0.2, drop_fraction=0.3, update_every=1, regrow_dropped=False)
    model, optimizer, sparse = sparse_weights(method, (40, 50))
    with torch.no_grad():
        model.w0.mul_(1e-7)
    magnitude, was = model.w0.detach().abs(), sparse.masks["w0"]
    noisy = magnitude + 1e-5 * torch.randn(magnitude.shape)
    assert noisy[~was].max() > noisy[was].min()
    step(model, optimizer, torch.ones(40, 50))
    kept = sparse.masks["w0"] & was
    assert int(kept.sum()) == 400 - 120
    assert magnitude[kept].min() >= magnitude[was & ~kept].max()


def test_active_weights_of_zero_that_pass_for_inactive_ones(sparse_weights):
    """A selection over all positions (Cerebras), or a mask read off from w ≠ 0, loses them."""
    method = regrow.SET(density=0.2, drop_fraction=0.3, update_every=1, regrow_dropped=False)
    model, optimizer, sparse = sparse_weights(method, (40, 50))
    was = sparse.masks["w0"]
    with torch.no_grad():
        model.w0[was.nonzero()[:200].unbind(1)] = 0.0  # half of the active ones
    assert int(torch.count_nonzero(model.w0)) == 200
    step(model, optimizer, torch.zeros(40, 50))
    change = sparse.history[0].layers["w0"]
    assert (change.dropped, change.grown, change.active) == (120, 120, 400)
    gone = was & ~sparse.masks["w0"]
    assert not gone[model.w0.detach() != 0].any()


# ---------------------------------------------------------------------- growing


def test_a_first_topology_whose_size_is_left_to_chance(weights):
    """rand < density gives 400 only on average."""
    sizes, shipped = set(), set()
    for seed in range(10):
        model = weights([(40, 50)])
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.Static(density=0.2)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=9, include="*", seed=seed)
        sizes.add(int(sparse.masks["w0"].sum()))
        shipped.add(int((torch.rand(40, 50) < 0.2).sum()))
        sparse.remove()
    assert len(shipped) > 1
    assert sizes == {400}


def test_growth_by_chance_whose_counts_drift(sparse_weights):
    """500 weights, half of them exchanged 400 times: as shipped they end anywhere from 0 up."""
    mask = torch.arange(5000) < 500
    for _ in range(400):
        active = mask.nonzero().flatten()
        dropped = active[torch.randperm(len(active))[: math.ceil(len(active) / 2)]]
        mask[dropped] = False
        mask |= bernoulli(~mask, len(dropped)) if len(dropped) else mask
    assert int(mask.sum()) != 500
    method = regrow.RandomWalk(density=0.1, drop_fraction=0.5, update_every=1, stop_at=1.0)
    model, optimizer, sparse = sparse_weights(method, (50, 100), total_steps=402)
    for _ in range(400):
        step(model, optimizer, torch.zeros(50, 100))
    assert {update.layers["w0"].active for update in sparse.history} == {500}


@pytest.mark.parametrize("regrow_dropped", [True, False])
@pytest.mark.parametrize("largest", ["active", "nowhere"])
def test_growth_that_takes_positions_that_are_active_already(
    sparse_weights, largest, regrow_dropped
):
    """Then density falls (sparse_learning, issue 22: .073 for .1), or where all gradients are 0."""
    method = regrow.RigL(density=0.1, update_every=1, stop_at=1.0, regrow_dropped=regrow_dropped)
    model, optimizer, sparse = sparse_weights(method, (40, 50))
    for _ in range(20):
        was = sparse.masks["w0"]
        gradient = was.float() if largest == "active" else torch.zeros(40, 50)
        assert (was.flatten()[gradient.flatten().topk(60).indices]).any()
        step(model, optimizer, gradient)
        assert int(sparse.masks["w0"].sum()) == 200


def test_gradients_that_are_read_after_they_were_masked(mlp, batch):
    """rigl-torch masks gradients by hooks; a user masks them to clip. Growth needs dense ones."""
    grown = []
    for clipping in (False, True):
        model = mlp()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.RigL(density=0.3, update_every=1, regrow_dropped=False)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=100)
        inputs, labels = batch(0)
        functional.cross_entropy(model(inputs), labels).backward()
        was, dense = sparse.masks["0.weight"], model[0].weight.grad.clone()
        if clipping:
            sparse.mask_gradients_()
            assert not model[0].weight.grad[~was].any()
            nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
        optimizer.step()
        new = sparse.masks["0.weight"] & ~was
        others = ~sparse.masks["0.weight"] & ~was
        assert new.any()
        assert dense[new].abs().min() >= dense[others].abs().max()
        grown.append(new)
    assert grown[0].equal(grown[1])


def test_gradients_that_are_taken_at_weights_that_are_not_masked(mlp, batch):
    """RigL's port to TensorFlow 2 (issue 14): the gradient of the dense network is another."""
    model, dense = mlp(), mlp()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.RigL(density=0.3, update_every=1, regrow_dropped=False)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=100)
    was, inputs, labels = sparse.masks["0.weight"], *batch(0)
    found = {}
    for name, network in (("dense", dense), ("masked", mlp())):
        if name == "masked":
            with torch.no_grad():
                for weight, mask in sparse.masks.items():
                    network.get_parameter(weight).mul_(mask)
        functional.cross_entropy(network(inputs), labels).backward()
        found[name] = network[0].weight.grad.abs().masked_fill(was, -1).flatten()
    functional.cross_entropy(model(inputs), labels).backward()
    optimizer.step()
    grown = (sparse.masks["0.weight"] & ~was).flatten().nonzero().flatten().tolist()
    best = {name: sorted(g.topk(len(grown)).indices.tolist()) for name, g in found.items()}
    assert grown == best["masked"] != best["dense"]


# ---------------------------------------------------------------------- optimizer state


@pytest.fixture
def grown_late():
    """grown_late(make): a weight's first move after 30 steps of constant gradients."""

    def run(make, **options):
        model = nn.ParameterDict({"w": nn.Parameter(torch.ones(10, 20))})
        optimizer = make(model.parameters())
        method = regrow.Dynamic(
            density=0.5,
            grow=Random(),
            update_every=30,
            stop_at=31,
            drop_fraction=0.4,
            regrow_dropped=False,
            **options,
        )
        sparse = regrow.sparsify(model, optimizer, method, total_steps=100, include="*")
        was = sparse.masks["w"]
        for _ in range(30):
            step(model, optimizer, torch.ones(10, 20))
        grown = sparse.masks["w"] & ~was
        assert int(grown.sum()) == 40
        assert not model["w"][grown].any()
        step(model, optimizer, torch.ones(10, 20))
        return model["w"].detach()[grown].abs()

    return run


def test_grown_weights_that_inherit_the_momentum_of_their_absence(grown_late):
    """In the study's code momentum gathers while masked: the first move is ten gradients long."""

    def sgd(parameters):
        return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)

    assert grown_late(sgd, on_grow="keep").tolist() == pytest.approx([0.096] * 40, rel=0.02)
    assert grown_late(sgd).tolist() == pytest.approx([0.01] * 40)


def test_adam_state_of_grown_weights_that_is_never_reset():
    """ITOP, GraNet and rigl-torch write SGD's momentum only: 113 of 113 kept their exp_avg."""
    model = nn.ParameterDict({"w": nn.Parameter(torch.randn(10, 20))})
    optimizer = torch.optim.Adam(model.parameters(), amsgrad=True)
    method = regrow.SET(density=0.3, update_every=5)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=100, include="*")
    for _ in range(4):
        step(model, optimizer, torch.randn(10, 20))
    was = sparse.masks["w"]
    step(model, optimizer, torch.randn(10, 20))
    grown = sparse.masks["w"] & ~was
    assert grown.any()
    for name in ("exp_avg", "exp_avg_sq", "max_exp_avg_sq"):
        state = optimizer.state[model["w"]][name]
        assert not state[grown].any()
        assert state[~grown].all()


def test_survivors_that_carry_the_state_of_other_connections(sparse_weights):
    """sparselab sorts values but not their momentum: 142 of 258 survivors had another's."""
    method = regrow.SET(density=0.3, update_every=5, regrow_dropped=False)
    model, optimizer, sparse = sparse_weights(method, (10, 20), momentum=0.9)
    numbers = torch.arange(1.0, 201.0).reshape(10, 20)  # every connection has its own gradient
    for _ in range(4):
        step(model, optimizer, numbers)
    was = sparse.masks["w0"]
    step(model, optimizer, numbers)
    survivors = sparse.masks["w0"] & was
    momentum = optimizer.state[model.w0]["momentum_buffer"]
    assert int(survivors.sum()) == 42
    torch.testing.assert_close(momentum[survivors], numbers[survivors] * (1 - 0.9**5) / 0.1)


# ---------------------------------------------------------------------- several ranks


class Scored(nn.Module):
    """A weight whose gradient is what it is called with."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(20, 30, generator=torch.Generator().manual_seed(0)))

    def forward(self, gradient):
        return (self.w * gradient).sum()


def gradients_of_ranks():
    """The ranks agree on A and disagree on B, which is ten times as large."""
    agreed, opposed = (
        torch.randn(20, 30, generator=torch.Generator().manual_seed(n)) for n in (1, 2)
    )
    return agreed + 10 * opposed, agreed - 10 * opposed


def grow_on_rank(rank):
    """What grows by gradient and at random, and what public codes would grow."""
    grown = {}
    for method in (regrow.RigL, regrow.RandomWalk):
        model = nn.parallel.DistributedDataParallel(Scored())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        chosen = method(density=0.2, update_every=1, regrow_dropped=False)
        sparse = regrow.sparsify(model, optimizer, chosen, total_steps=9, include="*")
        was = sparse.masks["w"]
        gradients = gradients_of_ranks()
        model(gradients[rank]).backward()
        optimizer.step()
        grown[method.__name__] = {"was": was, "now": sparse.masks["w"]}
    per_rank = torch.rand(20, 30).masked_fill(was, -1).flatten().topk(10).indices
    return grown | {"drawn by each rank": per_rank.sort().values}


@pytest.fixture(scope="module")
def grown_on_ranks(two_ranks):
    return two_ranks(grow_on_rank)


@pytest.mark.slow
def test_random_draws_that_differ_from_rank_to_rank(grown_on_ranks, assert_same):
    """ITOP seeds by rank, Cerebras draws by torch.rand; neither broadcasts what came of it."""
    one, other = grown_on_ranks
    assert not one["drawn by each rank"].equal(other["drawn by each rank"])
    for method in ("RandomWalk", "RigL"):
        assert_same(one[method], other[method])
        assert (one[method]["now"] & ~one[method]["was"]).any()


@pytest.mark.slow
def test_magnitudes_that_are_taken_before_the_mean_over_ranks(grown_on_ranks):
    """rigl-torch averages |local gradient|: where ranks disagree it sees a large gradient."""
    masks = grown_on_ranks[0]["RigL"]
    grown, candidates = masks["now"] & ~masks["was"], ~masks["was"]
    one, other = gradients_of_ranks()
    right, shipped = ((one + other) / 2).abs(), (one.abs() + other.abs()) / 2

    def best(size):
        return (
            size.masked_fill(~candidates, -1).flatten().topk(int(grown.sum())).indices.sort().values
        )

    assert grown.flatten().nonzero().flatten().equal(best(right))
    assert not best(right).equal(best(shipped))


# ---------------------------------------------------------------------- counting, resuming


def test_densities_whose_arithmetic_keeps_too_many():
    """fastsparse: int((1-s)·n·1 - share) keeps everything: 1298 for 999."""
    model = nn.Linear(100, 37)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    sparse = regrow.sparsify(model, optimizer, regrow.SET(density=0.27), total_steps=1000)
    assert int(sparse.masks["weight"].sum()) == 999


def test_masks_that_are_multiplied_into_themselves_until_nothing_is_left(sparse_weights):
    """pytorch issues 62807 and 65293: a mask, or a weight, that shrinks by every step."""
    model, optimizer, sparse = sparse_weights(regrow.Static(density=0.5), (10, 20))
    before = model.w0.detach().clone()
    for _ in range(300):
        step(model, optimizer, torch.zeros(10, 20))
    assert model.w0.equal(before)
    assert int(sparse.masks["w0"].sum()) == 100


def test_exploration_that_forgets_the_first_masks_or_counts_twice(sparse_weights):
    """ITOP's rate is the share of weights active at any time, over all weights."""
    method = regrow.SETITOP(density=0.1, update_every=1)
    model, optimizer, sparse = sparse_weights(method, (20, 30), (10, 40), total_steps=40)
    seen = {name: mask.clone() for name, mask in sparse.masks.items()}
    for number in range(20):
        step(model, optimizer, torch.zeros(20, 30), torch.zeros(10, 40))
        for name, mask in sparse.masks.items():
            seen[name] |= mask
        if number == 10:  # what a run saw before it was stopped counts, too
            sparse.load_state_dict(sparse.state_dict())
    assert all(mask.equal(seen[name]) for name, mask in sparse.fired.items())
    assert all(0.2 < float(mask.float().mean()) < 1 for mask in sparse.fired.values())


def test_masks_that_are_guessed_from_the_weights_on_resuming(sparse_weights, assert_same):
    """sparse_learning takes w ≠ 0 for the mask: what was grown last, still at zero, is lost."""
    method = regrow.SET(density=0.3, update_every=5, regrow_dropped=False)
    model, optimizer, sparse = sparse_weights(method, (10, 20))
    for _ in range(5):
        step(model, optimizer, torch.zeros(10, 20))
    guessed = model.w0.detach() != 0
    assert int(guessed.sum()) == 60 - 18
    other, _, resumed = sparse_weights(method, (10, 20))
    other.load_state_dict(model.state_dict())
    resumed.load_state_dict(sparse.state_dict())
    assert_same(resumed.masks, sparse.masks)
    assert int(resumed.masks["w0"].sum()) == 60


def test_schedules_that_start_again_on_resuming(sparse_weights):
    """Cerebras overwrites the state before it is read: the share exchanged is the first again."""
    method = regrow.SET(
        density=0.5, allocation=Uniform(), drop_fraction=Cosine(0.5), update_every=10,
        regrow_dropped=False,
    )  # fmt: skip
    model, optimizer, sparse = sparse_weights(method, (20, 50), total_steps=100)
    for _ in range(55):
        step(model, optimizer, torch.zeros(20, 50))
    model, optimizer, resumed = sparse_weights(method, (20, 50), total_steps=100)
    resumed.load_state_dict(sparse.state_dict())
    for _ in range(10):
        step(model, optimizer, torch.zeros(20, 50))
    assert [update.step for update in resumed.history] == [10, 20, 30, 40, 50, 60]
    exchanged = [update.layers["w0"].dropped for update in resumed.history]
    shares = [0.25 * (1 + math.cos(math.pi * step / 100)) for step in range(10, 70, 10)]
    assert exchanged == [math.floor(500 * share) for share in shares]


def test_a_start_by_score_that_is_drawn_at_random_after_all():
    """ "SNIP" in two studies' codes means random masks with SNIP's densities."""
    model = nn.Linear(20, 10)
    largest = model.weight.detach().abs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.Dynamic(density=0.25, start=LargestWeights(scope="global"), grow=Gradient())
    mask = regrow.sparsify(model, optimizer, method, total_steps=1000).masks["weight"]
    assert int(mask.sum()) == 50
    assert largest[mask].min() >= largest[~mask].max()


def test_a_cache_by_id_that_takes_a_new_model_for_an_old_one(mlp, train):
    """sparselab, in 2 of 20 runs of a loop over seeds: addresses are used again."""
    gc.collect()
    gc.freeze()  # what is there already is not looked through every time
    weights = [mlp(0)[0].weight]
    for seed in range(5):
        model = mlp(seed)
        model[0].weight = weights[0]
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        method = regrow.RigL(density=0.3, update_every=1)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=9, seed=seed)
        train(model, optimizer, range(2))
        assert len(sparse.history) == 2
        address, like = id(weights[0]), weights.pop().detach().clone()
        del model, optimizer, sparse
        gc.collect()  # sparsifier and optimizer refer to each other
        weights.append(parameter_at(address, like))


def parameter_at(address, like):
    """Return a parameter at the address of one that is gone, by taking all places before it."""
    others = []
    while id(weight := nn.Parameter(like)) != address:
        others.append(weight)
        assert len(others) < 100_000, "its place was never given away again"
    return weight


@pytest.mark.slow
def test_names_hashed_with_a_hash_that_differs_from_process_to_process(python):
    """RigL's TensorFlow code seeds by hash(name), which PYTHONHASHSEED changes."""
    code = """
import torch, regrow
model = torch.nn.Linear(20, 10)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
sparse = regrow.sparsify(model, optimizer, regrow.SET(density=0.3, update_every=1), total_steps=9)
model(torch.ones(1, 20)).sum().backward()
with torch.no_grad():
    model.weight.copy_(torch.arange(200.0).reshape(10, 20) * sparse.masks["weight"])
    model.weight.grad.zero_()
optimizer.step()
print(sparse.masks["weight"].int().tolist(), hash("weight"))
"""
    with contextlib.redirect_stdout(io.StringIO()) as here:
        exec(code, {})
    one, other = (
        said.rsplit(maxsplit=1) for said in (here.getvalue(), python(code, PYTHONHASHSEED="1"))
    )
    assert one[0] == other[0]
    assert one[1] != other[1]
