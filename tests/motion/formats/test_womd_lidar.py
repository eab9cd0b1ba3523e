"""WOMD-LiDAR against Waymo's own decoder, and against a world in which places are known."""

import base64
import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regrow.motion.formats.delta import decode_delta, encode_delta
from regrow.motion.formats.tfrecord import write_records
from regrow.motion.formats.wire import field
from regrow.motion.formats.womd_lidar import cartesian, decode_sweep, read_sweeps
from regrow.reading import LIMIT, UnreadableError
from tests.motion.lasers import (
    calibration,
    frame,
    image_of,
    laser,
    lidar_record,
    pose_of,
    turn_of,
)

# What Waymo's delta_encoder and range_image_utils (waymo-open-dataset-tf-2-12-0 1.6.7) make of
# `golden_inputs`.
GOLDEN = Path(__file__).parent / "waymo_lidar.json"


def golden_inputs():
    rng = np.random.default_rng(5)
    ranges = rng.random((4, 10)) * 50 * (rng.random((4, 10)) > 0.3)
    return {
        "ranges": ranges,
        "extrinsic": pose_of((0.02, -0.03, 2.5), (1.4, 0.1, 2.1)),
        "inclinations": np.array([-0.3, -0.1, 0.0, 0.05]),
        "pixels": rng.random((4, 10, 6)) * [0.02, 0.02, 0.1, 2, 1, 0.1] + [0, 0, 1.0, 30, -20, 1],
        "pose": pose_of((0.01, -0.01, 1.05), (31.0, -19.5, 1.0)),
        "image": image_of(rng, 3, 7),
    }


def test_points_are_those_of_waymos_own_code():
    golden, given_ = json.loads(GOLDEN.read_text()), golden_inputs()
    arguments = (given_["ranges"], given_["extrinsic"], given_["inclinations"])
    still = cartesian(*arguments)
    moving = cartesian(*arguments, given_["pixels"], given_["pose"])
    np.testing.assert_allclose(still, golden["still"], atol=1e-9)
    np.testing.assert_allclose(moving, golden["moving"], atol=1e-9)


def test_images_are_those_of_waymos_own_decoder():
    golden = json.loads(GOLDEN.read_text())
    found = decode_delta(base64.b64decode(golden["encoded"]))
    np.testing.assert_allclose(found.ravel(), golden["decoded"], atol=1e-9)
    image = golden_inputs()["image"]
    assert (np.abs(found - image) <= np.array([0.01, 0.005, 0.005, 0.5]) + 1e-6).all()
    np.testing.assert_array_equal(decode_delta(encode_delta(image, [0.02, 0.01, 0.01, 1])), found)


IMAGES = st.tuples(
    st.integers(1, 5), st.integers(1, 6), st.integers(1, 4), st.integers(0, 9999), st.floats(0, 1)
)


@given(IMAGES)
def test_a_round_trip_is_off_by_half_the_precision_at_most(drawn):
    rows, columns, channels, seed, empty = drawn
    rng = np.random.default_rng(seed)
    image = (rng.random((rows, columns, channels)) - 0.3) * 100
    image[rng.random(image.shape) < empty] = 0
    precision = 10.0 ** rng.integers(-3, 2, channels)
    found = decode_delta(encode_delta(image, precision))
    assert found.shape == image.shape
    # Waymo stores the precision as float32.
    assert (np.abs(found - image) <= precision * 0.5 + np.abs(image) * 1e-7 + 1e-9).all()


def message(shape=(2, 2, 1), precision=(0.5,), residual=b"\2\2", mask=b"\1\2\1"):
    sizes = b"".join(field(1, size) for size in shape)
    sizes += b"".join(field(2, float(x), "<f4") for x in precision)
    return zlib.compress(field(1, residual) + field(2, mask) + field(3, sizes))


