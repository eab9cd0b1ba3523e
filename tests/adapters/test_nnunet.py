"""What goes into nnU-Net's trainer, with a stand-in for it: nnunetv2 itself is not needed here."""

import copy
import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

import regrow
from regrow.adapters.nnunet import E2ENetTraining, SparseTraining, e2enet_of, trainers_folder
from regrow.cli.segment import segment_nnunet
from regrow.segmentation import feature_fusion

FEATURES, STRIDES = [32, 64, 128, 256, 320, 320], [[1, 1, 1], [1, 2, 2], *[[2, 2, 2]] * 4]


def plan(features=FEATURES, strides=STRIDES, spacing=(3.0, 0.8, 0.8)):
    network = {"features_per_stage": list(features), "strides": [list(s) for s in strides]}
    architecture = {"network_class_name": "unet.PlainConvUNet", "arch_kwargs": network}
    return {"spacing": list(spacing), "architecture": architecture}


SMALL = plan([4, 8, 8], STRIDES[:3])


class Configuration:
    configuration = SMALL
    pool_op_kernel_sizes = STRIDES[:3]


class Loss(torch.nn.Module):
    def __init__(self, weight_factors):
        super().__init__()
        self.weight_factors = tuple(weight_factors)

    def forward(self, outputs, targets):
        assert len(outputs) == len(targets) == len(self.weight_factors)
        parts = zip(self.weight_factors, outputs, targets, strict=True)
        return sum(w * functional.cross_entropy(o, t) for w, o, t in parts)


class Trainer:
    """nnU-Net's trainer in what ours overrides: who calls what, in which order."""

    compiled = False

    def __init__(self, epochs=3):
        self.num_epochs, self.num_iterations_per_epoch, self.current_epoch = epochs, 4, 0
        self.configuration_manager, self.enable_deep_supervision = Configuration(), True
        self.network, self.said = None, []

    def print_to_log_file(self, text):
        self.said.append(text)

    def initialize(self):
        torch.manual_seed(0)
        self.network = self.build_network_architecture(
            None, self.configuration_manager, 1, 3, self.enable_deep_supervision
        )
        if self.compiled:
            self.network = torch.compile(self.network, backend="eager")
        self.optimizer, self.lr_scheduler = self.configure_optimizers()
        self.loss = self._build_loss()

    def configure_optimizers(self):
        return torch.optim.SGD(self.network.parameters(), 0.01, 0.99, nesterov=True), None

    def _get_deep_supervision_scales(self):
        if not self.enable_deep_supervision:
            return None
        strides = np.vstack(self.configuration_manager.pool_op_kernel_sizes)
        return [list(one) for one in 1 / np.cumprod(strides, axis=0)][:-1]

    def _build_loss(self):
        if not self.enable_deep_supervision:
            return functional.cross_entropy
        weights = np.array([1 / 2**i for i in range(len(self._get_deep_supervision_scales()))])
        weights[-1] = 0
        return Loss(weights / weights.sum())

    def on_train_start(self):
        if self.network is None:
            self.initialize()
        self.set_deep_supervision_enabled(self.enable_deep_supervision)

    def on_train_epoch_end(self, train_outputs):
        self.said.append(f"loss {np.mean(train_outputs)}")

    def on_train_end(self):
        self.saved = self.checkpoint()

    def train_step(self, step):
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(2, 1, 4, 8, 8, generator=generator)
        y = (x[:, 0] > 0).long()
        targets = y
        if scales := self._get_deep_supervision_scales():
            targets = [functional.interpolate(y[:, None].float(), scale_factor=s) for s in scales]
            targets = [target.long()[:, 0] for target in targets]
        self.optimizer.zero_grad()
        loss = self.loss(self.network(x), targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), 12)
        self.optimizer.step()
        return loss.item()

    def run_training(self, until=None):
        self.on_train_start()
        for epoch in range(self.current_epoch, self.num_epochs):
            steps = range(epoch * 4, epoch * 4 + 4)
            self.on_train_epoch_end([self.train_step(step) for step in steps])
            self.current_epoch += 1
            if self.current_epoch == until:
                return self
        self.on_train_end()
        return self

    def checkpoint(self):
        state = {
            "network_weights": self.network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "current_epoch": self.current_epoch,
        }
        return copy.deepcopy(state)

    def load_checkpoint(self, checkpoint):
        if self.network is None:
            self.initialize()
        self.current_epoch = checkpoint["current_epoch"]
        self.network.load_state_dict(checkpoint["network_weights"])
        self.optimizer.load_state_dict(checkpoint["optimizer_state"])


