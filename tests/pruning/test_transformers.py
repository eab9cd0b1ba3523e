"""Models of Hugging Face: GPT-2's Conv1D, tied heads, dicts of inputs; a small language model."""

from __future__ import annotations

import copy
import importlib.util
import json
import pydoc_data.topics
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import regrow
from regrow.engine.patterns import NM, Channel

tokenizers = pytest.importorskip("tokenizers", reason="pip install '.[transformers]'")
transformers = pytest.importorskip("transformers", reason="pip install '.[transformers]'")

EXAMPLE = Path(__file__).parents[2] / "examples" / "prune_language_model.py"


def gpt2(**options):
    torch.manual_seed(0)
    sizes = {"vocab_size": 40, "n_positions": 24, "n_embd": 16, "n_layer": 2, "n_head": 2}
    no_tokens = {"bos_token_id": None, "eos_token_id": None}
    config = transformers.GPT2Config(**{**sizes, **no_tokens, **options})
    return transformers.GPT2LMHeadModel(config)


def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 40}
    no_tokens = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    return transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **heads, **no_tokens))


def batches(n=2):
    draw = torch.Generator().manual_seed(1)
    return [{"input_ids": torch.randint(40, (3, 24), generator=draw)} for _ in range(n)]


@pytest.mark.parametrize(
    "rule",
    [
        regrow.Wanda(density=0.5),
        regrow.SparseGPT(density=0.5),
        regrow.SparseGPT(density=0.5, pattern=NM(2, 4)),
        regrow.Wanda(density=0.5, pattern=Channel()),
    ],
)
def test_conv1d_is_pruned_as_the_linear_layer_that_it_is(rule):
    model = gpt2()
    twin = copy.deepcopy(model)
    for path, module in list(twin.named_modules()):
        if type(module).__name__ == "Conv1D":
            linear = nn.Linear(*module.weight.shape)
            linear.weight = nn.Parameter(module.weight.detach().T.clone())
            linear.bias = module.bias
            twin.set_submodule(path, linear)
    pruned, other = (regrow.prune(one, rule, batches()) for one in (model, twin))
    assert pruned.kept == other.kept
    assert len(pruned.names) == 8
    for name in pruned.names:
        assert torch.equal(pruned.masks[name], other.masks[name].T), name
        torch.testing.assert_close(model.get_parameter(name), twin.get_parameter(name).T)
    outputs = [one.eval()(**batches()[0]).logits for one in (model, twin)]
    torch.testing.assert_close(*outputs, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", [gpt2, llama])
def test_embeddings_and_what_is_tied_to_them_stay_dense(make, tmp_path):
    model = make()
    untied = {"exclude": "lm_head.*"} if make is llama else {}
    pruned = regrow.prune(model, regrow.SparseGPT(density=0.5), batches(), **untied)
    assert all(".h." in name or ".layers." in name for name in pruned.names)
    assert model.lm_head.weight.all()
    assert pruned.density == 0.5
    # Saved as any model, loaded as any model, and its zeros are a topology.
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path)
    for name in pruned.names:
        assert torch.equal(loaded.get_parameter(name) != 0, pruned.masks[name])
    optimizer = torch.optim.SGD(loaded.parameters(), lr=0.1)
    method = regrow.Static(density=0.5, start=regrow.engine.kept.KeptWeights())
    sparse = regrow.sparsify(loaded, optimizer, method, total_steps=1, include=pruned.names)
    assert {name: int(m.sum()) for name, m in sparse.masks.items()} == dict(pruned.kept)


def example():
    spec = importlib.util.spec_from_file_location("prune_language_model", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def trained(module, setting, seed):
    """A small language model of Python's documentation, and the text in numbers."""
    text = pydoc_data.topics.topics["assignment"]
    letters = sorted(set(text))
    tokens = torch.tensor([letters.index(letter) for letter in text])
    torch.manual_seed(seed)
    model = module.small_model(len(letters), setting)
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting.lr)
    module.train(model, optimizer, module.drawn(tokens, setting, seed), setting.steps)
    return model, tokens, len(letters)