def test_a_message_written_out():
    """Runs of 1 filled, 2 empty, 1 filled cell; steps 1 and 1."""
    assert decode_delta(message()).tolist() == [[[0.5], [0.0]], [[0.0], [1.0]]]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (message(mask=b"\1\2\2"), "do not add up to 4"),
        (message(mask=b"\1\2\xff\xff\xff\xff\xff\xff\xff\xff\xff\1"), "do not add up"),
        (message(residual=b"\2"), "1 values for 2 cells"),
        (message(shape=(4, 1)), "shape"),
        (message(shape=(2, -2, 1)), "shape"),
        (message(precision=()), "0 precisions"),
        (message()[:-4], "cut off"),
        (b"", "cut off"),
        (message(shape=(1 << 30, 1 << 30, 1)), LIMIT),
        (message(residual=b"\0" * (300 << 20)), LIMIT),
    ],
)
def test_images_that_contradict_themselves_or_are_bombs_are_refused(data, said):
    with pytest.raises(ValueError, match=said):
        decode_delta(data)


ROOF = pose_of((0.01, 0.02, 0.7), (1.4, 0.0, 2.1))
INCLINATIONS = np.array([-0.25, -0.15, -0.05, 0.0, 0.05])


def seen(world, place, angles):
    """Return points of the world in the sensor on the roof of a vehicle."""
    vehicle = (world - place) @ turn_of(*angles)
    return (vehicle - ROOF[:3, 3]) @ ROOF[:3, :3]


def rolling_sweep(columns=90):
    """Return a frame of a vehicle that drives and turns while its laser does, and world points.

    Each cell's world point is where its ray meets a distance, by a path of its own: the places and
    angles of the vehicle at each column are its motion at constant speed and turn rate.
    """
    rng = np.random.default_rng(0)
    time = np.linspace(-0.05, 0.05, columns)
    places = np.stack([100 + 12 * time, 50 - 3 * time, 0.2 * time], axis=1)
    angles = np.stack([0.01 + 0 * time, -0.02 + 0 * time, 0.4 + 0.8 * time], axis=1)
    ranges = 5 + rng.random((5, columns)) * 40
    azimuth = math.pi - (np.arange(columns) + 0.5) * 2 * math.pi / columns - 0.0
    # The image's azimuth is in the vehicle: the laser's own turn is taken off.
    own = azimuth - math.atan2(ROOF[1, 0], ROOF[0, 0])
    world = np.zeros((5, columns, 3))
    for row in range(5):
        up = INCLINATIONS[4 - row]
        for column in range(columns):
            ray = [
                math.cos(own[column]) * math.cos(up),
                math.sin(own[column]) * math.cos(up),
                math.sin(up),
            ]
            vehicle = ROOF[:3, :3] @ (ranges[row, column] * np.array(ray)) + ROOF[:3, 3]
            world[row, column] = turn_of(*angles[column]) @ vehicle + places[column]
    image = np.stack([ranges, ranges * 0 + 0.5, ranges * 0 + 0.25, ranges * 0 - 1], axis=-1)
    pixels = np.broadcast_to(np.concatenate([angles, places], axis=1), (5, columns, 6))
    pose = pose_of((0.01, -0.02, 0.4), (100.0, 50.0, 0.0))
    made = frame([laser(1, image, pixels=pixels)], [calibration(1, ROOF, INCLINATIONS)], pose)
    return made, world, pose


def test_points_are_where_they_were_though_the_vehicle_moved():
    made, world, pose = rolling_sweep()
    sweep = decode_sweep(made)
    found = sweep.points[:, :3] @ pose[:3, :3].T + pose[:3, 3]
    assert np.abs(found - world.reshape(-1, 3)).max() < 1e-3
    np.testing.assert_allclose(sweep.points[:, 4:], [[0.5, 0.25]] * len(found), atol=1e-6)
    np.testing.assert_allclose(sweep.sensor, [1.4, 0.0, 2.1])