class Fusion(E2ENetTraining, Trainer):
    pass


class Plain(SparseTraining, Trainer):
    density = 0.5

    @staticmethod
    def build_network_architecture(plans_manager, configuration_manager, n, m, enable=True):
        return e2enet_of(SMALL, n, m, deep_supervision=enable)

    def set_deep_supervision_enabled(self, enabled):
        self.network.deep_supervision = enabled


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.equal(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


# ---------------------------------------------------------------------- the network of a plan


def test_nnunets_usual_plan_gives_the_papers_network():
    with torch.device("meta"):
        made = e2enet_of(plan(strides=[[1] * 3, *[[2] * 3] * 5]), 1, 16)
        papers = regrow.segmentation.E2ENet(1, 16)
    shapes = {name: weight.shape for name, weight in papers.named_parameters()}
    assert {name: weight.shape for name, weight in made.named_parameters()} == shapes
    assert f"{sum(w.numel() for w in made.parameters()) / 1e6:.3f}" == "23.899"


@pytest.mark.parametrize(
    ("spacing", "axis"), [((3, 1, 1), 0), ((1, 3, 1), 1), ((1, 1, 3), 2), ((1, 1, 1), 0)]
)
def test_kernels_are_flat_along_the_coarsest_spacing(spacing, axis):
    model = e2enet_of(plan(FEATURES[:3], STRIDES[:3], spacing), 2, 3)
    assert model.axis == axis and model.in_channels == 2
    kernel = model.encoder[0][0].conv.kernel_size
    assert [side for i, side in enumerate(kernel) if i != axis] == [3, 3] and kernel[axis] == 1


@pytest.mark.parametrize(
    ("features", "channels"),
    [
        ([32, 64, 128, 256], (48, 96, 192, 320)),
        ([16, 32, 64], (24, 48, 96)),
        ([32, 64, 128, 256, 512], (48, 96, 192, 384, 512)),
    ],
)
def test_channels_are_wider_up_to_the_papers_largest_or_the_plans_own(features, channels):
    with torch.device("meta"):
        assert e2enet_of(plan(features, STRIDES[: len(features)]), 1, 2).channels == channels


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        (plan(spacing=(1.0, 1.0)), "2 axes.*3d_fullres"),
        (plan(strides=[[2, 2, 2], *STRIDES[1:]]), "below full resolution"),
        (
            {"spacing": [1] * 3, "architecture": {"network_class_name": "P", "arch_kwargs": {}}},
            "P has no features_per_stage and no strides: use plans of a U-Net",
        ),
        (plan(strides=STRIDES[:4]), "6 levels need 5"),
    ],
)
def test_a_plan_that_gives_no_lattice_is_refused(bad, said):
    with pytest.raises(ValueError, match=said):
        e2enet_of(bad, 1, 2)


# ---------------------------------------------------------------------- training


def test_the_loss_weighs_e2enets_outputs_and_not_nnunets():
    trainer = Fusion().run_training()
    assert trainer.loss.weight_factors == pytest.approx((2 / 3, 1 / 3))

    class Deep(Fusion):
        def __init__(self):
            super().__init__()
            self.configuration_manager.configuration = plan([4] * 6)
            self.configuration_manager.pool_op_kernel_sizes = STRIDES

    deep = Deep()
    deep.initialize()  # nnU-Net has five outputs here, of which it leaves out the last
    assert deep.loss.weight_factors == pytest.approx([w / 15 for w in (8, 4, 2, 1)])
    assert len(deep._get_deep_supervision_scales()) == 4
    deep.set_deep_supervision_enabled(False)
    assert deep.network(torch.zeros(1, 1, 32, 64, 64)).shape == (1, 3, 32, 64, 64)


def test_without_deep_supervision_there_is_one_output():
    trainer = Fusion()
    trainer.enable_deep_supervision = False
    trainer.run_training()
    assert trainer._get_deep_supervision_scales() is None and trainer.sparse.history


def test_it_trains_sparse_fusion_to_the_end_and_lets_go():
    trainer = Fusion().run_training()
    sparse = trainer.sparse
    assert sparse.method == feature_fusion(0.2, update_every=1)["method"]
    assert (sparse.steps, sparse.total_steps) == (12, 12)
    # At the last of eleven the share has fallen below one kernel of any layer.
    assert [update.step for update in sparse.history] == list(range(1, 11))
    for name, mask in sparse.masks.items():
        kernels = mask.flatten(2).any(2)
        assert int(kernels.sum()) == round(0.2 * kernels.numel())
        assert not trainer.network.get_parameter(name)[~mask].any()
    assert f"density {sparse.density:.4f}, 10 updates" in trainer.said
    with pytest.raises(RuntimeError, match="remove"):
        sparse.update_()


