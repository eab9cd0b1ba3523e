"""Pictures show what is there, to scale, and name nothing else; films run at the speed of life."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from regrow.motion.simulator import Sensor, World, simulate

pytest.importorskip("matplotlib")
from regrow.studies.lidar_motion.birds_eye import Forecast, window_around
from regrow.studies.lidar_motion.looks import DARK, LIGHT
from regrow.studies.lidar_motion.pictures import (
    draw_scene,
    write_film,
    write_picture,
)

SCENE = simulate(4, World(sensor=Sensor(beams=32, columns=800)))[0]


def _forecast(scene, target=0):
    state = scene.states[scene.targets[target], scene.now]
    angles = np.arange(6)[:, None] + np.zeros(80)
    ways = np.stack([np.cos(angles), np.sin(angles)], -1) * np.linspace(0, 20, 80)[:, None]
    return Forecast(state[:2] + ways, np.array([0.4, 0.3, 0.15, 0.08, 0.05, 0.02]))


def _words(figure):
    return [text.get_text() for text in figure.findobj(lambda a: hasattr(a, "get_text"))]


def _legend(figure):
    return {text.get_text() for text in figure.legends[0].get_texts()}


def test_axes_are_equal_and_the_target_and_its_futures_are_in_the_picture():
    forecast = _forecast(SCENE)
    figure = draw_scene(SCENE, 0, forecast)
    figure.draw_without_rendering()
    above = figure.axes[0]
    assert all(axes.get_aspect() == 1 for axes in figure.axes)
    (left, right), (low, high) = above.get_xlim(), above.get_ylim()
    assert right - left == pytest.approx(high - low)
    for path in forecast.paths[:5]:
        assert (path > (left, low)).all()
        assert (path < (right, high)).all()


def test_likely_futures_bear_their_probabilities():
    words = _words(draw_scene(SCENE, 0, _forecast(SCENE)))
    assert {"40%", "30%", "15%", "8%", "5%"} <= set(words)
    assert "2%" not in words


def test_the_likeliest_future_bears_its_probability_however_small():
    """Of 64 futures nearly alike none has a twentieth; it is seen, and in the picture."""
    few = replace(_forecast(SCENE), probabilities=np.array([0.02, 0.018, 0.017, 0.016, 0.01, 0.01]))
    words = _words(draw_scene(SCENE, 0, few))
    assert "2%" in words
    assert not {"1%"} & set(words)
    middle, half = window_around(SCENE, 0, few)
    assert (np.abs(few.paths[0] - middle) < half).all()


def test_the_legend_names_what_is_drawn_and_nothing_else():
    whole = _legend(draw_scene(SCENE, 0, _forecast(SCENE)))
    assert {"predicted", "what happened", "the past", "the pedestrian"} <= whole
    bare = _legend(draw_scene(SCENE, 0))
    assert "predicted" in whole - bare
    alone = replace(SCENE, valid=SCENE.valid & (np.arange(len(SCENE.ids)) == 1)[:, None])
    assert _legend(draw_scene(alone, 0)) == {"what happened", "the past", "the pedestrian"}
    before = _legend(draw_scene(alone, 0, _forecast(SCENE), step=5))
    assert before == {"the past", "the pedestrian"}  # what comes is not drawn before now


def test_the_points_beside_it_are_those_of_the_frame():
    for step, frame in ((None, 10), (4, 4), (60, 10)):
        figure = draw_scene(SCENE, 0, step=step)
        count = SCENE.points.counts[0, frame]
        assert any(word.startswith(f"{count:,} point") for word in _words(figure))
        for axes in figure.axes[1:]:
            assert len(axes.collections[-1].get_offsets()) == count


def test_a_scene_without_lidar_has_no_place_for_points():
    for tall in (False, True):
        assert len(draw_scene(replace(SCENE, points=None), 0, tall=tall).axes) == 1
        assert len(draw_scene(SCENE, 0, tall=tall).axes) == 3


def test_a_scene_alone_fills_its_picture():
    figure = draw_scene(replace(SCENE, points=None), 0, _forecast(SCENE))
    figure.draw_without_rendering()
    above = figure.axes[0].get_window_extent()
    assert above.width > 0.9 * figure.bbox.width
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1


def test_what_is_drawn_for_a_page_is_narrow_with_the_points_below():
    """As wide as a phone at the size of its letters, and nothing lies on something else."""
    figure = draw_scene(SCENE, 0, _forecast(SCENE), tall=True)
    figure.draw_without_rendering()
    assert figure.get_figwidth() <= 3.6
    above, front, side = (axes.get_window_extent() for axes in figure.axes)
    assert max(front.y1, side.y1) < above.y0 and front.x1 < side.x0
    assert figure.legends[0].get_window_extent().y1 < min(front.y0, side.y0)
    assert figure.legends[0].get_window_extent().x1 <= figure.bbox.x1


def test_dark_and_light_differ_in_colour_only(tmp_path):
    light, dark = (draw_scene(SCENE, 0, _forecast(SCENE), look=look) for look in (LIGHT, DARK))
    assert _words(light) == _words(dark)
    assert light.get_facecolor() != dark.get_facecolor()


def test_a_window_holds_truth_and_likely_futures_only():
    middle, half = window_around(SCENE, 0, None)
    assert half >= 14
    far = _forecast(SCENE)
    far.paths[5] *= 100  # too unlikely to count
    assert window_around(SCENE, 0, far)[1] == window_around(SCENE, 0, _forecast(SCENE))[1]
    path = SCENE.states[SCENE.targets[0], :, :2]
    assert (np.abs(path - middle) < half).all()


@pytest.mark.parametrize("ending", [".png", ".svg", ".pdf"])
def test_pictures_are_written_as_their_names_say(tmp_path, ending):
    path = write_picture(draw_scene(SCENE, 0), tmp_path / f"a{ending}")
    start = path.read_bytes()[:200]
    assert {".png": b"PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[ending] in start


@pytest.mark.parametrize("look", [LIGHT, DARK])
def test_a_picture_lies_on_its_paper(tmp_path, look):
    from matplotlib.colors import to_rgba
    from PIL import Image

    with Image.open(write_picture(draw_scene(SCENE, 0, look=look), tmp_path / "a.png")) as image:
        corner = image.convert("RGBA").getpixel((0, 0))
    assert corner == tuple(round(255 * part) for part in to_rgba(look.paper))


def test_a_film_shows_all_seconds_and_rests_at_now(tmp_path):
    from PIL import Image

    short = replace(
        SCENE,
        times=SCENE.times[:19],
        states=SCENE.states[:, :19],
        valid=SCENE.valid[:, :19],
    )
    path = write_film(short, 0, tmp_path / "a.gif", _forecast(SCENE))
    with Image.open(path) as film:
        lasts = []
        for frame in range(film.n_frames):
            film.seek(frame)
            lasts.append(film.info["duration"])
    assert sum(lasts) == 200 * 8 + 1200 + 1600  # ten pictures, every second step
    assert lasts[5] == 1200
    assert lasts[-1] == 1600
    av = pytest.importorskip("av")
    with av.open(str(write_film(short, 0, tmp_path / "a.mp4", _forecast(SCENE)))) as film:
        stream = film.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(stream)]
        assert (stream.average_rate, len(frames)) == (5, sum(lasts) // 200)
    apart = [float(abs(a.astype(int) - b).mean()) for a, b in itertools.pairwise(frames)]
    assert max(apart[6:10]) < 0.5 < max(apart)  # it rests at now


def test_what_cannot_be_drawn_is_refused(tmp_path):
    with pytest.raises(ValueError, match="target=9: scene simulated-4 has 6 targets"):
        draw_scene(SCENE, 9)
    with pytest.raises(ValueError, match=r"must end in .png"):
        write_picture(draw_scene(SCENE, 0), tmp_path / "a.jpg")
    with pytest.raises(ValueError, match=r"must be called .gif or .mp4"):
        write_film(SCENE, 0, tmp_path / "a.webm")
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="paths: shape"):
        Forecast(np.zeros((6, 80, 3)), np.zeros(6))
    with pytest.raises(ValueError, match="probabilities: shape"):
        Forecast(np.zeros((6, 80, 2)), np.zeros(5))
    with pytest.raises(ValueError, match="not finite"):
        Forecast(np.full((6, 80, 2), np.nan), np.zeros(6))
