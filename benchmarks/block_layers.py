"""Time of block-sparse layers on a GPU beside dense ones (cuBLAS), in bfloat16 or TF32.

    python benchmarks/block_layers.py --json block.json              layers and a transformer block
    python benchmarks/block_layers.py --only layers --blocks 128 --densities .1
    python benchmarks/block_layers.py --only launched tf32       as launched, 2,048 tokens too; TF32
    python benchmarks/block_layers.py --only tune --blocks 128       tries other tiles

Dense and sparse run in turn, from CUDA graphs and as they are launched; printed are medians, and
the quartiles of the ratio taken round by round. Before a layer is timed its output and gradients
are compared with dense products of the same weight. Active blocks are drawn uniformly at random, as
a method draws them; --cover puts at least one into every block row and block column."""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from block_timing import Call, environment, launched, must_agree, on_host, ratio, timed
from block_transformer import transformer_rows
from block_tuning import tune
from torch import Tensor
from torch.nn import functional

from regrow.execution.block import BlockLinear, gather_blocks
from regrow.execution.block.operations import (
    block_input_gradient,
    block_linear,
    block_weight_gradient,
)

DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02)
# By dtype, width, tokens, block and density: times faster than dense, captured and launched.
TARGETS: dict[tuple[object, ...], tuple[float, float]] = {
    ("bfloat16", 4096, 16384, 128, 0.2): (3.3, 0.0),
    ("bfloat16", 4096, 16384, 128, 0.1): (5.8, 4.0),
    ("bfloat16", 4096, 16384, 128, 0.05): (8.5, 0.0),
    ("bfloat16", 4096, 16384, 32, 0.1): (3.5, 0.0),
    ("bfloat16", 4096, 2048, 128, 0.1): (0.0, 1.3),
    ("float32", 4096, 16384, 128, 0.2): (2.0, 0.0),
}
Row = dict[str, object]


def drawn(shape: tuple[int, int], b: int, density: float, cover: bool) -> Tensor:
    """Draw active blocks; with ``cover`` a random diagonal of them comes first."""
    n_rows, n_columns = shape[0] // b, shape[1] // b
    n = max(1, round(density * n_rows * n_columns))
    order = torch.randperm(n_rows * n_columns)
    longest = max(n_rows, n_columns)
    if cover and n >= longest:
        rows = torch.randperm(longest) % n_rows
        first = rows * n_columns + torch.randperm(longest) % n_columns
        order = torch.cat([first, order[~torch.isin(order, first)]])
    return order[:n].sort().values


def sparse_layer(
    shape: tuple[int, int], b: int, density: float, cover: bool, dtype: torch.dtype
) -> BlockLinear:
    positions = drawn(shape, b, density, cover)
    values = torch.randn(len(positions), b, b, device="cuda") * (density * shape[1]) ** -0.5
    return BlockLinear(shape[1], shape[0], positions, values.to(dtype))


def check(layer: BlockLinear, x: Tensor, g: Tensor) -> None:
    weight = layer.dense_weight().detach()
    y = layer(x)
    dx, dw = torch.autograd.grad(y, (x, layer.weight), g)
    must_agree("forward", y, functional.linear(x, weight), 1e-2)
    must_agree("dX", dx, g @ weight, 1e-2)
    expected = gather_blocks(g.mT @ x, layer.index.positions, layer.block)
    must_agree("dW", dw, expected, 1e-2)


def layer_row(
    shape: tuple[int, int],
    n_tokens: int,
    b: int,
    density: float,
    args: argparse.Namespace,
    dtype: torch.dtype,
) -> Row:
    rounds = args.rounds
    kind = {"device": "cuda", "dtype": dtype}
    x = torch.randn(n_tokens, shape[1], **kind, requires_grad=True)
    g = torch.randn(n_tokens, shape[0], **kind)
    weight = torch.randn(shape, **kind, requires_grad=True)
    layer = sparse_layer(shape, b, density, args.cover, dtype)
    check(layer, x, g)
    values, layout, n = layer.weight.detach(), layer.layout, layer.n_blocks
    flat, plain = x.detach(), weight.detach()
    whole: dict[str, Call] = {
        "dense": lambda: torch.autograd.grad(functional.linear(x, weight), (x, weight), g),
        "block": lambda: torch.autograd.grad(layer(x), (x, layer.weight), g),
    }
    eager = launched(whole, rounds)
    found = timed(
        {
            **whole,
            "dense forward": lambda: functional.linear(flat, plain),
            "block forward": lambda: block_linear(flat, values, None, layout, shape[0]),
            "dense dX": lambda: g @ plain,
            "block dX": lambda: block_input_gradient(g, values, layout, shape[1]),
            "dense dW": lambda: g.mT @ flat,
            "block dW": lambda: block_weight_gradient(g, flat, layout, n, b),
        },
        rounds,
    )
    index = layer.index
    row: Row = {
        "what": "layer",
        "out": shape[0],
        "in": shape[1],
        "tokens": n_tokens,
        "block": b,
        "density": density,
        "active": n,
        "empty_rows": int((index.row_pointers.diff() == 0).sum()),
        "empty_columns": int((index.column_pointers.diff() == 0).sum()),
        "ms": {name: statistics.median(values) for name, values in found.items()},
        "total": ratio(found["dense"], found["block"]),
        "dtype": str(dtype).removeprefix("torch."),
        "launched": {
            "ms": {name: statistics.median(values) for name, values in eager.items()},
            "total": ratio(eager["dense"], eager["block"]),
            "host_us": on_host(whole, rounds),
        },
    }
    for part in ("forward", "dX", "dW"):
        row[part] = ratio(found[f"dense {part}"], found[f"block {part}"])
    return row


