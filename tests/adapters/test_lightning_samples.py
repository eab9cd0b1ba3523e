"""The same three lines in Lightning's own Trainer; stopped in mid-epoch, it goes on as it was."""

import warnings

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from regrow.samples import Cyclic, Hard, RootLoss, Samples

pytest.importorskip("lightning", reason="needs the extra regrow[lightning]")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lightning.pytorch import LightningModule, Trainer
    from lightning.pytorch.callbacks import ModelCheckpoint

    from regrow.adapters.lightning_samples import SampleTraining

pytestmark = pytest.mark.filterwarnings("ignore")  # of Lightning's own making

N = 40


def data():
    generator = torch.Generator().manual_seed(1)
    inputs = torch.randn(N, 8, generator=generator)
    return TensorDataset(inputs, inputs[:, :4].argmax(1))


class Module(LightningModule):
    def __init__(self, samples):
        super().__init__()
        torch.manual_seed(0)
        self.net, self.samples, self.log_of = torch.nn.Linear(8, 4), samples, []

    def training_step(self, batch, index):
        (inputs, targets), ids = batch
        losses = torch.nn.functional.cross_entropy(self.net(inputs), targets, reduction="none")
        self.samples.update(ids, losses)
        self.log_of.append((self.current_epoch, ids.tolist()))
        return (losses * self.samples.weights(ids)).mean()

    def validation_step(self, batch, index):
        self.log("validated", float(len(batch[0])), reduce_fx="sum")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a trainer without a folder writes where it stands


def make(criterion=None, **options):
    return Samples(N, criterion or RootLoss(), **{"keep": 0.5, "epochs": 4} | options)


def loader(samples, kind="sampler"):
    of = samples.with_ids(data())
    if kind == "sampler":
        return DataLoader(of, batch_size=4, sampler=samples.sampler())
    return DataLoader(of, batch_sampler=samples.batch_sampler(4))


def trainer(*callbacks, **options):
    return Trainer(
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def plain_loop(samples, epochs):
    module = Module(samples)
    optimizer = module.configure_optimizers()
    for epoch in range(epochs):
        for (inputs, targets), ids in loader(samples):
            losses = torch.nn.functional.cross_entropy(
                module.net(inputs), targets, reduction="none"
            )
            samples.update(ids, losses)
            module.log_of.append((epoch, ids.tolist()))
            optimizer.zero_grad()
            (losses * samples.weights(ids)).mean().backward()
            optimizer.step()
    return module


@pytest.mark.parametrize("kind", ["sampler", "batch_sampler"])
def test_lightning_trains_as_a_plain_loop_does(kind):
    samples = make(warmup=1, anneal=1)
    callback, module = SampleTraining(samples), Module(samples)
    run = trainer(callback, max_epochs=4)
    run.fit(module, loader(samples, kind), DataLoader(data(), batch_size=7))
    plain = plain_loop(make(warmup=1, anneal=1), 4)
    assert module.log_of == plain.log_of
    assert len(module.log_of) == samples.steps(4) == 10 + 5 + 5 + 10
    torch.testing.assert_close(module.net.weight, plain.net.weight, rtol=0, atol=0)
    assert run.callback_metrics["samples/kept"] == N
    assert run.callback_metrics["validated"] == N  # evaluation sees all
    assert samples.progress == 1.0


@pytest.mark.parametrize("stop", [1, 6, 10, 13])
def test_a_checkpoint_in_mid_epoch_goes_on_as_it_was(tmp_path, stop):
    whole = Module(make())
    trainer(SampleTraining(whole.samples), max_epochs=4).fit(whole, loader(whole.samples))

    part = Module(make())
    saver = ModelCheckpoint(dirpath=tmp_path, every_n_train_steps=stop, save_top_k=-1)
    callback = SampleTraining(part.samples)
    run = trainer(callback, saver, max_steps=stop, max_epochs=-1)
    run.fit(part, loader(part.samples))
    path = next(tmp_path.glob("*.ckpt"))

    rest = Module(make())
    run = trainer(SampleTraining(rest.samples), max_epochs=4)
    run.fit(rest, loader(rest.samples), ckpt_path=str(path))
    assert [ids for _, ids in part.log_of + rest.log_of] == [ids for _, ids in whole.log_of]
    torch.testing.assert_close(rest.net.weight, whole.net.weight, rtol=0, atol=0)
    assert str(rest.samples.state_dict()) == str(whole.samples.state_dict())


def test_a_loader_without_the_sampler_is_refused():
    samples = make()
    with pytest.raises(ValueError, match="does not have a sampler of these samples"):
        trainer(SampleTraining(samples), max_epochs=1).fit(
            Module(samples), DataLoader(samples.with_ids(data()), batch_size=4)
        )


def test_evaluation_on_chosen_samples_is_refused():
    samples = make()
    with pytest.raises(ValueError, match="evaluate on all data"):
        trainer(SampleTraining(samples), max_epochs=1).fit(
            Module(samples), loader(samples), loader(samples)
        )


def test_a_second_training_needs_new_samples():
    samples = make(Cyclic())
    trainer(SampleTraining(samples), max_epochs=2).fit(Module(samples), loader(samples))
    with pytest.raises(ValueError, match="for another training make new Samples"):
        trainer(SampleTraining(samples), max_epochs=2).fit(Module(samples), loader(samples))


def test_losses_that_never_come_are_noticed():
    class Forgetful(Module):
        def training_step(self, batch, index):
            return self.net(batch[0][0]).sum()

    samples = make(Hard())
    with pytest.raises(ValueError, match=r"call samples\.update"):
        trainer(SampleTraining(samples), max_epochs=2).fit(Forgetful(samples), loader(samples))