def perplexities(seed, rules, ways, **options):
    """Of one small model: dense, pruned by each rule, and fine-tuned with masks held or moving."""
    module = example()
    setting = module.Setting(**options)
    model, tokens, letters = trained(module, setting, seed)
    found = {"chance": letters, "dense": module.perplexity(model, tokens, setting)}
    data = [next(module.drawn(tokens, setting, 100 + seed)) for _ in range(2)]
    for rule in rules:
        one, made = copy.deepcopy(model), module.RULES[rule](density=0.3)
        pruned = regrow.prune(one, made, None if rule == "magnitude" else data)
        found[rule] = module.perplexity(one, tokens, setting)
        for moving in ways:
            batches = module.drawn(tokens, setting, seed)
            tuned = module.fine_tuned(one, pruned, moving, batches, setting)
            found[rule, moving] = module.perplexity(tuned, tokens, setting)
    return found


def check(found, rules, ways):
    assert found["dense"] < 0.2 * found["chance"]  # it has learnt
    # The order of the papers where much goes, and fine-tuning above one-shot alone.
    assert found["dense"] < found["SparseGPT"] < found["magnitude"]
    for rule in rules:
        for moving in ways:
            assert found[rule, moving] < found[rule], (rule, moving)


SMALL = {"width": 64, "layers": 2, "context": 32, "batch": 16}


def test_a_language_model_is_better_fine_tuned_than_one_shot():
    rules, ways = ("magnitude", "SparseGPT"), (False,)
    found = perplexities(0, rules, ways, **SMALL, steps=200, fine_tuning=10)
    check(found, rules, ways)


@pytest.mark.long
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_language_model_is_better_fine_tuned_than_one_shot_by_every_rule(seed):
    rules, ways = ("magnitude", "Wanda", "SparseGPT"), (False, True)
    check(perplexities(seed, rules, ways, **SMALL, steps=400, fine_tuning=100), rules, ways)


def test_the_example_writes_its_record(tmp_path, monkeypatch):
    module = example()
    monkeypatch.setattr(module, "text_of_python", lambda: pydoc_data.topics.topics["lists"] * 3)
    options = {**SMALL, "steps": 2, "fine-tuning": 2, "layers": 1, "samples": 8}
    given = [f"--{name}={value}" for name, value in options.items()]
    path = tmp_path / "new" / "record.json"
    monkeypatch.setattr(
        sys, "argv", ["example", "--seeds=4", "--kept=2:4", f"--json={path}", *given]
    )
    module.main()
    record = json.loads(path.read_text("utf-8"))
    (found,) = record["seeds"]
    assert found["seed"] == 4
    assert [row["rule"] for row in found["rows"]] == list(module.RULES)
    assert all(row["density"] == 0.5 for row in found["rows"])


def test_the_example_takes_a_checkpoint(tmp_path, monkeypatch, capsys):
    module = example()
    text = pydoc_data.topics.topics["lists"]
    letters = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({letter: n for n, letter in enumerate(sorted(set(text)))})
    )
    letters.pre_tokenizer = tokenizers.pre_tokenizers.Split("", "isolated")
    transformers.PreTrainedTokenizerFast(tokenizer_object=letters).save_pretrained(tmp_path)
    gpt2(vocab_size=60, use_cache=False).save_pretrained(tmp_path)
    (tmp_path / "text").write_text(text)
    monkeypatch.setitem(module.PUBLISHED, ("gpt2", 16, 2), {"Wanda": 1.5})
    where = [f"--checkpoint={tmp_path}", f"--text={tmp_path / 'text'}"]
    short = ["--seeds=0", "--kept=0.5", "--fine-tuning=2", "--context=16", "--samples=8"]
    monkeypatch.setattr(sys, "argv", ["example", *where, f"--test={tmp_path / 'text'}", *short])
    module.main()
    said = capsys.readouterr().out
    (found,) = json.loads(said[said.index("{\n") :])["seeds"]
    assert [row["density"] for row in found["rows"]] == [0.5] * 3
    assert found["published"] == {"Wanda": 1.5}
    monkeypatch.setattr(sys, "argv", ["example", *where])
    with pytest.raises(SystemExit):
        module.main()
    assert "--checkpoint needs --text and --test" in capsys.readouterr().err
