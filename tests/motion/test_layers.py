"""Batch norm under a mask is batch norm of what is valid; a PointNet sees valid points only."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from regrow.motion.layers import MLP, MaskedBatchNorm, PointNet, centred, position_embedding

DOUBLE = torch.float64


def both(channels):
    """Return a masked norm and torch's own, of the same random parameters."""
    masked, plain = MaskedBatchNorm(channels), nn.BatchNorm1d(channels)
    with torch.no_grad():
        for name in ("weight", "bias"):
            value = torch.randn(channels)
            getattr(masked, name).copy_(value)
            getattr(plain, name).copy_(value)
    return masked, plain


def test_masked_norm_is_batch_norm_of_the_valid_rows():
    masked, plain = both(6)
    for seed in range(3):  # running statistics gather over steps
        torch.manual_seed(seed)
        x = torch.randn(4, 7, 6) * 3 + 5
        valid = torch.rand(4, 7) < 0.6
        one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
        found, wanted = masked(one, valid)[valid], plain(two[valid])
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
        grown = torch.randn_like(found)
        found.backward(grown)
        wanted.backward(grown)
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-5)
        assert not one.grad[~valid].any()
    for name in ("weight", "bias"):
        theirs = getattr(plain, name).grad
        torch.testing.assert_close(getattr(masked, name).grad, theirs, rtol=1e-4, atol=1e-5)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(masked, name), getattr(plain, name))
    assert masked.state_dict().keys() == plain.state_dict().keys()


def test_in_evaluation_masked_norm_is_batch_norm():
    masked, plain = both(6)
    for norm in (masked, plain):
        norm.running_mean.copy_(torch.arange(6.0))
        norm.running_var.copy_(torch.arange(6.0) + 0.5)
        norm.eval()
    x = torch.randn(50, 6)
    torch.testing.assert_close(masked(x, torch.zeros(50, dtype=torch.bool)), plain(x))


@pytest.mark.parametrize("count", [0, 1])
def test_norm_of_no_row_or_one_is_finite_and_no_row_leaves_statistics(count):
    norm = MaskedBatchNorm(3)
    x = torch.randn(5, 3, requires_grad=True)
    valid = torch.arange(5) < count
    out = norm(x, valid)
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()
    assert norm.running_mean.any() == (count > 0)
    assert norm.running_var.isfinite().all()


def test_what_is_not_valid_does_not_count_whatever_it_holds():
    torch.manual_seed(0)
    net = PointNet(4, [8, 8], [8], 6)
    points, valid = torch.randn(3, 5, 7, 4), torch.rand(3, 5, 7) < 0.5
    valid[0, 0] = False
    filled = torch.where(valid[..., None], points, 1e3)
    torch.testing.assert_close(net(points, valid), net(filled, valid))
    assert not net(points, valid)[0, 0].any()
    net.eval()
    order = torch.randperm(7)
    torch.testing.assert_close(net(points, valid), net(points[:, :, order], valid[:, :, order]))


def test_pointnet_is_the_gathered_form():
    """MTR's own way: valid points are picked out, go through plain layers, and are put back."""
    torch.manual_seed(1)
    net = PointNet(4, [8, 8], [8, 8], 6)
    points, valid = torch.randn(3, 5, 7, 4), torch.rand(3, 5, 7) < 0.5

    def layers(mlp):
        parts = []
        for i, linear in enumerate(mlp.linears):
            if i == 0 and mlp.shared is not None:
                parts.append(nn.Linear(2 * linear.in_features, linear.out_features, bias=False))
                whole = torch.cat([linear.weight, mlp.shared.weight], 1)
                parts[0].weight = nn.Parameter(whole)
            else:
                parts.append(linear)
            if i < len(mlp.norms):
                norm = nn.BatchNorm1d(linear.out_features)
                norm.load_state_dict(mlp.norms[i].state_dict())
                parts.append(norm)
            if i + 1 < len(mlp.linears) or not mlp.plain_last:
                parts.append(nn.ReLU())
        return nn.Sequential(*parts)

    def put_back(x):
        whole = torch.zeros(*valid.shape, x.shape[-1])
        whole[valid] = x
        return whole

    x = put_back(layers(net.before)(points[valid]))
    pooled = x.max(2).values[:, :, None].expand_as(x)
    x = put_back(layers(net.after)(torch.cat([x, pooled], -1)[valid])).max(2).values
    some = valid.any(-1)
    wanted = torch.zeros(3, 5, 6)
    wanted[some] = layers(net.out)(x[some])
    torch.testing.assert_close(net(points, valid), wanted, rtol=1e-4, atol=1e-5)


