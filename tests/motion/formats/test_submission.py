"""A submission read back field by field, by the specification."""

from dataclasses import replace

import numpy as np
import pytest

from regrow.motion.formats.submission import About, encode_submission
from regrow.motion.formats.wire import fields, packed
from tests.motion.curves import predictions_of, scene_of

ABOUT = About(
    "tea@example.org",
    "tea leaves",
    "66M",
    lidar=True,
    pretraining=True,
    models=("Oolong",),
    authors=("A. Leaf", "B. Pot"),
    link="https://example.org",
)
SCENES = [scene_of(seed, targets=2) for seed in (1, 2)]


def made():
    return encode_submission(ABOUT, [(s, *predictions_of(s, 7)) for s in SCENES])


def test_every_number_is_where_the_specification_says():
    found = fields(made())
    assert found[2] == [1]
    assert (found[3], found[4]) == ([b"tea@example.org"], [b"tea leaves"])
    assert (found[5], found[8]) == ([b"A. Leaf", b"B. Pot"], [b"https://example.org"])
    assert (found[9], found[10], found[11]) == ([1], [0], [1])
    assert (found[12], found[13]) == ([b"66M"], [b"Oolong"])
    assert not {6, 7} & set(found)
    for message, scene in zip(found[1], SCENES, strict=True):
        trajectories, scores = predictions_of(scene, 7)
        scenario = fields(message)
        assert scenario[1] == [scene.name.encode()]
        objects = fields(scenario[2][0])[1]
        for target, content in enumerate(map(fields, objects)):
            assert content[1] == [scene.ids[scene.targets[target]]]
            assert len(content[2]) == 6
            for mode, scored in enumerate(map(fields, content[2])):
                assert packed(scored[2], "<f4").tolist() == [scores[target, mode]]
                trajectory = fields(scored[1][0])
                points = np.stack([packed(trajectory[n], "<f4") for n in (2, 3)], axis=1)
                np.testing.assert_array_equal(points, trajectories[target, mode])


def test_what_waymo_would_refuse_is_refused_before():
    scene = SCENES[0]
    trajectories, scores = predictions_of(scene, 7, modes=7)
    with pytest.raises(ValueError, match="at most 6 modes"):
        encode_submission(ABOUT, [(scene, trajectories, scores)])
    with pytest.raises(ValueError, match="16 points"):
        encode_submission(ABOUT, [(scene, np.zeros((2, 6, 80, 2)), np.ones((2, 6)))])
    one = (scene, trajectories[:, :6], scores[:, :6])
    with pytest.raises(ValueError, match="comes twice"):
        encode_submission(ABOUT, [one, one])
    with pytest.raises(ValueError, match="there are none"):
        encode_submission(ABOUT, [])
    for changes, said in {
        ("account", "tea"): "e-mail",
        ("method", ""): "name",
        ("parameters", "65,781,334"): "whole number with K",
        ("pretraining", False): "set pretraining",
    }.items():
        with pytest.raises(ValueError, match=said):
            replace(ABOUT, **dict([changes]))
