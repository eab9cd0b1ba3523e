"""Sweeps of a moving vehicle made up for tests, as messages of WOMD-LiDAR."""

import numpy as np

from regrow.motion.formats.delta import encode_delta
from regrow.motion.formats.wire import field
from regrow.motion.formats.womd_lidar import rotations

FINE = [1e-4, 1e-3, 1e-3, 1.0]
FINE_POSE = [1e-7, 1e-7, 1e-7, 1e-5, 1e-5, 1e-5]


def turn_of(roll, pitch, yaw):
    return rotations(np.array([[roll, pitch, yaw]]))[0]


def pose_of(angles, place):
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = turn_of(*angles), place
    return pose


def image_of(rng, rows, columns, empty=0.3):
    """Return a range image, (rows, columns, 4): range, intensity, elongation, no label zone."""
    image = rng.random((rows, columns, 4)) * [60, 1, 1, 0] + [2, 0.01, 0.01, 1]
    image[rng.random((rows, columns)) < empty] = 0
    return image


def transform(number, pose):
    return field(number, b"".join(field(1, float(x)) for x in np.ravel(pose)))


def laser(name, first, second=None, pixels=None, fine=FINE):
    """Return a message ``CompressedLaser``."""
    content = field(1, encode_delta(first, fine))
    content += b"" if pixels is None else field(4, encode_delta(pixels, FINE_POSE))
    message = field(1, name) + field(2, content)
    return message + (b"" if second is None else field(3, field(1, encode_delta(second, fine))))


def calibration(name, extrinsic, inclinations=None, ends=(-0.3, 0.1)):
    message = field(1, name) + transform(5, extrinsic)
    if inclinations is None:
        return message + field(3, ends[0]) + field(4, ends[1])
    return message + b"".join(field(2, float(x)) for x in inclinations)


def frame(lasers, calibrations, pose):
    """Return a message ``CompressedFrameLaserData``."""
    parts = [field(1, one) for one in lasers] + [field(2, one) for one in calibrations]
    return b"".join(parts) + transform(3, pose)


def lidar_record(frames):
    return b"".join(field(12, one) for one in frames)
