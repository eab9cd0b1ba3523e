"""Lightning's own callbacks beside ours: what they write, and what is saved, is sparse."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

import regrow

pytest.importorskip("lightning", reason="needs the extra regrow[lightning]")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lightning.pytorch import LightningModule, Trainer, callbacks

    from regrow.adapters.lightning import SparseTraining
    from regrow.engine.saved import unpack

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning's own making

METHOD = regrow.SET(density=0.2, update_every=3, stop_at=1.0)
ACCUMULATION = {0: 1, 2: 4}


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
        self.lr, self.batch_size = 0.01, 8

    def training_step(self, batch, index):
        inputs, targets = batch
        return nn.functional.cross_entropy(self.net(inputs), targets)

    def train_dataloader(self):
        inputs = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
        data = torch.utils.data.TensorDataset(inputs, inputs[:, :4].argmax(1))
        return torch.utils.data.DataLoader(data, batch_size=self.batch_size)

    def validation_step(self, batch, index):
        """Let averages be shown, too."""

    val_dataloader = train_dataloader

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


WRITERS = {
    "none": list,
    "WeightAveraging": lambda: [callbacks.WeightAveraging()],
    "EMAWeightAveraging": lambda: [callbacks.EMAWeightAveraging(decay=0.9)],
    "StochasticWeightAveraging": lambda: [
        callbacks.StochasticWeightAveraging(0.01, swa_epoch_start=1)
    ],
    "LearningRateFinder": lambda: [callbacks.LearningRateFinder(num_training_steps=6)],
    "BatchSizeFinder": lambda: [callbacks.BatchSizeFinder(max_trials=2)],
}


def fit(folder, writer, *, first, accumulation, resume=None):
    sparse, module = SparseTraining(METHOD), Module()
    others = WRITERS[writer]()
    if accumulation:
        others.append(callbacks.GradientAccumulationScheduler(ACCUMULATION))
    saving = callbacks.ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    trainer = Trainer(
        callbacks=[*([sparse, *others] if first else [*others, sparse]), saving],
        default_root_dir=folder,
        max_epochs=4,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, ckpt_path=resume)
    return module, sparse.sparse, trainer


def outside(state, masks, prefix=""):
    return sum(int(state[prefix + name][~mask].count_nonzero()) for name, mask in masks.items())


def check_file(file, plan):
    """Whatever a checkpoint holds of the model lies within the topology beside it."""
    checkpoint = torch.load(file, weights_only=False)
    layers = checkpoint["callbacks"]["SparseTraining-0"]["layers"]
    masks = {p.name: unpack(layers[p.name]["mask"], p.shape) for p in plan.layers}
    assert {n: int(m.sum()) for n, m in masks.items()} == {p.name: p.final for p in plan.layers}
    assert outside(checkpoint["state_dict"], masks) == 0
    if "current_model_state" in checkpoint:
        assert outside(checkpoint["current_model_state"], masks) == 0


@pytest.mark.parametrize("accumulation", [False, True])
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("writer", WRITERS)
def test_what_is_written_saved_and_resumed_is_sparse(writer, first, accumulation, tmp_path):
    options = {"first": first, "accumulation": accumulation}
    module, sparse, trainer = fit(tmp_path / "whole", writer, **options)
    assert sparse.steps == sparse.total_steps == trainer.global_step
    assert len(sparse.history) == (sparse.steps - 1) // 3
    assert outside(module.state_dict(), sparse.masks) == 0
    files = sorted((tmp_path / "whole").glob("*.ckpt"))
    assert len(files) == 4
    for file in files:
        check_file(file, sparse.plan)
    if writer.endswith("Finder"):
        return  # it searches again, so that dense training does not resume bit for bit, either
    again, resumed, _ = fit(tmp_path / "again", writer, **options, resume=files[1])
    assert resumed.history == sparse.history
    for name, value in module.state_dict().items():
        assert value.equal(again.state_dict()[name]), name


def test_lightnings_pruning_is_refused_by_name(tmp_path, monkeypatch):
    """Its masks multiply ours."""
    pruning = callbacks.ModelPruning("l1_unstructured", amount=0.3)
    monkeypatch.setitem(WRITERS, "ModelPruning", lambda: [pruning])
    with pytest.raises(RuntimeError, match=r"net\.0\.weight.*prune\.remove"):
        fit(tmp_path, "ModelPruning", first=True, accumulation=False)
