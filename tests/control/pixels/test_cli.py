"""``regrow control train`` with a method that sees: records, films, pages; and what is wrong."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from regrow import cli
from regrow.cli.pixels import control_train_pixels, is_of_pixels
from regrow.studies.distraction_masks.trial import LearnFromPixels

QUICK = {
    "task": "dot", "test": ("moving",), "steps": 40, "seed_steps": 12, "size": 16, "layers": 3,
    "filters": 4, "projection": 8, "width": 16, "batch": 4, "soda_batch": 4, "shift": 2,
    "evaluate_every": 20, "episodes": 2,
}  # fmt: skip


def result_in(folder):
    (record,) = (folder / "trials").iterdir()
    found = json.loads((record / "result.json").read_text())
    return record, found.get("result", found)


@pytest.mark.parametrize("method", ["MaDi", "RAD"])
def test_a_run_leaves_a_record_films_and_a_page_and_is_not_done_twice(tmp_path, capsys, method):
    from PIL import Image

    control_train_pixels(**QUICK, method=method, device="cpu", out=tmp_path)
    said = capsys.readouterr().out
    assert "step 20 of 40" in said and "moving return" in said and "page.html" in said
    record, result = result_in(tmp_path)
    assert ("moving mask AUC" in said) == ("auc" in result["tests"]["moving"]) == (method == "MaDi")
    assert result["augmentation"] == ("conv" if method == "MaDi" else "none")
    assert 0 < result["environment_share"] < 1
    assert [e["step"] for e in result["evaluations"]["clean"]] == [20, 40]
    for mode in ("clean", "moving"):
        with Image.open(record / f"film-{mode}.gif") as film:
            assert film.n_frames > 10
            width = film.size[0]
            assert width % 3 == 0 if method == "MaDi" else width == 19
    page = (record / "page.html").read_text()
    assert page.count("data:video/mp4;base64,") == 2 and ">Returns" in page
    assert ("its mask, and what is left" in page) == (method == "MaDi")
    for title in ("Masks against the true foreground", "Masks cut at their best threshold"):
        assert (title in page) == (method == "MaDi")
    assert (record / "agent.pt").is_file() and not (record / "frames").exists()
    control_train_pixels(**QUICK, method=method, device="cpu", out=tmp_path)
    assert "it was finished before" in capsys.readouterr().out


def test_without_pyav_the_page_shows_gifs(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    control_train_pixels(**QUICK, method="MaDi", device="cpu", out=tmp_path)
    record, _ = result_in(tmp_path)
    page = (record / "page.html").read_text()
    assert page.count("data:image/gif;base64,") == 2 and "video/mp4" not in page
    assert sorted(f.name for f in record.glob("film*")) == ["film-clean.gif", "film-moving.gif"]


def test_photos_decide_the_augmentation_and_records_say_it(tmp_path, capsys):
    from PIL import Image

    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(np.full((9, 9, 3), 90, np.uint8)).save(photos / "a.png")
    control_train_pixels(**QUICK, method="SVEA", device="cpu", photos=photos, out=tmp_path / "out")
    record, result = result_in(tmp_path / "out")
    assert result["augmentation"] == "overlay"
    assert json.loads((record / "config.json").read_text())["augmentation"] == "overlay"
    assert "augmentation='overlay'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"task": "walker-fly"}, "walker-fly|task="),
        ({"test": ("sideways",)}, "mode='sideways'"),
        ({"test": ("clean",)}, "clean is always tested"),
        ({"test": ("moving", "moving")}, "each mode once"),
        ({"method": "TD3"}, "method='TD3'"),
        ({"mask": "firm"}, "mask='firm'"),
        ({"cut": "knife"}, "cut='knife'"),
        ({"seed": -1}, "seed=-1"),
        ({"repeat": 0}, "repeat=0"),
        ({"size": 5}, "size=5"),
        ({"augmentation": "overlay"}, "--augmentation overlay needs a folder"),
        (
            {"task": "walker-walk", "test": ("video_hard",)},
            "--test video_hard needs a folder of videos",
        ),
        ({"workers": 0}, "workers=0"),
        ({"mask": "hard", "method": "SVEA"}, "mask='hard': SVEA learns no mask"),
        ({"repeat": 4}, "repeat=4: a step of the dot"),
        ({"seed_steps": 40}, "seed_steps=40: must be below steps=40"),
        ({"videos": Path("clips")}, "--videos clips: --test moving shows none"),
        (
            {"photos": Path("photos"), "augmentation": "conv"},
            "--photos photos: --augmentation conv shows none",
        ),
    ],
)
def test_what_is_wrong_is_told_before_a_folder_is_made(tmp_path, wrong, said):
    out = tmp_path / "out"
    with pytest.raises((ValueError, ImportError), match=said):
        control_train_pixels(**(QUICK | {"method": "MaDi"} | wrong), device="cpu", out=out)
    assert not out.exists()


def test_videos_that_cannot_be_shown_are_told_before_a_folder_is_made(tmp_path):
    pytest.importorskip("av")
    from regrow.control.distractions import write_film
    from regrow.control.distractions.painter import painter

    try:
        painter()
    except ImportError as error:
        pytest.skip(str(error))
    folders = {name: tmp_path / name for name in ("empty", "damaged", "small", "three")}
    for folder in folders.values():
        folder.mkdir()
    (folders["damaged"] / "a.mp4").write_bytes(b"no film")
    write_film(folders["small"] / "a.mp4", np.zeros((9, 20, 64, 3), np.uint8))
    write_film(folders["three"] / "a.mp4", np.zeros((3, 64, 64, 3), np.uint8))
    told = {
        "nowhere": "no such folder",
        "empty": "holds no clip",
        "damaged": r"a\.mp4 is damaged",
        "small": r"a\.mp4 has 64×20 pixels",
        "three": r"a\.mp4 has 3 frames",
    }
    train = QUICK | {"task": "cartpole-swingup", "test": ("video_hard",), "size": 48}
    for name, said in told.items():
        with pytest.raises((ValueError, FileNotFoundError), match=said):
            control_train_pixels(**train, videos=tmp_path / name, out=tmp_path / "out")
        assert not (tmp_path / "out").exists(), name


def test_a_replay_that_does_not_fit_is_told_and_leaves_no_record(tmp_path):
    with pytest.raises(ValueError, match=r"replay=1000000000: .* at most replay="):
        control_train_pixels(**QUICK, method="MaDi", replay=10**9, device="cpu", out=tmp_path)
    assert not list(tmp_path.glob("trials/*")) and not list(tmp_path.glob("failed/*"))


def test_a_run_says_how_long_it_was_and_how_it_was_drawn():
    walker = {"seed": 3, "task": "walker-walk", "steps": 5000, "test": ("video_easy",)}
    assert LearnFromPixels(**walker, quality="fast", cut="key", mask="hard").title() == (
        "MaDi, masks hard on walker-walk, seed 3: 5,000 steps of the agent, 20,000 frames; drawn "
        "without shadows, reflections and smooth edges, videos cut out by colour"
    )
    assert "10,000 frames; drawn in full" in LearnFromPixels(**walker, repeat=2).title()
    dot = LearnFromPixels(seed=0, task="dot", steps=2000)
    assert dot.title() == "MaDi on dot, seed 0: 2,000 steps of the agent"


def test_a_folder_without_photos_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"photos=.*no \.jpg"):
        control_train_pixels(**QUICK, method="MaDi", photos=tmp_path, out=tmp_path / "out")


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        (["train", "--method", "MaDi"], True),
        (["train", "--task", "walker-walk", "--method=SVEA"], True),
        (["train", "--method", "r2n"], False),
        (["train", "--out", "MaDi"], False),
        (["train", "--method"], False),
    ],
)
def test_the_method_decides_which_command_it_is(arguments, seen):
    assert is_of_pixels(arguments) == seen


def test_the_same_command_trains_both(tmp_path, monkeypatch, capsys):
    options = ["--task", "dot", "--test", "moving", "--device", "cpu"]
    for name in ("steps", "seed_steps", "size", "layers", "filters", "projection", "width", "batch",
                 "shift", "evaluate_every", "episodes"):  # fmt: skip
        options += [f"--{name.replace('_', '-')}", str(QUICK[name])]
    train = ["regrow", "control", "train", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [*train, "--method", "sac", *options])
    cli.main()
    assert "page.html" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", [*train, "--method", "R2N", "--task", "dot"])  # as papers do
    with pytest.raises(SystemExit, match="task='dot'"):
        cli.main()


def test_sgqn_leaves_out_more_where_agents_are_small():
    small, big = (LearnFromPixels(seed=0, task=t, method="SGQN") for t in ("dot", "walker-walk"))
    assert (small.how().quantile, big.how().quantile) == (0.98, 0.95)
