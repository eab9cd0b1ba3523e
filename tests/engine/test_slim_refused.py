"""What slim_() leaves whole and names, or refuses: nothing has changed then."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

import regrow
from regrow.engine.slim import slim_
from tests.engine.test_slim import cut, double, zero_rows


class Named(nn.Module):
    """A hidden layer with rows of zeros, and what comes after it."""

    def __init__(self, after, *modules):
        super().__init__()
        self.hidden, self.after = nn.Linear(6, 8), after
        self.out = nn.Linear(8, 8)
        self.more = nn.ModuleList(modules)

    def forward(self, x):
        return self.out(self.after(self, self.hidden(x)))


def hooked(self, x):
    return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("after", "modules", "why"),
    [
        (lambda self, x: self.more[0](x), [nn.LayerNorm(8)], "LayerNorm reads all channels"),
        (lambda self, x: self.more[0](x), [nn.GroupNorm(2, 8)], "GroupNorm reads all channels"),
        (lambda self, x: self.more[0](x), [nn.Softmax(-1)], "Softmax reads all channels"),
        (lambda self, x: torch.cat([x[:, :4], x[:, 4:]], 1), [], "getitem() reads it"),
        (lambda self, x: x.view(-1, 8), [], "view() reads it"),
        (lambda self, x: x @ x.mT @ x, [], "reads it"),
        (
            lambda self, x: functional.linear(x, self.hidden.weight.mT) @ self.hidden.weight.mT,
            [],
            "used outside",
        ),
    ],
    ids=["LayerNorm", "GroupNorm", "Softmax", "slices", "view", "matmul", "weight"],
)
def test_what_reads_channels_together_is_named(after, modules, why):
    torch.manual_seed(0)
    model = Named(after, *modules).double().eval()
    zero_rows(model.hidden, [0, 1])
    if why == "used outside":
        model.out = nn.Linear(8, 8).double()
    slimmed = cut(model, double(4, 6))
    assert why in slimmed.whole["hidden, outputs"]
    assert not slimmed.shapes and slimmed.before == slimmed.after
    assert why in str(slimmed)


def test_tied_grouped_and_returned_channels_are_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    model = model.double().eval()
    zero_rows(model[0], [1])
    zero_rows(model[3], [2])
    slimmed = cut(model, double(3, 4))
    assert slimmed.whole["0, outputs"] == "its weight is tied to another"
    assert slimmed.whole["3, outputs"] == "the model returns it"
    model = nn.Sequential(nn.Conv2d(2, 4, 1), nn.Conv2d(4, 4, 1, groups=2)).double().eval()
    zero_rows(model[0], [1])
    assert "2 groups" in cut(model, double(1, 2, 3, 3)).whole["0, outputs"]


def test_a_part_that_cannot_be_traced_is_left_whole():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))

        def forward(self, x):
            return self.inner(x) if x.sum() > 0 else x

    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), Branches()).double().eval()
    for layer in (model[0], model[2], model[3].inner[0]):
        zero_rows(layer, [0, 1], bias=True)
    slimmed = cut(model, double(4, 6))
    assert model[0].out_features == 6
    assert "Branches reads all channels" in slimmed.whole["2, outputs"]
    assert model[3].inner[0].out_features == 8


def snapshot(model, optimizer):
    state = {k: dict(one) for k, one in optimizer.state_dict()["state"].items()}
    return copy.deepcopy((model.state_dict(), state, repr(model)))


def unchanged(before, model, optimizer):
    after = snapshot(model, optimizer)
    assert after[2] == before[2]
    torch.testing.assert_close(after[:2], before[:2], rtol=0, atol=0)


def stepped(model, kind, **options):
    optimizer = kind(model.parameters(), lr=0.01, **options)
    model(torch.randn(3, 6)).sum().backward()
    optimizer.step()
    zero_rows(model[0], [0, 1], bias=True)
    return optimizer


def chain():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def test_state_that_cannot_be_cut_is_refused_and_nothing_changes():
    model = chain()
    optimizer = stepped(model, torch.optim.Adafactor)
    before = snapshot(model, optimizer)
    with pytest.raises(ValueError, match=r"Adafactor keeps 'row_var' of shape .*rebind_"):
        slim_(model, optimizer, torch.randn(3, 6))
    unchanged(before, model, optimizer)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop])
def test_the_next_step_is_that_of_the_entries_that_stayed(kind):
    """One more step of the small model is one more step of the large one, where they share."""
    model = chain()
    optimizer = stepped(model, kind)
    twin, other = copy.deepcopy((model, optimizer))
    slim_(model, optimizer, torch.randn(3, 6))
    assert model[0].out_features == 6
    x = torch.randn(3, 6)
    for one, steps in ((model, optimizer), (twin, other)):
        one.zero_grad()
        one(x).square().sum().backward()
        steps.step()
    torch.testing.assert_close(model[0].weight, twin[0].weight[2:])
    torch.testing.assert_close(model[2].weight, twin[2].weight[:, 2:])


def test_a_forward_that_counts_channels_is_refused_and_nothing_changes():
    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.one, self.two = nn.Linear(6, 8), nn.Linear(8, 4)

        def forward(self, x):
            x = torch.relu(self.one(x))
            return self.two(x) * x.shape[1]

    model = Counts()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    zero_rows(model.one, [0, 1], bias=True)
    before = snapshot(model, optimizer)
    with pytest.raises(RuntimeError, match="nothing was changed"):
        slim_(model, optimizer, torch.randn(3, 6))
    unchanged(before, model, optimizer)
    assert model.one.out_features == 8


def test_a_model_that_hangs_on_values_and_wrong_inputs_are_refused():
    class Hangs(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Linear(6, 8)

        def forward(self, x):
            return self.one(x) if x.sum() > 0 else x

    model = Hangs()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"Hangs cannot be traced by torch\.fx"):
        slim_(model, optimizer, torch.ones(2, 6))


def test_stored_layers_and_other_topologies_are_refused():
    model = chain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    ask = {"total_steps": 9}
    one = regrow.sparsify(model, optimizer, regrow.SET(density=0.5), include=["0.weight"], **ask)
    two = regrow.sparsify(model, optimizer, regrow.SET(density=0.5), include=["2.weight"], **ask)
    with pytest.raises(ValueError, match="another Sparsifier"):
        one.slim_(torch.randn(3, 6))
    two.remove()
    one.slim_(torch.randn(3, 6))
    model = chain()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    stored = regrow.sparsify(model, optimizer, regrow.SET(density=0.5), execution="csr", **ask)
    with pytest.raises(ValueError, match=r"0\.weight, 2\.weight is stored"):
        stored.slim_(torch.randn(3, 6))


def test_attention_that_is_put_back_can_be_slimmed_later():
    """Attributes that it had not were left as None, and read at the next attempt."""

    class Counts(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention, self.scale = nn.MultiheadAttention(8, 4, batch_first=True), True
            self.out = nn.Linear(8, 3)

        def forward(self, x):
            y = self.out(self.attention(x, x, x, need_weights=False)[0])
            return y * self.attention.num_heads if self.scale else y

    torch.manual_seed(0)
    model = Counts().double().eval()
    with torch.no_grad():
        model.attention.out_proj.weight[:, 2:4] = 0
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before, attributes = snapshot(model, optimizer), dict(vars(model.attention))
    with pytest.raises(RuntimeError, match="nothing was changed"):
        slim_(model, optimizer, double(2, 5, 8))
    unchanged(before, model, optimizer)
    assert vars(model.attention).keys() == attributes.keys()
    model.scale = False
    cut(model, double(2, 5, 8))
    assert model.attention.num_heads == 3
