"""What holds for every corruption: shapes, ranges, seeds, batches, severities, errors, videos."""

import subprocess
import sys

import pytest
import torch

from regrow.vision.corruptions import CORRUPTIONS, EXTRA, FAMILIES, corrupt, corrupt_video
from regrow.vision.corruptions.severities import TABLES, table_for

ALL = CORRUPTIONS + EXTRA
RANDOM = (
    *("gaussian_noise", "shot_noise", "impulse_noise", "speckle_noise", "glass_blur"),
    *("motion_blur", "snow", "frost", "fog", "elastic_transform", "spatter"),
)
SIZES = [(1, 1), (1, 5), (2, 1), (5, 3), (17, 40)]

# Where the published parameters do not get stronger: glass is filtered less but shuffled more,
# or the reverse; elastic images are skewed less and displaced more; saturation falls, then rises;
# ice is laid over less of what is kept; water turns to mud; a motion blur's line gets longer where
# its weights have ended.
UNORDERED = {
    "glass_blur": TABLES,
    "elastic_transform": TABLES,
    "saturate": TABLES,
    "frost": TABLES,
    "spatter": TABLES,
    "motion_blur": ["cifar"],
}


def test_the_benchmark_has_fifteen_in_four_families_and_four_more():
    assert len(CORRUPTIONS) == 15 and len(EXTRA) == 4 and len(set(ALL)) == 19
    assert list(FAMILIES) == ["noise", "blur", "weather", "digital"]
    for table in TABLES.values():
        assert set(table) == set(ALL)
        assert all(len(severities) == 5 for severities in table.values())


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("table", TABLES)
def test_damage_grows_with_severity(drawn, name, table):
    images = drawn({"cifar": 32, "tiny-imagenet": 64, "imagenet": 96}[table], 48)
    errors = [
        (corrupt(images, name, severity, table=table) - images).square().mean((1, 2, 3))
        for severity in range(1, 6)
    ]
    ratios = [float(-10 * error.clamp(min=1e-9).log10().mean()) for error in errors]
    assert max(ratios) < 60
    if table not in UNORDERED.get(name, ()):
        assert ratios == sorted(ratios, reverse=True)
        assert ratios[4] < ratios[0] - 1


@pytest.mark.parametrize("name", ALL)
def test_shape_dtype_and_range_stay_and_the_input_is_not_changed(drawn, name):
    images = drawn(32, 3)
    results = {}
    for dtype in (torch.float64, torch.float32, torch.bfloat16, torch.uint8):
        given = (images * 255).to(dtype) if dtype == torch.uint8 else images.to(dtype)
        before = given.clone()
        result = corrupt(given, name, 4)
        assert torch.equal(given, before)
        assert result.data_ptr() != given.data_ptr()
        assert (result.shape, result.dtype) == (given.shape, dtype)
        assert (
            0 <= float(result.min()) <= float(result.max()) <= (255 if dtype == torch.uint8 else 1)
        )
        results[dtype] = result.double() / (255 if dtype == torch.uint8 else 1)
    assert (results[torch.float64] - results[torch.float32]).abs().max() < 1e-6
    assert (results[torch.uint8] - results[torch.float32]).abs().mean() < 0.01


@pytest.mark.parametrize("name", ALL)
def test_layout_in_memory_does_not_matter(drawn, name):
    images = drawn(32, 3)
    last = images.contiguous(memory_format=torch.channels_last)
    turned = images.transpose(2, 3).contiguous().transpose(2, 3)
    for other in (last, turned):
        assert torch.equal(corrupt(other, name, 3), corrupt(images, name, 3))


@pytest.mark.parametrize("name", ALL)
def test_the_seed_decides_and_nothing_else(drawn, name):
    images = drawn(32, 3)
    once = corrupt(images, name, 3, seed=5)
    torch.manual_seed(1)
    assert torch.equal(once, corrupt(images, name, 3, seed=5))
    assert torch.equal(once, corrupt(images, name, 3, seed=6)) == (name not in RANDOM)


