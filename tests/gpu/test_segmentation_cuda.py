"""Segmentation on a GPU: precisions, patches cut ahead, layouts, windows, and too little memory."""

import gc
import json
import re

import numpy as np
import pytest
import torch

import regrow
from regrow.lab.run import Run
from regrow.segmentation import E2ENet, PlainConvUNet, ResidualEncoderUNet, feature_fusion
from regrow.segmentation.augment import Augmentation
from regrow.segmentation.inference import predict_scores
from regrow.segmentation.patches import PatchBatches
from regrow.segmentation.samples import Sample
from regrow.studies.segmentation.segment import Segment
from regrow.training.train import start
from tests.segmentation.phantoms import phantom, save

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
pytest.importorskip("nibabel", reason="needs the extra regrow[segmentation]")

SETTING = {
    "data": "organs",
    **{name: feature_fusion(0.3, update_every=3)[name] for name in ("method", "include")},
    "epochs": 2,
    "batches": 4,
    "batch": 2,
    "width": 8,
    "patch": (16, 16, 16),
    "seed": 0,
}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Make a Decathlon folder of five cases, and a cache for what is prepared of them."""
    folder = tmp_path_factory.mktemp("sets") / "organs"
    names = [f"organ_{i}" for i in range(5)]
    for i, name in enumerate(names):
        image, labels = phantom(i, (20, 24, 18))
        save(folder / "imagesTr" / f"{name}.nii.gz", image)
        save(folder / "labelsTr" / f"{name}.nii.gz", labels)
    files = [{"image": f"imagesTr/{n}.nii.gz", "label": f"labelsTr/{n}.nii.gz"} for n in names]
    labels = {"0": "background", "1": "front", "2": "back"}
    listed = {"modality": {"0": "MRI"}, "labels": labels, "training": files, "test": []}
    (folder / "dataset.json").write_text(json.dumps(listed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield folder.parent


@pytest.fixture
def exact():
    """Compute products in float32 as they are written, without TF32."""
    kinds = torch.backends.cudnn, torch.backends.cuda.matmul
    before = [kind.allow_tf32 for kind in kinds]
    for kind in kinds:
        kind.allow_tf32 = False
    yield
    for kind, was in zip(kinds, before, strict=True):
        kind.allow_tf32 = was


def run_of(folder, data, **options):
    folder.mkdir(exist_ok=True)
    kinds = {"data_dir": str(data), "device": "cuda", "keep_weights": True, "graphs": False}
    return Run(folder, kinds | options)


# ---------------------------------------------------------------------- training


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_weights_stay_finite_in_every_precision(precision, graphs, data, tmp_path):
    result = Segment(**SETTING, precision=precision).run(run_of(tmp_path, data, graphs=graphs))
    assert np.isfinite(result["loss"]) and result["dice"] is not None
    weights = torch.load(tmp_path / "weights.pt", map_location="cpu")["model"]
    assert all(weight.isfinite().all() for weight in weights.values())
    assert result["updates"] >= 1
    assert len(list((tmp_path / "predictions").iterdir())) == len(result["by_case"]) == 1


def test_a_run_on_a_gpu_learns_what_one_on_a_cpu_does(data, tmp_path, exact):
    trial = Segment(**SETTING, augment=False)
    losses = [
        trial.run(run_of(tmp_path / device, data, device=device))["loss"]
        for device in ("cpu", "cuda")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


@pytest.mark.parametrize("model", ["nnunet", "nnunet-residual"])
def test_rivals_train_in_bfloat16(model, data, tmp_path):
    setting = SETTING | {"model": model, "method": regrow.Dense(), "include": ()}
    result = Segment(**setting, precision="bfloat16").run(run_of(tmp_path, data))
    assert np.isfinite(result["loss"])


# ---------------------------------------------------------------------- patches


def cases():
    made = []
    for i in range(4):
        image, labels = phantom(i, (18, 22, 17))
        label = torch.from_numpy(labels.astype(np.int8))
        label[0] = -1
        made.append(Sample(str(i), torch.from_numpy(image)[None], label))
    return made


KIND = {"batch": 3, "batches": 5, "seed": 3, "foreground": 0.5}


@pytest.mark.parametrize("regions", [None, [[1, 2], [2]]])
@pytest.mark.parametrize("augmentation", [None, Augmentation(elastic=0.5, noise=0.5)])
def test_patches_cut_ahead_are_those_cut_one_by_one(augmentation, regions, monkeypatch):
    monkeypatch.setattr("regrow.segmentation.patches._RESIDENT", 0)
    kind = KIND | {"augmentation": augmentation, "regions": regions}
    batches = PatchBatches(cases(), (8, 12, 8), **kind, device="cuda")
    for epoch in (0, 1):
        for number, batch in enumerate(batches.epoch(epoch)):
            other = batches._finished(batches._cut(epoch, number))
            assert batch.inputs.is_cuda and batch.targets.is_cuda
            for one, two in ((batch.inputs, other.inputs), (batch.targets, other.targets)):
                assert one.equal(two)
            assert batch.ids.equal(other.ids)
    assert number == 4


@pytest.mark.parametrize("resident", [0, 2**30])
@pytest.mark.parametrize("regions", [None, [[1, 2], [2]]])
def test_patches_are_the_same_on_both_devices(regions, resident, monkeypatch):
    monkeypatch.setattr("regrow.segmentation.patches._RESIDENT", resident)
    there, here = (
        list(PatchBatches(cases(), (8, 12, 8), **KIND, regions=regions, device=device).epoch(1))
        for device in ("cuda", "cpu")
    )
    for one, two in zip(there, here, strict=True):
        assert one.inputs.cpu().equal(two.inputs) and one.targets.cpu().equal(two.targets)


def test_what_turns_and_bends_patches_is_the_same_on_both_devices():
    changes = Augmentation(rotation=1.0, scaling=1.0, elastic=1.0, gamma=1.0, noise=0.0)
    there, here = (
        list(
            PatchBatches(cases(), (8, 12, 8), **KIND, augmentation=changes, device=device).epoch(0)
        )
        for device in ("cuda", "cpu")
    )
    for one, two in zip(there, here, strict=True):
        assert torch.allclose(one.inputs.cpu(), two.inputs, rtol=1e-3, atol=1e-2)
        # A voxel whose nearest neighbour is a matter of rounding may get the other one's label.
        assert (one.targets.cpu() == two.targets).float().mean() > 0.99


# ---------------------------------------------------------------------- networks


NETWORKS = {
    "E2ENet": lambda: E2ENet(1, 3, (6, 12, 24), [(1, 2, 2), 2]),
    "E2ENet, 3×3×3": lambda: E2ENet(1, 3, (6, 12, 24), [(1, 2, 2), 2], shift=0, depth_kernel=3),
    "nnU-Net": lambda: PlainConvUNet(1, 3, (6, 12, 24), [(1, 2, 2), 2]),
    "residual nnU-Net": lambda: ResidualEncoderUNet(
        1, 3, (6, 12, 24), [(1, 2, 2), 2], blocks=(1, 2, 2)
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_may_lie_last(name):
    torch.manual_seed(0)
    model = NETWORKS[name]().cuda().double().eval()
    x = torch.randn(2, 1, 9, 22, 17, device="cuda", dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        last = model.to(memory_format=torch.channels_last_3d)
        found = last(x.contiguous(memory_format=torch.channels_last_3d))
    for one, two in zip(found, expected, strict=True):
        assert one.shape == two.shape and torch.allclose(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NETWORKS)
def test_gradients_are_the_same_where_channels_lie_last(name):
    grads = []
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        torch.manual_seed(0)
        model = NETWORKS[name]().cuda().double().to(memory_format=layout)
        x = torch.randn(2, 1, 8, 16, 16, device="cuda", dtype=torch.float64)
        sum(y.square().mean() for y in model(x.contiguous(memory_format=layout))).backward()
        grads.append([p.grad.clone() for p in model.parameters()])
    for one, two in zip(*grads, strict=True):
        assert torch.allclose(one, two, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("mirror", [(), (0, 2)])
@pytest.mark.parametrize("where", ["cpu", "cuda"])
def test_windows_slide_on_a_gpu_as_on_a_cpu(where, mirror, exact):
    torch.manual_seed(0)
    model = NETWORKS["E2ENet"]().eval()
    model.deep_supervision = False
    image = torch.randn(1, 13, 30, 21)
    expected = predict_scores(model, image, (8, 16, 16), mirror=mirror)
    options = {"mirror": mirror, "device": "cuda"}
    found = predict_scores(model.cuda(), image.to(where), (8, 16, 16), **options)
    assert found.device.type == where
    assert torch.allclose(found.cpu(), expected, rtol=1e-3, atol=1e-3)


# ---------------------------------------------------------------------- memory


@pytest.fixture
def little_memory():
    """Let this process have two gigabytes of the GPU's memory."""
    gc.collect()
    torch.cuda.empty_cache()
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, 2e9 / whole))
    yield
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_patch_that_does_not_fit_is_answered_by_one_that_does(
    optimizer, data, tmp_path, little_memory
):
    setting = SETTING | {"width": 16, "patch": (128, 128, 128), "batches": 2, "epochs": 1}
    setting |= {"optimizer": optimizer, "learning_rate": 0.001}
    before = torch.cuda.memory_allocated()
    said = ""
    try:
        Segment(**setting).run(run_of(tmp_path / "large", data))
    except MemoryError as error:
        said = str(error)
    assert "patches of 128×128×128, 2 a batch, do not fit in the GPU's memory" in said
    gc.collect()
    assert torch.cuda.memory_allocated() - before < 2**26  # a workspace of cuBLAS only
    advised = tuple(map(int, re.search(r"--patch (\d+) (\d+) (\d+) would", said).groups()))
    assert np.prod(advised) < 128**3
    result = Segment(**setting | {"patch": advised}).run(run_of(tmp_path / "fits", data))
    assert np.isfinite(result["loss"])


def test_where_nothing_fits_one_is_told_so(data, tmp_path):
    gc.collect()
    torch.cuda.empty_cache()
    trial = Segment(**SETTING | {"width": 320, "patch": (32, 32, 32), "epochs": 1})
    with torch.device("meta"):
        weights = sum(p.nbytes for p in E2ENet(1, 3, (320,) * 4).parameters())
    whole = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.reset_peak_memory_stats()
    start(trial, trial, run_of(tmp_path / "whole", data))
    began = torch.cuda.max_memory_reserved()
    gc.collect()
    torch.cuda.empty_cache()
    # What a start needs has room, and the momentum beside it has not; then not even a start.
    limits = (
        (began + weights // 20, "nor do smaller ones: lower batch or width"),
        (0.9 * weights, "lower width"),
    )
    try:
        for number, (most, said) in enumerate(limits):
            torch.cuda.set_per_process_memory_fraction(most / whole)
            with pytest.raises(MemoryError, match=said):
                trial.run(run_of(tmp_path / str(number), data))
            gc.collect()
            torch.cuda.empty_cache()
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        gc.collect()
        torch.cuda.empty_cache()