def show_layer(row: Row) -> None:
    total, ms = row["total"], row["ms"]
    eager = row["launched"]
    assert isinstance(total, dict)
    assert isinstance(ms, dict)
    assert isinstance(eager, dict)
    parts = " ".join(f"{row[part]['ratio']:6.2f}" for part in ("forward", "dX", "dW"))
    names = ("dtype", "in", "tokens", "block", "density")
    target = TARGETS.get(tuple([row[name] for name in names]))
    verdict = ""
    if target is not None:
        met = total["ratio"] >= target[0] and eager["total"]["ratio"] >= target[1]
        verdict = f"  target {target}: " + ("met" if met else "MISSED")
    print(
        f"{row['in']:>5}→{row['out']:<5} {row['tokens']:>6} {row['block']:>4} "
        f"{row['density']:>5} {ms['dense']:8.3f} {ms['block']:8.3f}  {parts}  "
        f"{total['ratio']:6.2f} [{total['low']:.2f}, {total['high']:.2f}]  "
        f"{eager['total']['ratio']:6.2f} {eager['host_us']['dense']:5.0f} "
        f"{eager['host_us']['block']:5.0f}{verdict}",
        flush=True,
    )


def layer_rows(
    shapes: list[tuple[int, int, int]],
    args: argparse.Namespace,
    dtype: torch.dtype = torch.bfloat16,
    blocks: list[int] | None = None,
    densities: tuple[float, ...] = (),
) -> list[Row]:
    names = (
        "dense ms",
        "block ms",
        "fwd",
        "dX",
        "dW",
        "total [quartiles]",
        "launched; host µs each",
    )
    print(f"{dtype}, graphs; launched beside")
    print("   in→out   tokens    b  dens {:>8} {:>8} {:>7} {:>6} {:>6} {:>8} {:>8}".format(*names))
    rows = []
    for out, into, n_tokens in shapes:
        for b in blocks or args.blocks:
            for density in densities or args.densities:
                rows.append(layer_row((out, into), n_tokens, b, density, args, dtype))
                show_layer(rows[-1])
                torch.cuda.empty_cache()
    return rows


def tf32_rows(args: argparse.Namespace) -> list[Row]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    rows = layer_rows([(4096, 4096, 16384)], args, torch.float32, densities=(0.2, 0.1, 0.05))
    torch.set_float32_matmul_precision(before)
    return rows


SECTIONS = ("layers", "launched", "tf32", "transformer", "narrow", "tune")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--only", choices=SECTIONS, nargs="+", default=SECTIONS[:-1])
    parser.add_argument("--blocks", type=int, nargs="+", default=[128, 64, 32])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--cover", action="store_true")
    parser.add_argument("--densities", type=float, nargs="+", default=DENSITIES)
    parser.add_argument("--compile", action="store_true", help="torch.compile for both models")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    where = environment()
    print(where, flush=True)
    rows: list[Row] = []
    if "layers" in args.only:
        rows += layer_rows([(4096, 4096, 16384)], args)
    if "launched" in args.only:
        shapes = [(4096, 4096, 16384), *((w, w, 2048) for w in (1024, 2048, 4096, 8192))]
        rows += layer_rows(shapes, args, blocks=[128], densities=(0.1,))
    if "tf32" in args.only:
        rows += tf32_rows(args)
    if "transformer" in args.only:

        def layer(shape: tuple[int, int], dtype: torch.dtype) -> BlockLinear:
            return sparse_layer(shape, 128, 0.1, args.cover, dtype)

        rows += transformer_rows(4096, (4, 2048), layer, args.compile, args.rounds)
    if "narrow" in args.only:
        rows += layer_rows([(768, 768, 16384), (3072, 768, 16384), (1024, 1024, 16384)], args)
    if "tune" in args.only:
        for b in args.blocks:
            rows += tune(
                [
                    sparse_layer((4096, 4096), b, density, args.cover, torch.bfloat16)
                    for density in (0.2, 0.1, 0.05)
                ]
            )
    if args.json:
        args.json.write_text(json.dumps({"environment": where, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
