"""Agents that see, on a GPU: graphs equal eager calls, bfloat16 is sane, frames stay there."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from regrow.control import graphs
from regrow.control.pixels.agent import PixelAgent
from regrow.control.pixels.augment import Augment
from regrow.control.pixels.dot import Dot
from regrow.control.pixels.eyes import Eyes, frames_of
from regrow.control.pixels.frames import Frames
from regrow.control.pixels.masker import Masker
from regrow.control.pixels.method import PIXEL_METHODS
from regrow.control.pixels.networks import aligned, initialise_
from regrow.control.pixels.setting import PixelSetting
from regrow.control.pixels.train import train_from_pixels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

GPU, CPU = torch.device("cuda"), torch.device("cpu")
SETTING = PixelSetting(
    steps=60, seed_steps=20, size=32, layers=4, filters=8, projection=16, width=32, batch=8,
    soda_batch=8, shift=2, evaluate_every=30, episodes=1, precision="float32",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _exact():
    """No TF32: what is compared is to agree to float32's digits."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def filled(method, device, size=32, steps=60):
    random = np.random.default_rng(0)
    kind = PIXEL_METHODS[method]
    channels, side = 4 if kind.mask == "segmentation" else 3, kind.rendered(size)
    ring = Frames(2 * steps, channels, side, 2, device)

    def frame():
        return torch.from_numpy(random.integers(0, 256, (channels, side, side), dtype=np.uint8))

    for step in range(steps):
        if step % 10 == 0:
            ring.begin_(frame())
        action = torch.from_numpy(random.uniform(-1, 1, 2)).float()
        ring.add_(action.to(device), float(random.normal()), False, frame())
    return ring


def photos(device):
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (5, 3, 40, 40), dtype=torch.uint8, generator=generator).to(device)


def weights(agent):
    parts = agent.state_dict()["parts"]
    nets = ("encoder", "critic", "actor", "masker", "target_encoder", "target_critic")
    found = [v.float().flatten().cpu() for n in nets if n in parts for v in parts[n].values()]
    return torch.cat(found)


def learnt(method, updates, device=GPU, setting=SETTING):
    agent = PixelAgent(PIXEL_METHODS[method], setting, 2, 0, device, photos(device))
    ring = filled(method, device)
    for _ in range(updates):
        agent.learn_(ring)
    return agent


@pytest.mark.parametrize("method", PIXEL_METHODS)
def test_graphs_give_what_eager_calls_give(method, monkeypatch):
    captured = learnt(method, 12)
    assert any(graph._graph is not None for graph in captured._graphs.values())
    monkeypatch.setattr(graphs, "_WARM_UP", 10**9)
    eager = learnt(method, 12)
    assert weights(captured).isfinite().all()
    start = weights(learnt(method, 0))
    moved = (weights(eager) - start).norm()
    assert (weights(captured) - weights(eager)).norm() < 0.05 * moved


@pytest.mark.parametrize("method", ["SAC", "SVEA", "MaDi", "MaDi-strided", "RAD"])
def test_a_gpu_learns_as_a_cpu(method):
    there, here = learnt(method, 3), learnt(method, 3, CPU)
    start = weights(learnt(method, 0, CPU))
    moved = (weights(here) - start).norm()
    assert moved > 0 and (weights(there) - weights(here)).norm() < 0.1 * moved


@pytest.mark.parametrize("method", ["MaDi", "MaDi-half", "MaDi-shared", "SGQN", "SODA"])
def test_bfloat16_is_sane(method):
    low = learnt(method, 10, setting=replace(SETTING, precision="auto"))
    full = learnt(method, 10)
    assert low._low and weights(low).isfinite().all()
    torch.testing.assert_close(low.losses[0], full.losses[0], rtol=0.2, atol=0.1)
    assert all(p.dtype == torch.float32 for p in low.encoder.parameters())