def test_both_returns_of_all_lasers_are_there_and_side_ones_have_no_pixel_poses():
    rng = np.random.default_rng(1)
    first, second = image_of(rng, 5, 30), image_of(rng, 5, 30, empty=0.9)
    side = pose_of((0, 0, -1.5), (3.0, 1.0, 0.7))
    pixels = np.broadcast_to([0, 0, 0, 5.0, 6.0, 0], (5, 30, 6)).astype(float)
    made = frame(
        [laser(1, first, second, pixels), laser(3, first, second)],
        [calibration(3, side), calibration(1, ROOF, INCLINATIONS)],
        pose_of((0, 0, 0), (5.0, 6.0, 0)),
    )
    count = (first[..., 0] > 0).sum() + (second[..., 0] > 0).sum()
    sweep = decode_sweep(made)
    assert len(sweep.points) == 2 * count
    even = -0.3 + 0.4 * (np.arange(5) + 0.5) / 5
    by_hand = cartesian(
        decode_delta(encode_delta(first, [1e-4, 1e-3, 1e-3, 1]))[..., 0], side, even
    )
    np.testing.assert_allclose(sweep.points[count : count + len(by_hand), :3], by_hand)
    np.testing.assert_allclose(sweep.sensor, [1.4, 0.0, 2.1])


def test_a_frame_without_lasers_is_absent():
    assert decode_sweep(b"") is None


@pytest.fixture
def lidar_file(tmp_path):
    made = rolling_sweep(20)[0]
    write_records(tmp_path / "tea.tfrecord", [lidar_record([made, b"", made])])
    return tmp_path / "tea.tfrecord"


def test_a_file_gives_a_sweep_a_frame(lidar_file):
    first, absent, last = read_sweeps(lidar_file)
    assert absent is None
    np.testing.assert_array_equal(first.points, last.points)


def test_a_damaged_file_is_named(lidar_file, tmp_path):
    made = rolling_sweep(20)[0]
    write_records(lidar_file, [lidar_record([made[:-3]])])
    with pytest.raises(UnreadableError, match=r"tea.tfrecord, record 0 is damaged"):
        read_sweeps(lidar_file)
    bomb = field(1, 2) + field(2, field(1, message(shape=(1 << 30, 1 << 30, 1))))
    write_records(lidar_file, [lidar_record([frame([bomb], [calibration(2, ROOF)], ROOF)])])
    with pytest.raises(UnreadableError, match=r"tea.tfrecord, record 0 takes .* set " + LIMIT):
        read_sweeps(lidar_file)
    write_records(lidar_file, [])
    with pytest.raises(UnreadableError, match="has 0 records"):
        read_sweeps(lidar_file)
    with pytest.raises(FileNotFoundError):
        read_sweeps(tmp_path / "none")


@pytest.mark.parametrize(
    ("lasers", "calibrations", "said"),
    [
        ([laser(1, np.ones((5, 4, 4)))], [calibration(1, ROOF, INCLINATIONS)], "no pixel poses"),
        ([laser(2, np.ones((5, 4, 4)))], [calibration(1, ROOF)], "laser 2 has no calibration"),
        (
            [laser(2, np.ones((4, 4, 4)))],
            [calibration(2, ROOF, INCLINATIONS)],
            "4 rows, its laser 5",
        ),
        (
            [laser(1, np.ones((5, 4, 4)), pixels=np.ones((5, 3, 6)))],
            [calibration(1, ROOF, INCLINATIONS)],
            "poses do not fit",
        ),
    ],
)
def test_frames_that_contradict_themselves_are_refused(lasers, calibrations, said):
    with pytest.raises(ValueError, match=said):
        decode_sweep(frame(lasers, calibrations, np.eye(4)))


SMALL = lidar_record([rolling_sweep(6)[0]])


@given(st.data())
def test_damage_anywhere_is_an_error_or_sweeps(tmp_path_factory, data):
    content = bytearray(SMALL)
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "shard"
    write_records(path, [bytes(content)])
    try:
        assert isinstance(read_sweeps(path), list)
    except UnreadableError as error:
        assert "shard, record 0" in str(error)
