"""What lies between the convolutions of a packed network reads and writes, counted from its links.

    python benchmarks/segmentation_bytes.py [--density 0.2] [--lean] [--sector 32]

Bytes of a training step in bfloat16, for each voxel of the input: norms with their ReLU, picks,
pooling, shifts and joins, forth and back. Convolutions, and joins of what was up-sampled, read and
write the same either way. Pooling keeps indices of 8 bytes, as torch's does if it is not compiled.
A GPU fetches whole sectors, of 16 channels: picked channels cost those that they lie in. With
--sector 2 it is as if each channel could be fetched alone.
"""

from __future__ import annotations

import argparse
import math
from collections import Counter

import torch

import regrow
from regrow.segmentation import E2ENet, channel_links, lean_shape, pack
from regrow.segmentation.joins import Reading


def fetched(reading: Reading, sector: int) -> int:
    """Return bytes of each voxel that hold the channels read."""
    channels = {c for start, stop, _ in reading.moves for c in range(start, stop)}
    return sector * len({2 * c // sector for c in channels})


def traffic(model: E2ENet, sector: int) -> dict[str, Counter[str]]:
    """Return bytes read and written for each voxel of the input, by way and direction."""
    found = {way: Counter[str]() for way in ("apart", "fused")}
    voxels = {level: 1 / math.prod(scale) for level, scale in enumerate(model.scales)}
    for name, block in model.named_modules():
        if not hasattr(block, "readings") or not hasattr(block, "conv"):
            continue
        _, where, *_ = name.replace("_", ".").split(".")
        all_, share = 2 * block.conv.out_channels, voxels[int(where)]
        ways = {way: Counter[str]() for way in found}
        readings, apart, fused = block.readings.values(), ways["apart"], ways["fused"]
        # Statistics, then the values; back, sums of dy and z, then dz of both.
        apart["forth"] += 3 * all_
        apart["back"] += 5 * all_
        fused["forth"] += all_ + (2 * all_ if block.whole or not readings else 0)
        fused["back"] += 5 * all_
        for reading in readings:
            count = 2 * sum(stop - start for start, stop, _ in reading.moves)
            small, read = count / math.prod(reading.window), fetched(reading, sector)
            apart["forth"] += read + small
            apart["back"] += small + all_
            fused["forth"] += read + small
            fused["back"] += small
            if small < count:  # picked, pooled with indices of 8 bytes, then moved
                apart["forth"] += 2 * count + 2 * small + 4 * small
                apart["back"] += 2 * small + 4 * small + 2 * count
        if readings:
            # Gradients of readers are added up two by two, that of whoever reads the whole, too.
            apart["back"] += 3 * all_ * (len(readings) - 1 + block.whole)
            pooled = any(math.prod(reading.window) > 1 for reading in readings)
            fused["back"] += all_ * (1 + block.whole + pooled)
        for way, counted in ways.items():
            for direction, count in counted.items():
                found[way][direction] += share * count
    return found


def counted(density: float, *, lean: bool = False, sector: int = 32) -> dict[str, Counter[str]]:
    """Return the traffic of E2ENet, or of the lean lattice, with links drawn at random."""
    torch.manual_seed(0)
    shape = {"channels": (32, 64, 128, 256, 320, 320), **lean_shape(6)} if lean else {}
    model = E2ENet(1, 16, **shape)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    made = regrow.sparsify(model, optimizer, total_steps=10**6, **channel_links(density))
    return traffic(pack(model, made.masks, fused=True), sector)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--density", type=float, default=0.2)
    parser.add_argument("--lean", action="store_true")
    parser.add_argument("--sector", type=int, default=32, help="bytes that are fetched at once")
    options = parser.parse_args()
    for way, directions in counted(**vars(options)).items():
        told = ", ".join(f"{name} {count:,.0f}" for name, count in directions.items())
        print(f"{way}: {told}, both {sum(directions.values()):,.0f} bytes a voxel")


if __name__ == "__main__":
    main()
