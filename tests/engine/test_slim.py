"""Models from which channels are cut: smaller, with equal outputs, and trained on."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine.patterns import Channel, InputChannel
from regrow.engine.slim import slim_
from regrow.engine.slim.heads import FewerHeads


class Join(nn.Module):
    """A residual block: two convolutions with norms beside what comes in."""

    def __init__(self, into, out, stride=1):
        super().__init__()
        self.one, self.first = nn.Conv2d(into, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out)
        self.two, self.second = nn.Conv2d(out, out, 3, 1, 1, bias=False), nn.BatchNorm2d(out)
        self.beside = None
        if stride > 1 or into != out:
            self.beside = nn.Sequential(nn.Conv2d(into, out, 1, stride), nn.BatchNorm2d(out))

    def forward(self, x):
        y = self.second(self.two(torch.relu(self.first(self.one(x)))))
        return torch.relu(y + (x if self.beside is None else self.beside(x)))


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.blocks = nn.Sequential(Join(8, 8), Join(8, 12, 2), Join(12, 12))
        self.head = nn.Linear(12, 5)

    def forward(self, x):
        x = self.blocks(torch.relu(self.norm(self.stem(x))))
        return self.head(torch.flatten(functional.adaptive_avg_pool2d(x, 1), 1))


def settled(model):
    """Norms with statistics and slopes of their own, in float64, for evaluation."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for value in (module.weight, module.bias, module.running_mean):
                value.data.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    return model.double().eval()