def test_what_is_beside_all_rows_is_as_if_copied_to_each():
    """In its first numbers, too: both parts begin as those of one layer of all inputs."""
    torch.manual_seed(0)
    mlp = MLP([5, 16, 4], plain_last=True, beside=11)
    x, beside = torch.randn(3, 7, 5), torch.randn(3, 11)
    first = torch.cat([mlp.linears[0].weight, mlp.shared.weight], 1)
    assert 0.9 * 16**-0.5 < first.abs().max() <= 16**-0.5
    assert mlp.linears[0].weight.abs().max() > 0.8 * 16**-0.5
    copied = torch.cat([x, beside[:, None].expand(-1, 7, -1)], -1)
    wanted = mlp.linears[1](mlp.norms[0](copied @ first.T, None, relu=True))
    torch.testing.assert_close(mlp(x, None, beside), wanted)
    for one, given in ((mlp, None), (MLP([5, 4]), beside)):
        with pytest.raises(ValueError, match="beside: of shape"):
            one(x, None, given)
    plain = MLP([5, 4], plain_last=True, beside=11)
    both = torch.cat([plain.linears[0].weight, plain.shared.weight], 1)
    torch.testing.assert_close(
        plain(x, None, beside), nn.functional.linear(copied, both, plain.linears[0].bias)
    )


def test_rows_that_stand_for_several_count_so_often():
    """Moments, running ones too, and gradients are those of all rows written out."""
    once, all_of_them = both(4)
    x = torch.randn(3, 4, dtype=DOUBLE)
    often = torch.tensor([2, 0, 5])
    one = x.clone().requires_grad_()
    many = x.repeat_interleave(often, 0).requires_grad_()
    norms = once.double(), all_of_them.double()
    found, wanted = norms[0](one, often, relu=True), norms[1](many).relu()
    torch.testing.assert_close(found.repeat_interleave(often, 0), wanted)
    assert not found[1].any()
    grown = torch.randn(7, 4, dtype=DOUBLE)
    wanted.backward(grown)
    found.backward(torch.stack([part.sum(0) for part in grown.split(often.tolist())]))
    summed = torch.stack([part.sum(0) for part in many.grad.split(often.tolist())])
    torch.testing.assert_close(one.grad, summed)
    for name in ("running_mean", "running_var"):
        torch.testing.assert_close(getattr(norms[0], name), getattr(norms[1], name))


def test_position_embedding_of_mtr_by_its_formula():
    """sin and cos of 2π·metres / 10000^(2⌊i/2⌋/half); y comes first."""
    xy = np.random.default_rng(0).uniform(-100, 100, (5, 2))
    width = 12
    wanted = np.zeros((5, width))
    for coordinate, begin in ((1, 0), (0, width // 2)):
        for i in range(width // 2):
            period = 10_000 ** (2 * (i // 2) / (width // 2))
            angle = 2 * math.pi * xy[:, coordinate] / period
            wanted[:, begin + i] = np.cos(angle) if i % 2 else np.sin(angle)
    found = position_embedding(torch.from_numpy(xy).float(), width, mtr_compat=True)
    np.testing.assert_allclose(found.numpy(), wanted, atol=1e-4)


def test_mended_positions_tell_a_metre_and_a_scene_apart():
    """A step of 1 m moves no sine by more than a quarter turn; 300 m are no whole turn of all."""
    places = torch.stack([torch.arange(0.0, 300.0), torch.zeros(300)], -1)
    mended = position_embedding(places, 64)
    apart = (mended[:, None] - mended[None]).norm(dim=-1) + 9 * torch.eye(300)
    near = (mended[1:] - mended[:-1]).norm(dim=-1)
    assert near.max() < 0.75 * apart[0, 50:].min()
    compat = position_embedding(places, 64, mtr_compat=True)
    first = slice(32, 34)  # the shortest period of x
    torch.testing.assert_close(
        compat[:, first], compat[:1, first].expand(300, 2), atol=1e-3, rtol=0
    )
    assert (mended[1:, first] - mended[:-1, first]).norm(dim=-1).min() > 1


def test_centre_is_a_mean_over_what_is_valid():
    values, valid = torch.randn(4, 6, 3), torch.rand(4, 6) < 0.5
    valid[2] = False
    for i in range(4):
        wanted = values[i][valid[i]].mean(0) if valid[i].any() else torch.zeros(3)
        torch.testing.assert_close(centred(values, valid)[i], wanted)


def test_last_layer_is_exact_in_bfloat16():
    torch.manual_seed(0)
    mlp = MLP([4, 8, 1], plain_last=True, exact=True).eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert mlp(torch.randn(3, 4)).dtype == torch.float32
