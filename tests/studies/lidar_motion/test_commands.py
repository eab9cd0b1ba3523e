"""The commands on made-up scenes and on a cache: a run, its page, forecasts, pictures."""

import json
import re
import shutil
import tarfile
from dataclasses import replace

import numpy as np
import pytest
import torch

import regrow
from regrow.cli.forecasts import motion_draw, motion_evaluate, motion_predict, motion_train
from regrow.motion import MotionTransformer
from regrow.motion.datasets import CachedScenes
from regrow.motion.formats.wire import fields, packed
from regrow.motion.intentions import intention_points
from regrow.motion.prepare import Settings, prepare
from regrow.motion.shards import write_shard
from regrow.motion.simulator import simulate
from regrow.motion.simulator.stored import make_scenes
from regrow.studies.lidar_motion.looks import ON_DARK
from regrow.studies.lidar_motion.pictures import draw_scene, write_picture
from regrow.studies.lidar_motion.predict import Predict
from regrow.studies.lidar_motion.trained import Trained, forecast_of, load_trained
from tests.motion.made import argoverse
from tests.ranks import command, on_ranks

SMALL = {
    "size": "tiny",
    "epochs": 1,
    "batch": 4,
    "scenes_learnt": 8,
    "scenes_tested": 4,
    "lidar_frames": 2,
    "lidar_points": 16,
    "polylines": 32,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Return the folder of a run on made-up scenes, and that of these scenes."""
    folder = tmp_path_factory.mktemp("made")
    motion_train(**SMALL, data_dir=folder, out=folder / "out")
    (record,) = (folder / "out" / "trials").iterdir()
    return record, folder


def test_a_run_has_forecasts_weights_and_a_page(made):
    record, _ = made
    result = json.loads((record / "result.json").read_text())
    with np.load(record / "forecasts.npz") as found:
        assert found["paths"].shape == (result["targets"], 6, 80, 2)
    page = (record / "page.html").read_text()
    for title in ("Worst 1", "Kinds of road users", "Speed, now", "Waymo's metrics", "Learning"):
        assert title.replace("'", "&#39;") in page
    for story in result["by_story"]:
        assert story in page
    # On a dark page nothing is drawn in the light one's ink: each colour is said with its twin.
    for light, dark in ON_DARK.items():
        page = page.replace(f"{light}; ", "").replace(f"light-dark({light}, {dark})", "both")
    assert "both" in page
    assert not re.search(rf"(?:fill|stroke): (?:{'|'.join(ON_DARK)})", page)


@pytest.mark.long
@pytest.mark.slow
def test_two_ranks_train_by_the_command_and_share_the_test(made, tmp_path):
    """One run, of which the first rank tells; every target of the test is there once."""
    record, folder = made
    names = {name.replace("_", "-"): value for name, value in SMALL.items()}
    words = [word for name, value in names.items() for word in (f"--{name}", value)]
    words += ["--data-dir", folder, "--threads", 1, "--out", tmp_path]
    done = on_ranks(command, "motion", "train", *words)
    assert [rank.returncode for rank in done] == [0, 0], done
    assert "2 steps of 4 samples, cpu on 2 ranks" in done[0].stdout
    assert not done[1].stdout
    (shared,) = (tmp_path / "trials").iterdir()
    assert shared.name == record.name
    with np.load(shared / "forecasts.npz") as two, np.load(record / "forecasts.npz") as one:
        for name in ("scene", "agent", "kind", "future"):
            np.testing.assert_array_equal(two[name], one[name])
        # Batch norms see the scenes of their rank: not what one process learns, and no NaN.
        assert np.isfinite(two["paths"]).all()
    assert (shared / "page.html").exists()


def test_a_trained_network_predicts_what_it_was_tested_to(made, tmp_path):
    """Weights in a file, and another way to the scenes, give the forecasts of the run."""
    record, folder = made
    caches = sorted((folder / "simulated-motion").glob("*/*.scenes"))
    tested = next(path.parent for path in caches if b"simulated-1000000000" in path.read_bytes())
    motion_predict(record, tested, out=tmp_path / "a.npz", device="cpu")
    with np.load(tmp_path / "a.npz") as again, np.load(record / "forecasts.npz") as found:
        np.testing.assert_allclose(again["probabilities"], found["probabilities"], atol=1e-5)
        assert again["paths"].shape == found["paths"].shape
        assert set(again["scene"]) == {f"simulated-{1_000_000_000 + i}" for i in range(4)}


def test_a_run_from_before_departures_predicts_whole_paths_as_it_did(made, tmp_path):
    """Its weights have the same names and sizes, and mean something else."""
    record, _ = made
    old = tmp_path / "old"
    shutil.copytree(record, old)
    config = json.loads((old / "config.json").read_text())
    assert config["version"] == 2
    (old / "config.json").write_text(json.dumps(config | {"version": 1}))
    now, before = load_trained(record, "cpu"), load_trained(old, "cpu")
    assert now.model.shape.departs and not before.model.shape.departs
    assert now.model.shape == replace(before.model.shape, departs=True)


def test_predictions_are_submitted_as_they_are(made, tmp_path):
    """The file that Waymo takes has the paths of the arrays, each half second, and says whose."""
    record, _ = made
    asked = {"scenes": 3, "device": "cpu"}
    motion_predict(record, out=tmp_path / "a.npz", **asked)
    motion_predict(record, out=tmp_path / "s.tar.gz", account="a@b.org", name="leaf", **asked)
    with tarfile.open(tmp_path / "s.tar.gz") as tar:
        (member,) = tar.getmembers()
        found = fields(tar.extractfile(member).read())
    assert (found[3], found[4], found[9]) == ([b"a@b.org"], [b"leaf"], [1])
    assert re.fullmatch(rb"[1-9][0-9]*[KM]", found[12][0])
    rows = [
        (scenario[1][0].decode(), content[1][0], content[2])
        for scenario in map(fields, found[1])
        for content in map(fields, fields(scenario[2][0])[1])
    ]
    with np.load(tmp_path / "a.npz") as arrays:
        assert [row[:2] for row in rows] == list(
            zip(arrays["scene"].tolist(), arrays["id"].tolist(), strict=True)
        )
        for (_, _, modes), paths, chances in zip(
            rows, arrays["paths"], arrays["probabilities"], strict=True
        ):
            for mode, path, chance in zip(map(fields, modes), paths, chances, strict=True):
                assert packed(mode[2], "<f4")[0] == np.float32(chance)
                trajectory = fields(mode[1][0])
                points = np.stack([packed(trajectory[n], "<f4") for n in (2, 3)], axis=1)
                each_half_second = path[[4 + 5 * i for i in range(16)]]
                np.testing.assert_array_equal(points, each_half_second.astype(np.float32))


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"out": "a.json"}, "must be called .npz"),
        ({"out": "s.tar.gz"}, "both go with a submission"),
        ({"out": "s.tar.gz", "account": "a@b.org"}, "name='': both go"),
        ({"out": "a.npz", "name": "leaf"}, "both go with a submission"),
        ({"out": "s.tar.gz", "account": "tea", "name": "leaf"}, "must be an e-mail address"),
    ],
)
def test_submissions_that_cannot_be_are_refused(made, tmp_path, given, words):
    given = given | {"out": tmp_path / given["out"]}
    with pytest.raises(ValueError, match=words):
        motion_predict(made[0], scenes=1, device="cpu", **given)
    assert not list(tmp_path.iterdir())


def test_evaluation_says_what_the_run_said(made, tmp_path, capsys):
    record, _ = made
    motion_evaluate(record, scenes=4, first=1_000_000_000, out=tmp_path / "e.html", device="cpu")
    result = json.loads((record / "result.json").read_text())
    assert f"minADE {result['min_ade']:.2f} m" in capsys.readouterr().out
    page = (tmp_path / "e.html").read_text()
    assert "Kinds of road users" in page
    assert f"Run: {record.name}." in page


def test_a_cache_is_learnt_from_and_drawn(tmp_path):
    folders = [tmp_path / part for part in ("learnt", "tested")]
    for first, folder in enumerate(folders):
        make_scenes(folder, 4, first=100 * first)
    motion_train(
        **SMALL | {"lidar": "none"},
        learn_from=folders[0],
        test_on=folders[1],
        out=tmp_path / "out",
    )
    (record,) = (tmp_path / "out" / "trials").iterdir()
    config = json.loads((record / "config.json").read_text())
    assert config["data"] == "cache"
    assert config["digest"]
    for name in ("simulated-2", "2"):
        motion_draw(folders[0], out=tmp_path / f"{name}.svg", run=record, scene=name, device="cpu")
    one, other = ((tmp_path / f"{name}.svg").read_text() for name in ("simulated-2", "2"))
    assert one == other
    assert "simulated-2" in one


def test_scenes_of_the_test_that_were_learnt_from_are_told(tmp_path, capsys):
    make_scenes(tmp_path / "cache", 4)
    settings = SMALL | {"lidar": "none", "learn_from": tmp_path / "cache"}
    motion_train(**settings, test_on=tmp_path / "cache", out=tmp_path / "out")
    assert "4 of the scenes of the test were learnt from, too" in capsys.readouterr().out
    (page,) = (tmp_path / "out" / "trials").glob("*/page.html")
    assert "4 scenes to test on, of which 4 were learnt from, too" in page.read_text()


def test_a_scene_that_is_there_twice_is_not_tested_on(made, tmp_path):
    """It is refused before a step is made, not after the last one."""
    record, _ = made
    for part in ("cache", "cache/copy"):
        make_scenes(tmp_path / part, 4)
    with pytest.raises(ValueError, match=r"scene simulated-0: is there twice, in .*copy"):
        motion_train(
            **SMALL | {"lidar": "none"},
            learn_from=tmp_path / "cache",
            test_on=tmp_path / "cache",
            out=tmp_path / "out",
        )
    assert not list((tmp_path / "out").glob("failed/*"))
    with pytest.raises(ValueError, match="is there twice"):
        motion_evaluate(record, tmp_path / "cache", out=tmp_path / "e.html", device="cpu")
    assert not (tmp_path / "e.html").exists()


def test_a_cache_without_a_scene_is_named(tmp_path):
    write_shard(tmp_path / "none" / "a.scenes", [], {})
    with pytest.raises(ValueError, match="none: its files hold no scene"):
        motion_train(
            **SMALL | {"lidar": "none"},
            learn_from=tmp_path / "none",
            test_on=tmp_path / "none",
            out=tmp_path / "out",
        )


def test_of_one_target_one_picture_is_drawn(made, tmp_path):
    record, _ = made
    scene = simulate(0)[0]
    one = replace(scene, targets=scene.targets[:1], points=None)
    write_shard(tmp_path / "one" / "a.scenes", [one], {})
    motion_evaluate(record, tmp_path / "one", out=tmp_path / "e.html", device="cpu")
    page = (tmp_path / "e.html").read_text()
    assert "1 scene." in page
    assert "1 target." in page
    assert "Worst: " in page
    assert "Middle: " not in page
    assert "Best: " not in page


def test_of_scenes_without_a_future_nothing_is_measured(made, tmp_path, capsys):
    record, _ = made
    scene = simulate(0)[0]
    past = {"times": scene.times[:11], "states": scene.states[:, :11], "valid": scene.valid[:, :11]}
    write_shard(tmp_path / "now" / "a.scenes", [replace(scene, **past)], {})
    motion_evaluate(record, tmp_path / "now", out=tmp_path / "e.html", device="cpu")
    assert "Of no target the future is known" in capsys.readouterr().out
    assert "<table" not in (tmp_path / "e.html").read_text()
    motion_predict(record, tmp_path / "now", out=tmp_path / "p.npz", device="cpu")
    with np.load(tmp_path / "p.npz") as found:
        assert np.isfinite(found["paths"]).all()


@pytest.fixture(scope="module")
def walks(tmp_path_factory):
    """Return a cache of tracks: no LiDAR, a step each 0.4 s."""
    folder = tmp_path_factory.mktemp("walks")
    (folder / "zara.txt").write_text("\n".join(f"{10 * n}\t1\t{n}\t0" for n in range(30)))
    prepare(folder, folder / "cache", Settings("pedestrians"))
    return folder / "cache"


def test_lidar_that_no_scene_has_is_not_learnt_from(walks, tmp_path):
    for control in ("none", "zeroed"):
        with pytest.raises(ValueError, match="LiDAR"):
            motion_train(
                **SMALL, control=control, learn_from=walks, test_on=walks, out=tmp_path / "out"
            )


def test_steps_of_another_length_are_refused(made, walks, tmp_path):
    record, _ = made
    said = "has a step each 0.4 s; the network has learnt from scenes with one each 0.1 s"
    with pytest.raises(ValueError, match=said):
        motion_predict(record, walks, out=tmp_path / "p.npz", device="cpu")
    make_scenes(tmp_path / "made-up", 4)
    with pytest.raises(ValueError, match=r"step each 0.1 s, those of .*zara.* each 0.4 s"):
        motion_train(
            **SMALL | {"lidar": "none"},
            learn_from=tmp_path / "made-up",
            test_on=walks,
            out=tmp_path / "out",
        )
    assert not (tmp_path / "p.npz").exists()


def test_what_is_wrong_is_told_before_anything_is_written(made, tmp_path):
    record, _ = made
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="learn-from: give test-on, too"):
        motion_train(learn_from=tmp_path, out=out)
    with pytest.raises(ValueError, match=r"density=0.1: is of the LiDAR encoder"):
        motion_train(lidar="none", density=0.1, out=out)
    with pytest.raises(ValueError, match=r"must be called .html"):
        motion_evaluate(record, out=tmp_path / "a.txt")
    with pytest.raises(ValueError, match=r"must be called .npz"):
        motion_predict(record, out=tmp_path / "a.txt")
    with pytest.raises(FileNotFoundError, match=r"no config.json in it"):
        motion_predict(tmp_path, out=tmp_path / "a.npz")
    with pytest.raises(ValueError, match="scene='x': without a folder it is a seed"):
        motion_draw(out=tmp_path / "a.png", scene="x")
    with pytest.raises(ValueError, match="target=77"):
        motion_draw(out=tmp_path / "a.png", target=77)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("lidar", [False, True], ids=["scenario", "log with LiDAR"])
def test_a_real_scene_is_predicted_and_drawn(lidar, tmp_path):
    """From the files of Argoverse 2 to six futures of each target, in metres, and a picture."""
    cache = tmp_path / "cache"
    if lidar:
        log = argoverse("sensor", "adcf7d18-0510-35b0-a2fa-b4cea13a6d76")
        shutil.copytree(log, tmp_path / "logs" / log.name)
        settings = Settings("argoverse-sensor", past=0, future=40, every=50)
        prepare(tmp_path / "logs", cache, settings)
    else:
        prepare(argoverse("motion-forecasting"), cache, Settings("argoverse-forecasting"))
    scene = CachedScenes(cache)[0]
    trial = Predict(
        seed=0, method=regrow.Dense(), epochs=1, size="tiny", past=11, future=40, lidar_frames=2,
        lidar="temporal" if lidar else "none", polylines=64,
    )  # fmt: skip
    torch.manual_seed(0)
    model = MotionTransformer(trial.shape()).eval()
    model.decoder.intentions.copy_(intention_points([scene], 16, future=40))
    trained = Trained(model, trial.featurer(), torch.device("cpu"))
    found = trained.predict([scene])
    assert len(found["paths"]) == len(scene.targets)
    assert np.isfinite(found["paths"]).all()
    assert (found["points"] > 0).any() == lidar
    shown = forecast_of(found, 0)
    place = scene.states[scene.targets[0], scene.now, :2]
    assert np.linalg.norm(shown.paths[:, 0] - place, axis=1).max() < 100
    figure = draw_scene(scene, 0, shown)
    assert write_picture(figure, tmp_path / "scene.png").stat().st_size > 5000
