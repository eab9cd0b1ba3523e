"""Spatter's water against the published program: its edges, and how much light it adds."""

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve, distance_transform_edt, gaussian_filter, uniform_filter

from regrow.vision.corruptions import corrupt
from regrow.vision.corruptions.canny import canny
from regrow.vision.corruptions.draws import Draws
from regrow.vision.corruptions.severities import parameters
from regrow.vision.corruptions.spatter import spatter

# The mean light of water, before its colour, that the published program adds to images of each
# set's size at severities 1 to 3: make_cifar_c, make_tinyimagenet_c and make_imagenet_c of
# github.com/hendrycks/robustness, run with OpenCV 5.0 on 200, 200 and 30 draws of normal noise.
PUBLISHED = {
    ("cifar", 32): (0.0053, 0.0139, 0.0340),
    ("tiny-imagenet", 64): (0.0052, 0.0151, 0.0372),
    ("imagenet", 224): (0.0042, 0.0226, 0.0383),
}


def planes():
    """Yield bytes of many kinds: noise, smooth, flat with islands, lines of one pixel, one side."""
    rng = np.random.default_rng(0)
    for number in range(60):
        plane = rng.random(rng.integers(1, 30, 2)) * 255
        if number % 3:
            plane = gaussian_filter(plane, 0.4 * (number % 5) + 0.1) * 3 - 250
        if number % 4 == 0:
            plane = np.where(plane > 140, plane, 0)
        yield plane.clip(0, 255).astype(np.uint8)


def edges_one_by_one(plane, low, high):
    """Canny's detector pixel by pixel, by angles: what the fixed-point arithmetic stands for."""
    height, width = plane.shape
    values = np.pad(plane.astype(int), 1, mode="edge")
    across = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    slope, angle = np.zeros((height + 2, width + 2), int), np.zeros((height, width))
    for y in range(height):
        for x in range(width):
            window = values[y : y + 3, x : x + 3]
            dx, dy = int((window * across).sum()), int((window * across.T).sum())
            slope[y + 1, x + 1] = abs(dx) + abs(dy)
            angle[y, x] = math.degrees(math.atan2(dy, dx)) % 180
    candidates = set()
    for y in range(height):
        for x in range(width):
            here, turn = slope[y + 1, x + 1], angle[y, x]
            sector = int((turn + 22.5) // 45) % 4  # right, down right, down, down left
            dy, dx = ((0, 1), (1, 1), (1, 0), (1, -1))[sector]
            before, after = slope[y + 1 - dy, x + 1 - dx], slope[y + 1 + dy, x + 1 + dx]
            steepest = here > before and (here >= after if sector in (0, 2) else here > after)
            if steepest and here > low:
                candidates.add((y, x))
    found = np.zeros((height, width), bool)
    todo = [(y, x) for y, x in candidates if slope[y + 1, x + 1] > high]
    while todo:
        y, x = todo.pop()
        if (y, x) in candidates and not found[y, x]:
            found[y, x] = True
            todo += [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
    return found


def found_edges(plane):
    return canny(torch.from_numpy(plane).float()[None, None], 50, 150)[0, 0].numpy()


def test_edges_are_those_found_pixel_by_pixel():
    some = False
    for plane in planes():
        wanted = edges_one_by_one(plane, 50, 150)
        assert (found_edges(plane) == wanted).all()
        some |= bool(wanted.any() and not wanted.all())
    assert some


def test_edges_are_those_of_opencv():
    cv2 = pytest.importorskip("cv2")
    for plane in planes():
        assert (found_edges(plane) == (cv2.Canny(plane, 50, 150) > 0)).all()


def test_an_edge_is_followed_as_far_as_it_goes():
    """A ramp that gets fainter along an edge: from its strong end all of it is reached."""
    strength = torch.linspace(60, 15, 200).round()
    plane = torch.zeros(1, 1, 200, 9)
    plane[0, 0, :, 4:] = strength.unsqueeze(1)
    assert canny(plane, 50, 150)[0, 0, :190].any(1).all()
    assert not canny(plane[:, :, 120:], 50, 150).any()


def test_images_of_a_batch_do_not_touch():
    batch = torch.stack([torch.from_numpy(p[:1, :1]).float()[None] for p in planes()])
    assert not canny(batch, 50, 150).any()
    pair = torch.rand(2, 1, 20, 20).mul(255).floor()
    assert torch.equal(canny(pair, 50, 150)[1:], canny(pair[1:], 50, 150))


def water_step_by_step(liquid, threshold, strength):
    """The published steps, in numpy and scipy."""
    water = (np.where(liquid > threshold, liquid, 0) * 255).astype(int) % 256
    edges = edges_one_by_one(water.astype(np.uint8), 50, 150)
    far = distance_transform_edt(~edges) if edges.any() else np.full(water.shape, 20.0)
    near = np.floor(uniform_filter(far.clip(max=20), 3, mode="mirror") + 1e-6).astype(int)
    levels, counts = np.unique(near, return_counts=True)
    ranks = (counts.cumsum() - counts[0]) * 255 / max(near.size - counts[0], 1)
    spread = dict(zip(levels, np.round(ranks) if len(levels) > 1 else levels, strict=True))
    equalized = np.vectorize(spread.get)(near).astype(float)
    kernel = np.array([[2, 1, 0], [1, 1, -1], [0, -1, -2]])  # turned: convolve turns it back
    lit = convolve(equalized, kernel, mode="mirror").clip(0, 255)
    light = water * np.round(uniform_filter(lit, 3, mode="mirror"))
    return strength * light / max(light.max(), 1e-12)


@pytest.mark.parametrize("table", ["cifar", "tiny-imagenet"])
@pytest.mark.parametrize("severity", [1, 2, 3])
def test_water_is_made_as_step_by_step(table, severity):
    mean, deviation, sigma, threshold, strength, _ = parameters(table, "spatter", severity)
    noise = Draws(("test",), torch.arange(3)).normal(1, 24, 31).double().numpy()[:, 0]
    found = spatter(
        torch.zeros(3, 3, 24, 31),
        (mean, deviation, sigma, threshold, strength, 0),
        Draws(("test",), torch.arange(3)),
    )[:, 1] / (238 / 255)
    for image, light in zip(noise * deviation + mean, found.numpy(), strict=True):
        liquid = gaussian_filter(image, sigma, mode="nearest", truncate=4.0)
        wanted = water_step_by_step(liquid, threshold, strength)
        # A distance that rounds otherwise is another level of the relief, at its pixel alone.
        assert np.median(np.abs(light - wanted)) < 1e-3
        assert np.abs(light - wanted).mean() < 0.05 * strength


@pytest.mark.parametrize(("table", "side"), PUBLISHED)
@pytest.mark.parametrize("severity", [1, 2, 3])
def test_as_much_water_falls_as_by_the_published_program(table, side, severity):
    black = torch.zeros(400 if side < 100 else 60, 3, side, side)
    light = corrupt(black, "spatter", severity, table=table)[:, 1].mean() / (238 / 255)
    wanted = PUBLISHED[table, side][severity - 1]
    assert float(light) == pytest.approx(wanted, rel=0.08)


def test_water_without_an_edge_is_lit_alike():
    """All distances are then the farthest, which equalizing leaves as they are."""
    everywhere = (0.7, 0.0, 1.0, 0.5, 0.6, 0)
    found = spatter(torch.zeros(1, 3, 9, 9), everywhere, Draws(("test",), torch.arange(1)))
    torch.testing.assert_close(found[:, 1], torch.full((1, 9, 9), 0.6 * 238 / 255))
