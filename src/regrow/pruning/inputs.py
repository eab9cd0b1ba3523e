"""What a layer's weights multiply, read from one call of the layer.

Pruning by activations asks, for each weight matrix W, which vectors x it turned into W·x. A weight
is seen as (out, in·kernel), and its rows may fall into *parts* of equal size that see vectors of
their own: queries, keys and values of one attention, the groups of a convolution.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence, pad_packed_sequence

from regrow.engine.layouts import is_conv1d
from regrow.pruning.recurrent import cell_inputs, recurrent_inputs, recurrent_keys

__all__ = ["Vectors", "parts_of", "readable", "vectors"]

# The weight's name in its module; the first part that sees the vectors; they, as (parts, n, in).
Vectors = tuple[str, int, Tensor]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_MOST = 1 << 24  # entries of vectors at a time: a convolution reads each pixel many times


def readable(module: nn.Module) -> tuple[str, ...]:
    """Return the weights of a module whose vectors can be read, by their names in it.

    Example:
        >>> readable(nn.Linear(2, 2)), readable(nn.LSTM(2, 2)), readable(nn.Embedding(2, 2))
        (('weight',), ('weight_ih_l0', 'weight_hh_l0'), ())
    """
    if isinstance(module, nn.MultiheadAttention):
        own = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")
        return (*(key for key in own if getattr(module, key) is not None), "out_proj.weight")
    if isinstance(module, nn.RNNBase):
        return recurrent_keys(module)
    if isinstance(module, nn.RNNCellBase):
        return "weight_ih", "weight_hh"
    if isinstance(module, (nn.Linear, nn.Bilinear, *_CONVOLUTIONS)) or is_conv1d(module):
        return ("weight",)
    return ()


def parts_of(module: nn.Module, key: str) -> int:
    """Return into how many equal parts the rows of a weight fall, each with vectors of its own.

    Example:
        >>> parts_of(nn.Conv1d(4, 6, 3, groups=2), "weight")
        2
        >>> parts_of(nn.MultiheadAttention(4, 2), "in_proj_weight")
        3
    """
    if isinstance(module, _CONVOLUTIONS):
        return module.groups
    return 3 if key == "in_proj_weight" else 1


def vectors(
    module: nn.Module, keys: tuple[str, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Iterator[Vectors]:
    """Yield the vectors that weights of a module multiply in a call of it.

    Args:
        module: in evaluation mode; it may be run again, to see what lies inside it.
        keys: the weights that are asked for, of those that are :func:`readable`.
        args: the call's arguments.
        kwargs: its keyword arguments.

    Example:
        >>> [(key, part, x)] = vectors(nn.Linear(2, 3), ("weight",), (torch.ones(5, 4, 2),), {})
        >>> key, part, x.shape
        ('weight', 0, torch.Size([1, 20, 2]))
    """
    for kinds, read in _READERS:
        if isinstance(module, kinds):
            given = _given(module, kinds[0], args, kwargs)
            for key, part, x in read(module, keys, given):
                if key in keys:
                    yield key, part, x
            return
    x = args[0] if args else next(iter(kwargs.values()))  # of Conv1D, and of nothing else
    yield "weight", 0, _rows(x)


def _given(
    module: nn.Module, kind: type[nn.Module], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return a call's arguments by the names that torch's own layer gives them."""
    try:
        return inspect.signature(kind.forward).bind(module, *args, **kwargs).arguments
    except TypeError as error:
        raise ValueError(
            f"a {type(module).__name__} was called in another way than {kind.__name__} of torch "
            f"({error}), so what its weights see is not known: exclude it"
        ) from None


def _rows(x: Tensor) -> Tensor:
    return x.detach().reshape(1, -1, x.shape[-1])


def _linear(
    module: nn.Module, keys: tuple[str, ...], given: Mapping[str, Any]
) -> Iterator[Vectors]:
    yield "weight", 0, _rows(given["input"])


def _bilinear(
    module: nn.Module, keys: tuple[str, ...], given: Mapping[str, Any]
) -> Iterator[Vectors]:
    one, other = given["input1"].detach(), given["input2"].detach()
    yield "weight", 0, _rows((one.unsqueeze(-1) * other.unsqueeze(-2)).flatten(-2))


