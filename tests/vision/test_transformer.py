"""Vision transformers: sizes, what a head is, and another package's outputs."""

import pytest
import torch
from torch import nn

from regrow.vision.models import Attention, VisionTransformer, build_model, deit, patch_for


def size(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    ("kind", "parameters"), [("tiny", 5_717_416), ("small", 22_050_664), ("base", 86_567_656)]
)
def test_deit_has_the_published_sizes(kind, parameters):
    with torch.device("meta"):
        assert size(deit(kind)) == parameters
        assert size(build_model(f"deit-{kind}", (3, 224, 224), 1000)) == parameters


def test_attention_is_softmax_of_products_head_by_head():
    layer = Attention(6, heads=2).double()
    x = torch.randn(3, 5, 6, dtype=torch.float64)
    queries, keys, values = layer.qkv(x).split(128, 2)
    parts = []
    for head in (slice(0, 64), slice(64, 128)):
        weights = (queries[..., head] @ keys[..., head].mT / 8).softmax(-1)
        parts.append(weights @ values[..., head])
    torch.testing.assert_close(layer(x), layer.out(torch.cat(parts, -1)))


def test_outputs_agree_with_those_of_transformers():
    hugging = pytest.importorskip("transformers")
    config = hugging.ViTConfig(
        hidden_size=128, num_hidden_layers=3, num_attention_heads=2, intermediate_size=512,
        image_size=(16, 24), patch_size=4, num_channels=3, num_labels=7, layer_norm_eps=1e-6,
    )  # fmt: skip
    other = hugging.ViTForImageClassification(config).eval()
    with torch.no_grad():
        for p in other.parameters():
            p.add_(0.1 * torch.randn_like(p))
    model = VisionTransformer((3, 16, 24), 7, width=128, heads=2, depth=3, patch=4).eval()
    model.load_state_dict(translated(other.state_dict()))
    x = torch.randn(2, 3, 16, 24)
    with torch.no_grad():
        torch.testing.assert_close(model(x), other(x).logits, rtol=1e-4, atol=1e-5)


def translated(state):
    """Rename another package's weights, whatever that version calls its parts."""
    found = {}
    joined = {}
    for name, value in state.items():
        kind, part = name.rsplit(".", 1)[-1], name
        if "cls_token" in name:
            found["token"] = value.flatten()
        elif "position_embeddings" in name:
            found["positions"] = value[0]
        elif "patch_embeddings" in name:
            found[f"patches.{kind}"] = value
        elif name.startswith("classifier"):
            found[f"head.{kind}"] = value
        elif "layers." in name or "layer." in name:
            block = next(piece for piece in part.split(".") if piece.isdigit())
            for letter in ("query", "key", "value", "q_proj", "k_proj", "v_proj"):
                if f".{letter}." in name:
                    joined.setdefault((block, kind), {})[letter[0]] = value
                    break
            else:
                found[f"blocks.{block}.{in_our_words(name)}.{kind}"] = value
        else:
            found[f"norm.{kind}"] = value
    for (block, kind), parts in joined.items():
        found[f"blocks.{block}.attention.qkv.{kind}"] = torch.cat([parts[k] for k in "qkv"])
    return found


def in_our_words(name):
    for theirs, ours in (
        ("layernorm_before", "norm1"),
        ("layernorm_after", "norm2"),
        ("attention.o_proj", "attention.out"),
        ("attention.output.dense", "attention.out"),
        ("intermediate.dense", "hidden"),
        ("mlp.fc1", "hidden"),
        ("mlp.fc2", "out"),
        ("output.dense", "out"),
    ):
        if theirs in name:
            return ours
    raise KeyError(name)


@pytest.mark.parametrize(("side", "patch"), [(8, 2), (16, 4), (28, 4), (64, 8), (96, 8), (128, 16)])
def test_small_images_have_small_patches(side, patch):
    assert patch_for((1, side, side + 100)) == patch
    model = build_model("deit-tiny", (1, side, side), 5, scale=0.1)
    assert model.patches.kernel_size == (patch, patch)
    assert len(model.positions) == 1 + (side // patch) ** 2


def test_heads_keep_their_width_when_tokens_become_narrower():
    for scale, width, heads in ((1.0, 192, 3), (0.7, 134, 2), (0.1, 19, 1)):
        model = build_model("deit-tiny", (3, 32, 32), 10, scale=scale)
        assert model.head.in_features == width
        assert {block.attention.heads for block in model.blocks} == {heads}
        assert {block.attention.qkv.out_features for block in model.blocks} == {3 * 64 * heads}


def test_every_parameter_is_reached():
    model = build_model("deit-tiny", (3, 32, 32), 7, scale=0.1).eval()
    model(torch.randn(2, 3, 32, 32)).square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_weights_are_those_of_linear_layers_and_a_convolution():
    with torch.device("meta"):
        model = deit("tiny")
    weights = {id(m.weight) for m in model.modules() if isinstance(m, (nn.Linear, nn.Conv2d))}
    others = [n for n, p in model.named_parameters() if p.ndim > 1 and id(p) not in weights]
    assert others == ["positions"]


def test_later_blocks_are_left_out_more_often():
    model = deit("tiny", (1, 8, 8), 3, width=8)
    drops = [block.drop for block in model.blocks]
    assert drops[0] == 0
    assert drops[-1] == pytest.approx(0.1)
    assert drops == sorted(drops)


@pytest.mark.parametrize(
    ("shape", "said"),
    [((3, 30, 32), "30×32 pixels: .* patch's, 4"), ((3, 224, 220), "patch's, 16")],
)
def test_images_that_patches_do_not_fill_are_refused(shape, said):
    with pytest.raises(ValueError, match=said):
        build_model("deit-tiny", shape, 10)


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="size='huge'"):
        deit("huge")
