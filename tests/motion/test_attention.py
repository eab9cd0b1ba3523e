"""Attention under masks is MTR's: keys gathered by index, sorted, without duplicates."""

import pytest
import torch
from torch.nn import functional

from regrow.motion.attention import EncoderLayer, attend, nearest
from regrow.motion.queries import DecoderLayer, collected, nearest_to_any

N, TOKENS, WIDTH, HEADS, NEAR = 3, 40, 16, 4, 16


def gathered(query, key, value, places, there):
    """MTR's own way: keys and values of each query are gathered, then weighed.

    query: (n, heads, q, d); key, value: (n, heads, k, d or e); places, there: (n, q, near).
    """
    heads = query.shape[1]
    index = places[:, None, :, :, None].expand(-1, heads, -1, -1, -1)

    def picked(x):
        wide = x[:, :, None].expand(-1, -1, query.shape[2], -1, -1)
        return torch.take_along_dim(wide, index.expand(*index.shape[:-1], x.shape[-1]), 3)

    logits = (picked(key) * query[:, :, :, None]).sum(-1) / query.shape[-1] ** 0.5
    weights = logits.masked_fill(~there[:, None], -torch.inf).softmax(-1)
    return (weights[..., None] * picked(value)).sum(3).transpose(1, 2).flatten(2)


def some_tokens(seed=0, valid=0.8):
    torch.manual_seed(seed)
    positions = torch.randn(N, TOKENS, 3) * 20
    return positions, torch.rand(N, TOKENS) < valid


def neighbours(positions, valid, number):
    """Sort all distances, one token after the other."""
    places = torch.zeros(*valid.shape, number, dtype=torch.int64)
    there = torch.zeros(*valid.shape, number, dtype=torch.bool)
    for i in range(len(valid)):
        for j in torch.nonzero(valid[i]).flatten():
            far = (positions[i] - positions[i, j]).double().norm(dim=-1)
            order = [k for k in far.argsort().tolist() if valid[i, k]][:number]
            places[i, j, : len(order)] = torch.tensor(order)
            there[i, j, : len(order)] = True
    there[~valid, 0] = True  # else these rows, which nobody looks at, are NaN in the gathered form
    return places, there


@pytest.mark.parametrize("share", [1.0, 0.8, 0.2])
def test_masked_attention_is_gathered_attention_forward_and_backward(share):
    positions, valid = some_tokens(valid=share)
    places, there = neighbours(positions, valid, NEAR)
    mask = nearest(positions, valid, NEAR)
    torch.manual_seed(1)
    both = []
    for _ in range(2):
        torch.manual_seed(2)
        both.append([torch.randn(N, HEADS, TOKENS, 4, requires_grad=True) for _ in range(3)])
    one = attend(*both[0], mask)
    two = gathered(*both[1], places, there)
    torch.testing.assert_close(one[valid], two[valid], rtol=1e-5, atol=1e-5)
    grown = torch.randn_like(one) * valid[..., None]
    one.backward(grown)
    two.backward(grown)
    for x, y in zip(*both, strict=True):
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-4, atol=1e-5)


def test_a_token_sees_itself_and_what_is_valid_only():
    positions, valid = some_tokens(valid=0.5)
    mask = nearest(positions, valid, NEAR)
    assert mask.diagonal(dim1=1, dim2=2).all()
    assert mask.any(-1).all()
    for i in range(N):
        assert not mask[i][valid[i]][:, ~valid[i]].any()
        assert (mask[i][valid[i]].sum(-1) == min(NEAR, int(valid[i].sum()))).all()
        assert (mask[i][~valid[i]].sum(-1) == 1).all()


def test_no_valid_token_gives_no_nan():
    positions, valid = some_tokens(valid=0.5)
    valid[1] = False
    layer = EncoderLayer(WIDTH, HEADS, 0.0)
    x = torch.randn(N, TOKENS, WIDTH, requires_grad=True)
    out = layer(x, torch.randn_like(x), nearest(positions, valid, NEAR))
    out.sum().backward()
    assert out.isfinite().all()
    assert x.grad.isfinite().all()


def test_distances_do_not_lose_centimetres_far_out():
    """At 10 km a product of matrices would take the wrong neighbour."""
    line = torch.arange(30.0)[:, None] * torch.tensor([0.05, 0.0, 0.0]) + 10_000
    mask = nearest(line[None], torch.ones(1, 30, dtype=torch.bool), 3)
    for i in range(1, 29):
        assert mask[0, i].nonzero().flatten().tolist() == [i - 1, i, i + 1]


