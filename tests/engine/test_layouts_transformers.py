"""Architectures of transformers: which output every planned weight makes, asked of the models.

No test here reads a layout off a shape: a unit is taken away, and the features that vanish from
what the module puts out say which one it was.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.layouts import turned
from regrow.engine.patterns import NM, Channel, FanIn
from regrow.engine.plan import make_plan

FEW = {"vocab_size": 40, "num_hidden_layers": 1, "hidden_size": 16}
HEADS = FEW | {"num_attention_heads": 2, "intermediate_size": 24}
IMAGES = {k: v for k, v in HEADS.items() if k != "vocab_size"} | {"image_size": 32}
SPEECH = {
    "vocab_size": 40,
    "num_mel_bins": 8,
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 24,
    "decoder_ffn_dim": 24,
    "max_source_positions": 8,
    "max_target_positions": 8,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
}
# What is made, of what, and how many weights are planned by default.
MODELS = {
    "GPT2": ("LMHeadModel", {"vocab_size": 40, "n_layer": 1, "n_embd": 16, "n_head": 2}, 4),
    "Llama": ("ForCausalLM", HEADS | {"num_key_value_heads": 2}, 8),
    "Bert": ("ForMaskedLM", HEADS, 7),
    "ViT": ("ForImageClassification", IMAGES, 8),
    "Whisper": ("ForConditionalGeneration", SPEECH, 18),
    "Mamba": ("ForCausalLM", FEW | {"state_size": 4, "time_step_rank": 4}, 5),
    "Mixtral": ("ForCausalLM", HEADS | {"num_key_value_heads": 2, "num_local_experts": 2}, 5),
}


def tiny(name):
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    kind, config, _ = MODELS[name]
    torch.manual_seed(0)
    model = getattr(transformers, name + kind)(getattr(transformers, f"{name}Config")(**config))
    return model.eval()


def batch(name):
    draw = torch.Generator().manual_seed(0)
    if name == "ViT":
        return {"pixel_values": torch.randn(4, 3, 32, 32, generator=draw)}
    tokens = torch.randint(3, 40, (4, 6), generator=draw)
    if name == "Whisper":
        return {
            "input_features": torch.randn(4, 8, 16, generator=draw),
            "decoder_input_ids": tokens,
        }
    return {"input_ids": tokens}


def owner_of(model, name):
    return model.get_submodule(name.rpartition(".")[0])


def passed(model, name, inputs):
    """What the weight's module takes and puts out in a pass of the model, its bias left out."""
    owner, seen = owner_of(model, name), []
    handle = owner.register_forward_hook(lambda module, taken, out: seen.append((taken[0], out)))
    bias = getattr(owner, "bias", None)
    kept = None if bias is None else bias.detach().clone()
    with torch.no_grad():
        if bias is not None:
            bias.zero_()
        model(**inputs)
        if not seen:  # Mamba takes some weights and computes with them itself
            conv = is_convolution(owner)
            owner(
                torch.randn(2, owner.in_channels, 16) if conv else torch.randn(2, owner.in_features)
            )
        if bias is not None:
            bias.copy_(kept)
    handle.remove()
    return seen[0]


def vanished(model, name, inputs):
    """The features of the module's output that are zero in every place."""
    _, out = passed(model, name, inputs)
    out = out.movedim(1, -1) if is_convolution(owner_of(model, name)) else out
    return (out.flatten(0, -2) == 0).all(0).nonzero().flatten().tolist()


def is_convolution(owner):
    return isinstance(owner, nn.modules.conv._ConvNd)


def joined(model, name, mask, inputs):
    """Which inputs each output reads under a mask, by derivatives: (outputs, places, inputs)."""
    owner, weight = owner_of(model, name), model.get_parameter(name)
    one = passed(model, name, inputs)[0][:1].detach()
    kept = weight.detach().clone()
    weight.data.copy_(mask)  # a grown weight is zero, and would look as if it were not there
    if is_convolution(owner):
        found = torch.autograd.functional.jacobian(lambda x: _middle(owner(x)), one)
        # Places that the kernel does not reach read nothing.
        found = found[:, 0].flatten(2).movedim(1, 2)
    else:
        found = torch.autograd.functional.jacobian(owner, one.flatten(0, -2)[0]).unsqueeze(1)
    weight.data.copy_(kept)
    return found != 0


