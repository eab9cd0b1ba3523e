"""A step of a GPT whose linear layers are block-sparse, beside the same GPT dense.

    python benchmarks/block_gpt.py --json gpt.json            compiled, 12 layers of width 2048
    python benchmarks/block_gpt.py --launched                 not compiled

Embedding, causal transformer blocks, a dense head tied to the embedding, cross-entropy, backward,
fused AdamW; bfloat16 throughout. Both models run in turn, as training launches them."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from block_layers import sparse_layer
from block_timing import Call, environment, launched, on_host, ratio
from block_transformer import MakeLinear, TransformerBlock, dense_linear
from torch import Tensor, nn
from torch.nn import functional

KIND = {"device": "cuda", "dtype": torch.bfloat16}


class GPT(nn.Module):
    def __init__(self, layers: int, width: int, words: int, linear: MakeLinear) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width, **KIND)
        nn.init.normal_(self.embedding.weight, std=0.02)
        blocks = (TransformerBlock(width, linear, torch.bfloat16) for _ in range(layers))
        self.blocks, self.last = nn.Sequential(*blocks), nn.LayerNorm(width, **KIND)

    def forward(self, words: Tensor) -> Tensor:
        x = self.last(self.blocks(self.embedding(words[:, :-1])))
        scores = functional.linear(x, self.embedding.weight)
        return functional.cross_entropy(scores.flatten(0, 1), words[:, 1:].flatten())


def step(model: nn.Module, words: Tensor) -> Call:
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def run() -> None:
        optimizer.zero_grad(set_to_none=True)
        model(words).backward()
        optimizer.step()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--width", type=int, default=2048)
    parser.add_argument("--tokens", type=int, nargs=2, default=(8, 2048))
    parser.add_argument("--words", type=int, default=50304)
    parser.add_argument("--density", type=float, default=0.1)
    parser.add_argument("--block", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--launched", action="store_true", help="without torch.compile")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)

    def sparse(shape: tuple[int, int], dtype: torch.dtype) -> nn.Module:
        return sparse_layer(shape, args.block, args.density, False, dtype)

    batch, length = args.tokens
    words = torch.randint(args.words, (batch, length + 1), device="cuda")
    calls: dict[str, Call] = {}
    for name, linear in (("dense", dense_linear), ("block", sparse)):
        model: nn.Module = GPT(args.layers, args.width, args.words, linear)
        if not args.launched:
            model.compile()
        calls[name] = step(model, words)
    found = launched(calls, args.rounds, 300.0)
    row = {
        "what": "GPT",
        **{name: getattr(args, name) for name in ("layers", "width", "tokens", "words")},
        "density": args.density,
        "block": args.block,
        "compiled": not args.launched,
        "ms": {name: statistics.median(values) for name, values in found.items()},
        "total": ratio(found["dense"], found["block"]),
        "host_us": on_host(calls, 5, 2),
    }
    print(row, flush=True)
    if args.json:
        where = environment()
        args.json.write_text(json.dumps({"environment": where, "rows": [row]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
