"""nnU-Net v2 by its own command lines: plan, train, killed and continued, validate, predict.

Real hippocampus cases on the CPU, with a plan of few channels; a few minutes.
"""

import importlib.util
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch

import regrow
from regrow.adapters.nnunet import e2enet_of, trainers_folder
from regrow.engine.saved import unpack
from regrow.segmentation import channel_links, feature_fusion, pack

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore"),  # of nnU-Net's own making
    pytest.mark.skipif(
        importlib.util.find_spec("nnunetv2") is None, reason="needs the package nnunetv2"
    ),
]

NAME = "Dataset004_Hippocampus"

# What a user would write: an own class, of ours and of one of nnU-Net's. First weights and batches
# are the same in every run, so that runs can be compared; one thread, so that none waits.
TRAINERS = """
import os, random, signal
import numpy as np, torch
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import (
    nnUNetTrainerNoDA,
)
from regrow.adapters.nnunet import E2ENetTraining

class Short(E2ENetTraining, nnUNetTrainerNoDA):
    density = 0.3

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):
        super().__init__(plans, configuration, fold, dataset_json, device)
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.num_epochs, self.num_iterations_per_epoch = 2, 4
        self.num_val_iterations_per_epoch = self.save_every = 1

    def on_epoch_start(self):
        super().on_epoch_start()
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(self.current_epoch)

    def train_step(self, batch):
        if os.environ.get("KILLED") and self.sparse.steps == 6:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().train_step(batch)
"""

# torchvision built for a GPU cannot be imported beside torch for the CPU, and nnU-Net imports it,
# for transformers that no test trains, whenever it looks for trainers.
NO_VISION = """
import torch
for name in ("nms", "qnms"):
    torch.library.define(f"torchvision::{name}", "(Tensor a, Tensor b, float c) -> Tensor")
"""

DDP = """
import os, sys, torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from nnunetv2.run.run_training import get_trainer_from_args
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as module

# nnU-Net's ranks have a GPU each; here they share the CPU.
module.DDP = lambda network, device_ids: DistributedDataParallel(network)
module.torch.device = lambda *a, device=torch.device, **k: device("cpu")
torch.set_num_threads(1)
dist.init_process_group("gloo")
trainer = get_trainer_from_args("4", "3d_fullres", 0, "Short", device="cpu")
trainer.grad_scaler, trainer.num_epochs, trainer.save_every = None, 1, 1
trainer._do_i_compile = lambda: False
seed = dist.get_rank() + 7
def on_epoch_start():
    import numpy, random
    for one in (random.seed, numpy.random.seed, torch.manual_seed):
        one(seed)
    trainer.logger.log("epoch_start_timestamps", 0, 0)
trainer.on_epoch_start = on_epoch_start
trainer.run_training()
assert trainer.is_ddp and type(trainer.network) is DistributedDataParallel
mine = [mask.tolist() for mask in trainer.sparse.masks.values()]
mine += [weight.tolist() for weight in trainer.network.parameters()]
others = [None, None]
dist.all_gather_object(others, mine)
assert others[0] == others[1] == mine
assert trainer.sparse.history
print("rank", dist.get_rank(), "agrees")
dist.destroy_process_group()
"""


def torchvision_is_broken():
    if importlib.util.find_spec("torchvision") is None:
        return False
    asked = [sys.executable, "-c", "import torchvision"]
    return subprocess.run(asked, capture_output=True, check=False).returncode != 0