@pytest.mark.parametrize("kind", ["full", "half", "strided", "shared"])
def test_masks_in_bfloat16_are_nearly_those_in_float32(kind):
    masker, first = Masker(kind), torch.nn.Conv2d(9, 32, 3, stride=2)
    for net in (masker, first):
        initialise_(net, torch.Generator().manual_seed(0))
    masker, first = (net.to(GPU, memory_format=torch.channels_last) for net in (masker, first))
    images = torch.rand(3, 9, 84, 84, device=GPU).contiguous(memory_format=torch.channels_last)
    exact = masker(images, first)
    with torch.autocast("cuda", torch.bfloat16):
        low = masker(images.bfloat16(), first)
    assert low.shape == (3, 3, 84, 84)
    torch.testing.assert_close(low.float(), exact, rtol=0.05, atol=0.02)


def test_convolutions_with_channels_of_zeros_are_the_same():
    layer = torch.nn.Conv2d(3, 32, 3, padding=1).to(GPU, memory_format=torch.channels_last)
    x = torch.rand(4, 3, 20, 20, device=GPU).contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(aligned(layer, x), layer(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [100, 84])
def test_frames_are_cut_on_a_gpu_as_on_a_cpu(size):
    there, here = (Frames(20, 3, 100, 2, device) for device in (GPU, CPU))
    here.frames.random_(0, 256)
    there.frames.copy_(here.frames)
    numbers = torch.randint(0, 20, (16, 3))
    starts = torch.randint(-4, 20, (16, 2))
    found = there.stacked(numbers.to(GPU), starts.to(GPU), size)
    assert torch.equal(found.cpu(), here.stacked(numbers, starts, size))
    assert torch.equal(there.stacked(numbers.to(GPU)).cpu(), here.stacked(numbers))


@pytest.mark.parametrize("kind", ["overlay", "conv", "splice"])
def test_a_gpu_augments_as_a_cpu(kind):
    images = torch.rand(6, 9, 32, 32)
    here, there = (Augment(kind, photos(device), 0.5, 0, device) for device in (CPU, GPU))
    torch.testing.assert_close(there(images.to(GPU)).cpu(), here(images), rtol=1e-3, atol=1e-3)


def test_a_replay_larger_than_the_gpu_is_refused():
    with pytest.raises(ValueError, match=r"the GPU has .* GiB free: at most replay="):
        Frames(10**8, 3, 84, 1, GPU)


def test_updates_and_actions_do_not_wait_for_the_device(waiting_is):
    agent, ring = learnt("MaDi", 8), filled("MaDi", GPU)
    eyes = Eyes(agent, 32, test=False)
    for _ in range(5):
        agent.learn_(ring)
        eyes.act()
    frames = frames_of(np.zeros((1, 32, 32, 3), np.uint8), None, GPU)
    with waiting_is("error"):
        ring.begin_(frames_of(np.zeros((1, 32, 32, 3), np.uint8), None, GPU)[0])
        ring.add_(torch.zeros(2), 1.0, False, frames[0])
        eyes.look_(frames)
        agent.learn_(ring)
        eyes._act()
        agent.update_(ring, True, True, True)


def test_a_training_on_a_gpu_learns_and_is_tested(tmp_path):
    from regrow.lab.run import Run

    for method in ("MaDi", "mask-segmentation"):
        folder = tmp_path / method
        folder.mkdir()
        tests = {mode: Dot([9, 9], size=32, mode=mode) for mode in ("clean", "moving")}
        trained = train_from_pixels(
            Dot([0], size=32), method=method, setting=SETTING, test=tests, run=Run(folder)
        )
        assert trained.step == 60 and trained.agent.updates == 20 + 39
        assert trained.ring.frames.is_cuda
        assert "auc" in trained.evaluations["moving"][-1]


@pytest.mark.slow
def test_it_learns_to_move_the_dot():
    setting = replace(SETTING, steps=1500, seed_steps=400, batch=64, width=64, filters=16,
                      evaluate_every=1500, episodes=3, precision="auto")  # fmt: skip
    test = {"clean": Dot([7], size=32)}
    trained = train_from_pixels(Dot([0], size=32), method="SAC", setting=setting, test=test)
    assert trained.evaluations["clean"][-1]["return"] > 35


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_what_is_compiled_is_what_is_eager():
    setting = replace(SETTING, compiled=True)
    compiled, eager = learnt("MaDi", 12, setting=setting), learnt("MaDi", 12)
    start = weights(learnt("MaDi", 0))
    moved = (weights(eager) - start).norm()
    assert (weights(compiled) - weights(eager)).norm() < 0.05 * moved