@pytest.mark.parametrize("name", ALL)
def test_equal_images_differ_by_their_index_alone(drawn, name):
    images = drawn(32, 1).expand(6, -1, -1, -1)
    together = corrupt(images, name, 3)
    parts = [corrupt(images[:2], name, 3), corrupt(images[2:], name, 3, first=2)]
    # Sums over a batch of another size may end in another bit.
    torch.testing.assert_close(together, torch.cat(parts), atol=1e-5, rtol=0)
    assert (together[0] != together[5]).any() == (name in RANDOM)


@pytest.mark.parametrize("name", ALL)
def test_what_is_done_at_once_does_not_matter(drawn, name, monkeypatch):
    images = drawn(32, 5)
    together = corrupt(images, name, 3)
    monkeypatch.setattr("regrow.vision.corruptions.catalogue._AT_ONCE", {"cpu": 2 * 3 * 32 * 32})
    torch.testing.assert_close(together, corrupt(images, name, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ALL)
def test_small_and_narrow_images_are_corrupted_too(name, size, channels):
    images = torch.rand(2, channels, *size)
    for table in TABLES:
        for severity in (1, 3, 5):
            result = corrupt(images, name, severity, table=table)
            assert result.shape == images.shape
            assert ((result >= 0) & (result <= 1)).all()  # which no NaN is


@pytest.mark.parametrize("severity", range(1, 6))
@pytest.mark.parametrize("name", ALL)
def test_a_single_pixel_is_the_same_alone_in_a_clip_and_in_black_or_white(name, severity):
    for value in (0.0, 0.3, 1.0):
        for channels in (1, 3):
            pixel = torch.full((1, channels, 1, 1), value)
            result = corrupt(pixel, name, severity)
            assert ((result >= 0) & (result <= 1)).all()
            clip = corrupt_video(pixel.expand(2, -1, -1, -1).unsqueeze(0), name, severity)
            torch.testing.assert_close(clip[0], result.expand_as(clip[0]), atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ALL)
def test_an_empty_batch_stays_empty(name):
    for dtype in (torch.float32, torch.uint8):
        for severity in range(1, 6):
            empty = torch.zeros(0, 3, 8, 8, dtype=dtype)
            result = corrupt(empty, name, severity)
            assert (result.shape, result.dtype) == (empty.shape, dtype)
            for shape in ((0, 4, 3, 8, 8), (2, 0, 1, 8, 8)):
                for consistent in (True, False):
                    clips = torch.zeros(shape, dtype=dtype)
                    found = corrupt_video(clips, name, severity, consistent=consistent)
                    assert (found.shape, found.dtype) == (clips.shape, dtype)


@pytest.mark.parametrize("name", [name for name in ALL if name != "saturate"])
def test_a_grey_image_is_damaged_like_one_in_colour(drawn, name):
    """Of three equal channels; noise is drawn for each value, so that only means are alike."""
    grey = drawn(32, 12).mean(1, keepdim=True)
    alone = corrupt(grey, name, 4, seed=1) - grey
    together = (corrupt(grey.expand(-1, 3, -1, -1), name, 4, seed=1) - grey).mean(1, keepdim=True)
    assert float(alone.mean()) == pytest.approx(float(together.mean()), abs=0.01)
    if not name.endswith("noise"):
        assert float((alone - together).abs().mean()) < 0.003


def test_a_grey_image_has_no_saturation():
    grey = torch.rand(2, 1, 8, 8)
    assert torch.equal(corrupt(grey, "saturate", 5), grey)


@pytest.mark.parametrize("name", ALL)
def test_a_consistent_video_has_one_draw_a_clip(drawn, name):
    frame = drawn(32, 1)
    clips = frame.expand(6, -1, -1, -1).unflatten(0, (2, 3))
    same = corrupt_video(clips, name, 3, seed=2)
    assert same.shape == clips.shape
    for clip in range(2):
        torch.testing.assert_close(same[clip, 0], same[clip, 2], atol=1e-6, rtol=0)
        alone = corrupt(frame, name, 3, seed=2, first=clip)
        torch.testing.assert_close(same[clip, :1], alone, atol=1e-5, rtol=0)
    assert (same[0, 0] != same[1, 0]).any() == (name in RANDOM)


@pytest.mark.parametrize("name", ALL)
def test_frames_of_another_video_are_images(drawn, name):
    clips = drawn(32, 6).unflatten(0, (2, 3))
    frames = corrupt_video(clips, name, 3, seed=2, consistent=False)
    torch.testing.assert_close(frames.flatten(0, 1), corrupt(clips.flatten(0, 1), name, 3, seed=2))
    last = corrupt_video(clips[1:], name, 3, seed=2, consistent=False, first=1)
    torch.testing.assert_close(frames[1:], last, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "size, table",
    [
        ((1, 1), "cifar"),
        ((45, 999), "cifar"),
        ((46, 46), "tiny-imagenet"),
        ((999, 119), "tiny-imagenet"),
        ((120, 120), "imagenet"),
        ((375, 500), "imagenet"),
    ],
)
def test_the_shorter_side_chooses_the_table(size, table):
    assert table_for(*size) == table
    images = torch.rand(1, 1, *size)
    chosen = corrupt(images, "brightness", 5)
    assert torch.equal(chosen, corrupt(images, "brightness", 5, table=table))


@pytest.mark.parametrize(
    "change, error, said",
    [
        ({"name": "rain"}, ValueError, "name='rain': .*gaussian_noise.*saturate"),
        ({"severity": 0}, ValueError, "severity=0: .* from 1 to 5"),
        ({"severity": 6}, ValueError, "severity=6"),
        ({"severity": True}, ValueError, "severity=True"),
        ({"severity": 2.5}, ValueError, "severity=2.5"),
        ({"table": "mnist"}, ValueError, "table='mnist': .*tiny-imagenet"),
        ({"images": torch.rand(3, 8, 8)}, ValueError, r"shape \(3, 8, 8\)"),
        ({"images": torch.rand(1, 2, 8, 8)}, ValueError, "1 or 3 channels"),
        ({"images": torch.rand(1, 3, 0, 8)}, ValueError, "some pixels"),
        ({"images": torch.zeros(1, 3, 8, 8).long()}, TypeError, "torch.int64: .*uint8"),
        ({"images": torch.full((1, 3, 8, 8), 1.01)}, ValueError, "from 1.01 to 1.01"),
        ({"images": torch.full((1, 3, 8, 8), -0.5)}, ValueError, "from -0.5"),
        ({"images": torch.full((1, 3, 8, 8), torch.nan)}, ValueError, "none NaN"),
        ({"images": torch.full((1, 3, 8, 8), torch.inf)}, ValueError, "inf"),
    ],
)
def test_what_cannot_be_is_refused(change, error, said):
    given = {"images": torch.rand(1, 3, 8, 8), "name": "fog", "severity": 1, **change}
    with pytest.raises(error, match=said):
        corrupt(**given)
    images = given.pop("images")
    with pytest.raises(error):
        corrupt_video(images.unsqueeze(0) if images.ndim == 4 else images, **given)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -1e-3, 1.001])
@pytest.mark.parametrize("name", ALL)
def test_one_wrong_value_among_many_is_refused(name, value):
    images = torch.rand(4, 3, 8, 8)
    images[2, 1, 3, 4] = value
    for severity in range(1, 6):
        with pytest.raises(ValueError, match=r"must be in \[0, 1\], none NaN"):
            corrupt(images, name, severity)
        with pytest.raises(ValueError, match=r"must be in \[0, 1\], none NaN"):
            corrupt_video(images.unsqueeze(1), name, severity)


@pytest.mark.parametrize("name", ALL)
def test_a_grey_video_is_its_grey_frames(drawn, name):
    clips = drawn(32, 4).mean(1, keepdim=True).unflatten(0, (2, 2))
    for severity in range(1, 6):
        found = corrupt_video(clips, name, severity, consistent=False)
        frames = corrupt(clips.flatten(0, 1), name, severity)
        torch.testing.assert_close(found.flatten(0, 1), frames, atol=1e-5, rtol=0)


def test_torchvision_is_not_needed():
    code = "import regrow.vision.corruptions, sys; assert 'torchvision' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
