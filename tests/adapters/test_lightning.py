"""Lightning's own Trainer with the callback: sparse, logged, resumed as if it had not stopped."""

import warnings

import pytest
import torch

import regrow

pytest.importorskip("lightning", reason="needs the extra regrow[lightning]")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from regrow.adapters.lightning import SparseTraining

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning's own making


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Sequential(
            torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4)
        )

    def training_step(self, batch, index):
        inputs, targets = batch
        return torch.nn.functional.cross_entropy(self.net(inputs), targets)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.01)


def loader():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(64, 8, generator=generator)
    data = torch.utils.data.TensorDataset(inputs, inputs[:, :4].argmax(1))
    return torch.utils.data.DataLoader(data, batch_size=8)


def fit(folder, resume=None, method=None):
    callback = SparseTraining(method or regrow.RigL(density=0.2, update_every=3, stop_at=30))
    module = Module()
    every_epoch = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    trainer = Trainer(
        max_epochs=4,
        callbacks=[callback, every_epoch],
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, loader(), ckpt_path=resume)
    return trainer, module, callback.sparse


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return folder, *fit(folder)


def test_the_trainers_own_steps_drive_the_topology(whole):
    _, trainer, module, sparse = whole
    assert sparse.steps == sparse.total_steps == 32
    assert [update.step for update in sparse.history][:3] == [3, 6, 9]
    for name, mask in sparse.masks.items():
        assert not module.get_parameter(name)[~mask].any()
    assert trainer.callback_metrics["density/total"] == pytest.approx(sparse.density)


def test_a_checkpoint_resumes_the_run_bit_for_bit(whole, tmp_path):
    folder, _, module, sparse = whole
    _, again, resumed = fit(tmp_path, resume=folder / "epoch=1.ckpt")
    assert resumed.history == sparse.history
    for name, value in module.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_a_replaced_step_is_replaced_though_lightning_always_steps_with_a_closure(tmp_path):
    method = regrow.RigL(density=0.2, update_every=1, drop_fraction=0.3, stop_at=1.0)
    trainer, _, sparse = fit(tmp_path, method=method)
    assert len(sparse.history) == 31
    steps_made = {int(state["step"]) for state in trainer.optimizers[0].state.values()}
    assert steps_made == {1}
