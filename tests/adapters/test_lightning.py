"""Lightning's own Trainer with the callback: sparse, logged, resumed as if it had not stopped."""

import copy
import warnings

import pytest
import torch

import regrow

pytest.importorskip("lightning", reason="needs the extra regrow[lightning]")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from lightning.fabric import Fabric
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch import callbacks as pl_callbacks
    from lightning.pytorch.callbacks import GradientAccumulationScheduler, ModelCheckpoint

    from regrow.adapters.lightning import SparseTraining
    from regrow.engine.saved import unpack

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


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a trainer without a folder writes where it stands


def make_trainer(*callbacks, **options):
    return Trainer(
        callbacks=list(callbacks),
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def fit(folder, resume=None, method=None):
    callback = SparseTraining(method or regrow.RigL(density=0.2, update_every=3, stop_at=30))
    module = Module()
    every_epoch = ModelCheckpoint(folder, filename="{epoch}", save_top_k=-1)
    trainer = make_trainer(callback, every_epoch, max_epochs=4)
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


class TestFitAgain:
    """It was refused: "model is sparse already"."""

    @pytest.fixture
    def trained(self):
        method = regrow.SET(density=0.2, update_every=3, stop_at=1.0)
        callback, module = SparseTraining(method), Module()
        trainer = make_trainer(callback, max_epochs=1, enable_checkpointing=False)
        trainer.fit(module, loader())
        assert not callback.sparse._handles
        return trainer, module, callback, callback.sparse.masks, method

    def test_the_same_trainer_goes_on(self, trained):
        trainer, module, callback, _, _ = trained
        trainer.fit_loop.max_epochs = 2
        trainer.fit(module, loader())
        assert callback.sparse.steps == callback.sparse.total_steps == 16
        assert [update.step for update in callback.sparse.history] == [3, 6, 9, 12, 15]

    def test_another_trainer_begins_anew_with_the_topology_at_hand(self, trained):
        _, module, callback, masks, _ = trained
        callback.method = regrow.SET(density=0.2, update_every=100)
        make_trainer(callback, max_epochs=1, enable_checkpointing=False).fit(module, loader())
        assert callback.sparse.steps == 8
        assert callback.sparse.history == []
        for name, mask in callback.sparse.masks.items():
            assert mask.equal(masks[name])

    def test_another_module_is_not_given_the_topology_of_the_first(self, trained):
        _, _, callback, _, method = trained
        other = Module()
        alone = SparseTraining(method)
        for one, module in ((callback, other), (alone, Module())):
            make_trainer(one, max_epochs=1, enable_checkpointing=False).fit(module, loader())
        assert callback.sparse.history == alone.sparse.history
        for name, mask in alone.sparse.masks.items():
            assert mask.equal(callback.sparse.masks[name])

    def test_another_callback_may_take_over(self, trained):
        _, module, _, _, _ = trained
        after = SparseTraining(regrow.Static(density=0.5))
        make_trainer(after, max_epochs=1, enable_checkpointing=False).fit(module, loader())
        assert after.sparse.density == pytest.approx(0.5, abs=0.01)


def strays(state, masks):
    """Count the saved weights outside the masks that are not zero."""
    return sum(int(state[name][~mask].count_nonzero()) for name, mask in masks.items())


class TestAveragedWeights:
    """They filled up as the topology moved: 0.45 to 1.0 dense where 0.2 was reported."""

    METHOD = regrow.SET(density=0.2, update_every=3, stop_at=1.0)

    @pytest.mark.parametrize("first", [True, False])
    @pytest.mark.parametrize("kind", ["WeightAveraging", "EMAWeightAveraging", "SWA"])
    def test_lightnings_own_callbacks_write_sparse_weights(self, kind, first, tmp_path):
        average = {
            "WeightAveraging": pl_callbacks.WeightAveraging,
            "EMAWeightAveraging": lambda: pl_callbacks.EMAWeightAveraging(decay=0.9),
            "SWA": lambda: pl_callbacks.StochasticWeightAveraging(0.01, swa_epoch_start=1),
        }[kind]()
        callback, module = SparseTraining(self.METHOD), Module()
        order = (callback, average) if first else (average, callback)
        saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
        make_trainer(*order, saving, max_epochs=4).fit(module, loader(), loader())
        masks = callback.sparse.masks
        assert len(callback.sparse.history) == 10
        assert strays(module.state_dict(), masks) == 0
        for file in tmp_path.glob("*.ckpt"):
            checkpoint = torch.load(file, weights_only=False)
            layers = checkpoint["callbacks"]["SparseTraining-0"]["layers"]
            then = {name: unpack(layers[name]["mask"], masks[name].shape) for name in masks}
            for part in ("state_dict", "current_model_state"):
                assert strays(checkpoint.get(part, checkpoint["state_dict"]), then) == 0, file

    def test_ones_own_average_is_masked_if_it_is_named(self):
        callback, module = SparseTraining(self.METHOD), Module()
        average = torch.optim.swa_utils.AveragedModel(module)

        class Averaging(Callback):
            def on_train_batch_end(self, trainer, pl_module, *_):
                average.update_parameters(pl_module)

        callback.averages.append(average)
        make_trainer(callback, Averaging(), max_epochs=2).fit(module, loader())
        assert strays(average.module.state_dict(), callback.sparse.masks) == 0


def test_weights_of_another_checkpoint_are_refused_or_take_its_topology(tmp_path):
    """The last masks zeroed weights of the best model."""
    method = regrow.SET(density=0.2, update_every=3, stop_at=1.0)
    callback, module = SparseTraining(method), Module()
    saving = ModelCheckpoint(tmp_path, filename="{epoch}", save_top_k=-1)
    make_trainer(callback, saving, max_epochs=4).fit(module, loader())
    best = torch.load(tmp_path / "epoch=0.ckpt", weights_only=False)
    module.load_state_dict(best["state_dict"])
    method = callback.method = regrow.SET(density=0.2, update_every=100)
    options = {"max_epochs": 1, "enable_checkpointing": False}
    with pytest.raises(ValueError, match=r"outside its mask.*callback\.loaded = "):
        make_trainer(callback, **options).fit(module, loader())
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert all(value.equal(best["state_dict"][name]) for name, value in before.items())
    callback.loaded = best["callbacks"]["SparseTraining-0"]
    make_trainer(callback, **options).fit(module, loader())
    for name, mask in callback.sparse.masks.items():
        assert not before[name][~mask].any()


class TestRunsWithoutEnd:
    """Lightning estimates infinitely many steps: that was an OverflowError."""

    @staticmethod
    def fit(**options):
        class Stopping(Module):
            def on_train_epoch_end(self):
                self.trainer.should_stop = True

        callback = SparseTraining(regrow.SET(density=0.2, update_every=2), **options)
        make_trainer(callback, max_epochs=-1, enable_checkpointing=False).fit(Stopping(), loader())
        return callback.sparse

    def test_are_refused_with_what_to_do(self):
        with pytest.raises(ValueError, match=r"total_steps=inf: .*max_steps, or pass total_steps"):
            self.fit()

    def test_may_be_told_how_long_they_are(self):
        sparse = self.fit(total_steps=6)
        assert (sparse.total_steps, sparse.steps) == (6, 8)
        assert [update.step for update in sparse.history] == [2, 4]


def test_callbacks_of_one_class_drive_an_optimizer_each():
    class Two(Module):
        automatic_optimization = False

        def training_step(self, batch, index):
            optimizers = self.optimizers()
            self.manual_backward(super().training_step(batch, index))
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()

        def configure_optimizers(self):
            return [torch.optim.SGD(self.net[i].parameters(), lr=0.1) for i in (0, 2)]

    method = regrow.SET(density=0.2, update_every=2)
    callbacks = [
        SparseTraining(method, optimizer=i, include=f"net.{2 * i}.*", log=False) for i in (0, 1)
    ]
    make_trainer(*callbacks, max_epochs=1, enable_checkpointing=False).fit(Two(), loader())
    assert [list(callback.sparse.masks) for callback in callbacks] == [
        ["net.0.weight"],
        ["net.2.weight"],
    ]
    assert [callback.sparse.steps for callback in callbacks] == [8, 8]


def short(epochs):
    return {"max_epochs": epochs, "enable_checkpointing": False}


class Counted(SparseTraining):
    """Also counts the steps that the optimizer makes."""

    steps = 0

    def on_train_start(self, trainer, pl_module):
        super().on_train_start(trainer, pl_module)
        trainer.optimizers[0].register_step_post_hook(lambda *_: self._count())

    def _count(self):
        self.steps += 1


@pytest.mark.parametrize("scheduling", [{0: 1, 2: 4}, {0: 3}, {1: 2, 3: 8}])
def test_accumulation_that_changes_by_epoch_is_counted(scheduling):
    """Lightning's estimate takes the accumulation at the start for that of all epochs."""
    callback = Counted(regrow.RigL(density=0.2, update_every=3))
    trainer = make_trainer(callback, GradientAccumulationScheduler(scheduling), **short(4))
    trainer.fit(Module(), loader())
    assert callback.sparse.total_steps == callback.steps


def test_accumulation_that_is_changed_by_hand_is_said():
    class Change(Callback):
        def on_train_epoch_start(self, trainer, pl_module):
            trainer.accumulate_grad_batches = 1 if trainer.current_epoch < 1 else 4

    for options, warns in (({}, True), ({"total_steps": 12}, False)):
        callback = SparseTraining(regrow.RigL(density=0.2, update_every=3), **options)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            make_trainer(Change(), callback, **short(2)).fit(Module(), loader())
        words = [str(one.message) for one in said]
        assert any("accumulate_grad_batches was 1" in one for one in words) == warns


def test_fabric_leaves_no_trace_in_names():
    def run(wrap):
        module = Module().net
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.01)
        model, optimizer = wrap(module, optimizer)
        method = regrow.RigL(density=0.2, update_every=3)
        sparse = regrow.sparsify(model, optimizer, method, total_steps=20, exclude=["2.*"])
        for inputs, targets in loader():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()
        return sparse

    plain = run(lambda *both: both)
    fabric = run(Fabric(accelerator="cpu", devices=1).setup)
    assert list(fabric.masks) == list(plain.masks) == ["0.weight"]
    assert torch.equal(fabric.masks["0.weight"], plain.masks["0.weight"])
    assert len(fabric.history) == len(plain.history) > 0