@pytest.mark.parametrize("kind", [Fusion, Plain])
def test_a_run_goes_on_from_its_checkpoint_bit_for_bit(kind, tmp_path):
    whole = kind().run_training().saved
    torch.save(kind().run_training(until=2).checkpoint(), tmp_path / "latest.pth")
    resumed = kind()
    resumed.load_checkpoint(torch.load(tmp_path / "latest.pth", weights_only=True))
    assert equal(resumed.run_training().saved, whole)
    assert whole["optimizer_state"]["topology"]["steps"] == 12
    # Loaded for validation, and written once more.
    shown = kind()
    shown.load_checkpoint(whole)
    assert shown.sparse is None and equal(shown.checkpoint(), whole)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.compile's own
def test_a_compiled_network_is_looked_into():
    class Compiled(Fusion):
        compiled = True

    trainer, plain = Compiled().run_training(), Fusion().run_training()
    assert equal(trainer.network._orig_mod.state_dict(), plain.network.state_dict())
    assert equal(trainer.sparse.state_dict(), plain.sparse.state_dict())
    trainer.set_deep_supervision_enabled(False)
    assert isinstance(trainer.network(torch.zeros(1, 1, 4, 8, 8)), torch.Tensor)


def test_a_finished_run_that_is_continued_stays_as_it_is():
    whole = Fusion().run_training().saved
    again = Fusion()
    again.load_checkpoint(whole)
    assert equal(again.run_training().saved, whole)


def test_a_checkpoint_without_topology_is_not_trained_on():
    checkpoint = Fusion().run_training(until=1).checkpoint()
    del checkpoint["optimizer_state"]["topology"]
    trainer = Fusion()
    trainer.load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="epoch 1 has no topology: it was not written by Fusion"):
        trainer.run_training()
    assert equal(trainer.network.state_dict(), checkpoint["network_weights"])


def test_a_checkpoint_of_another_density_is_not_trained_on():
    checkpoint = Fusion().run_training(until=1).checkpoint()

    class Denser(Fusion):
        density = 0.4

    trainer = Denser()
    trainer.load_checkpoint(checkpoint)
    with pytest.raises(ValueError, match="use the same method"):
        trainer.run_training()


def test_pretrained_weights_begin_with_the_largest_and_fresh_ones_at_random():
    fresh = Fusion()
    fresh.on_train_start()
    assert fresh.sparse.method.start is None

    trained = Fusion().run_training().network.state_dict()
    tuned = Fusion()
    tuned.initialize()
    tuned.network.load_state_dict(trained)
    tuned.on_train_start()
    # They were as sparse: nothing of them is lost.
    assert equal(tuned.network.state_dict(), trained)
    assert not any(tuned.sparse.masks[n].equal(mask) for n, mask in fresh.sparse.masks.items())


def test_a_dense_method_takes_pretrained_weights_as_they_are():
    class Dense(Plain):
        def sparsity(self):
            return {"method": regrow.Dense()}

    trainer = Dense()
    trainer.initialize()
    trainer.network.load_state_dict(e2enet_of(SMALL, 1, 3).state_dict())
    trainer.run_training()
    assert trainer.sparse.density == 1


# ---------------------------------------------------------------------- how nnU-Net finds it


@pytest.mark.parametrize("found", ["2.8.0", "2.8.1", "2.10", "3.0.0rc1"])
def test_the_command_prints_the_folder_of_the_trainers(found, monkeypatch, capsys):
    monkeypatch.setattr("regrow.adapters.nnunet.version", lambda name: found)
    segment_nnunet()
    folder = Path(capsys.readouterr().out.removesuffix("\n"))
    assert [path.name for path in folder.glob("*.py")] == ["regrow_trainers.py"]


@pytest.mark.parametrize("found", [None, "2.7.0", "1.7.1"])
def test_an_nnunet_that_would_not_look_there_is_named(found, monkeypatch):
    def version(name):
        if found is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr("regrow.adapters.nnunet.version", version)
    with pytest.raises(ImportError, match=rf"{found or 'not installed'}.*needed is 2\.8.*torch=="):
        trainers_folder()