def collected_by_sorting(points, valid, paths, base, near, ahead):
    """MTR's own way: indices of both choices, sorted, duplicates and what is not valid as -1."""
    far = torch.where(valid[..., None], points, 1e7)
    queries = paths.shape[1]
    first = (far - ahead).norm(dim=-1).topk(min(base, far.shape[1]), largest=False).indices
    lines = (paths[:, :, None, :] - far[:, None, :, None]).norm(dim=-1).amin(-1)
    second = lines.topk(min(near, far.shape[1]), largest=False).indices
    both = torch.cat([first[:, None].expand(-1, queries, -1), second], -1).sort(-1).values
    again = torch.zeros_like(both, dtype=torch.bool)
    again[..., 1:] = both[..., 1:] == both[..., :-1]
    lost = ~torch.take_along_dim(valid[:, None].expand(-1, queries, -1), both, -1)
    return both.masked_fill(again | lost, -1)


@pytest.mark.parametrize("share", [1.0, 0.3, 0.05])
@pytest.mark.parametrize(("base", "near"), [(12, 5), (4, 30), (50, 60)])
def test_collection_as_a_mask_is_sorting_without_duplicates(share, base, near):
    torch.manual_seed(3)
    points, paths = torch.randn(N, 50, 2) * 30, torch.randn(N, 7, 20, 2) * 30
    valid = torch.rand(N, 50) < share
    ahead = torch.tensor([30.0, 0.0])
    wanted = torch.zeros(N, 7, 51, dtype=torch.bool)
    places = collected_by_sorting(points, valid, paths, base, near, ahead)
    wanted.scatter_(-1, places.where(places >= 0, 50), True)
    first = nearest_to_any(points, ahead.expand(N, 1, 1, 2), valid, base)
    mask, some = collected(points, valid, first, paths, near)
    assert (some == valid.any(-1)).all()
    mask = mask.expand(-1, 7, -1) & some[:, None, None]
    assert (mask == wanted[..., :50]).all()


def test_a_query_without_any_map_adds_nothing_and_no_nan():
    layer = DecoderLayer(WIDTH, HEADS, 0.0, first=True)
    torch.manual_seed(0)
    content, embedding, looking = torch.randn(3, N, 7, WIDTH)
    keys = torch.randn(N, 9, WIDTH, requires_grad=True)
    places = torch.randn(N, 9, WIDTH)
    allowed, some = torch.ones(N, 1, 9, dtype=torch.bool), torch.tensor([True, False, True])
    out = layer(content, embedding, looking, keys, places, allowed, some)
    (out * torch.randn_like(out)).sum().backward()
    assert out.isfinite().all()
    assert keys.grad[0].any()
    assert not keys.grad[1].any()
    other = layer(content, embedding, looking, keys * 7, places, allowed, some)
    torch.testing.assert_close(out[1], other[1])
    assert (out[0] - other[0]).abs().max() > 1e-3


def test_decoder_layer_is_its_formula():
    """Logits are content by content plus place by place, over the root of both widths."""
    torch.manual_seed(0)
    layer = DecoderLayer(WIDTH, HEADS, 0.0, first=False).double()
    content, looking = torch.randn(2, N, 7, WIDTH, dtype=torch.float64)
    keys, places = torch.randn(2, N, 9, WIDTH, dtype=torch.float64)
    allowed = torch.rand(N, 7, 9) < 0.6
    allowed[..., 0] = True
    found = layer.across(layer.query(content), layer.query_place(looking), keys, places, allowed)
    d = WIDTH // HEADS
    wanted = torch.zeros_like(found)
    for head in range(HEADS):
        part = slice(head * d, (head + 1) * d)
        products = layer.query(content)[..., part] @ layer.key(keys)[..., part].mT
        products = products + (
            layer.query_place(looking)[..., part] @ layer.key_place(places)[..., part].mT
        )
        weights = (products / (2 * d) ** 0.5).masked_fill(~allowed, -torch.inf).softmax(-1)
        wanted[..., part] = weights @ layer.value(keys)[..., part]
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("early", [True, False])
def test_what_hangs_on_kinds_alone_is_computed_once_a_kind(first, early):
    """The same outputs and gradients as if each target had rows of its own."""
    torch.manual_seed(0)
    layer = DecoderLayer(WIDTH, HEADS, 0.0, first=first).double()
    kind = torch.tensor([2, 0, 2, 2, 0])
    kinds = functional.one_hot(kind, 4)
    embedding, content, looking = torch.randn(3, 4, 7, WIDTH, dtype=torch.float64)
    keys, places = torch.randn(2, 5, 9, WIDTH, dtype=torch.float64)
    rest = keys, places, torch.ones(5, 1, 9, dtype=torch.bool)
    grown = torch.randn(5, 7, WIDTH, dtype=torch.float64)
    found = []
    for shared in (True, False):
        leaves = [x.clone().requires_grad_() for x in (content, embedding, looking)]
        rows = [x[kind] for x in leaves]
        if shared:
            own = leaves if early else [rows[0], leaves[1], rows[2]]
            out = layer(*own, *rest, kinds=kinds, early=early)
        else:
            out = layer(*rows, *rest)
        layer.zero_grad()
        out.backward(grown)
        weights = [p.grad for p in layer.parameters() if p.grad is not None]
        found.append([out, *(x.grad for x in leaves), *weights])
    for one, two in zip(*found, strict=True):
        torch.testing.assert_close(one, two)
