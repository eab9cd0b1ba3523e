"""What the weights of recurrent layers multiply, step by step and layer by layer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

__all__ = ["cell_inputs", "recurrent_inputs", "recurrent_keys"]


def recurrent_keys(module: nn.RNNBase) -> tuple[str, ...]:
    """Return the weights whose vectors can be read: not those that project an LSTM's outputs.

    Example:
        >>> recurrent_keys(nn.GRU(2, 2, bidirectional=True))[2:]
        ('weight_ih_l0_reverse', 'weight_hh_l0_reverse')
    """
    names = (name for names in module._all_weights for name in names)
    return tuple(name for name in names if name.startswith(("weight_ih", "weight_hh")))


def cell_inputs(module: nn.RNNCellBase, x: Tensor, state: Any) -> Iterator[tuple[str, Tensor]]:
    """Yield what the two weights of a cell multiply: the input, and the hidden state before."""
    yield "weight_ih", x
    hidden = state[0] if isinstance(state, tuple) else state
    yield "weight_hh", x.new_zeros(*x.shape[:-1], module.hidden_size) if hidden is None else hidden


def recurrent_inputs(
    module: nn.RNNBase, x: Tensor, lengths: Tensor | None, state: Any
) -> Iterator[tuple[str, Tensor]]:
    """Yield what each weight multiplies: the layer's inputs, and its hidden states one step before.

    Layers are run one at a time, since a module tells the outputs of its last one alone.

    Args:
        module: in evaluation mode.
        x: shape (steps, samples, features), padded at the end.
        lengths: of each sample; None: all have all steps.
        state: the first hidden states, as the module takes them; None: zeros.

    Example:
        >>> layer = nn.RNN(1, 1)
        >>> found = dict(recurrent_inputs(layer, torch.ones(3, 1, 1), None, None))
        >>> outputs = layer(torch.ones(3, 1, 1))[0]
        >>> torch.equal(found["weight_hh_l0"][1:], outputs[:-1, 0].detach())
        True
    """
    steps, samples, _ = x.shape
    ways = 2 if module.bidirectional else 1
    last = torch.full((samples,), steps) if lengths is None else lengths
    last = last.to(x.device)
    inside = torch.arange(steps, device=x.device).unsqueeze(1) < last
    first = _states(module, samples, x, state)
    for layer in range(module.num_layers):
        own = tuple(one[layer * ways : (layer + 1) * ways] for one in first)
        outputs = _run(_single(module, layer), x, lengths, own)
        for way, suffix in enumerate(("", "_reverse")[:ways]):
            before, start = outputs.chunk(ways, -1)[way], own[0][way]
            if way == 0:
                before = torch.cat([start.unsqueeze(0), before[:-1]])
            else:
                before = torch.cat([before[1:], before[:1]])
                before[last - 1, torch.arange(samples, device=x.device)] = start
            yield f"weight_ih_l{layer}{suffix}", x[inside]
            yield f"weight_hh_l{layer}{suffix}", before[inside]
        x = outputs


def _states(module: nn.RNNBase, samples: int, x: Tensor, state: Any) -> tuple[Tensor, ...]:
    """Return the first hidden states (and cells, of an LSTM): (layers·ways, samples, size)."""
    ways = 2 if module.bidirectional else 1
    if state is None:
        sizes = [module.proj_size or module.hidden_size]
        sizes += [module.hidden_size] if isinstance(module, nn.LSTM) else []
        return tuple(x.new_zeros(module.num_layers * ways, samples, size) for size in sizes)
    given = state if isinstance(state, tuple) else (state,)
    return tuple(one.detach().reshape(one.shape[0], -1, one.shape[-1]) for one in given)


def _single(module: nn.RNNBase, layer: int) -> nn.RNNBase:
    """Return one layer of a module as a module of its own, with the same weights."""
    kind = next(one for one in (nn.LSTM, nn.GRU, nn.RNN) if isinstance(module, one))
    options: dict[str, Any] = {"proj_size": module.proj_size} if kind is nn.LSTM else {}
    if kind is nn.RNN:
        options["nonlinearity"] = module.nonlinearity
    size = module._parameters[f"weight_ih_l{layer}"]
    assert size is not None
    single: nn.RNNBase = kind(
        size.shape[1],
        module.hidden_size,
        bias=module.bias,
        bidirectional=module.bidirectional,
        device="meta",
        **options,
    )
    for name in list(single._parameters):
        setattr(single, name, module._parameters[name.replace("_l0", f"_l{layer}")])
    return single.eval()


def _run(
    single: nn.RNNBase, x: Tensor, lengths: Tensor | None, state: tuple[Tensor, ...]
) -> Tensor:
    """Return a layer's outputs at every step, padded as its inputs are."""
    first = state if len(state) > 1 else state[0]
    if lengths is None:
        outputs: Tensor = single(x, first)[0]
        return outputs
    packed = pack_padded_sequence(x, lengths.cpu(), enforce_sorted=False)
    padded, _ = pad_packed_sequence(single(packed, first)[0], total_length=len(x))
    return padded
