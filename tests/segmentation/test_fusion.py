"""Dynamic sparse feature fusion: whole kernels, exact counts, exact resumption."""

import copy
import io

import pytest
import torch
from torch.nn import functional

import regrow
from regrow.engine.patterns import Kernel
from regrow.segmentation import E2ENet, feature_fusion

TOTAL = 12


def start(seed=0, **options):
    torch.manual_seed(seed)
    model = E2ENet(1, 3, (6, 12, 12), strides=[(1, 2, 2), 2])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.99, nesterov=True)
    sparse = regrow.sparsify(
        model, optimizer, **feature_fusion(0.2, update_every=3), total_steps=TOTAL, **options
    )
    return model, optimizer, sparse


def train(model, optimizer, steps):
    for step in steps:
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(2, 1, 4, 8, 8, generator=generator)
        optimizer.zero_grad()
        outputs = model(x)
        target = (x[:, 0] > 0).long()
        functional.cross_entropy(outputs[0], target).backward()
        optimizer.step()
        yield step


def check_kernels(sparse, model):
    for layer in sparse.plan.layers:
        mask, weight = sparse.masks[layer.name], model.get_parameter(layer.name)
        kernels = mask.flatten(2)
        assert torch.equal(kernels.any(2), kernels.all(2)), "a kernel is kept whole or not at all"
        assert int(kernels.all(2).sum()) == round(0.2 * layer.units)
        assert not weight[~mask].any()


def test_counts_are_exact_at_the_start_and_after_each_update():
    model, optimizer, sparse = start()
    kinds = {layer.layout.kind for layer in sparse.plan.layers}
    assert kinds == {"convolution", "transposed"}
    check_kernels(sparse, model)
    before = {n: m.clone() for n, m in sparse.masks.items()}
    for step in train(model, optimizer, range(1, TOTAL + 1)):
        check_kernels(sparse, model)
        moved = any(not torch.equal(m, before[n]) for n, m in sparse.masks.items())
        assert moved is (step in (3, 6, 9))
        before = {n: m.clone() for n, m in sparse.masks.items()}
    assert [update.step for update in sparse.history] == [3, 6, 9]


def test_encoder_heads_norms_and_biases_stay_dense():
    model, _, sparse = start()
    assert {name.split(".")[0] for name in sparse.masks} == {"nodes"}
    dense = [p for n, p in model.named_parameters() if n not in sparse.masks and p.ndim > 1]
    assert all(p.count_nonzero() == p.numel() for p in dense)


def test_new_kernels_start_at_zero():
    model, optimizer, sparse = start()
    list(train(model, optimizer, (1, 2)))
    kept = {n: m.flatten(2).all(2) for n, m in sparse.masks.items()}
    list(train(model, optimizer, (3,)))
    grown = {n: m.flatten(2).all(2) & ~kept[n] for n, m in sparse.masks.items()}
    assert sum(int(g.sum()) for g in grown.values()) > 20
    for name, new in grown.items():
        assert not model.get_parameter(name).detach().flatten(2)[new].any()


def test_which_kernels_go_is_decided_by_the_sum_of_magnitudes():
    """By hand: one layer, an update forced, the lowest half of the active kernels."""
    model, _, sparse = start()
    weights = {
        layer.name: model.get_parameter(layer.name).detach().clone() for layer in sparse.plan.layers
    }
    masks = {n: m.clone() for n, m in sparse.masks.items()}
    sparse.update_()
    for name, weight in weights.items():
        was, now = (m[name].flatten(2).all(2) for m in (masks, sparse.masks))
        worth = weight.abs().flatten(2).sum(2)[was].sort().values
        count = int(0.5 * int(was.sum()))
        # All of the upper half stay; what left is of the lower half.
        upper = was & (weight.abs().flatten(2).sum(2) >= worth[count])
        assert (now & upper).sum() == upper.sum()
        assert int((was & ~now).sum()) <= count


def test_a_resumed_run_is_the_run_that_never_stopped():
    model, optimizer, sparse = start()
    list(train(model, optimizer, range(1, 5)))  # one step into an interval
    file = io.BytesIO()
    torch.save(
        {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "sparse": sparse.state_dict(),
        },
        file,
    )
    list(train(model, optimizer, range(5, TOTAL + 1)))
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    other, its, resumed = start(seed=9)
    other.load_state_dict(saved["model"])
    its.load_state_dict(saved["optimizer"])
    resumed.load_state_dict(saved["sparse"])
    list(train(other, its, range(5, TOTAL + 1)))
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True)
    )
    assert all(torch.equal(m, resumed.masks[n]) for n, m in sparse.masks.items())


@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 3, 3), (2, 1, 2)])
@pytest.mark.parametrize("kind", [torch.nn.Conv3d, torch.nn.ConvTranspose3d])
def test_growth_by_gradient_sums_over_kernels_of_any_depth(kind, kernel):
    torch.manual_seed(0)
    model = kind(6, 8, kernel)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.RigL(density=0.25, pattern=Kernel(), update_every=1, regrow_dropped=False)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=8, include="weight")
    was = sparse.masks["weight"].flatten(2).all(2)
    model(torch.randn(2, 6, 4, 5, 5)).square().mean().backward()
    worth = model.weight.grad.abs().flatten(2).sum(2)
    optimizer.step()
    now = sparse.masks["weight"].flatten(2).all(2)
    grown = now & ~was
    assert now.sum() == was.sum() == 12
    assert grown.any()
    assert worth[grown].min() >= worth[~now & ~was].max()


def test_the_network_can_be_copied_and_saved_while_sparse():
    model, optimizer, _ = start()
    list(train(model, optimizer, range(1, 3)))
    twin = copy.deepcopy(model)
    x = torch.randn(1, 1, 4, 8, 8)
    assert torch.equal(twin(x)[0], model(x)[0])
    dense = E2ENet(1, 3, (6, 12, 12), strides=[(1, 2, 2), 2])
    dense.load_state_dict(model.state_dict())
    assert torch.equal(dense(x)[0], model(x)[0])
