"""Dice and cross-entropy: against loops in float64, MONAI's, and what must not count."""

import math

import pytest
import torch

from regrow.segmentation.loss import dice_ce, hard_dice, soft_dice


def draw(seed=0, n=2, classes=3, sides=(3, 4, 2)):
    generator = torch.Generator().manual_seed(seed)
    scores = torch.randn(n, classes, *sides, generator=generator, dtype=torch.float64)
    return scores, torch.randint(classes, (n, *sides), generator=generator)


def by_loops(scores, labels, smooth=1e-5):
    """Return cross-entropy + 1 - Dice, voxel by voxel."""
    classes = scores.shape[1]
    shared, chances, truths = ([0.0] * classes for _ in range(3))
    entropy, count = 0.0, 0
    for place in torch.cartesian_prod(*map(torch.arange, labels.shape)).tolist():
        n, rest = place[0], tuple(place[1:])
        if (truth := int(labels[tuple(place)])) < 0:
            continue
        values = [math.exp(float(scores[(n, c, *rest)])) for c in range(classes)]
        count += 1
        entropy -= math.log(values[truth] / sum(values))
        for c in range(1, classes):
            chance = values[c] / sum(values)
            shared[c] += chance * (c == truth)
            chances[c] += chance
            truths[c] += c == truth
    dices = [
        (2 * shared[c] + smooth) / (chances[c] + truths[c] + smooth) for c in range(1, classes)
    ]
    return entropy / count + 1 - sum(dices) / len(dices)


@pytest.mark.parametrize("ignored", [False, True])
def test_the_loss_is_the_formula(ignored):
    scores, labels = draw()
    if ignored:
        labels[0, :2] = -1
    assert float(dice_ce(scores, labels)) == pytest.approx(by_loops(scores, labels), rel=1e-5)


@pytest.mark.parametrize("batch", [True, False])
def test_the_loss_is_monais(batch):
    losses = pytest.importorskip("monai.losses")
    scores, labels = draw(classes=4, sides=(4, 5, 3))
    theirs = losses.DiceCELoss(
        include_background=False, to_onehot_y=True, softmax=True, batch=batch,
        smooth_nr=1e-5, smooth_dr=1e-5,
    )(scores.float(), labels[:, None])  # fmt: skip
    ours = dice_ce(scores.float(), labels, batch_dice=batch)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_deep_supervision_is_the_weighted_sum_against_thinned_labels():
    scores, labels = draw(sides=(4, 6, 2))
    small = draw(1, sides=(2, 3, 1))[0]
    thinned = labels[:, 1::2, 1::2, 1::2]
    expected = 0.75 * dice_ce(scores, labels) + 0.25 * dice_ce(small, thinned)
    torch.testing.assert_close(dice_ce([scores, small], labels, (0.75, 0.25)), expected)
    with pytest.raises(ValueError, match="2 outputs need one each"):
        dice_ce([scores, small], labels)


def test_an_output_of_weight_zero_has_a_gradient_of_zero():
    scores, labels = draw()
    small = draw(1, sides=(2, 2, 1))[0].requires_grad_()
    loss = dice_ce([scores.requires_grad_(), small], labels, (1.0, 0.0))
    loss.backward()
    assert small.grad is not None and not small.grad.any()
    torch.testing.assert_close(loss.float(), dice_ce(scores, labels))


def test_voxels_that_nobody_judged_have_no_gradient():
    scores, labels = draw()
    labels[:, 0] = -1
    scores.requires_grad_()
    dice_ce(scores, labels).backward()
    assert not scores.grad[:, :, 0].any() and scores.grad[:, :, 1:].any()


def test_regions_are_judged_one_by_one():
    scores, labels = draw(classes=2)
    targets = torch.stack([labels >= 1, labels == 1], 1).to(torch.int8)
    targets[1, :, 0] = -1
    counted = targets >= 0
    p, g = scores.sigmoid() * counted, (targets == 1).double()
    dice = (2 * (p * g).sum((0, 2, 3, 4)) + 1e-5) / ((p + g).sum((0, 2, 3, 4)) + 1e-5)
    entropy = -(g * scores.sigmoid().log() + (1 - g) * (1 - scores.sigmoid()).log())[counted].mean()
    torch.testing.assert_close(
        dice_ce(scores, targets).double(), entropy + 1 - dice.mean(), rtol=1e-5, atol=0
    )


def test_a_class_that_is_nowhere_costs_nothing_and_half_precision_does_not_overflow():
    labels = torch.zeros(1, 64, 64, 64, dtype=torch.int64)
    scores = torch.zeros(1, 2, 64, 64, 64, dtype=torch.float16)
    scores[:, 0] = 60
    assert float(dice_ce(scores, labels)) == pytest.approx(0, abs=1e-5)
    assert float(soft_dice(scores.float(), labels)) == pytest.approx(1)


def test_hard_dice_counts_each_patch_and_class():
    labels = torch.tensor([[[[1, 1, 2, -1]]], [[[0, 0, 0, 0]]]])
    told = torch.tensor([[[[1, 0, 0, 1]]], [[[0, 2, 0, 0]]]])
    scores = torch.nn.functional.one_hot(told, 3).movedim(-1, 1).float()
    found = hard_dice(scores, labels)
    assert found[0].tolist() == [pytest.approx(2 / 3), 0.0]
    assert found[1].isnan().tolist() == [True, False]
