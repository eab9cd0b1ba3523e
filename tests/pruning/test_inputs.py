"""What a layer's weights multiply: read from a call, checked by what the layer computes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from regrow.engine.undisturbed import evaluating
from regrow.pruning.inputs import parts_of, readable, vectors


def draw(*shape):
    return torch.randn(shape, dtype=torch.float64)


def images(*sizes, samples=2, channels=4):
    return (draw(samples, channels, *sizes),)


def ragged(features):
    return pack_sequence([draw(2, features), draw(3, features)], enforce_sorted=False)


# Fewer vectors than inputs, so that there are directions in which a weight may change unnoticed.
CALLS = {
    "linear": lambda: (nn.Linear(20, 3), (draw(2, 3, 20),), {}),
    "linear, one vector": lambda: (nn.Linear(5, 3), (draw(5),), {}),
    "linear, by name": lambda: (nn.Linear(9, 3), (), {"input": draw(4, 9)}),
    "bilinear": lambda: (nn.Bilinear(4, 5, 3), (draw(2, 3, 4), draw(2, 3, 5)), {}),
    "convolution": lambda: (nn.Conv2d(4, 3, 3, stride=2), images(5, 6), {}),
    "convolution, one image": lambda: (nn.Conv2d(4, 3, 3), (draw(4, 4, 5),), {}),
    "padded, dilated": lambda: (
        nn.Conv2d(4, 3, (3, 2), padding=(2, 1), dilation=(2, 1), stride=(3, 2)),
        images(4, 5),
        {},
    ),
    "same, reflected": lambda: (
        nn.Conv1d(7, 3, 4, padding="same", padding_mode="reflect"),
        (draw(2, 7, 6),),
        {},
    ),
    "groups": lambda: (nn.Conv2d(4, 6, 3, groups=2), images(3, 4), {}),
    "depthwise": lambda: (nn.Conv3d(4, 8, 2, groups=4), images(2, 2, 3), {}),
    "attention": lambda: (nn.MultiheadAttention(12, 3), [draw(2, 3, 12)] * 3, {}),
    "attention across": lambda: (
        nn.MultiheadAttention(12, 3, kdim=7, vdim=9, batch_first=True),
        (draw(2, 3, 12), draw(2, 2, 7), draw(2, 2, 9)),
        {"key_padding_mask": torch.tensor([[False, True], [False, False]])},
    ),
    "attention, causal, one sample": lambda: (
        nn.MultiheadAttention(12, 3, bias=False, add_bias_kv=True),
        (draw(4, 12),),
        {
            "key": draw(4, 12),
            "value": draw(4, 12),
            "attn_mask": torch.triu(torch.ones(4, 4, dtype=torch.bool), 1),
        },
    ),
    "LSTM": lambda: (
        nn.LSTM(8, 9, 2, bidirectional=True, batch_first=True),
        (draw(2, 3, 8),),
        {},
    ),
    "LSTM, projected, from a state": lambda: (
        nn.LSTM(8, 9, 2, proj_size=7),
        (draw(2, 2, 8), (draw(2, 2, 7), draw(2, 2, 9))),
        {},
    ),
    "GRU, one sample": lambda: (nn.GRU(8, 9, bias=False), (draw(4, 8),), {}),
    "RNN of lengths": lambda: (
        nn.RNN(9, 8, 2, nonlinearity="relu", bidirectional=True),
        (ragged(9),),
        {"hx": draw(4, 2, 8)},
    ),
    "LSTM cell": lambda: (nn.LSTMCell(5, 4), (draw(2, 5), (draw(2, 4), draw(2, 4))), {}),
    "GRU cell, from nothing": lambda: (nn.GRUCell(5, 4), (draw(2, 5),), {}),
}


def run(module, args, kwargs):
    with evaluating(module):
        out = module(*args, **kwargs)
    flat = [out] if torch.is_tensor(out) else [one for one in out if one is not None]
    flat = [two for one in flat for two in (one if isinstance(one, tuple) else (one,))]
    return [two if torch.is_tensor(two) else torch.tensor(two) for two in flat]


def same(one, other):
    return all(torch.allclose(a, b, atol=1e-9) for a, b in zip(one, other, strict=True))


def seen(module, args, kwargs):
    """All vectors of every weight and part, a matrix each."""
    found = {}
    with evaluating(module):
        for key, part, x in vectors(module, readable(module), args, kwargs):
            for number, own in enumerate(x):
                found.setdefault((key, part + number), []).append(own)
    return {where: torch.cat(rows) for where, rows in found.items()}


@pytest.mark.parametrize("name", CALLS)
def test_a_weight_may_change_wherever_nothing_was_seen_and_nowhere_else(name):
    """W·x stays as it is if W changes by what is orthogonal to every x; so must the outputs."""
    torch.manual_seed(0)
    module, args, kwargs = CALLS[name]()
    module = module.double()
    before, found = run(module, args, kwargs), seen(module, args, kwargs)
    keys = {key for key, _ in found}
    assert keys == set(readable(module))
    for key in keys:
        parts = parts_of(module, key)
        assert {part for own, part in found if own == key} == set(range(parts))
        for part in range(parts):
            x = found[key, part]
            _, values, directions = torch.linalg.svd(x, full_matrices=True)
            rank = int((values > 1e-9).sum())
            unseen, best = directions[rank:], directions[0]
            for change, stays in ((unseen, True), (best.unsqueeze(0), False)):
                twin = copy.deepcopy(module)
                weight = twin.get_parameter(key).data
                rows = weight.reshape(weight.shape[0], -1).tensor_split(parts)[part]
                if len(change):
                    rows += draw(len(rows), len(change)) @ change
                if "nothing" in name and key == "weight_hh" and not stays:
                    continue  # a state of zeros sees nothing
                assert same(run(twin, args, kwargs), before) == stays, (key, part)
        assert name in ("GRU cell, from nothing",) or any(
            found[key, part].shape[1] > found[key, part].shape[0] for part in range(parts)
        )


def test_a_convolution_of_many_places_is_read_in_pieces_that_add_up(monkeypatch):
    layer, x = nn.Conv2d(4, 3, 3), torch.randn(5, 4, 6, 6)
    whole = seen(layer, (x,), {})["weight", 0]
    monkeypatch.setattr("regrow.pruning.inputs._MOST", 1000)
    pieces = list(vectors(layer, ("weight",), (x,), {}))
    assert len(pieces) == 5
    assert torch.cat([x[0] for _, _, x in pieces]).equal(whole)


def test_a_layer_called_as_no_layer_of_torch_is_refused_by_its_kind():
    class Mine(nn.Conv2d):
        def forward(self, input, scale):
            return super().forward(input) * scale

    with pytest.raises(ValueError, match=r"a Mine was called in another way than Conv1d.*exclude"):
        list(vectors(Mine(2, 2, 1), ("weight",), (torch.ones(1, 2, 2, 2), 2.0), {}))


def test_weights_that_project_the_outputs_of_an_lstm_cannot_be_read():
    assert not [key for key in readable(nn.LSTM(3, 4, proj_size=2)) if "hr" in key]
    assert readable(nn.ConvTranspose1d(2, 2, 1)) == readable(nn.Embedding(2, 2)) == ()
