"""Time of a 2:4 linear layer on a GPU beside the dense one (cuBLAS): forward, and with gradients.

    python benchmarks/two_four.py --json two_four.json

Dense and 2:4 run in turn, from CUDA graphs and launched call by call. A step packs the weight in
its forward pass and computes both gradients; "packed" is inference, its weight packed once. Before
a layer is timed its output and gradients are compared with dense products of the same weight."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from block_timing import Call, environment, in_turn, must_agree, ratio, timed
from torch import Tensor, nn
from torch.nn import functional

from regrow.engine.patterns import NM
from regrow.execution.two_four import PackedLinear, TwoFourLinear, library

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
Calls = dict[str, Call]
Row = dict[str, object]


def layer_of(width: int, dtype: torch.dtype) -> TwoFourLinear:
    dense = nn.Linear(width, width, bias=False)
    grid = torch.ones(width, width, dtype=torch.bool)
    units = NM(2, 4).draw(width * width // 2, grid, width * width, torch.Generator().manual_seed(0))
    mask = units.to("cuda", dtype)
    dense = dense.to("cuda", dtype)
    with torch.no_grad():
        dense.weight.mul_(mask)
    return TwoFourLinear.made_of_(dense, mask)


def launched(calls: Calls, rounds: int, times: int = 8) -> dict[str, list[float]]:
    """Return milliseconds of every call as Python launches it, one value a round."""
    for call in calls.values():
        call()
    return in_turn(calls, dict.fromkeys(calls, times), rounds)


def check(layer: TwoFourLinear, packed: PackedLinear, x: Tensor, g: Tensor) -> None:
    if reason := library.why_dense(layer.weight, layer.weight.dtype, layer.library):
        raise SystemExit(f"2:4 kernels are not in use: {reason}")
    weight = layer.weight.detach()
    y = layer(x)
    dx, dw = torch.autograd.grad(y, (x, layer.weight), g)
    expected = functional.linear(x.detach(), weight)
    must_agree("forward", y, expected, 1e-2)
    must_agree("packed", packed(x.detach()), expected, 1e-2)
    must_agree("dX", dx, g @ weight, 1e-2)
    must_agree("dW", dw, g.mT @ x.detach(), 1e-2)


def layer_row(width: int, tokens: int, name: str, rounds: int) -> Row:
    dtype = DTYPES[name]
    layer = layer_of(width, dtype)
    packed = PackedLinear(layer)
    x = torch.randn(tokens, width, device="cuda", dtype=dtype, requires_grad=True)
    g = torch.randn(tokens, width, device="cuda", dtype=dtype)
    flat, plain = x.detach(), layer.weight.detach().clone()
    weight = plain.clone().requires_grad_()
    check(layer, packed, x, g)

    def forward(call: Callable[[Tensor], Tensor]) -> Callable[[], Tensor]:
        def without_graph() -> Tensor:
            with torch.no_grad():
                return call(flat)

        return without_graph

    calls: Calls = {
        "dense step": lambda: torch.autograd.grad(functional.linear(x, weight), (x, weight), g),
        "2:4 step": lambda: torch.autograd.grad(layer(x), (x, layer.weight), g),
        "dense forward": forward(lambda v: functional.linear(v, plain)),
        "2:4 forward": forward(layer),
        "2:4 packed": forward(packed),
        "pack": lambda: library.pack((plain * layer.mask).contiguous()),
    }
    row: Row = {"width": width, "tokens": tokens, "dtype": name, "library": layer.library}
    for how, time in (("graph", timed), ("launched", launched)):
        found = time(calls, rounds)
        row[how] = {
            "ms": {call: statistics.median(values) for call, values in found.items()},
            "step": ratio(found["dense step"], found["2:4 step"]),
            "forward": ratio(found["dense forward"], found["2:4 forward"]),
            "packed": ratio(found["dense forward"], found["2:4 packed"]),
        }
    return row


def show(row: Row) -> None:
    print(f"{row['width']}² {row['tokens']} tokens {row['dtype']} {row['library']}")
    for how in ("graph", "launched"):
        part = row[how]
        assert isinstance(part, dict)
        times = "  ".join(f"{name} {value:.3f}" for name, value in part["ms"].items())
        gains = "  ".join(
            f"{name} ×{part[name]['ratio']:.2f} [{part[name]['low']:.2f}, {part[name]['high']:.2f}]"
            for name in ("step", "forward", "packed")
        )
        print(f"  {how:<8} ms: {times}\n  {'':<8} dense / 2:4: {gains}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, default=4096)
    parser.add_argument("--tokens", type=int, nargs="+", default=[4096, 16384])
    parser.add_argument("--dtypes", choices=list(DTYPES), nargs="+", default=list(DTYPES))
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.manual_seed(0)
    where = environment()
    print(where, flush=True)
    rows = []
    for tokens in args.tokens:
        for name in args.dtypes:
            rows.append(layer_row(args.width, tokens, name, args.rounds))
            show(rows[-1])
            torch.cuda.empty_cache()
    if args.json:
        args.json.write_text(json.dumps({"environment": where, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
