"""What modes do to pictures: held to clips, to other looks, to another way to cut, to bounds."""

import colorsys
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.control.distractions import TASKS, Videos
from regrow.control.distractions.camera import (
    _as_sphere,
    _looking,
    _on_sphere,
    _roll,
    _turned_least,
)
from regrow.control.distractions.colours import KEY, paint
from regrow.control.distractions.cutting import has_key_colour
from regrow.control.distractions.distracting import INTENSITIES, clips_of, scale_of
from regrow.control.distractions.painter import painter

FREE = {"skybox_rgb": (0.9, 0.1, 0.9), "skybox_rgb2": (0.9, 0.1, 0.9),
        "skybox_markrgb": (0.9, 0.1, 0.9), "grid_rgb1": (0.9, 0.1, 0.9),
        "grid_rgb2": (0.9, 0.1, 0.9), "grid_markrgb": (0.9, 0.1, 0.9)}  # fmt: skip


def begun(environments, steps=3):
    environments.reset()
    random = np.random.default_rng(0)
    for _ in range(steps):
        environments.step(random.uniform(-1, 1, (environments.runs, environments.actions)))
    return environments


def drawn(environments, colours):
    """Draw the first run with sky and floor in other colours."""
    scene = environments._scenes[0]
    look = environments.mode.look(paint(scene.model, colours))
    return painter().do(lambda: look.picture(scene.model, scene.data, scene.camera))


@pytest.mark.parametrize("task", TASKS)
def test_the_foreground_is_what_no_colour_of_the_background_changes(pixels, task):
    environments = begun(pixels(task))
    same = (drawn(environments, KEY) == drawn(environments, FREE)).all(-1)
    found = environments.foreground()[0]
    # Pictures are drawn by coverage, too: a pixel of an edge may have both.
    assert found.any() and np.array_equal(found, same)


@pytest.mark.parametrize("task", TASKS)
def test_a_video_is_behind_and_the_foreground_stays_bit_for_bit(pixels, stills, task):
    clips = Videos(stills, 48)
    clean, hard, easy = (begun(pixels(task, mode=mode)) for mode in
                         ("clean", "video_hard", "video_easy"))  # fmt: skip
    foreground, frame = clean.foreground()[0], clean.observe()[0]
    behind = clips[0][3]
    seen = hard.observe()[0]
    assert np.array_equal(seen[foreground], frame[foreground])
    assert np.array_equal(seen[~foreground], behind[~foreground])
    assert np.array_equal(hard.foreground()[0], foreground)
    sky = (easy.observe()[0] == behind).all(-1)
    kept = (easy.observe()[0] == frame).all(-1)
    floor = ~foreground & ~sky
    assert (sky | kept).all() and floor.any() and not (sky & foreground & ~kept).any()


def test_a_video_goes_on_by_a_frame_a_step_and_the_next_follows_at_each_reset(pixels, stills):
    clips = Videos(stills, 48)
    assert [clip.name for clip in clips.clips] == ["clip9", "clip10", "clip11"]
    environments = pixels(mode="video_hard", seeds=[0, 1], repeat=1)
    for episode in range(4):
        frames = environments.reset()
        for step in range(10):  # longer than a clip, which begins again
            background = ~environments.foreground()
            for run in range(2):
                clip = clips[(run + episode) % 3]
                expected = clip[step % len(clip)][background[run]]
                assert np.array_equal(frames[run][background[run]], expected)
            frames = environments.step(np.zeros((2, 1))).observations


def test_the_key_is_the_published_one():
    """All colours whose parts are multiples of five, one by one, and hues at both bounds."""
    parts = np.arange(0, 256, 15, dtype=np.uint8)
    grid = np.stack(np.meshgrid(parts, parts, parts), -1).reshape(-1, 3)
    bounds = [(60, 180, 20), (20, 180, 180), (10, 230, 250), (51, 204, 51), (0, 0, 0), (70, 70, 70)]
    colours = np.concatenate([grid, np.array(bounds, dtype=np.uint8)])

    def published(pixel):
        hue, saturation, value = colorsys.rgb_to_hsv(*(int(part) / 255.0 for part in pixel))
        return (100 <= hue * 360 <= 185 and 80 <= saturation * 255 <= 255
                and 70 <= value * 255 <= 255)  # fmt: skip

    expected = [published(pixel) for pixel in colours]
    assert has_key_colour(colours).tolist() == expected
    assert any(expected) and not all(expected)