def _middle(images):
    flat = images[0].flatten(1)
    return flat[:, flat.shape[1] // 2]


@pytest.fixture(params=MODELS)
def architecture(request):
    return request.param


def test_the_default_plan_knows_the_output_of_every_weight(architecture):
    """Of every planned weight the last output unit is taken away, and one in the middle."""
    model, inputs = tiny(architecture), batch(architecture)
    plan = make_plan(model, regrow.Static(density=0.5, pattern=Channel()))
    assert len(plan.layers) == MODELS[architecture][2]
    for layer in plan.layers:
        pattern, weight = turned(Channel(), layer.layout), model.get_parameter(layer.name)
        assert layer.layout.output is not None
        assert vanished(model, layer.name, inputs) == []
        for unit in (layer.units // 2, layer.units - 1):
            kept = weight.detach().clone()
            gone = pattern.expand(torch.arange(layer.units) == unit, layer.shape)
            weight.data.mul_(~gone)
            assert vanished(model, layer.name, inputs) == [unit], layer.name
            weight.data.copy_(kept)


HALF = {"density": 0.5, "allocation": Uniform(), "update_every": 1}
METHODS = {
    "channels": lambda: regrow.SET(**HALF, pattern=Channel()),
    "fan-in": lambda: regrow.RigL(**HALF, pattern=FanIn()),
    "2:4": lambda: regrow.DynamicNM(update_every=1),
}


@pytest.mark.parametrize("method", METHODS)
def test_patterns_lie_along_the_right_dimension_after_updates(architecture, method):
    method, model, inputs = METHODS[method](), tiny(architecture), batch(architecture)
    odd = ["*conv1d.weight", "*projection.weight"] if isinstance(method.pattern, NM) else []
    exclude = [glob for glob in odd if any(glob[1:] in n for n, _ in model.named_parameters())]
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    sparse = regrow.sparsify(model, optimizer, method, total_steps=100, exclude=exclude)
    first = sparse.masks
    for _ in range(4):
        optimizer.zero_grad()
        model(**inputs).logits.square().mean().backward()
        optimizer.step()
        sparse._topology.check_state(sparse.state_dict()["layers"])
    assert any(not mask.equal(first[name]) for name, mask in sparse.masks.items())
    for layer in sparse.plan.layers:
        reads = joined(model, layer.name, sparse.masks[layer.name], inputs)
        counts = reads.flatten(1).sum(1)
        assert int(counts.sum()) == int(sparse.masks[layer.name].sum())
        if isinstance(method.pattern, Channel):
            whole = joined(model, layer.name, torch.ones(layer.shape), inputs).flatten(1).sum(1)
            assert (counts[counts > 0] == whole[counts > 0]).all(), layer.name
            assert int((counts > 0).sum()) == layer.final == len(counts) // 2
        elif isinstance(method.pattern, FanIn):
            assert counts.unique().numel() == 1, layer.name
        else:
            groups = reads.reshape(*reads.shape[:2], -1, 4).sum(3)
            assert groups.unique().tolist() in ([2], [0, 2]), layer.name


def test_layers_of_gpt2_are_in_the_default_plan_and_are_told():
    plan = make_plan(tiny("GPT2"), regrow.Static(density=0.5))
    names = {layer.name for layer in plan.layers}
    assert {"transformer.h.0.attn.c_attn.weight", "transformer.h.0.mlp.c_fc.weight"} <= names
    assert "transformer.h.0.mlp.c_fc.weight: Conv1D: output 1" in str(plan)


def test_tables_positions_and_tied_outputs_of_whisper_stay_dense():
    plan = make_plan(tiny("Whisper"), regrow.Static(density=0.5))
    names = [layer.name for layer in plan.layers]
    assert "model.encoder.conv1.weight" in names
    assert not any("embed" in name or "proj_out" in name for name in names)
    assert {name for name in plan.skipped if "embed_positions" in name} == {
        "model.encoder.embed_positions.weight",
        "model.decoder.embed_positions.weight",
    }


class TestExperts:
    """Mixtral's experts, all in one tensor, which are sparse only when included."""

    def hidden(self, model, inputs):
        """By expert, the hidden units that are zero: their gradient in what reads them is."""
        experts = model.model.layers[0].mlp.experts
        model.zero_grad()
        model(**inputs).logits.square().sum().backward()
        return (experts.down_proj.grad == 0).all(1)

    def test_a_row_of_an_expert_is_an_output_of_that_expert(self):
        model, inputs = tiny("Mixtral"), batch("Mixtral")
        method = regrow.Static(density=0.5, pattern=Channel())
        plan = make_plan(model, method, include="*.gate_up_proj")
        (layer,) = plan.layers
        assert layer.units == 2 * 48 and not self.hidden(model, inputs).any()
        weight = model.get_parameter(layer.name)
        for unit, expert, position in ((3, 0, 3), (30, 0, 6), (48 + 5, 1, 5), (95, 1, 23)):
            kept = weight.detach().clone()
            one = torch.arange(layer.units) == unit
            weight.data.mul_(~turned(Channel(), layer.layout).expand(one, layer.shape))
            assert self.hidden(model, inputs).nonzero().tolist() == [[expert, position]]
            weight.data.copy_(kept)

    def test_both_ways_in_and_out_are_known(self):
        method = regrow.Static(density=0.5, pattern=Channel())
        plan = make_plan(tiny("Mixtral"), method, include="*_proj")
        assert {layer.units for layer in plan.layers} == {2 * 48, 2 * 16}
