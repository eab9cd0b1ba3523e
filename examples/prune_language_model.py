"""A trained language model made sparse: perplexity before, after pruning, after fine-tuning.

    python examples/prune_language_model.py --json results/pruning/language-model.json
    python examples/prune_language_model.py --checkpoint FOLDER --text train.txt --test test.txt

Without a checkpoint a small GPT-2 is trained on the documentation that comes with Python, letter by
letter. Each rule prunes the same trained model; then training goes on, with the masks held and with
RigL moving them, and of the dense model for as long, which shows what the steps alone are worth.

Needs: pip install transformers, and for the record '.[lab]'
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import math
import pydoc_data.topics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

import regrow
from regrow.engine.allocation import Uniform
from regrow.engine.patterns import NM, Element
from regrow.lab.environment import environment

# Perplexity on WikiText-2 at half the weights, by model type, width and layers: of the paper of
# Wanda and its author's answer on BLOOM (github.com/locuslab/wanda/issues/7), and of SparseGPT's.
PUBLISHED: dict[tuple[str, int, int], dict[str, float]] = {
    ("bloom", 1024, 24): {"dense": 22.42, "SparseGPT": 28.92, "Wanda": 30.74},
    ("bloom", 1536, 24): {"dense": 17.68, "SparseGPT": 21.35, "Wanda": 22.72},
    ("bloom", 2048, 24): {"dense": 15.39, "SparseGPT": 18.88, "Wanda": 19.79},
    ("opt", 2048, 24): {"dense": 14.62, "SparseGPT": 17.46},
}


@dataclass(frozen=True)
class Setting:
    """How long, how fast, on how much."""

    steps: int = 1200
    fine_tuning: int = 200
    batch: int = 16
    context: int = 64
    lr: float = 3e-3
    fine_tuning_lr: float = 1e-3
    samples: int = 128
    width: int = 96
    layers: int = 3


def text_of_python() -> str:
    topics = pydoc_data.topics.topics
    return "\n".join(topics[name] for name in sorted(topics))


def split(text: str) -> tuple[str, str]:
    """Return the first nine tenths, and the rest."""
    return text[: len(text) * 9 // 10], text[len(text) * 9 // 10 :]


def small_model(letters: int, setting: Setting) -> nn.Module:
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=letters,
            n_positions=setting.context,
            n_embd=setting.width,
            n_layer=setting.layers,
            n_head=4,
            bos_token_id=None,
            eos_token_id=None,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            use_cache=False,
        )
    )


def drawn(tokens: Tensor, setting: Setting, seed: int) -> Iterator[dict[str, Tensor]]:
    """Yield batches of pieces drawn at random, for ever."""
    draw = torch.Generator().manual_seed(seed)
    while True:
        at = torch.randint(len(tokens) - setting.context, (setting.batch, 1), generator=draw)
        pieces = tokens[at + torch.arange(setting.context)]
        yield {"input_ids": pieces, "labels": pieces}


def loss_of(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    device = next(model.parameters()).device
    loss: Tensor = model(**{name: one.to(device) for name, one in batch.items()}).loss
    return loss


def perplexity(model: nn.Module, tokens: Tensor, setting: Setting) -> float:
    """Return exp of the mean loss over all whole pieces of a text."""
    model.eval()
    pieces = tokens[: len(tokens) // setting.context * setting.context].reshape(-1, setting.context)
    with torch.no_grad():
        losses = [
            (loss_of(model, {"input_ids": some, "labels": some}).item(), len(some))
            for some in pieces.split(4 * setting.batch)
        ]
    return math.exp(sum(loss * n for loss, n in losses) / len(pieces))


def train(
    model: nn.Module, optimizer: torch.optim.Optimizer, batches: Iterator[Any], steps: int
) -> None:
    model.train()
    peak = optimizer.param_groups[0]["lr"]
    for step in range(steps):
        rate = min(1.0, (step + 1) / (0.05 * steps)) * (1 + math.cos(math.pi * step / steps)) / 2
        for group in optimizer.param_groups:
            group["lr"] = peak * rate
        optimizer.zero_grad()
        loss_of(model, next(batches)).backward()
        optimizer.step()


def magnitude(density: float, pattern: Any = Element()) -> regrow.OMP:
    """Return the rule that the papers compare with: the largest weights of each layer."""
    return regrow.OMP(density=density, scope="layer", allocation=Uniform(), pattern=pattern)


RULES: dict[str, Callable[..., Any]] = {
    "magnitude": magnitude,
    "Wanda": regrow.Wanda,
    "SparseGPT": regrow.SparseGPT,
}
KEPT: dict[str, dict[str, Any]] = {
    "0.5": {"density": 0.5},
    "2:4": {"density": 0.5, "pattern": NM(2, 4)},
    "0.2": {"density": 0.2},
}


def fine_tuned(
    model: nn.Module, pruned: regrow.Pruned | None, moving: bool, batches: Any, setting: Setting
) -> nn.Module:
    """Train a copy on: dense, with the masks held, or with RigL moving them."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=setting.fine_tuning_lr)
    if pruned is not None:
        options: Any = {"density": pruned.density, "start": pruned.start}
        held = regrow.Static(**options)
        # A tenth of the weights at the start, less and less of them, for most of the run.
        options |= {"pattern": pruned.by.pattern} if pruned.by.pattern == NM(2, 4) else {}
        every = max(1, setting.fine_tuning // 20)
        rigl = regrow.RigL(**options, drop_fraction=0.1, update_every=every)
        regrow.sparsify(
            model,
            optimizer,
            rigl if moving else held,
            total_steps=setting.fine_tuning,
            include=pruned.names,
        )
    train(model, optimizer, batches, setting.fine_tuning)
    return model


def run(seed: int, setting: Setting, args: argparse.Namespace) -> dict[str, Any]:
    """Train or load one model, prune it by every rule, and measure."""
    torch.manual_seed(seed)
    if args.checkpoint:
        tokenizer = AutoTokenizer.from_pretrained(args.checkpoint, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(args.checkpoint, local_files_only=True)
        texts = [Path(path).read_text("utf-8") for path in (args.text, args.test)]
        data, test = (tokenizer(one, return_tensors="pt").input_ids[0] for one in texts)
    else:
        texts = list(split(text_of_python()))
        letters = sorted(set("".join(texts)))
        places = {letter: place for place, letter in enumerate(letters)}
        data, test = (torch.tensor([places[one] for one in text]) for text in texts)
        model = small_model(len(letters), setting)
        optimizer = torch.optim.AdamW(model.parameters(), lr=setting.lr, weight_decay=0.1)
        train(model, optimizer, drawn(data, setting, 1000 + seed), setting.steps)
    model.to(args.device)
    found = {"seed": seed, "dense": perplexity(model, test, setting), "rows": []}
    on = fine_tuned(model, None, False, drawn(data, setting, seed), setting)
    found["dense, trained on"] = perplexity(on, test, setting)
    pieces = islice(drawn(data, setting, 2000 + seed), -(-setting.samples // setting.batch))
    calibration = [{"input_ids": batch["input_ids"]} for batch in pieces]
    for kept, (rule, make) in product(args.kept, RULES.items()):
        one, method = copy.deepcopy(model), make(**KEPT[kept])
        began = time.perf_counter()
        pruned = regrow.prune(
            one, method, None if rule == "magnitude" else calibration, exclude=args.exclude or None
        )
        row = {
            "rule": rule,
            "kept": kept,
            "density": pruned.density,
            "seconds": time.perf_counter() - began,
            "pruned": perplexity(one, test, setting),
        }
        for how in ("held", "moving"):
            batches = drawn(data, setting, seed)
            tuned = fine_tuned(one, pruned, how == "moving", batches, setting)
            row[how] = perplexity(tuned, test, setting)
        found["rows"].append(row)
        print(seed, json.dumps(row), flush=True)
    if args.checkpoint:
        kind = (model.config.model_type, model.config.hidden_size, model.config.num_hidden_layers)
        found["published"] = PUBLISHED.get(kind, {})
    found["text"] = hashlib.sha256("".join(texts).encode()).hexdigest()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", help="folder of a model that transformers loads")
    parser.add_argument("--text", help="with a checkpoint: a text to calibrate and train on")
    parser.add_argument("--test", help="with a checkpoint: a text to measure on")
    parser.add_argument("--exclude", nargs="*", default=[], help="globs of weights that stay dense")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kept", nargs="*", choices=list(KEPT), default=list(KEPT))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path, help="where to write the record")
    for name, value in asdict(Setting()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    args = parser.parse_args()
    if args.checkpoint and not (args.text and args.test):
        parser.error("--checkpoint needs --text and --test, files of text")
    setting = Setting(**{name: getattr(args, name) for name in asdict(Setting())})
    record: dict[str, Any] = {
        "setting": asdict(setting),
        "environment": environment(),
        "seeds": [],
    }
    for seed in args.seeds:
        record["seeds"].append(run(seed, setting, args))
        if args.json:  # after each, for a run takes a while
            args.json.parent.mkdir(parents=True, exist_ok=True)
            args.json.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