def test_fabric_checkpoints_load_into_a_plain_loop_and_back(tmp_path, caplog):
    """Every step warned of another optimizer: the one inside Fabric's own wrapper."""
    method = regrow.RigL(density=0.2, update_every=3)

    def start(wrap=lambda *both: both):
        module = Module().net
        model, optimizer = wrap(module, torch.optim.AdamW(module.parameters(), lr=0.01))
        return model, optimizer, regrow.sparsify(model, optimizer, method, total_steps=40)

    def steps(model, optimizer):
        for inputs, targets in loader():
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(inputs), targets).backward()
            optimizer.step()

    def states(parts):
        return [copy.deepcopy(one.state_dict()) for one in parts]

    def same(one, other):
        return all(
            a.equal(b) for a, b in zip(one[0].values(), other[0].values(), strict=True)
        ) and str(one[2]["history"]) == str(other[2]["history"])

    fabric = Fabric(accelerator="cpu", devices=1)
    with caplog.at_level("WARNING", "regrow"):
        parts = start(fabric.setup)
        steps(*parts[:2])
        names = ("model", "optimizer", "sparse")
        fabric.save(tmp_path / "saved.ckpt", dict(zip(names, parts, strict=True)))
        steps(*parts[:2])
        plain, back = start(), start(fabric.setup)
        saved = torch.load(tmp_path / "saved.ckpt", weights_only=True)
        for name, part in zip(names, plain, strict=True):
            part.load_state_dict(saved[name])
        fabric.load(tmp_path / "saved.ckpt", dict(zip(names, back, strict=True)))
        steps(*plain[:2])
        steps(*back[:2])
    assert same(states(plain), states(parts))
    assert same(states(back), states(parts))
    assert len(plain[2].history) > 3
    assert not caplog.records
