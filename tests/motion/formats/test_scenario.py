"""Scenarios written and read back; those that are odd, and those that are damaged."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from regrow.motion import SIZES, Featurer, MotionTransformer
from regrow.motion.batches import collate
from regrow.motion.formats.scenario import decode_scenario, read_scenarios
from regrow.motion.formats.scenario_writer import encode_scenario, write_scenarios
from regrow.motion.formats.wire import field
from regrow.motion.loss import motion_losses
from regrow.motion.scene import LINES
from regrow.reading import UnreadableError
from tests.motion.curves import scene_of


def assert_same(one, other):
    assert (one.name, one.now, one.ego) == (other.name, other.now, other.ego)
    for name, array in one.arrays().items():
        np.testing.assert_array_equal(other.arrays()[name], array, err_msg=name)


@pytest.mark.parametrize("seed", range(5))
def test_scenes_come_back(seed):
    assert_same(scene_of(seed), decode_scenario(encode_scenario(scene_of(seed))))


def point(*place):
    return b"".join(field(number, float(x)) for number, x in enumerate(place, start=1))


def state(x=1.0, valid=1):
    places = b"".join(field(number, x) for number in (2, 3, 4))
    sizes = b"".join(field(number, x, "<f4") for number in range(5, 11))
    return places + sizes + field(11, valid)


def far(x):
    return field(2, x) + field(11, 1)


def scenario(features=b"", states=None, extra=b"", kind=1):
    """Write out a scenario of one track and two steps, by its specification."""
    states = [state(), state()] if states is None else states
    track = field(1, 5) + field(2, kind) + b"".join(field(3, one) for one in states)
    times = field(1, 0.0) + field(1, 0.1)
    return field(5, "tea") + times + field(10, 1) + field(2, track) + features + extra


def feature(number, content, ident=3):
    return field(8, field(1, ident) + field(number, content))


LINES_BY_HAND = [
    (3, field(1, 25.0) + field(2, 1) + field(8, point(1, 2, 3)) + field(9, b"\1\2"), "freeway"),
    (3, field(2, 0) + field(8, point(1, 2, 3)), "unknown"),
    (3, field(8, point(1, 2, 3)) + field(2, 3), "bike lane"),
    (4, field(1, 5) + field(2, point(1, 2, 3)), "broken double yellow"),
    (4, field(1, 8) + field(2, point(1, 2, 3)), "passing double yellow"),
    (5, field(1, 2) + field(2, point(1, 2, 3)), "median"),
    (7, field(1, 77) + field(2, point(1, 2, 3)), "stop sign"),
    (8, field(1, point(1, 2, 3)), "crosswalk"),
    (9, field(1, point(1, 2, 3)), "speed bump"),
    (10, field(1, point(1, 2, 3)), "driveway"),
]


@pytest.mark.parametrize(("number", "content", "name"), LINES_BY_HAND)
def test_map_features_written_out(number, content, name):
    scene = decode_scenario(scenario(feature(number, content)))
    assert scene.line_kinds.tolist() == [LINES[name]]
    assert scene.line_points.tolist() == [[1, 2, 3]]


def test_driveways_are_taken_once_each_also_first_and_last():
    """Others raise an error, or take the line before a driveway twice."""
    drive = [feature(10, field(1, point(i, 0, 0)) + field(1, point(i, 1, 0))) for i in (1, 2, 3)]
    edge = feature(5, field(1, 1) + field(2, point(9, 9, 9)))
    scene = decode_scenario(scenario(drive[0] + edge + drive[1] + drive[2]))
    assert scene.line_kinds.tolist() == [
        LINES[k] for k in ("driveway", "road edge", *["driveway"] * 2)
    ]
    assert scene.line_lengths.tolist() == [2, 1, 2, 2]
    assert len(np.unique(scene.line_points, axis=0)) == 7


def test_features_not_known_yet_and_lines_without_points_are_left_out():
    scene = decode_scenario(scenario(feature(12, point(1, 2, 3)) + feature(3, field(2, 1))))
    assert len(scene.line_kinds) == len(scene.line_points) == 0


def test_a_scenario_without_map_targets_and_ego():
    scene = decode_scenario(scenario())
    assert len(scene.line_kinds) == len(scene.targets) == 0
    assert scene.ego is None
    assert scene.name == "tea"


@pytest.mark.parametrize("x", [np.nan, np.inf, -1e300])
def test_a_state_that_cannot_be_is_not_valid(x):
    scene = decode_scenario(scenario(states=[state(), far(x)]))
    assert scene.valid.tolist() == [[True, False]]
    assert (scene.states[0, 1] == 0).all()


def test_an_agent_may_be_valid_for_one_step_or_none():
    scene = decode_scenario(scenario(states=[field(11, 0), state()]))
    assert scene.valid.tolist() == [[False, True]]
    assert not decode_scenario(scenario(states=[b"", state(5.0, 0)])).valid.any()
    assert not decode_scenario(scenario(states=[b"", state(5.0, 0)])).states.any()


@pytest.mark.parametrize("far", [np.nan, 1e6])
def test_odd_scenarios_of_a_file_are_learnt_from(far, tmp_path):
    """A target that is valid now alone, one that ends in nonsense, no map, no neighbours."""
    scenes = [scene_of(seed, kinds=(2, 1), targets=2) for seed in range(3)]
    now = scenes[0].now
    scenes[0].valid[0] = np.arange(91) == now
    scenes[1].states[1, now + 1 :, :2] = far
    nothing = {"line_points": np.zeros((0, 3))}
    nothing |= {name: np.zeros(0, dtype=np.int64) for name in ("line_lengths", "line_kinds")}
    scenes[2] = replace(scenes[2], **nothing)
    scenes[2].valid[1, : now + 1] = False
    scenes[2] = replace(scenes[2], targets=np.array([0]))
    write_scenarios(tmp_path / "shard", scenes)
    inputs, targets = collate([Featurer()(one) for one in read_scenarios(tmp_path / "shard")])
    torch.manual_seed(0)
    model = MotionTransformer(SIZES["tiny"])
    losses = motion_losses(model(inputs), targets)
    losses["total"].mean().backward()
    assert losses["total"].shape == (5,)
    assert losses["total"].isfinite().all()
    assert losses["nll"][0] == 0  # it has no future
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(grad.isfinite().all() for grad in grads)


@pytest.mark.parametrize(("value", "kind"), [(0, 0), (1, 1), (2, 2), (3, 3), (4, 0)])
def test_kinds(value, kind):
    assert decode_scenario(scenario(kind=value)).kinds.tolist() == [kind]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "0 time stamps and 0 tracks"),
        (scenario(states=[state()]), "track 0 has 1 states, of 2"),
        (scenario(extra=field(11, field(1, 1))), "tracks_to_predict names track 1 of 1"),
        (scenario(extra=field(11, field(1, -1))), "tracks_to_predict names track -1 of 1"),
        (scenario(extra=field(6, 4)), "sdc_track_index names track 4 of 1"),
        (scenario(extra=field(10, 2)), "now=2"),
        (scenario(kind=9), "object_type is 9; must be 0 to 4"),
        (scenario(feature(5, field(1, 3) + field(2, point(1, 2, 3)))), "type is 3; must be 0 to 2"),
        (scenario(feature(8, field(1, point(1, np.inf, 3)))), "line 0 of the map has a point"),
        (scenario()[:-3], "past the end"),
    ],
)
def test_what_contradicts_itself_is_an_error_that_names_it(data, said):
    with pytest.raises(UnreadableError, match="shard 7 is damaged") as caught:
        decode_scenario(data, "shard 7")
    assert said in str(caught.value)


def test_a_bad_scenario_in_a_shard_does_not_lose_the_others(tmp_path):
    scenes = [scene_of(seed) for seed in range(3)]
    path = tmp_path / "shard"
    write_scenarios(path, scenes)
    data = bytearray(path.read_bytes())
    first = len(encode_scenario(scenes[0]))
    data[first + 16 + 12 + 500] ^= 4
    path.write_bytes(data)
    with pytest.raises(UnreadableError, match="record 1"):
        list(read_scenarios(path))
    told = []
    assert [scene.name for scene in read_scenarios(path, told.append)] == ["made-0", "made-2"]
    assert len(told) == 1


SMALL = encode_scenario(replace(scene_of(1, kinds=(1, 2), targets=1, steps=12)))


@given(st.data())
def test_damage_anywhere_is_an_error_or_a_scene(data):
    content = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        if data.draw(st.booleans()):
            content[place] = data.draw(st.integers(0, 255))
        else:
            del content[place : place + data.draw(st.integers(1, 20))]
    try:
        scene = decode_scenario(bytes(content))
    except UnreadableError as error:
        assert "scenario is damaged" in str(error)
    else:
        assert np.isfinite(scene.states).all()


def test_a_real_shard_of_waymo():
    folder = Path(os.environ.get("REGROW_DATA", "nowhere")) / "womd"
    paths = sorted(folder.glob("**/*.tfrecord*"))
    if not paths:
        pytest.skip("needs a shard of the Waymo Open Motion Dataset in $REGROW_DATA/womd")
    scene = next(read_scenarios(paths[0]))
    assert len(scene.times) in (11, 91)
    assert scene.now == 10
    assert len(scene.targets)
    assert scene.valid[scene.targets, scene.now].all()
    assert np.allclose(np.diff(scene.times), 0.1, atol=0.02)
