"""What reinforcement learning asks for: resets, graphs, targets, members of one weight."""

import copy

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.members import draw_members, exchange_members
from regrow.engine.patterns import FanIn, InputChannel


def make(method, seed=0, total=40):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=total)
    return model, optimizer, sparse


def batch(step):
    return torch.randn(16, 12, generator=torch.Generator().manual_seed(step))


def backward(model, step):
    model.zero_grad()
    (model(batch(step)) - 1).square().mean().backward()


def strays(model, sparse):
    return sum(int(model.get_parameter(n)[~m].count_nonzero()) for n, m in sparse.masks.items())


# ---------------------------------------------------------------------- captured, advance_


@pytest.mark.parametrize("kind", [regrow.SET, regrow.GMP])
def test_steps_that_are_masked_and_counted_afterwards_are_ordinary_steps(kind):
    """Methods whose updates follow a step come out bit for bit as if hooks had run."""
    method = kind(density=0.25, update_every=4)
    one, one_optimizer, ordinary = make(method)
    two, two_optimizer, replayed = make(method)
    for step in range(20):
        backward(one, step)
        one_optimizer.step()
        backward(two, step)
        with replayed.captured():
            two_optimizer.step()
        assert not strays(two, replayed)
        replayed.advance_()
        assert ordinary.steps == replayed.steps == step + 1
    assert len(ordinary.history) == len(replayed.history) > 2
    assert ordinary.history == replayed.history
    for name, mask in ordinary.masks.items():
        assert mask.equal(replayed.masks[name])
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        assert a.equal(b)


def test_an_update_after_replays_reads_the_gradients_of_the_last_one():
    model, optimizer, sparse = make(regrow.RigL(density=0.25, update_every=5))
    before = sparse.masks
    for step in range(5):
        backward(model, step)
        with sparse.captured():
            optimizer.step()
    gradient, weight = model[0].weight.grad.abs().clone(), model[0].weight.detach().clone()
    update = sparse.advance_(5)
    assert update is not None and update.step == 5
    grown = sparse.masks["0.weight"] & ~before["0.weight"]
    stayed_out = ~sparse.masks["0.weight"] & (weight == 0)
    assert grown.any()
    assert gradient[grown].min() >= gradient[stayed_out].max()


def test_no_update_is_passed_over():
    _, _, sparse = make(regrow.SET(density=0.25, update_every=4))
    for wrong, allowed in ((0, "at least 1"), (5, "at most 4")):
        with pytest.raises(ValueError, match=f"steps={wrong}: .*{allowed}"):
            sparse.advance_(wrong)
    assert sparse.steps == 0
    assert sparse.advance_(3) is None
    assert sparse.advance_(1).step == 4


def test_an_update_that_cannot_be_made_is_not_counted():
    model, optimizer, sparse = make(regrow.RigL(density=0.25, update_every=2))
    for step in range(2):
        backward(model, step)
        with sparse.captured():
            optimizer.step()
    whole = model[0].weight.grad.clone()
    model[0].weight.grad[0, 0] = torch.nan
    before = sparse.masks
    with pytest.raises(FloatingPointError):
        sparse.advance_(2)
    assert sparse.steps == 0 and not sparse.history
    assert all(mask.equal(before[name]) for name, mask in sparse.masks.items())
    model[0].weight.grad.copy_(whole)
    assert sparse.advance_(2).step == 2


def test_what_follows_every_step_is_not_captured():
    _, _, sparse = make(regrow.TopKAST(density=0.25))
    with pytest.raises(RuntimeError, match="capture the passes only"), sparse.captured():
        pass


# ---------------------------------------------------------------------- rebind_


def test_a_topology_outlives_the_reset_of_its_network_and_optimizer():
    model, optimizer, sparse = make(regrow.SET(density=0.25, update_every=4))
    for step in range(6):
        backward(model, step)
        optimizer.step()
    masks, counts = sparse.masks, {n: int(m.sum()) for n, m in sparse.masks.items()}
    for layer in (model[0], model[2]):
        layer.reset_parameters()
    new = torch.optim.Adam(model.parameters(), lr=0.01)
    sparse.rebind_(new)
    assert not strays(model, sparse)
    assert all(mask.equal(masks[name]) for name, mask in sparse.masks.items())
    for step in range(6, 12):
        backward(model, step)
        new.step()
        assert not strays(model, sparse)
    assert [update.step for update in sparse.history] == [4, 8, 12]
    assert {n: int(m.sum()) for n, m in sparse.masks.items()} == counts
    optimizer.step()  # the old one drives no longer
    assert sparse.steps == 12


