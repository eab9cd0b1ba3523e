"""Judges of masks: held to scikit-learn, and to every threshold in turn."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score, roc_auc_score

from regrow.control.distractions import auc, best_iou

PIXELS = st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=2, max_size=40).filter(
    lambda pixels: len({truth for _, truth in pixels}) == 2
)


@given(PIXELS)
def test_both_are_what_others_compute(pixels):
    mask = np.array([value for value, _ in pixels]) / 7
    truth = np.array([found for _, found in pixels])
    assert auc(mask, truth) == pytest.approx(roc_auc_score(truth, mask))
    found, threshold = best_iou(mask, truth)
    assert found == pytest.approx(max(jaccard_score(truth, mask >= t) for t in mask))
    assert found == pytest.approx(jaccard_score(truth, mask >= threshold))


@given(PIXELS, st.floats(0.1, 9), st.floats(-5, 5))
def test_scale_is_free(pixels, times, plus):
    mask = np.array([float(value) for value, _ in pixels])
    truth = np.array([found for _, found in pixels])
    assert auc(mask * times + plus, truth) == pytest.approx(auc(mask, truth))
    assert best_iou(mask * times + plus, truth)[0] == pytest.approx(best_iou(mask, truth)[0])
    assert auc(-mask, truth) == pytest.approx(1 - auc(mask, truth))


def test_pictures_are_judged_together():
    random = np.random.default_rng(0)
    truth = random.random((3, 8, 8)) < 0.2
    mask = random.random((3, 8, 8)) + truth
    assert auc(mask, truth) == pytest.approx(roc_auc_score(truth.ravel(), mask.ravel()))
    assert auc(truth.astype(np.float32), truth) == 1 and best_iou(truth * 0.3, truth) == (1, 0.3)


@pytest.mark.parametrize("judge", [auc, best_iou])
def test_what_cannot_be_judged_is_told(judge):
    mask, truth = np.zeros((2, 2)), np.eye(2, dtype=bool)
    with pytest.raises(ValueError, match="0 pixels of 4 are foreground: both are needed"):
        judge(mask, np.zeros((2, 2), dtype=bool))
    with pytest.raises(ValueError, match="4 pixels of 4"):
        judge(mask, np.ones((2, 2), dtype=bool))
    with pytest.raises(ValueError, match="shape"):
        judge(mask[:1], truth)
    with pytest.raises(ValueError, match="bool is needed"):
        judge(mask, truth * 255)
    with pytest.raises(ValueError, match="not finite"):
        judge(mask * np.nan, truth)
