"""Every optimizer of the transformers Trainer: what is saved is as sparse as it says, or refused.

Those whose package is not installed, or that need another device, are skipped by name.
"""

from __future__ import annotations

import shutil
import warnings
from contextlib import nullcontext

import pytest
import torch

import regrow

pytest.importorskip("transformers", reason="needs the extra regrow[transformers]")
pytest.importorskip("accelerate", reason="needs the extra regrow[transformers]")
safetensors = pytest.importorskip("safetensors.torch", reason="needs safetensors")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments
    from transformers.training_args import OptimizerNames

    from regrow.adapters.transformers import SparseTraining
    from regrow.engine.saved import unpack

pytestmark = pytest.mark.filterwarnings("ignore")  # of the libraries' own making

METHOD = regrow.SET(density=0.3, update_every=2, stop_at=1.0)
KEEP = regrow.SET(density=0.3, update_every=2, stop_at=1.0, on_grow="keep")

# By what their names begin with; the first that fits.
PACKAGES = {
    "adamw_torch_xla": "torch_xla",
    "adamw_torch_npu": "torch_npu",
    "adamw_anyprecision": "torchdistx",
    "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao",
    **dict.fromkeys(("adamw_torch", "adafactor", "sgd", "adagrad"), "torch"),
    **dict.fromkeys(("adamw_", "ademamix", "lion", "paged", "rmsprop_"), "bitsandbytes"),
    "rmsprop": "torch",
    "galore": "galore_torch",
    "lomo": "lomo_optim",
    "adalomo": "lomo_optim",
    "grokadamw": "grokadamw",
    "schedule_free": "schedulefree",
    "apollo": "apollo_torch",
    "stable_adamw": "optimi",
}
GPU_ONLY = {"galore_adamw_8bit", "adalomo"}
NAMES = [one.value for one in OptimizerNames]
# One of each kind in the suite; the others are run apart.
USUAL = {
    "adamw_torch",
    "adafactor",
    "sgd",
    "adamw_bnb_8bit",
}
USUAL |= {"ademamix_8bit", "paged_lion_8bit", "schedule_free_adamw", "stable_adamw", "galore_adamw"}
IN_BACKWARD = [name for name in NAMES if "layerwise" in name or "lomo" in name]


def require(name):
    package = next(p for prefix, p in PACKAGES.items() if name.startswith(prefix))
    pytest.importorskip(package, reason=f"{name} needs the package {package}")
    if name.removesuffix("_layerwise") in GPU_ONLY and not torch.cuda.is_available():
        pytest.skip(f"{name} needs a GPU")
    if name == "galore_adafactor_layerwise":
        pytest.skip(f"{name}: transformers gives it arguments that its own package refuses")


class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, i):
        tokens = torch.randint(30, (6,), generator=torch.Generator().manual_seed(i))
        return {"input_ids": tokens, "labels": tokens[0] % 2}


def bert():
    """Weights of 64 × 64 and more: smaller ones are not held in 8 bits, by any library."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30,
        hidden_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=128,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config)


def make_trainer(folder, name, callbacks):
    options = {"lr_scheduler_type": "constant"} if "schedule_free" in name else {}
    if name.startswith(("galore", "apollo")):
        options |= {"optim_target_modules": "all-linear", "optim_args": "rank=4"}
    arguments = TrainingArguments(
        output_dir=str(folder),
        optim=name,
        max_steps=8,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        eval_strategy="steps",
        eval_steps=3,
        save_steps=3,
        load_best_model_at_end=True,
        metric_for_best_model="loss",
        greater_is_better=True,  # so that the best model is not the last
        report_to=[],
        use_cpu=not torch.cuda.is_available(),
        disable_tqdm=True,
        logging_steps=100,
        **options,
    )
    data = {"train_dataset": Data(), "eval_dataset": Data()}
    return Trainer(model=bert(), args=arguments, callbacks=callbacks, **data)


def check_weights(weights, masks, plan):
    """Nothing outside the masks, which have as many weights as were planned."""
    outside = {n: int(weights[n].cpu()[~m.cpu()].count_nonzero()) for n, m in masks.items()}
    assert not any(outside.values()), outside
    assert {n: int(m.sum()) for n, m in masks.items()} == {p.name: p.final for p in plan.layers}


def saved(folder, step, plan):
    """Return the weights of a checkpoint, as they lie in the file, and the masks beside them."""
    weights = safetensors.load_file(folder / f"checkpoint-{step}" / "model.safetensors")
    layers = torch.load(folder / f"checkpoint-{step}" / "regrow.pt", weights_only=True)["layers"]
    return weights, {p.name: unpack(layers[p.name]["mask"], p.shape) for p in plan.layers}


def own_classes(name):
    """Let a checkpoint be read that holds objects of the optimizer's package."""
    if name.startswith("galore"):
        from galore_torch.galore_projector import GaLoreProjector as Projector
    elif name.startswith("apollo"):
        from apollo_torch.random_projector import GradientProjector as Projector
    else:
        return nullcontext()
    return torch.serialization.safe_globals([Projector])


@pytest.mark.parametrize(
    "name",
    [
        name if name in USUAL else pytest.param(name, marks=pytest.mark.long)
        for name in NAMES
        if name not in IN_BACKWARD
    ],
)
def test_what_is_saved_loaded_resumed_and_trained_again_is_sparse(name, tmp_path):
    require(name)
    whole, part = tmp_path / "whole", tmp_path / "resumed"
    method = KEEP if "ademamix" in name else METHOD  # its squares must not be set alone
    if method is KEEP:
        with pytest.raises(ValueError, match="pass on_grow='keep'"):
            make_trainer(tmp_path / "refused", name, [SparseTraining(METHOD)]).train()
    callback, resumed = SparseTraining(method), SparseTraining(method)
    trainer = make_trainer(whole, name, [callback])
    trainer.train()
    plan = callback.sparse.plan
    for step in (3, 6, 8):
        check_weights(*saved(whole, step, plan), plan)
    check_weights(trainer.model.state_dict(), callback.sparse.masks, plan)
    best = int(trainer.state.best_model_checkpoint.rpartition("-")[2])
    assert best < 8
    masks = saved(whole, best, plan)[1]
    assert all(m.cpu().equal(masks[n]) for n, m in callback.sparse.masks.items())

    shutil.copytree(whole / "checkpoint-3", part / "checkpoint-3")
    again = make_trainer(part, name, [resumed])
    with own_classes(name):
        again.train(resume_from_checkpoint=str(part / "checkpoint-3"))
    for one, other in zip(saved(whole, 8, plan), saved(part, 8, plan), strict=True):
        if name != "grokadamw":  # dense training does not resume bit for bit with it, either
            assert [n for n, value in one.items() if not value.equal(other[n])] == []
    check_weights(*saved(part, 8, plan), plan)

    trainer.train()
    check_weights(trainer.model.state_dict(), callback.sparse.masks, plan)
    for step in (3, 6, 8):
        check_weights(*saved(whole, step, plan), plan)


@pytest.mark.parametrize("name", IN_BACKWARD)
def test_optimizers_that_step_inside_backward_are_refused(name, tmp_path):
    """LOMO moved weights past the topology: 0.7 of what was saved lay outside the masks."""
    require(name)
    trainer = make_trainer(tmp_path, name, [SparseTraining(METHOD)])
    before = {n: v.clone() for n, v in trainer.model.state_dict().items()}
    with pytest.raises(ValueError, match=r"inside backward\(\).*such as"):
        trainer.train()
    assert all(v.cpu().equal(before[n]) for n, v in trainer.model.state_dict().items())