def test_an_optimizer_without_a_weight_is_refused_and_the_old_one_goes_on():
    model, optimizer, sparse = make(regrow.SET(density=0.25, update_every=4))
    with pytest.raises(ValueError, match=r"does not hold 2\.weight"):
        sparse.rebind_(torch.optim.Adam(model[0].parameters()))
    backward(model, 0)
    optimizer.step()
    assert sparse.steps == 1
    sparse.remove()
    with pytest.raises(RuntimeError, match="after remove"):
        sparse.rebind_(optimizer)


# ---------------------------------------------------------------------- targets


def test_one_call_keeps_a_target_network_sparse():
    model, optimizer, sparse = make(regrow.SET(density=0.25, update_every=4))
    target = copy.deepcopy(model)
    for step in range(12):
        backward(model, step)
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(target.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
        sparse.apply_to_(target)
        assert not strays(target, sparse)


# ---------------------------------------------------------------------- members of one weight


class Members(nn.Module):
    """Networks side by side in one weight, (members, in, out)."""

    def __init__(self, members=3):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(members, 10, 6))

    def forward(self, x):
        return x @ self.weight


def test_members_of_one_weight_keep_equally_many_by_constant_fan_in():
    model = Members()
    model.weight.output_dim = 0
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    method = regrow.SET(density=0.2, update_every=2, pattern=FanIn())
    sparse = regrow.sparsify(model, optimizer, method, total_steps=40, include="weight")
    for _ in range(10):
        model.zero_grad()
        model(torch.randn(4, 10)).square().mean().backward()
        optimizer.step()
        assert sparse.masks["weight"].flatten(1).sum(1).tolist() == [12, 12, 12]
    assert len(sparse.history) > 2


def test_whole_input_features_are_units_shared_by_all_members():
    model = Members()
    model.weight.output_dim, model.weight.input_dim = 2, 1
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    method = regrow.RigL(density=0.3, update_every=2, pattern=InputChannel())
    sparse = regrow.sparsify(model, optimizer, method, total_steps=40, include="weight")
    for _ in range(10):
        model.zero_grad()
        (model(torch.randn(4, 10)) - 1).square().mean().backward()
        optimizer.step()
        read = sparse.masks["weight"].any(2)
        assert read.sum(1).tolist() == [3, 3, 3]
        assert read.equal(read[:1].expand_as(read))
        assert sparse.masks["weight"].equal(read[..., None].expand(3, 10, 6))


def test_members_exchange_their_own_counts_exactly_whatever_the_ties():
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        keys = torch.rand(5, 30, generator=generator)
        counts = torch.randint(0, 31, (5,), generator=generator)
        mask = draw_members(keys, counts)
        assert mask.sum(1).equal(counts)
        moved = (counts * torch.rand(5, generator=generator)).long()
        moved = torch.minimum(moved, 30 - counts + moved.clamp(max=0))
        drop = torch.randint(0, 3, (5, 30), generator=generator).float()  # many ties
        grow = torch.rand(5, 30, generator=generator)
        after = exchange_members(mask, drop, grow, moved)
        assert after.sum(1).equal(counts)
        for member in range(5):
            gone = mask[member] & ~after[member]
            assert gone.sum() <= moved[member]
            if gone.any() and (mask[member] & after[member]).any():
                held = mask[member] & after[member]
                regrown = int(moved[member] - gone.sum())
                worse = (drop[member][held] < drop[member][gone].max()).sum()
                assert worse <= regrown  # what is worth less and stayed was grown again


def test_a_member_alone_exchanges_as_it_does_among_others():
    generator = torch.Generator().manual_seed(1)
    mask, drop, grow = (torch.rand(4, 20, generator=generator) for _ in range(3))
    counts = torch.tensor([0, 3, 1, 2])
    together = exchange_members(mask > 0.5, drop, grow, counts)
    for one in range(4):
        part = slice(one, one + 1)
        alone = exchange_members(mask[part] > 0.5, drop[part], grow[part], counts[part])
        assert alone.equal(together[part])


def test_shapes_that_do_not_fit_are_refused():
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match="one number a member"):
        draw_members(torch.rand(2, 3), torch.tensor([1]))
    with pytest.raises(ValueError, match="must be that of the mask"):
        exchange_members(mask, torch.rand(2, 2), torch.rand(2, 3), torch.tensor([1, 1]))
