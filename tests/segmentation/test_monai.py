"""Our networks in MONAI's own loop: its losses, its inferer, its metric, the plain module."""

import pytest
import torch
from torch.nn import functional

import regrow
from regrow.segmentation import E2ENet, PlainConvUNet, channel_links, feature_fusion, pack
from regrow.segmentation.inference import predict_scores
from regrow.segmentation.loss import dice_ce

losses = pytest.importorskip("monai.losses", reason="needs the extra regrow[segmentation]")
inferers = pytest.importorskip("monai.inferers", reason="needs the extra regrow[segmentation]")
metrics = pytest.importorskip("monai.metrics", reason="needs the extra regrow[segmentation]")

CHANNELS, CLASSES, PATCH = (6, 12, 12), 3, (8, 16, 16)


def monai_loss(model):
    """Return Dice and cross-entropy over several scales, of MONAI's own parts."""
    one = losses.DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=True,
        smooth_nr=1e-5, smooth_dr=1e-5,
    )  # fmt: skip
    return losses.DeepSupervisionLoss(one, weights=list(model.loss_weights))


def volume(seed, sides=PATCH):
    """Return images and labels (n, 1, ...): hills, and which of two heights they exceed."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(2, 1, *(side + 4 for side in sides), generator=generator)
    hills = functional.avg_pool3d(noise, 5, 1)
    hills = hills / hills.std()
    return hills, (hills > 0.3).long() + (hills > 1.2)


@pytest.mark.parametrize("sides", [PATCH, (12, 8, 20)])
def test_monais_deep_supervision_gives_our_loss_and_gradient(sides):
    model = E2ENet(1, CLASSES, CHANNELS)
    x, y = volume(0, sides)
    gradients = []
    for loss in (
        monai_loss(model)(model(x), y.float()),
        dice_ce(model(x), y[:, 0], model.loss_weights),
    ):
        gradients.append((loss, *torch.autograd.grad(loss, list(model.parameters()))))
    for theirs, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-6)


def made(kind):
    torch.manual_seed(0)
    if kind == "PlainConvUNet":
        return PlainConvUNet(1, CLASSES, CHANNELS), {
            "method": regrow.RigL(density=0.5, update_every=5)
        }
    sparse = {"kernels": feature_fusion, "links": channel_links}[kind](0.4, update_every=5)
    return E2ENet(1, CLASSES, CHANNELS), sparse


def judged(model):
    """Return the mean Dice on volumes larger than a patch, of MONAI's inferer and metric."""
    infer = inferers.SlidingWindowInferer(PATCH, 4, 0.5, mode="gaussian")
    judge = metrics.DiceMetric(include_background=False, num_classes=CLASSES)
    for seed in range(1000, 1003):
        x, y = volume(seed, (13, 24, 20))
        with torch.no_grad():
            scores = infer(x, model.eval())
        ours = torch.stack([predict_scores(model, one, PATCH) for one in x])
        torch.testing.assert_close(ours, scores, atol=1e-4, rtol=1e-4)
        judge(scores.argmax(1, keepdim=True), y)
    model.train()
    return float(judge.aggregate())


@pytest.mark.parametrize("kind", ["kernels", "links", "PlainConvUNet"])
def test_a_sparse_network_learns_in_monais_loop(kind):
    model, method = made(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.03)
    sparse = regrow.sparsify(model, optimizer, **method, total_steps=60)
    model.deep_supervision = False
    before = judged(model)
    model.deep_supervision = True
    loss = monai_loss(model)
    for step in range(60):
        x, y = volume(step)
        optimizer.zero_grad()
        loss(model(x), y.float()).backward()  # MONAI thins out no integers
        optimizer.step()
    model.deep_supervision = False
    after = judged(model)
    assert before < 0.35 and after > 0.6
    for name, mask in sparse.masks.items():
        assert not model.get_parameter(name)[~mask].any()
    if kind == "links":
        assert judged(pack(model, sparse.masks)) == pytest.approx(after, abs=1e-3)


def test_monais_inferer_takes_the_full_resolution_of_several_outputs():
    model = E2ENet(1, CLASSES, CHANNELS).eval()
    x = torch.randn(1, 1, 12, 20, 24)
    infer = inferers.SlidingWindowInferer(PATCH, 3, 0.25, mode="gaussian")
    with torch.no_grad():
        full = infer(x, model)[0]
        model.deep_supervision = False
        torch.testing.assert_close(infer(x, model), full, atol=1e-5, rtol=1e-4)