@pytest.mark.parametrize("domain", ["cartpole", "finger"])
@pytest.mark.parametrize("colours", [KEY, {"grid_rgb1": (1, 0, 0), "self_rgb": (0, 0.5, 1)}])
def test_colours_are_those_of_an_edited_file(pixels, domain, colours):
    """Held to the published way: edit dm_control's XML files, then compile the whole task again."""
    import mujoco
    from dm_control.suite import common

    files = {name: ElementTree.fromstring(text) for name, text in common.ASSETS.items()}
    named = {"rgb": "rgb1", "rgb1": "rgb1", "rgb2": "rgb2", "markrgb": "markrgb"}
    for name, rgb in colours.items():
        of, part = name.split("_")
        kind, attribute = ("material", "rgba") if of == "self" else ("texture", named[part])
        value = " ".join(map(str, [*rgb, 1] if of == "self" else rgb))
        for tree in files.values():
            for found in tree.findall(f"asset/{kind}[@name='{of}']"):
                found.set(attribute, value)
    edited = {name: ElementTree.tostring(tree) for name, tree in files.items()}
    theirs = mujoco.MjModel.from_xml_string(common.read_model(f"{domain}.xml").decode(), edited)
    task = {"cartpole": "cartpole-swingup", "finger": "finger-spin"}[domain]
    ours = paint(pixels(task)._scenes[0].model, colours)
    assert np.array_equal(ours.tex_data, theirs.tex_data)
    assert np.array_equal(ours.mat_rgba, theirs.mat_rgba)


def test_the_key_cuts_where_the_picture_is_green(pixels, stills):
    clip = Videos(stills, 48)[0]
    environments = begun(pixels("walker-walk", mode="video_hard", cut="key"))
    green = has_key_colour(drawn(environments, KEY))
    seen, raw = environments.observe()[0], drawn(environments, KEY)
    assert np.array_equal(seen[green], clip[3][green])
    assert np.array_equal(seen[~green], raw[~green])
    # Without smooth edges both ways agree, but for shades too dark to be green.
    assert (green == ~environments.foreground()[0]).mean() > 0.95


def test_each_episode_has_one_of_the_colours(pixels):
    two = [{"self_rgb": [1.0, 0.0, 0.0]}, {"self_rgb": [0.0, 0.0, 1.0], "grid_rgb1": [1, 1, 1]}]
    environments = pixels(mode="color_hard", seeds=[0], colours=two)
    scene = environments._scenes[0]
    material = next(i for i in range(scene.model.nmat) if scene.model.mat(i).name == "self")
    seen = []
    for _ in range(4):
        environments.reset()
        environments.step(np.zeros((1, 1)))
        seen.append(scene.model.mat_rgba[material, :3].tolist())
    assert seen == 2 * [two[0]["self_rgb"], two[1]["self_rgb"]]


def test_the_distracting_suite_stays_within_its_bounds(pixels):
    environments = pixels("walker-walk", mode="distracting", intensity="hard", repeat=50)
    usual = pixels("walker-walk")._scenes[0].model.mat_rgba
    scene = environments._scenes[0]
    colours, places, frames = [], [], [environments.reset()]
    for _ in range(10):
        frames.append(environments.step(np.zeros((1, 6))).observations)
        colours.append(scene.model.mat_rgba.copy())
        places.append(scene.data.cam_xpos[0] - scene.data.subtree_com[1])
    colours, radii = np.stack(colours), np.linalg.norm(places, axis=1)
    assert (np.abs(colours - usual)[..., :3] <= 0.3 + 1e-6).all()
    assert len(np.unique(colours[:, 1, 0])) > 5  # they walk
    own = pixels("walker-walk")
    own.reset()
    start = own._scenes[0].data.cam_xpos[0] - own._scenes[0].data.subtree_com[1]
    ratio = radii / np.linalg.norm(start)
    assert (ratio >= 0.85 - 1e-9).all() and (ratio <= 1.45 + 1e-9).all()
    assert len({frame.tobytes() for frame in frames}) == len(frames)
    environments.reset()
    assert scene.model.mat_rgba[:, 3].tolist() == usual[:, 3].tolist()  # a walker's floor is solid


