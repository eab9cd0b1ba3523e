"""A transformer block whose linear layers are block-sparse, beside the same block dense."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from block_timing import Call, must_agree, ratio, timed
from torch import Tensor, nn
from torch.nn import functional

from regrow.execution.block import BlockLinear

MakeLinear = Callable[[tuple[int, int], torch.dtype], nn.Module]
HEAD = 128
TARGET = 3.3


class TransformerBlock(nn.Module):
    """Pre-norm causal attention and an MLP of four times the width; linear layers without bias."""

    def __init__(self, width: int, linear: MakeLinear, dtype: torch.dtype) -> None:
        super().__init__()
        self.first, self.second = (
            nn.LayerNorm(width, device="cuda", dtype=dtype) for _ in range(2)
        )
        self.q, self.k, self.v, self.out = (linear((width, width), dtype) for _ in range(4))
        self.up, self.down = linear((4 * width, width), dtype), linear((width, 4 * width), dtype)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        normed = self.first(x)
        q, k, v = (
            project(normed).view(batch, length, width // HEAD, HEAD).transpose(1, 2)
            for project in (self.q, self.k, self.v)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        return x + self.down(functional.gelu(self.up(self.second(x))))


def dense_linear(shape: tuple[int, int], dtype: torch.dtype) -> nn.Module:
    return nn.Linear(shape[1], shape[0], bias=False, device="cuda", dtype=dtype)


def precision(dtype: torch.dtype) -> AbstractContextManager[object]:
    """Compute in bfloat16 whatever the parameters are."""
    return torch.autocast("cuda", torch.bfloat16) if dtype == torch.float32 else nullcontext()


def check(sparse: TransformerBlock, x: Tensor, g: Tensor, dtype: torch.dtype) -> None:
    """Compare with a dense block that has the same weights."""
    dense = TransformerBlock(x.shape[-1], dense_linear, dtype)
    with torch.no_grad():
        for name in ("q", "k", "v", "out", "up", "down"):
            layer = getattr(sparse, name)
            assert isinstance(layer, BlockLinear)
            getattr(dense, name).weight.copy_(layer.dense_weight())
    found = []
    for model in (sparse, dense):
        with precision(dtype):
            y = model(x)
        found.append((y - x, *torch.autograd.grad(y, x, g)))
    must_agree("transformer forward", found[0][0], found[1][0], 2e-2)
    must_agree("transformer dX", found[0][1], found[1][1], 2e-2)


def step(model: nn.Module, x: Tensor, g: Tensor, dtype: torch.dtype) -> Call:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True, capturable=True)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        with precision(dtype):
            y = model(x)
        y.backward(g)
        optimizer.step()

    return run


def transformer_rows(
    width: int, tokens: tuple[int, int], sparse_linear: MakeLinear, compiled: bool, rounds: int
) -> list[dict[str, object]]:
    """Time whole steps: forward, backward, fused AdamW."""
    print(f"transformer block of width {width}, {tokens[0]}×{tokens[1]} tokens, whole step")
    print("parameters  compiled  dense ms  block ms   ratio [quartiles]")
    rows: list[dict[str, object]] = []
    for dtype in (torch.bfloat16, torch.float32):
        x = torch.randn(*tokens, width, device="cuda", dtype=dtype, requires_grad=True)
        g = torch.randn_like(x)
        models: dict[str, nn.Module] = {
            "dense": TransformerBlock(width, dense_linear, dtype),
            "block": TransformerBlock(width, sparse_linear, dtype),
        }
        check(models["block"], x, g, dtype)  # type: ignore[arg-type]
        for fused in (False, True) if compiled else (False,):
            torch.cuda.empty_cache()
            ready = {name: torch.compile(m) if fused else m for name, m in models.items()}
            found = timed({name: step(m, x, g, dtype) for name, m in ready.items()}, rounds, 60.0)
            ms = {name: statistics.median(values) for name, values in found.items()}
            total = ratio(found["dense"], found["block"])
            name = str(dtype).removeprefix("torch.")
            rows.append(
                {
                    "what": "transformer block",
                    "width": width,
                    "tokens": list(tokens),
                    "parameters": name,
                    "compiled": fused,
                    "ms": ms,
                    "total": total,
                }
            )
            verdict = "met" if total["ratio"] >= TARGET else "MISSED"
            quartiles = f"[{total['low']:.2f}, {total['high']:.2f}]"
            print(
                f"{name:11} {fused!s:8} {ms['dense']:9.3f} {ms['block']:9.3f} "
                f"{total['ratio']:6.2f} {quartiles}  target {TARGET}: {verdict}",
                flush=True,
            )
        del models
    return rows