@pytest.fixture(scope="module")
def place(tmp_path_factory, real_data):
    """A folder with a data set in nnU-Net's raw format, planned and preprocessed by nnU-Net."""
    source = Path(real_data) / "hippocampus"
    if not source.is_dir():
        pytest.skip("$REGROW_DATA has no hippocampus")
    assert [int(part) for part in version("nnunetv2").split(".")[:2]] >= [2, 8]
    place = tmp_path_factory.mktemp("nnunet")
    raw = place / "raw" / NAME
    listed = json.loads((source / "dataset.json").read_text())["training"][:11]
    for folder in (raw / "imagesTr", raw / "labelsTr", raw / "imagesTs"):
        folder.mkdir(parents=True)
    for i, case in enumerate(listed):
        name = Path(case["image"]).name.removesuffix(".nii.gz")
        images = raw / ("imagesTs" if i == 10 else "imagesTr")
        shutil.copy(source / case["image"], images / f"{name}_0000.nii.gz")
        if i < 10:
            shutil.copy(source / case["label"], raw / "labelsTr" / f"{name}.nii.gz")
    described = {
        "channel_names": {"0": "MRI"},
        "labels": {"background": 0, "anterior": 1, "posterior": 2},
        "numTraining": 10,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(described))
    (place / "mine").mkdir()
    (place / "mine" / "short_trainers.py").write_text(TRAINERS)
    if torchvision_is_broken():
        (place / "shim").mkdir()
        (place / "shim" / "sitecustomize.py").write_text(NO_VISION)
    # Its planner cannot do without a process for augmentation.
    nnunet(place, "plan_and_preprocess", "-d", "4", "-c", "3d_fullres", "-npfp", "1", "-np", "1",
           nnUNet_n_proc_DA="1")  # fmt: skip
    plans = place / "preprocessed" / NAME / "nnUNetPlans.json"
    text = json.loads(plans.read_text())
    network = text["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    assert network["features_per_stage"] == [32, 64, 128, 256]
    network["features_per_stage"] = [8, 16, 16, 16]
    plans.write_text(json.dumps(text))
    return place


def environment(place, results="results", **more):
    paths = [str(place / "shim"), str(Path(regrow.__file__).parents[1])]
    return {
        **os.environ,
        "nnUNet_raw": str(place / "raw"),
        "nnUNet_preprocessed": str(place / "preprocessed"),
        "nnUNet_results": str(place / results),
        "nnUNet_extTrainer": os.pathsep.join([str(trainers_folder()), str(place / "mine")]),
        "nnUNet_n_proc_DA": "0",
        "nnUNet_def_n_proc": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(paths),
        **more,
    }


def nnunet(place, command, *arguments, fails=0, results="results", **more):
    """Call nnU-Net as its users do; return what it printed."""
    program = str(Path(sys.executable).parent / f"nnUNetv2_{command}")
    env = environment(place, results, **more)
    done = subprocess.run(
        [program, *arguments], capture_output=True, text=True, env=env, check=False
    )
    assert done.returncode == fails, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


def train(place, *arguments, **more):
    return nnunet(place, "train", "4", "3d_fullres", "0", "-tr", "Short", "-device", "cpu",
                  *arguments, **more)  # fmt: skip


def fold_of(place, results="results", trainer="Short"):
    return place / results / NAME / f"{trainer}__nnUNetPlans__3d_fullres" / "fold_0"


def checkpoint_of(place, *where):
    path = fold_of(place, *where) / "checkpoint_final.pth"
    return torch.load(path, map_location="cpu", weights_only=False)  # NumPy numbers in its log


@pytest.fixture(scope="module")
def trained(place):
    """The same folder, after two epochs and validation."""
    said = train(place)
    assert "7 updates" in said and "Mean Validation Dice" in said
    return place


def test_the_checkpoint_holds_masks_of_exact_counts_and_zeros_outside_them(trained):
    checkpoint = checkpoint_of(trained)
    weights, topology = checkpoint["network_weights"], checkpoint["optimizer_state"]["topology"]
    assert checkpoint["trainer_name"] == "Short" and topology["steps"] == 8
    assert len(topology["layers"]) == 15  # six nodes: their up-sampling, six and three blocks
    for name, layer in topology["layers"].items():
        mask = unpack(layer["mask"], tuple(weights[name].shape))
        kernels = mask.flatten(2).any(2)
        assert mask.flatten(2).all(2).equal(kernels), "whole kernels only"
        assert int(kernels.sum()) == round(0.3 * kernels.numel())
        assert not weights[name][~mask].any() and weights[name][mask].any()
    assert len(topology["history"]) >= 6


def test_a_killed_run_goes_on_bit_for_bit(trained):
    train(trained, results="killed", fails=-signal.SIGKILL, KILLED="1")
    files = {path.name for path in fold_of(trained, "killed").glob("*.pth")}
    assert "checkpoint_latest.pth" in files and "checkpoint_final.pth" not in files
    train(trained, "--c", results="killed")
    whole, resumed = checkpoint_of(trained), checkpoint_of(trained, "killed")
    for part in ("network_weights", "optimizer_state"):
        assert equal(resumed[part], whole[part])
    assert resumed["logging"]["train_losses"] == whole["logging"]["train_losses"]


def equal(one, other):
    if isinstance(one, torch.Tensor):
        return one.equal(other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(equal(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(equal, one, other))
    return one == other


def test_validation_alone_finds_the_same(trained):
    summary = fold_of(trained) / "validation" / "summary.json"
    before = json.loads(summary.read_text())["foreground_mean"]
    summary.unlink()
    train(trained, "--val")
    assert json.loads(summary.read_text())["foreground_mean"] == before


def test_predictions_are_those_of_the_trained_network_in_their_inputs_geometry(trained):
    nibabel = pytest.importorskip("nibabel")
    raw, scans, out = trained / "raw" / NAME, trained / "scans", trained / "predicted"
    scans.mkdir()
    validated = sorted((fold_of(trained) / "validation").glob("*.nii.gz"))
    seen = [raw / "imagesTr" / path.name.replace(".nii", "_0000.nii") for path in validated]
    unseen = next((raw / "imagesTs").iterdir())
    for path in (*seen, unseen):
        shutil.copy(path, scans)
    nnunet(trained, "predict", "-i", str(scans), "-o", str(out), "-d", "4", "-c", "3d_fullres",
           "-tr", "Short", "-f", "0", "-device", "cpu", "-npp", "1", "-nps", "1")  # fmt: skip
    for path in scans.iterdir():
        image = nibabel.load(path)
        labels = nibabel.load(out / path.name.replace("_0000", ""))
        assert labels.shape == image.shape
        np.testing.assert_allclose(labels.affine, image.affine, atol=1e-5)
        assert set(np.unique(labels.dataobj)) <= {0, 1, 2}
    for path in validated:
        shown, again = (np.asarray(nibabel.load(p).dataobj) for p in (path, out / path.name))
        assert (shown == again).mean() > 0.999 and shown.any()


@pytest.fixture
def inside(trained, monkeypatch):
    """nnU-Net in this process."""
    for name, value in environment(trained, "inside").items():
        monkeypatch.setenv(name, value)
    shim = trained / "shim" / "sitecustomize.py"
    if shim.exists() and not hasattr(torch.ops.torchvision, "qnms"):
        exec(shim.read_text())
    from nnunetv2.run import run_training

    def trainer_of(name):
        return run_training.get_trainer_from_args(
            "4", "3d_fullres", 0, name, device=torch.device("cpu")
        )

    return trainer_of


def test_the_documented_class_is_found(inside, trained):
    page = (Path(__file__).parents[2] / "docs" / "segmentation.md").read_text("utf-8")
    (code,) = (block for block in re.findall(r"^```py\n(.*?)^```", page, re.M | re.S)
               if "nnUNetTrainer_250epochs" in block)  # fmt: skip
    (trained / "mine" / "documented.py").write_text(code)
    trainer = inside("nnUNetTrainerE2ENet_d10_250epochs")
    assert (trainer.num_epochs, trainer.total_steps()) == (250, 62_500)
    assert trainer.sparsity() == feature_fusion(0.1, update_every=312)


@pytest.mark.parametrize(
    ("name", "pattern"),
    [
        ("nnUNetTrainerE2ENet", "Kernel"),
        ("nnUNetTrainerE2ENetLinks", "InputChannel"),
        ("nnUNetTrainerRigL", "Element"),
    ],
)
def test_our_trainers_are_found_by_name_and_train(inside, trained, name, pattern):
    trainer = inside(name)
    trainer.num_epochs, trainer.num_iterations_per_epoch = 1, 2
    trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    sparse, saved = trainer.sparse, checkpoint_of(trained, "inside", name)
    assert type(sparse.method.pattern).__name__ == pattern
    assert saved["optimizer_state"]["topology"]["steps"] == 2
    for weight, mask in sparse.masks.items():
        assert not saved["network_weights"][weight][~mask].any()
    built = type(trainer).build_network_architecture(
        trainer.plans_manager, trainer.configuration_manager, 1, 3, enable_deep_supervision=False
    )
    built.load_state_dict(saved["network_weights"])
    if pattern == "InputChannel":
        compare_with_packed(trained, name, saved)


def compare_with_packed(place, name, saved):
    """Do what the page on segmentation tells: nnU-Net's checkpoint, packed, says the same."""
    plans = json.loads((fold_of(place, "inside", name).parent / "plans.json").read_text())
    model = e2enet_of(plans["configurations"]["3d_fullres"], 1, 3)
    model.load_state_dict(saved["network_weights"])
    optimizer, topology = torch.optim.SGD(model.parameters()), saved["optimizer_state"]["topology"]
    sparse = regrow.sparsify(model, optimizer, **channel_links(0.2), total_steps=1, state=topology)
    packed, x = pack(model, sparse.masks), torch.randn(1, 1, 16, 16, 16)
    assert sum(w.numel() for w in packed.parameters()) < sum(w.numel() for w in model.parameters())
    torch.testing.assert_close(packed(x)[0], model(x)[0], atol=1e-4, rtol=1e-4)


def test_pretrained_weights_keep_their_topology(inside, trained):
    from nnunetv2.run.load_pretrained_weights import load_pretrained_weights

    trainer = inside("Short")
    trainer.initialize()
    load_pretrained_weights(trainer.network, fold_of(trained) / "checkpoint_final.pth")
    trainer.on_train_start()
    assert equal(trainer.network.state_dict(), checkpoint_of(trained)["network_weights"])


def test_slices_are_refused_by_name(inside, trained):
    trainer = inside("Short")
    trainer.configuration_manager.configuration["spacing"] = [1.0, 1.0]
    with pytest.raises(ValueError, match="3d_fullres or 3d_lowres"):
        trainer.initialize()


def test_a_checkpoint_is_a_plain_e2enet(trained):
    plans = json.loads((fold_of(trained).parent / "plans.json").read_text())
    model = e2enet_of(plans["configurations"]["3d_fullres"], 1, 3)
    model.load_state_dict(checkpoint_of(trained)["network_weights"])
    assert model.channels == (12, 24, 24, 24) and model.axis == 0


def test_ranks_agree(trained):
    script = trained / "ranks.py"
    script.write_text(DDP)
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
    ]
    done = subprocess.run([*launch, str(script)], capture_output=True, text=True, check=False,
                          env=environment(trained, "ranks"))  # fmt: skip
    assert done.stdout.count("agrees") == 2, done.stdout[-3000:] + done.stderr[-3000:]
    assert (fold_of(trained, "ranks") / "checkpoint_final.pth").exists()
