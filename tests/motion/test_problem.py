"""Training motion: it learns, resumes bit for bit, in half precision, on ranks; forecasts."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import regrow
from regrow.lab.files import read_lines
from regrow.lab.run import METRICS, Run
from regrow.motion.batches import SceneBatches
from regrow.motion.decoder import Predicted
from regrow.motion.features import Featurer
from regrow.motion.forecast import displacements
from regrow.motion.intentions import ends, intention_points
from tests.motion.learning import Kill, Killed, learn, on_rank, run
from tests.motion.made import scene
from tests.ranks import on_ranks


def test_it_learns_and_tells_what_it_found(tmp_path):
    result, _ = run(learn(epochs=12, learning_rate=3e-3, batch=3), tmp_path)
    lines = read_lines(tmp_path / METRICS)
    assert lines[-1]["loss"] < 0.9 * lines[0]["loss"]
    assert {"train_min_ade", "train_nll", "validation_min_ade", "validation_min_fde"} <= set(
        lines[-1]
    )
    assert result["targets"] == 10
    assert {"min_ade", "min_fde", "by_kind", "with_points", "without_points"} <= result.keys()
    assert result["shape"]["lidar"]["channels"] == 9
    assert 0 < result["inference_flops"] < result["dense_inference_flops"]
    found = np.load(tmp_path / "forecasts.npz")
    assert found["paths"].shape == (10, 6, 20, 2)
    assert found["scene"].tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4]
    assert (found["points"][:2] == 0).all()  # made of number 15
    best = displacements(
        *(torch.from_numpy(found[n]) for n in ("paths", "future", "future_valid"))
    )[0].amin(1)
    assert result["min_ade"] == pytest.approx(float(best.mean()), rel=1e-5)
    for name, own in (
        ("with_points", found["points"] > 0),
        ("without_points", found["points"] == 0),
    ):
        assert own.any()
        assert result[name]["min_ade"] == pytest.approx(float(best[own].mean()), rel=1e-5)


def test_a_killed_run_goes_on_bit_for_bit(tmp_path):
    whole, one = run(learn(), tmp_path / "whole")
    for _ in range(2):
        with pytest.raises(Killed):
            run(learn(), tmp_path / "cut", Kill)
    cut, two = run(learn(), tmp_path / "cut")
    for name, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[name]), name
    for name in ("loss", "min_ade", "min_fde"):
        assert whole[name] == cut[name]


@pytest.mark.parametrize("lidar", ["none", "temporal"])
def test_half_precision_and_no_lidar(tmp_path, lidar):
    result, trainer = run(learn(epochs=1, precision="bfloat16", lidar=lidar), tmp_path)
    assert np.isfinite(result["loss"])
    assert (trainer.model.lidar is None) == (lidar == "none")
    assert ("with_points" in result) == (lidar != "none")


def test_limtr_trains_sparse_in_its_encoder_alone(tmp_path):
    problem = learn(
        epochs=1,
        lidar="pointnet-linear",
        method=regrow.SET(density=0.1, update_every=2),
        include=("lidar.encoder.*",),
    )
    result, trainer = run(problem, tmp_path)
    assert all(name.startswith("lidar.encoder.") for name in trainer.sparse.masks)
    assert result["density"] == pytest.approx(0.1, abs=1e-3)
    assert result["nonzeros"] < 0.35 * result["parameters"]


@pytest.mark.slow
def test_ranks_hold_one_model(tmp_path):
    """Batch norms of a rank see its own scenes, but all forecast with those of the first."""
    for rank in on_ranks(on_rank, str(tmp_path)):
        assert rank.returncode == 0, rank.stderr
    first, second = (torch.load(tmp_path / f"2-{rank}.pt") for rank in (0, 1))
    assert first["ade"] == second["ade"]
    for name, value in first["weights"].items():
        assert torch.equal(value, second["weights"][name]), name


def test_graphs_are_refused_where_they_would_be_captured(monkeypatch, tmp_path):
    monkeypatch.setattr("regrow.motion.problem.device_of", lambda _: torch.device("cuda"))
    problem = learn()
    with pytest.raises(ValueError, match="graphs=False"):
        problem.open(problem, Run(tmp_path, {}))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"size": "huge"}, "size='huge'"),
        ({"lidar": "voxels"}, "lidar='voxels'"),
        ({"fusion": ("keys", "late")}, "fusion: \\['late'\\]"),
        ({"fusion": (), "lidar": "temporal"}, "fusion: is empty; must be some of token"),
        ({"velocity": -1.0}, "velocity=-1.0"),
        ({"polylines": 0}, "polylines=0"),
        ({"turn": "north"}, "turn='north'"),
        ({"measured": ("colour",)}, "measured"),
        ({"intention_scenes": 0}, "intention_scenes=0"),
        ({"lidar": "temporal", "lidar_points": 0}, "lidar_points=0: must be at least 1"),
        ({"lidar": "temporal", "lidar_frames": 0}, "lidar_frames=0: must be at least 1"),
        ({"workers": -1}, "workers=-1: must be at least 0"),
    ],
)
def test_what_is_out_of_range_is_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        learn(**changes).check()


def test_the_choice_of_a_query_weighs_fifty_a_target_and_in_mtrs_own_way_one_times_the_batch():
    draw = torch.Generator().manual_seed(0)
    predicted = Predicted(
        torch.randn(2, 3, 4, generator=draw),
        torch.randn(2, 3, 4, 20, 7, generator=draw),
        torch.randn(3, 2, 20, 7, generator=draw),
        torch.randn(3, 4, 2, generator=draw),
    )
    targets = {
        "future": torch.randn(3, 20, 4, generator=draw),
        "future_valid": torch.ones(3, 20, dtype=torch.bool),
        "others": torch.randn(3, 2, 20, 4, generator=draw),
        "others_valid": torch.ones(3, 2, 20, dtype=torch.bool),
    }
    batch = SimpleNamespace(targets=targets)
    own, mtr, told = (
        learn(**changes).losses(predicted, batch)
        for changes in ({}, {"mtr_compat": True}, {"mtr_compat": True, "classification": 2.0})
    )
    for found, weight in ((own, 50), (mtr, 1), (told, 2)):
        rest = found["nll"] + 0.5 * found["velocity"] + found["dense"]
        torch.testing.assert_close(found["total"], rest + weight * found["classification"])
    torch.testing.assert_close(mtr["classification"], own["classification"].sum().expand(3))


def test_batches_follow_from_seed_and_epoch_whoever_makes_them():
    scenes = [scene(i, steps=20) for i in range(6)]
    how = {"featurer": Featurer(future=5), "batch": 4, "seed": 3}
    batches = SceneBatches(scenes, **how)
    assert len(batches) == 1
    [one], [again], [other] = (list(batches.epoch(e)) for e in (0, 0, 1))
    assert torch.equal(one.ids, again.ids)
    assert not torch.equal(one.ids, other.ids)
    halves = [SceneBatches(scenes, **how, rank=r, ranks=2) for r in (0, 1)]
    shares = [next(iter(half.epoch(0))).ids for half in halves]
    assert torch.equal(torch.cat(shares), one.ids)
    assert torch.equal(one.inputs["agents"], again.inputs["agents"])
    assert torch.equal(one.targets["scene"].unique(), torch.arange(4))


@pytest.mark.slow
def test_workers_make_the_same_batches():
    scenes = [scene(i, steps=20, points=40) for i in range(4)]
    from regrow.motion.clouds import LidarFeatures

    featurer = Featurer(future=5, lidar=LidarFeatures(points=8))
    alone, helped = (SceneBatches(scenes, featurer, batch=2, seed=0, workers=w) for w in (0, 1))
    for one, two in zip(alone.epoch(1), helped.epoch(1), strict=True):
        assert one.inputs.keys() == two.inputs.keys()
        for name, value in one.inputs.items():
            assert torch.equal(value, two.inputs[name])


def test_intention_points_are_centres_of_ends():
    """Ends in three heaps: the centres are their means, in the frame of each target."""
    rng = np.random.default_rng(0)
    scenes = []
    for i in range(60):
        one = scene(i, agents=1, targets=1, kinds=[1 if i < 48 else 2], steps=20)
        goal = np.array([[30.0, 0.0], [10.0, 12.0], [0.5, -3.0]])[i % 3] + rng.normal(0, 0.1, 2)
        heading = one.states[0, 10, 6]
        turn = np.array([[np.cos(heading), -np.sin(heading)], [np.sin(heading), np.cos(heading)]])
        one.states[0, -1, :2] = one.states[0, 10, :2] + turn @ goal
        scenes.append(one)
    places, kinds = ends(scenes)
    assert kinds.tolist() == [1] * 48 + [2] * 12
    found = intention_points(scenes, 3)
    assert found.shape == (4, 3, 2)
    for kind, own in ((1, places[:48]), (2, places[48:]), (0, places), (3, places)):
        heaps = [own[i::3].mean(0) for i in range(3)]
        far = np.linalg.norm(found[kind].numpy()[:, None] - np.array(heaps)[None], axis=-1)
        assert far.min(0).max() < 1e-4
    assert torch.equal(found, intention_points(scenes, 3))
    few = intention_points(scenes[:2], 5)
    assert few.shape == (4, 5, 2)
    assert few.isfinite().all()


def test_no_future_at_all_is_refused():
    one = scene(steps=20)
    one.valid[:, 11:] = False
    with pytest.raises(ValueError, match="no target has a valid step"):
        intention_points([one], 3)


def test_displacements_skip_what_is_not_valid():
    torch.manual_seed(0)
    paths, future, valid = torch.randn(5, 3, 9, 2), torch.randn(5, 9, 4), torch.rand(5, 9) < 0.5
    valid[1] = False
    average, final = displacements(paths, future, valid)
    for i in range(5):
        if i == 1:
            assert average[i].isnan().all() and final[i].isnan().all()
            continue
        steps = valid[i].nonzero().flatten()
        far = (paths[i] - future[i, :, :2]).norm(dim=-1)
        torch.testing.assert_close(average[i], far[:, steps].mean(1))
        torch.testing.assert_close(final[i], far[:, steps[-1]])
