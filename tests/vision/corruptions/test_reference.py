"""Each corruption does to structured images what an independent implementation does.

Compared are, for each severity: mean and deviation of the change, the signal-to-noise ratio, and
what the change has in four bands of frequencies. Both draw at random, so that what is compared of
those corruptions are means over images, and as many images are taken as that needs.
"""

from itertools import pairwise

import numpy as np
import pytest
import torch

from regrow.vision.corruptions import CORRUPTIONS, EXTRA, corrupt
from regrow.vision.corruptions.digital import displaced, skewed
from regrow.vision.corruptions.draws import Draws
from regrow.vision.corruptions.severities import parameters

SIDE = 64
BANDS = (0, 1 / 16, 1 / 8, 1 / 4, 1)

# How many images, and by how much may differ: the mean; deviation, relatively; decibels; bands,
# relatively. Bytes are truncated there and here: 1/255 is 0.004.
EXACT = (8, 0.003, 0.03, 0.3, 0.05)
TOLERANCES = {
    "gaussian_noise": (24, 0.002, 0.02, 0.15, 0.08),
    "shot_noise": (24, 0.002, 0.02, 0.15, 0.08),
    "impulse_noise": (24, 0.003, 0.03, 0.3, 0.08),
    "speckle_noise": (24, 0.002, 0.02, 0.15, 0.08),
    "glass_blur": (8, 0.004, 0.05, 0.4, 0.08),
    "motion_blur": (150, 0.004, 0.06, 0.4, 0.1),
    "snow": (200, 0.012, 0.06, 0.4, 0.1),
    "fog": (300, 0.02, 0.06, 0.5, 0.1),
    # Other sheets of ice: similar colours and contrast.
    "frost": (100, 0.04, 0.15, 1.2, 0.35),
    # Edges of drops are found otherwise.
    "spatter": (100, 0.008, 0.15, 1.2, 0.25),
}


def both(reference, images, name, severity):
    bytes_ = images.permute(0, 2, 3, 1).contiguous().numpy()
    np.random.seed(severity)  # noqa: NPY002 (what the package draws from)
    theirs = np.stack([reference.corrupt(image, severity, name) for image in bytes_])
    return torch.from_numpy(theirs).permute(0, 3, 1, 2), corrupt(
        images, name, severity, table="imagenet"
    )


def statistics(clean, corrupted):
    change = (corrupted.float() - clean.float()) / 255
    errors = change.square().mean((1, 2, 3)).clamp(min=1e-8)
    grey = change.mean(1)
    grey = grey - grey.mean((1, 2), keepdim=True)
    power = torch.fft.fft2(grey).abs().square().mean(0) / SIDE**4
    places = torch.fft.fftfreq(SIDE)
    radius = torch.hypot(places[:, None], places)
    inside = [(radius > a) & (radius <= b) for a, b in pairwise(BANDS)]
    bands = torch.stack([power[band].sum().sqrt() for band in inside])
    return float(change.mean()), float(change.std()), float(-10 * errors.log10().mean()), bands


def compare(clean, theirs, ours, tolerances):
    _, mean, deviation, decibels, band = tolerances
    a, b = statistics(clean, theirs), statistics(clean, ours)
    assert b[0] == pytest.approx(a[0], abs=mean)
    assert b[1] == pytest.approx(a[1], rel=deviation, abs=5e-4)
    assert b[2] == pytest.approx(a[2], abs=decibels)
    torch.testing.assert_close(b[3], a[3], rtol=band, atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("name", [n for n in CORRUPTIONS + EXTRA if n != "elastic_transform"])
def test_drawn_images_change_as_in_the_package(reference, drawn, name, severity):
    tolerances = TOLERANCES.get(name, EXACT)
    clean = (drawn(SIDE, tolerances[0]) * 255).to(torch.uint8)
    compare(clean, *both(reference, clean, name, severity), tolerances)


@pytest.mark.slow
@pytest.mark.parametrize("severity", [1, 3, 5])
@pytest.mark.parametrize("name", [n for n in CORRUPTIONS + EXTRA if n != "elastic_transform"])
def test_photographs_change_as_in_the_package(reference, photographs, name, severity):
    tolerances = TOLERANCES.get(name, EXACT)
    clean = photographs(SIDE, tolerances[0])
    compare(clean, *both(reference, clean, name, severity), tolerances)


@pytest.mark.parametrize("severity", range(1, 6))
def test_pixels_are_displaced_as_in_the_package(reference, drawn, severity):
    """Whose parameters are not those of the published sets, so that only the rule is compared."""
    clean = (drawn(SIDE, 60) * 255).to(torch.uint8)
    theirs, _ = both(reference, clean, "elastic_transform", severity)
    reach = 0.005 * SIDE * 250 * [0.05, 0.065, 0.085, 0.1, 0.12][severity - 1]
    ours = displaced(clean / 255.0, reach, 0.01 * SIDE, Draws(("test",), torch.arange(60)))
    compare(clean, theirs, ours * 255, (60, 0.003, 0.03, 0.3, 0.06))


def test_images_are_skewed_as_by_opencv(reference, drawn):
    import cv2

    images = drawn(40, 6)[:, :, :33]
    reach = 40 * parameters("cifar", "elastic_transform", 2)[2]
    index = torch.arange(6)
    ours = skewed(images, reach, Draws(("test",), index))
    moves = (Draws(("test",), index).uniform(3, 2) * 2 - 1) * reach
    points = np.float32([(31, 27), (31, 5), (9, 5)])  # a third of 33 from (20, 16)
    for image, move, found in zip(images, moves, ours, strict=True):
        matrix = cv2.getAffineTransform(points, points + move.numpy())
        pixels = image.permute(1, 2, 0).numpy()
        wanted = cv2.warpAffine(pixels, matrix, (40, 33), borderMode=cv2.BORDER_REFLECT_101)
        assert np.abs(found.permute(1, 2, 0).numpy() - wanted).mean() < 0.003