def _convolution(
    module: nn.Module, keys: tuple[str, ...], given: Mapping[str, Any]
) -> Iterator[Vectors]:
    """Yield what a kernel sees at every place, some samples at a time."""
    assert isinstance(module, _CONVOLUTIONS)
    x = given["input"].detach()
    sizes = module.kernel_size
    x = x if x.ndim == len(sizes) + 2 else x.unsqueeze(0)
    mode = "constant" if module.padding_mode == "zeros" else module.padding_mode
    x = functional.pad(x, module._reversed_padding_repeated_twice, mode)
    for dim, (size, stride, dilation) in enumerate(
        zip(sizes, module.stride, module.dilation, strict=True), 2
    ):
        x = x.unfold(dim, (size - 1) * dilation + 1, stride)[..., ::dilation]
    # (samples, channels, *places, *kernel) -> (groups, samples, places, channels, kernel)
    x = x.flatten(-len(sizes)).flatten(2, -2).unflatten(1, (module.groups, -1))
    x = x.permute(1, 0, 3, 2, 4)
    at_once = max(1, _MOST // max(1, math.prod(x.shape) // max(1, x.shape[1])))
    for some in x.split(at_once, 1):
        yield "weight", 0, some.flatten(3).flatten(1, 2)


def _attention(
    module: nn.Module, keys: tuple[str, ...], given: Mapping[str, Any]
) -> Iterator[Vectors]:
    assert isinstance(module, nn.MultiheadAttention)
    three = [_rows(given[name]) for name in ("query", "key", "value")]
    if module.in_proj_weight is not None:
        for part, x in enumerate(three):
            yield "in_proj_weight", part, x
    else:
        for name, x in zip("qkv", three, strict=True):
            yield f"{name}_proj_weight", 0, x
    if "out_proj.weight" in keys:
        yield "out_proj.weight", 0, _rows(_attended(module, given))


def _attended(module: nn.MultiheadAttention, given: Mapping[str, Any]) -> Tensor:
    """Return what an attention hands to its last projection, which no hook of torch ever sees."""
    projection = module.out_proj
    # With the identity in its place, what comes out is what would have gone in.
    identity = type(projection)(module.embed_dim, module.embed_dim, bias=False, device="meta")
    eye = torch.eye(
        module.embed_dim, dtype=projection.weight.dtype, device=projection.weight.device
    )
    identity.weight = nn.Parameter(eye, requires_grad=False)
    arguments = {name: value for name, value in given.items() if name != "self"}
    module._modules["out_proj"] = identity
    try:
        output = type(module).forward(module, **{**arguments, "need_weights": False})[0]
    finally:
        module._modules["out_proj"] = projection
    return output


def _recurrent(
    module: nn.Module, keys: tuple[str, ...], given: Mapping[str, Any]
) -> Iterator[Vectors]:
    assert isinstance(module, nn.RNNBase)
    x, lengths = given["input"], None
    if isinstance(x, PackedSequence):
        x, lengths = pad_packed_sequence(x)
    elif x.ndim == 2:
        x = x.unsqueeze(1)
    elif module.batch_first:
        x = x.transpose(0, 1)
    for key, rows in recurrent_inputs(module, x, lengths, given.get("hx")):
        yield key, 0, _rows(rows)


def _cell(module: nn.Module, keys: tuple[str, ...], given: Mapping[str, Any]) -> Iterator[Vectors]:
    assert isinstance(module, nn.RNNCellBase)
    for key, rows in cell_inputs(module, given["input"], given.get("hx")):
        yield key, 0, _rows(rows)


_READERS: tuple[tuple[tuple[type[nn.Module], ...], Callable[..., Iterator[Vectors]]], ...] = (
    ((nn.MultiheadAttention,), _attention),
    ((nn.Linear,), _linear),
    ((nn.Bilinear,), _bilinear),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), _convolution),
    ((nn.LSTM, nn.GRU, nn.RNN), _recurrent),
    ((nn.LSTMCell, nn.GRUCell, nn.RNNCell), _cell),
)
