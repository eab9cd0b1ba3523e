"""Attention with fewer heads than its embedding would give, and which heads can go."""

from __future__ import annotations

import math
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim import Optimizer

from regrow.engine.chains import uses_of
from regrow.engine.slim.cut import Plan

__all__ = ["FewerHeads", "plan_heads"]


class FewerHeads(nn.MultiheadAttention):
    """An ``nn.MultiheadAttention`` that has lost heads; called and saved like one.

    Attributes:
        heads: the numbers of those it has among those it had.
        had: how many those were.
    """

    heads: list[int]
    had: int

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend as ``nn.MultiheadAttention`` does; averages of weights are over the heads left."""
        batched = query.dim() == 3
        if not batched:
            query, key, value = (t.unsqueeze(0) for t in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        weights = cast(Tensor, self.in_proj_weight).chunk(3)
        biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            functional.linear(x, w, b)
            .unflatten(-1, (self.num_heads, self.head_dim))
            .transpose(1, 2)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        mask = self._mask(attn_mask, key_padding_mask, len(q), q.dtype)
        dropout = self.dropout if self.training else 0.0
        if need_weights:
            scores = q @ k.mT / math.sqrt(self.head_dim)
            shares = (scores if mask is None else scores + mask).softmax(-1)
            mixed = functional.dropout(shares, dropout) @ v
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, mask, dropout)
        y = self.out_proj(mixed.transpose(1, 2).flatten(2))
        told = None
        if need_weights:
            told = shares.mean(1) if average_attn_weights else shares
            told = told if batched else told.squeeze(0)
        if not batched:
            return y.squeeze(0), told
        return (y if self.batch_first else y.transpose(0, 1)), told

    def _mask(
        self, attn: Tensor | None, padding: Tensor | None, batch: int, dtype: torch.dtype
    ) -> Tensor | None:
        """Return all that is added to scores, of four dimensions."""
        made: Tensor | None = None
        if attn is not None:
            attn = _added(attn, dtype)
            if attn.dim() == 3:  # one a sample and head, of all heads that there were
                attn = attn.view(batch, self.had, *attn.shape[1:])[:, self.heads]
            made = attn
        if padding is not None:
            padding = _added(padding, dtype)[:, None, None, :]
            made = padding if made is None else made + padding
        return made


def _added(mask: Tensor, dtype: torch.dtype) -> Tensor:
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(mask, -math.inf)


@torch.no_grad()
def plan_heads(plan: Plan, model: nn.Module, optimizer: Optimizer) -> dict[str, str]:
    """Plan to cut the heads of ``nn.MultiheadAttention`` that do nothing.

    A head does nothing whose outputs nobody reads, or whose values are all the same: what they add
    goes into the bias of the outputs.

    Returns:
        By name, why heads that do nothing stay.
    """
    uses = uses_of(model)
    reasons: dict[str, str] = {}
    for name, module in model.named_modules():
        if not isinstance(module, nn.MultiheadAttention):
            continue
        whole = _why_whole(module, uses)
        if whole is None:
            _plan_module(plan, module, optimizer)
        elif module.out_proj.weight.shape[1] and _unread(module).any():
            reasons[f"{name}, heads"] = whole
    return reasons


def _why_whole(module: nn.MultiheadAttention, uses: dict[int, int]) -> str | None:
    if type(module).forward not in (nn.MultiheadAttention.forward, FewerHeads.forward):
        return "its class has a forward of its own"
    if module.in_proj_weight is None:
        return "its keys or values have sizes of their own"
    if module.bias_k is not None or module.add_zero_attn:
        return "a key is added to those of its input"
    if any(uses[id(p)] > 1 for p in module.parameters()):
        return "its weight is tied to another"
    if any(getattr(m, "parametrizations", None) for m in module.modules()):
        return "its weight is parametrized"
    return None


def _unread(module: nn.MultiheadAttention) -> Tensor:
    weight = module.out_proj.weight.detach()
    heads = weight.reshape(len(weight), module.num_heads, module.head_dim)
    return ~heads.transpose(0, 1).flatten(1).any(1)


def _plan_module(plan: Plan, module: Any, optimizer: Optimizer) -> None:
    n, d = module.num_heads, module.head_dim
    values = module.in_proj_weight[2 * n * d :].reshape(n, -1)
    biased = module.in_proj_bias is not None
    constant = module.in_proj_bias[2 * n * d :] if biased else values.new_zeros(n * d)
    still = ~values.any(1)  # its values do not hang on the input
    if module.out_proj.bias is None:
        still &= ~constant.view(n, d).any(1)
    gone = _unread(module) | still
    if gone.all():
        gone[0] = False
    if not gone.any():
        return
    kept = (~gone).nonzero().squeeze(1).cpu()
    entries = (kept[:, None] * d + torch.arange(d)).flatten()
    rows = torch.cat([entries + i * n * d for i in range(3)])
    lost = (gone & still).repeat_interleave(d)
    if module.out_proj.bias is not None and bool((lost & (constant != 0)).any()):
        bias, weight = module.out_proj.bias, module.out_proj.weight
        added = weight[:, lost].double() @ constant[lost].double()
        plan.value_(bias, (bias.double() + added).to(bias.dtype))
        plan.shapes[id(bias)] = tuple(bias.shape), tuple(bias.shape)
    for parameter, index in (
        (module.in_proj_weight, {0: rows}),
        (module.in_proj_bias, {0: rows}),
        (module.out_proj.weight, {1: entries}),
    ):
        if parameter is None:
            continue
        plan.cut_(parameter, parameter.detach(), index, optimizer)
    before = getattr(module, "heads", list(range(n)))
    for name, value in (
        ("heads", [before[i] for i in kept.tolist()]),
        ("had", getattr(module, "had", n)),
        ("num_heads", len(kept)),
        # What torch has for speed reads the heads' size off the embedding's.
        ("_qkv_same_embed_dim", False),
    ):
        plan.attribute_(module, name, value)
    plan.attribute_(module.out_proj, "in_features", len(entries))
    plan.writes.append(partial(setattr, module, "__class__", FewerHeads))
    plan.undo.append(partial(setattr, module, "__class__", type(module)))
