"""The loss by its formula in float64, apart from the batch; the choice of six futures."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from regrow.motion.decoder import Predicted
from regrow.motion.loss import gaussian_nll, motion_losses, positive_queries
from regrow.motion.modes import apart, modes

LAYERS, N, QUERIES, STEPS, AGENTS = 3, 5, 8, 12, 4


def made(seed=0, n=N):
    torch.manual_seed(seed)
    predicted = Predicted(
        torch.randn(LAYERS, n, QUERIES),
        torch.randn(LAYERS, n, QUERIES, STEPS, 7) * 3,
        torch.randn(n, AGENTS, STEPS, 7) * 3,
        torch.randn(n, QUERIES, 2) * 20,
    )
    targets = {
        "future": torch.randn(n, STEPS, 4) * 10,
        "future_valid": torch.rand(n, STEPS) < 0.7,
        "others": torch.randn(n, AGENTS, STEPS, 4) * 10,
        "others_valid": torch.rand(n, AGENTS, STEPS) < 0.5,
    }
    targets["others_valid"][:, -1] = False
    return predicted, targets


def nll_by_formula(row, x, y):
    mx, my, l1, l2, rho = (float(v) for v in row[:5])
    l1, l2 = min(max(l1, -1.609), 5.0), min(max(l2, -1.609), 5.0)
    rho = min(max(rho, -0.5), 0.5)
    s1, s2, dx, dy = np.exp(l1), np.exp(l2), x - mx, y - my
    inner = dx**2 / s1**2 + dy**2 / s2**2 - 2 * rho * dx * dy / (s1 * s2)
    return l1 + l2 + 0.5 * np.log(1 - rho**2) + inner / (2 * (1 - rho**2))


def path_by_formula(path, future, valid, weight):
    total = 0.0
    for t in range(STEPS):
        if valid[t]:
            x, y, vx, vy = (float(v) for v in future[t])
            total += nll_by_formula(path[t], x, y)
            total += weight * (abs(float(path[t, 5]) - vx) + abs(float(path[t, 6]) - vy))
    return total


def loss_by_formula(predicted, targets, i, classification=50.0):
    future, valid = targets["future"][i], targets["future_valid"][i]
    last = max(t for t in range(STEPS) if valid[t])
    far = [float((future[last, :2] - p).norm()) for p in predicted.intentions[i]]
    query = int(np.argmin(far))
    total = 0.0
    for layer in range(LAYERS):
        total += path_by_formula(predicted.trajectories[layer, i, query], future, valid, 0.5)
        logits = predicted.scores[layer, i].double().numpy()
        total += classification * (np.log(np.exp(logits).sum()) - logits[query])
    total /= LAYERS
    dense = [
        path_by_formula(predicted.dense[i, a], targets["others"][i, a], seen, 1.0)
        for a, seen in enumerate(targets["others_valid"][i])
        if seen.any()
    ]
    return total + np.mean(dense)


def test_losses_are_their_formula():
    predicted, targets = made()
    found = motion_losses(predicted, targets)["total"]
    wanted = [loss_by_formula(predicted, targets, i) for i in range(N)]
    np.testing.assert_allclose(found.numpy(), wanted, rtol=1e-4)


@given(st.floats(-9, 9), st.floats(-9, 9), st.floats(-2, 2), st.floats(-50, 50))
@settings(max_examples=200)
def test_nll_clips_deviations_and_correlation(log1, log2, rho, dx):
    row = torch.tensor([1.0, -2.0, log1, log2, rho], dtype=torch.float64)
    found = float(gaussian_nll(row, torch.tensor([1.0 + dx, 3.0], dtype=torch.float64)))
    assert found == pytest.approx(nll_by_formula(row, 1.0 + dx, 3.0), rel=1e-9)


def test_loss_of_a_target_does_not_hang_on_its_batch():
    predicted, targets = made()
    whole = motion_losses(predicted, targets)
    for i in range(N):
        one = slice(i, i + 1)
        alone = motion_losses(
            Predicted(
                predicted.scores[:, one],
                predicted.trajectories[:, one],
                predicted.dense[one],
                predicted.intentions[one],
            ),
            {name: x[one] for name, x in targets.items()},
        )
        for name, values in whole.items():
            torch.testing.assert_close(alone[name], values[one])


def test_compat_sums_classification_over_the_batch():
    """A mean over n targets then weighs it n-fold: 1 in MTR is 50 of ours at 50 targets."""
    predicted, targets = made(n=6)
    targets["future_valid"][:, 0] = True
    ours = motion_losses(predicted, targets, classification=6.0)["total"].mean()
    theirs = motion_losses(predicted, targets, classification=1.0, mtr_compat=True)["total"]
    torch.testing.assert_close(theirs.mean(), ours)


def test_target_without_a_future_counts_for_others_only():
    predicted, targets = made()
    targets["future_valid"][2] = False
    predicted.trajectories.requires_grad_()
    predicted.scores.requires_grad_()
    found = motion_losses(predicted, targets)
    assert found["total"][2] == found["dense"][2]
    found["total"].sum().backward()
    assert not predicted.trajectories.grad[:, 2].any()
    assert not predicted.scores.grad[:, 2].any()
    assert predicted.scores.grad[:, 1].any()


def test_only_the_nearest_intention_learns_a_path():
    predicted, targets = made()
    predicted.trajectories.requires_grad_()
    motion_losses(predicted, targets, dense=0.0)["total"].sum().backward()
    moved = predicted.trajectories.grad.flatten(3).any(-1)
    query = positive_queries(targets["future"], targets["future_valid"], predicted.intentions)
    assert (moved.sum(-1) == 1).all()
    assert (moved.int().argmax(-1) == query).all()


def apart_one_by_one(ends, scores, keep, distance):
    """Greedy choice with lists."""
    left = sorted(range(len(scores)), key=lambda i: -scores[i])
    chosen = []
    while len(chosen) < keep:
        free = [i for i in left if all(np.hypot(*(ends[i] - ends[j])) >= distance for j in chosen)]
        place = (free or left)[0]
        chosen.append(place)
        left.remove(place)
    return chosen


@given(st.integers(0, 10_000), st.integers(6, 20), st.floats(0.1, 20))
@settings(max_examples=60)
def test_choice_is_greedy_and_always_complete(seed, futures, spread):
    rng = np.random.default_rng(seed)
    ends, scores = rng.normal(0, spread, (2, futures, 2)), rng.random((2, futures))
    scores[1] = scores[1] ** 40  # most of them tiny
    found = apart(torch.from_numpy(ends), torch.from_numpy(scores), 6, 2.5)
    for i in range(2):
        assert found[i].tolist() == apart_one_by_one(ends[i], scores[i], 6, 2.5)
        assert len(set(found[i].tolist())) == 6


def test_chosen_ends_lie_apart_until_nothing_else_is_left():
    predicted, _ = made()
    paths, probabilities = modes(predicted, 6)
    assert paths.shape == (N, 6, STEPS, 7)
    assert (probabilities.sum(-1) <= 1).all()
    same = predicted._replace(trajectories=torch.zeros_like(predicted.trajectories))
    paths, probabilities = modes(same, 6)
    wanted = predicted.scores[-1].softmax(-1).sort(descending=True).values[:, :6]
    torch.testing.assert_close(probabilities, wanted)


@pytest.mark.parametrize(("metres", "chosen"), [(2.4, 2.4 * 6), (2.6, 2.6 * 5)])
def test_ends_are_apart_by_two_and_a_half_metres_as_in_mtr(metres, chosen):
    """Of likely ends on a line every second one is chosen, if neighbours are nearer than that."""
    predicted, _ = made()
    futures = predicted.scores.shape[2]
    paths = torch.zeros_like(predicted.trajectories)
    paths[..., 0] = metres * torch.arange(futures).float()[:, None]
    scores = -torch.arange(futures).float().expand_as(predicted.scores)
    ends = modes(predicted._replace(scores=scores, trajectories=paths))[0][:, :, -1, 0]
    assert ends[0].max() == pytest.approx(chosen)


def test_more_futures_than_there_are_is_refused():
    with pytest.raises(ValueError, match="keep=9"):
        modes(made()[0], 9)
