"""Argoverse 2's metrics: the formulas written out, and the functions of av2 where it is there."""

import numpy as np
import pytest

from regrow.motion.metrics import argoverse_mean, argoverse_metrics
from tests.motion.curves import predictions_of, scene_of

SCENES = [scene_of(seed, steps=110, now=49, gaps=0.0, targets=1) for seed in range(40)]
SCENES = [scene for scene in SCENES if scene.valid[0, -1]]


def predictions(scene, seed, modes=6):
    return predictions_of(scene, seed, modes, points=60, every=1)


def test_the_formulas_written_out():
    for seed, scene in enumerate(SCENES):
        trajectories, scores = predictions(scene, seed, modes=8)
        order = np.argsort(-scores[0], kind="stable")[:6]
        share = scores[0, order] / scores[0, order].sum()
        gap = np.hypot(*(trajectories[0, order] - scene.states[0, 50:, :2]).transpose(2, 0, 1))
        best = gap[:, -1].argmin()
        found = argoverse_metrics(scene, trajectories, scores)
        assert found["min_fde"][0] == pytest.approx(gap[:, -1].min())
        assert found["min_ade"][0] == pytest.approx(gap[best].mean())
        assert found["miss"][0] == (gap[:, -1].min() > 2)
        assert found["brier_min_fde"][0] == pytest.approx(gap[best, -1] + (1 - share[best]) ** 2)


def test_they_are_what_av2_says():
    av2 = pytest.importorskip(
        "av2.datasets.motion_forecasting.eval.metrics", reason="needs the package av2"
    )
    for seed, scene in enumerate(SCENES):
        trajectories, scores = predictions(scene, seed)
        truth, share = scene.states[0, 50:, :2], scores[0] / scores[0].sum()
        found = argoverse_metrics(scene, trajectories, scores)
        fde = av2.compute_fde(trajectories[0], truth)
        best = fde.argmin()
        assert found["min_fde"][0] == pytest.approx(fde[best])
        assert found["min_ade"][0] == pytest.approx(av2.compute_ade(trajectories[0], truth)[best])
        missed = av2.compute_is_missed_prediction(trajectories[0], truth, 2.0)
        assert found["miss"][0] == missed[best]
        brier = av2.compute_brier_fde(trajectories[0], truth, share)
        assert found["brier_min_fde"][0] == pytest.approx(brier[best])


def test_means_leave_out_what_could_not_be_measured():
    lost = scene_of(4, steps=110, now=49, targets=1)
    lost.valid[0, -1] = False
    whole = argoverse_metrics(SCENES[0], *predictions(SCENES[0], 1))
    found = argoverse_mean([argoverse_metrics(lost, *predictions(lost, 0)), whole])
    assert found == {name: float(value[0]) for name, value in whole.items()}
    assert all(np.isnan(list(argoverse_mean([]).values())))


def test_scores_that_are_no_probabilities_are_refused():
    trajectories, scores = predictions(SCENES[0], 0)
    with pytest.raises(ValueError, match="scores must be 0 or more"):
        argoverse_metrics(SCENES[0], trajectories, -scores)
    with pytest.raises(ValueError, match="60 steps after now, not the 61"):
        argoverse_metrics(SCENES[0], np.zeros((1, 6, 61, 2)), scores)