def cut(model, inputs):
    """Slim a model; outputs must stay, and are compared here, too."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    inputs = inputs if isinstance(inputs, tuple) else (inputs,)
    before = model(*inputs)
    slimmed = slim_(model, optimizer, inputs)
    torch.testing.assert_close(model(*inputs), before, rtol=1e-9, atol=1e-9)
    return slimmed


def zero_rows(layer, rows, *, bias=False):
    with torch.no_grad():
        layer.weight[rows] = 0
        if bias:
            layer.bias[rows] = 0


def double(*shape):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


# ---------------------------------------------------------------------- what is cut


def test_a_sparse_network_becomes_smaller_and_trains_on():
    torch.manual_seed(0)
    model = Residual()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    sparse = regrow.sparsify(
        model, optimizer, regrow.Static(density=0.5, pattern=Channel()), total_steps=9
    )

    def step():
        optimizer.zero_grad()
        loss = model(torch.randn(8, 3, 8, 8)).square().mean()
        loss.backward()
        optimizer.step()

    for _ in range(3):
        step()
    x = torch.randn(4, 3, 8, 8)
    training, state = model.training, optimizer.state
    moments = {n: state[p]["exp_avg"].clone() for n, p in model.named_parameters()}
    model.eval()
    expected, held = model(x), {n: id(p) for n, p in model.named_parameters()}
    model.train(training)
    slimmed = sparse.slim_(x)
    assert model.training is training
    assert slimmed.after < 0.75 * slimmed.before
    assert slimmed.after == sum(p.numel() for p in model.parameters())
    model.eval()
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-5)
    model.train()
    # The optimizer holds the same parameters, and what it knew of the entries that stayed.
    assert held == {n: id(p) for n, p in model.named_parameters()}
    for name, parameter in model.named_parameters():
        moved = state[parameter]["exp_avg"]
        assert moved.shape == parameter.shape
        assert torch.isin(moved, moments[name]).all()
    assert "blocks.0.one.weight" in slimmed.shapes
    assert "8×8×3×3" in str(slimmed)
    for _ in range(2):
        step()  # nothing is masked any more
    with pytest.raises(RuntimeError, match="after remove"):
        sparse.update_()


def test_channels_joined_by_additions_go_together():
    """Zero in the stem and in both blocks: the sum of constants is constant everywhere."""
    torch.manual_seed(0)
    model = settled(Residual())
    rows = [1, 4, 6]
    for layer in (model.stem, model.blocks[0].two):
        zero_rows(layer, rows)
    slimmed = cut(model, double(2, 3, 8, 8))
    # One of the three may stay, to carry what the others add behind paddings.
    left = model.stem.out_channels
    assert left in (5, 6)
    assert model.blocks[0].two.out_channels == model.norm.num_features == left
    assert model.blocks[1].one.in_channels == model.blocks[1].beside[0].in_channels == left
    assert slimmed.shapes["blocks.0.second.weight"] == ((8,), (left,))


def test_a_channel_that_one_branch_fills_stays():
    torch.manual_seed(0)
    model = settled(Residual())
    zero_rows(model.blocks[2].two, [0, 1])
    slimmed = cut(model, double(2, 3, 8, 8))
    assert model.blocks[2].two.out_channels == 12
    assert slimmed.whole["blocks.2.two, outputs"] == "no channel is zero or unread everywhere"


def test_constants_go_into_the_bias_of_what_reads_them():
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.GELU(), nn.Dropout(), nn.Linear(8, 4)
    )
    settled(model)
    zero_rows(model[0], [0, 3, 5, 7])
    slimmed = cut(model, double(5, 6))
    assert model[0].weight.shape == (4, 6) and model[4].weight.shape == (4, 4)
    assert slimmed.shapes["1.bias"] == ((8,), (4,))


def test_without_a_bias_one_channel_takes_in_the_others():
    model = settled(nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 4, bias=False)))
    zero_rows(model[0], [0, 3, 5, 7])
    cut(model, double(5, 6))
    assert model[0].out_features == model[2].in_features == 5


def test_zeros_around_images_keep_one_channel_of_the_constant_ones():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3, padding=1)
    )
    zero_rows(settled(model)[0], [0, 3, 5, 7])
    cut(model, double(2, 3, 6, 6))
    assert model[0].out_channels == model[1].num_features == model[2].in_channels == 5
    # Around images nothing is put here, and all four can go.
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3))
    zero_rows(settled(model)[0], [0, 3, 5, 7])
    cut(model, double(2, 3, 6, 6))
    assert model[0].out_channels == 4


def test_what_nobody_reads_goes_whatever_it_is():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    method = regrow.Static(density={"[24].weight": 0.5}, pattern=InputChannel())
    sparse = regrow.sparsify(model, optimizer, method, total_steps=9, exclude=["0.weight"])
    x = torch.randn(3, 6)
    expected = model(x)
    sparse.slim_(x)
    torch.testing.assert_close(model(x), expected)
    assert [tuple(layer.weight.shape) for layer in model[::2]] == [(4, 6), (4, 4), (4, 4)]


def test_death_spreads_along_a_chain():
    """A layer all of whose inputs are constant is constant, and so on."""
    model = nn.Sequential(
        *(m for _ in range(3) for m in (nn.Linear(4, 4), nn.ReLU())), nn.Linear(4, 2)
    )
    settled(model)
    zero_rows(model[0], slice(None))
    cut(model, double(3, 4))
    assert [layer.out_features for layer in model[::2]] == [1, 1, 1, 2]


class Excited(nn.Module):
    """Depthwise convolution, slopes by channel, a gate by channel, pooling, a flatten."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(3, 8, 1)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.slope, self.pool = nn.PReLU(8), nn.MaxPool2d(2)
        self.down, self.up = nn.Linear(8, 4), nn.Linear(4, 8)
        self.two = nn.Linear(8 * 3 * 3, 5)

    def forward(self, x):
        x = self.slope(self.deep(self.one(x)))
        gate = torch.sigmoid(self.up(torch.relu(self.down(x.mean((2, 3))))))
        x = self.pool(x * gate[:, :, None, None])
        return self.two(x.view(x.size(0), -1))


