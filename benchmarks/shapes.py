"""Weight shapes of models that benchmarks speak of; no images are needed to move their topology."""

from __future__ import annotations

import torch
from torch import nn

__all__ = ["MODELS", "weights_only"]


def resnet50() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"conv1": (64, 3, 7, 7)}
    before = 64
    for stage, (width, blocks) in enumerate(zip((64, 128, 256, 512), (3, 4, 6, 3), strict=True)):
        for block in range(blocks):
            name = f"layer{stage + 1}_{block}"
            shapes[f"{name}_conv1"] = (width, before, 1, 1)
            shapes[f"{name}_conv2"] = (width, width, 3, 3)
            shapes[f"{name}_conv3"] = (4 * width, width, 1, 1)
            if block == 0:
                shapes[f"{name}_shortcut"] = (4 * width, before, 1, 1)
            before = 4 * width
    return shapes | {"fc": (1000, 2048)}


def gpt_medium() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"embedding": (50257, 1024)}
    for block in range(24):
        shapes[f"block{block}_qkv"] = (3 * 1024, 1024)
        shapes[f"block{block}_out"] = (1024, 1024)
        shapes[f"block{block}_mlp1"] = (4096, 1024)
        shapes[f"block{block}_mlp2"] = (1024, 4096)
    return shapes


def vit_b16() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"patch": (768, 3, 16, 16)}
    for block in range(12):
        shapes[f"block{block}_qkv"] = (3 * 768, 768)
        shapes[f"block{block}_out"] = (768, 768)
        shapes[f"block{block}_mlp1"] = (3072, 768)
        shapes[f"block{block}_mlp2"] = (768, 3072)
    return shapes | {"head": (1000, 768)}


MODELS = {"resnet50": resnet50, "vit-b16": vit_b16, "gpt-353m": gpt_medium}


def weights_only(name: str, device: str, seed: int = 0) -> nn.ParameterDict:
    """Make a module that holds nothing but weights of these shapes, with gradients."""
    generator = torch.Generator().manual_seed(seed)
    module = nn.ParameterDict()
    for layer, shape in MODELS[name]().items():
        module[layer] = nn.Parameter((torch.randn(shape, generator=generator) * 0.05).to(device))
        module[layer].grad = torch.randn(shape, generator=generator).to(device)
    return module
