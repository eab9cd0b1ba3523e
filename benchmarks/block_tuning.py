"""Other tiles for the kernels of block-sparse layers: what each takes, and which is best."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Iterator

import torch
from block_timing import Call, timed

from regrow.execution.block import BlockLinear, launch, outer, tiles
from regrow.execution.block.operations import (
    block_input_gradient,
    block_linear,
    block_weight_gradient,
)
from regrow.execution.block.tiles import TILES, Tiles

N_TOKENS = 16384
MEMORY = 227 * 1024  # shared memory of a multiprocessor of compute capability 9.0


def candidates(name: str, b: int) -> Iterator[Tiles]:
    if name == "weight":
        for tokens, warps, stages in itertools.product((32, 64, 128), (4, 8), (2, 3, 4, 5)):
            if 4 * tokens * b * stages <= MEMORY and b * b <= 32 * warps * 128:
                yield Tiles(tokens, b, warps, stages)
        return
    if name == "neighbours":
        ways = itertools.product((32, 64, 128), (4, 8), (2, 3, 4), (2, 4, 8, 16))
        for tokens, warps, stages, group in ways:
            fits = 2 * tokens * b * (1 + group) * stages <= MEMORY
            if fits and group * b * b <= 32 * warps * 128:
                yield Tiles(tokens, b, warps, stages, group)
        return
    for tokens, chunk, warps in itertools.product((64, 128, 256), (32, 64), (4, 8)):
        if chunk > b or tokens * b > 32 * warps * 128 or tokens * b < 32 * warps * 32:
            continue
        for stages in (3, 4, 6):
            if 2 * chunk * (tokens + b) * stages <= MEMORY:
                yield Tiles(tokens, chunk, warps, stages)


def call(name: str, layer: BlockLinear) -> Call:
    kind = {"device": "cuda", "dtype": torch.bfloat16}
    x = torch.randn(N_TOKENS, layer.in_features, **kind)
    g = torch.randn(N_TOKENS, layer.out_features, **kind)
    weight, layout, n = layer.weight.detach(), layer.layout, layer.n_blocks
    return {
        "forward": lambda: block_linear(x, weight, None, layout, layer.out_features),
        "input": lambda: block_input_gradient(g, weight, layout, layer.in_features),
        "weight": lambda: block_weight_gradient(g, x, layout, n, layer.block),
        "neighbours": lambda: block_weight_gradient(g, x, layout, n, layer.block),
    }[name]


def milliseconds(calls: list[Call]) -> list[float]:
    found = timed({str(i): one for i, one in enumerate(calls)}, rounds=3, window=4.0)
    return [statistics.median(values) for values in found.values()]


def relative(found: dict[Tiles, list[float]]) -> dict[Tiles, float]:
    """How much each choice loses to the best one, where it loses most."""
    best = [min(times) for times in zip(*found.values(), strict=True)]
    return {
        choice: max(t / least for t, least in zip(times, best, strict=True)) - 1
        for choice, times in found.items()
    }


def tune(layers: list[BlockLinear]) -> list[dict[str, object]]:
    """Try all candidates on layers of several densities; the best stays set."""
    b = layers[0].block
    rows: list[dict[str, object]] = []
    # Where neighbours are taken together, blocks alone are not what is run.
    last = "neighbours" if ("neighbours", "half", b) in TILES else "weight"
    for name in ("forward", "input", last):
        calls, before = [call(name, layer) for layer in layers], TILES[name, "half", b]
        found: dict[Tiles, list[float]] = {}
        for choice in dict.fromkeys((before, *candidates(name, b))):
            TILES[name, "half", b] = choice
            launch.forget()
            try:
                found[choice] = milliseconds(calls)
            except Exception as reason:
                print(f"{name} b={b} {tuple(choice)}: {type(reason).__name__}")
                torch.cuda.synchronize()
        loss = relative(found)
        ranked = sorted(found, key=loss.__getitem__)
        for choice in dict.fromkeys((*ranked[:5], before)):
            times = " ".join(f"{t:.4f}" for t in found[choice])
            mark = " (set)" if choice == before else ""
            print(f"{name:8} b={b:<4} {tuple(choice)!s:18} {times} ms +{loss[choice]:.1%}{mark}")
            rows.append({"pass": name, "block": b, "tiles": choice, "ms": found[choice]})
        TILES[name, "half", b] = ranked[0]
        launch.forget()
        print(flush=True)
    rows += split(layers)
    return rows


def split(layers: list[BlockLinear]) -> list[dict[str, object]]:
    """Try other numbers of parts of the weight gradient."""
    rows: list[dict[str, object]] = []
    would: list[int] = []  # be chosen, by whichever is asked

    def instead(choose: Callable[..., int], k: int) -> Callable[..., int]:
        def parts(*given: object) -> int:
            would.append(choose(*given))
            return k

        return parts

    for layer in layers:
        times = {}
        for k in range(1, 9):
            outer.parts = instead(tiles.parts, k)
            outer.parts_of_groups = instead(tiles.parts_of_groups, k)
            launch.forget()
            times[k] = milliseconds([call("weight", layer)])[0]
        outer.parts, outer.parts_of_groups = tiles.parts, tiles.parts_of_groups
        launch.forget()
        chosen = would[-1]
        listed = " ".join(f"{k}:{t:.4f}" for k, t in times.items())
        print(f"parts    b={layer.block:<4} n={layer.n_blocks}: {listed} ms; chosen {chosen}")
        rows.append({"pass": "parts", "n": layer.n_blocks, "ms": times, "chosen": chosen})
    return rows