def test_depthwise_convolutions_slopes_and_a_flatten():
    torch.manual_seed(0)
    model = Excited().double().eval()
    with torch.no_grad():
        model.two.weight.view(5, 8, 9)[:, [2, 3]] = 0
        model.down.weight[:, [2, 3]] = 0
        zero_rows(model.down, [1], bias=True)
    cut(model, double(2, 3, 6, 6))
    assert model.down.out_features == model.up.in_features == 3
    assert model.one.out_channels == model.deep.groups == model.slope.num_parameters == 6
    assert model.up.out_features == model.down.in_features == 6
    assert model.two.in_features == 6 * 9


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_outputs_stay_for_any_zeros(data):
    """Any rows, columns and whole layers of zeros, with and without paddings, biases, joins."""
    torch.manual_seed(data.draw(st.integers(0, 99)))
    draw = data.draw
    width, bias, padding = draw(st.integers(1, 6)), draw(st.booleans()), draw(st.integers(0, 1))

    class Drawn(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(2, width, 3, padding=1, bias=bias)
            self.norm = nn.BatchNorm2d(width)
            self.two = nn.Conv2d(width, width, 3, padding=1, bias=draw(st.booleans()))
            self.three = nn.Conv2d(width, 3, 3, padding=padding, bias=draw(st.booleans()))
            self.act = draw(st.sampled_from([nn.ReLU(), nn.GELU(), nn.Sigmoid(), nn.Identity()]))
            self.joined = draw(st.booleans())

        def forward(self, x):
            x = self.act(self.norm(self.one(x)))
            y = self.act(self.two(x))
            return self.three(x + y if self.joined else y).sum((2, 3))

    model = settled(Drawn())
    for layer in (model.one, model.two, model.three):
        rows = draw(st.sets(st.integers(0, layer.out_channels - 1)))
        columns = draw(st.sets(st.integers(0, layer.in_channels - 1)))
        with torch.no_grad():
            layer.weight[sorted(rows)] = 0
            layer.weight[:, sorted(columns)] = 0
    slimmed = cut(model, double(2, 2, 5, 5))
    assert slimmed.after <= slimmed.before


# ---------------------------------------------------------------------- attention


class Attends(nn.Module):
    def __init__(self, **options):
        super().__init__()
        self.attention = nn.MultiheadAttention(12, 4, batch_first=True, **options)

    def forward(self, x):
        return self.attention(x, x, x)[0]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("how", ["unread", "constant"])
def test_heads_that_do_nothing_go(how, bias):
    torch.manual_seed(0)
    model = Attends(bias=bias).double().eval()
    attention = model.attention
    with torch.no_grad():
        if bias:
            attention.in_proj_bias.normal_()
            attention.out_proj.bias.normal_()
        if how == "unread":
            attention.out_proj.weight[:, 3:9] = 0
        else:
            attention.in_proj_weight[24 + 3 : 24 + 9] = 0
    twin = copy.deepcopy(model)
    slimmed = cut(model, double(2, 5, 12))
    assert type(attention) is FewerHeads and attention.num_heads == 2
    assert attention.in_proj_weight.shape == (18, 12)
    assert slimmed.shapes["attention.out_proj.weight"] == ((12, 12), (12, 6))
    x, ahead = double(2, 5, 12), torch.ones(5, 5, dtype=torch.bool).triu(1)
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[:, 4] = True
    by_head = double(8, 5, 5)
    for options in (
        {"attn_mask": ahead},
        {"attn_mask": ahead, "need_weights": False},
        {"key_padding_mask": padding},
        {"key_padding_mask": padding.double(), "attn_mask": by_head, "need_weights": False},
    ):
        found, expected = (m.attention(x, x, x, **options)[0] for m in (model, twin))
        torch.testing.assert_close(found, expected)
    torch.testing.assert_close(model(x[0]), twin(x[0]))
    assert model.attention(x, x, x)[1].shape == (2, 5, 5)
    weights = model.attention(x, x, x, average_attn_weights=False)[1]
    full = twin.attention(x, x, x, average_attn_weights=False)[1]
    torch.testing.assert_close(weights, full[:, [0, 3]])
    again = Attends(bias=bias).double()
    assert model.state_dict().keys() == again.state_dict().keys()


def test_a_transformer_loses_heads_and_hidden_units():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 4, 16, activation="gelu", batch_first=True)
    model = nn.Sequential(nn.Linear(6, 12), nn.TransformerEncoder(layer, 2), nn.Linear(12, 3))
    model = model.double().eval()
    for block in model[1].layers:
        with torch.no_grad():
            block.self_attn.out_proj.weight[:, :3] = 0
            zero_rows(block.linear1, [0, 5, 6])
    slimmed = cut(model, double(2, 5, 6))
    for block in model[1].layers:
        assert block.self_attn.num_heads == 3
        assert block.linear1.out_features == block.linear2.in_features == 13
    assert slimmed.after < slimmed.before
    model.train()
    model(double(2, 5, 6)).sum().backward()