@pytest.mark.parametrize(("intensity", "pace"), [("hard", 1), (0.3, 2)])
def test_the_sky_of_the_distracting_suite_goes_either_way_and_turns_at_ends(
    pixels, intensity, pace
):
    """In the suite a frame a control step, in the benchmark that took it over every second."""
    environments = pixels("cartpole-swingup", mode="distracting", intensity=intensity, repeat=1)
    mode, ways = environments.mode, set()
    for _ in range(6):
        seen = []
        environments.reset()
        for _ in range(12):
            texture = mode.looks[0].model.tex_data
            seen += [
                (clip, number)
                for clip in range(len(mode.videos))
                for number, frame in enumerate(mode.videos[clip])
                if np.array_equal(texture[: frame.size], frame.ravel())
            ]
            environments.step(np.zeros((1, 1)))
        clips, numbers = np.array(seen).T
        assert len(seen) == 12 and len(set(clips)) == 1
        moves = np.diff(numbers[::pace])
        assert (np.abs(moves) == 1).all()
        assert np.array_equal(numbers, numbers[::pace].repeat(pace))
        last = len(mode.videos[clips[0]]) - 1
        turned = numbers[::pace][1:-1][np.diff(moves) != 0]
        assert set(turned) <= {0, last}
        if 0 < numbers[0] < last:  # at an end there is but one way
            ways.add(int(moves[0]))
    assert ways == {-1, 1}


def test_a_wandering_camera_stays_above_the_floor_and_in_front(pixels):
    environments = pixels("walker-walk", mode="distracting", intensity=0.5, repeat=200)
    data, places = environments._scenes[0].data, []
    for _ in range(8):
        environments.reset()
        for _ in range(4):
            environments.step(np.zeros((1, 6)))
            places.append(data.cam_xpos[0] - data.subtree_com[1])
    places = np.array(places)
    assert (places[:, 2] >= -1e-9).all() and (places[:, 1] <= 1e-9).all()
    assert places[:, 2].max() > 1 and np.ptp(places[:, 0]) > 1  # it does wander


def test_what_does_not_move_stands_still(pixels):
    environments = pixels("cartpole-balance", mode="distracting", dynamic=False, intensity=0.5)
    scene = environments._scenes[0]

    def told():
        environments.observe()
        data, texture = scene.data, environments.mode.looks[0].model.tex_data
        there = [scene.model.mat_rgba, data.cam_xpos[0], data.cam_xmat[0], texture]
        return [array.copy() for array in there]

    environments.reset()
    first = told()
    environments.step(np.ones((1, 1)))
    assert all(np.array_equal(a, b) for a, b in zip(first, told(), strict=True))
    floor = next(i for i in range(scene.model.nmat) if scene.model.mat(i).name == "grid")
    assert scene.model.mat_rgba[floor, 3] == pytest.approx(0.3)
    environments.reset()
    assert not any(np.array_equal(a, b) for a, b in zip(first, told(), strict=True))


@pytest.mark.parametrize("task", [*TASKS, "cheetah-run", "reacher-easy"])
def test_a_camera_that_hardly_moves_sees_what_the_task_shows(pixels, task):
    """Held to dm_control's own camera: where it is, where it looks, and that it stands upright."""
    environments, own = pixels(task, mode="distracting", dynamic=False), pixels(task)
    environments.mode.scale = 1e-9
    for one in (environments, own):
        begun(one)
        one.observe()
    moved, usual = environments._scenes[0].data, own._scenes[0].data
    np.testing.assert_allclose(moved.cam_xpos[0], usual.cam_xpos[0], atol=1e-6)
    np.testing.assert_allclose(moved.cam_xmat[0], usual.cam_xmat[0], atol=1e-6)


def test_intensities_are_the_suites_and_the_benchmarks():
    assert [clips_of(i) for i in ("easy", "medium", "hard")] == [4, 8, None]
    assert [scale_of(i) for i in ("easy", "medium", "hard")] == [0.1, 0.2, 0.3]
    numbers = [i for i in INTENSITIES if not isinstance(i, str)]
    assert numbers == [0.025, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5]


WAYS = st.lists(st.floats(-3, 3), min_size=3, max_size=3)


@given(WAYS.filter(lambda way: np.hypot(*way[:2]) > 0.1))
def test_cameras_are_turned_and_not_bent(way):
    way = np.array(way)
    for turned in (_looking(way), _turned_least(way), _roll(way[0])):
        np.testing.assert_allclose(turned @ turned.T, np.eye(3), atol=1e-9)
        assert np.linalg.det(turned) == pytest.approx(1)
    for turned in (_looking(way), _turned_least(way)):
        np.testing.assert_allclose(-turned[:, 2], way / np.linalg.norm(way), atol=1e-9)
    assert _looking(way)[2, 0] == 0 and _looking(way)[2, 1] > 0  # level, and its top is up


@given(WAYS.filter(lambda way: np.linalg.norm(way) > 1e-6))
def test_places_on_the_sphere_are_places(place):
    place = np.array(place)
    np.testing.assert_allclose(_on_sphere(_as_sphere(place)), place, atol=1e-9)
