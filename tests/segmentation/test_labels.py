"""Label maps: published values, regions, classes without gaps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.segmentation.labels import LABEL_MAPS, classes_of, of_classes, of_regions, regions_of

BRATS = ["brats", "brats-2023", "brats-decathlon"]


def test_the_maps_have_the_published_number_of_classes():
    counts = {name: len(of.names) for name, of in LABEL_MAPS.items()}
    assert counts == {"amos": 16, "btcv": 14, **dict.fromkeys(BRATS, 4)}
    assert all(of.names[0] == "background" for of in LABEL_MAPS.values())


@pytest.mark.parametrize("name", BRATS)
def test_regions_of_brats_mean_the_same_in_every_convention(name):
    of = LABEL_MAPS[name]
    value = {called: number for number, called in of.names.items()}
    tissue = ["background", "oedema", "necrotic core", "enhancing"]
    masks = regions_of(np.array([value[t] for t in tissue]), of.regions)
    assert list(of.regions) == ["whole tumour", "tumour core", "enhancing tumour"]
    assert masks.astype(int).tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    order = [value[t] for t in tissue[1:]]
    assert of_regions(masks, order).tolist() == [value[t] for t in tissue]


@given(st.sets(st.integers(1, 400), max_size=9), st.integers(0, 99))
def test_classes_have_no_gaps_and_lead_back(values, seed):
    values = sorted({0, *values})
    labels = np.random.default_rng(seed).choice(values, size=(3, 4))
    classes = classes_of(labels, values)
    assert classes.min() >= 0
    assert classes.max() < len(values)
    np.testing.assert_array_equal(of_classes(classes, values), labels)


@pytest.mark.parametrize("strange", [3, 5, -1])
def test_labels_of_no_class_are_an_error(strange):
    with pytest.raises(ValueError, match=rf"\[{strange}\] are none of \[0, 1, 2, 4\]"):
        classes_of(np.array([0, strange]), (0, 1, 2, 4))
    with pytest.raises(ValueError, match="1 values for 2 masks"):
        of_regions(np.zeros((2, 3), bool), [1])
