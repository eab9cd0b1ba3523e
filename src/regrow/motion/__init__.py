"""Motion prediction of road users, with the LiDAR points on them: MTR and LiMTR."""

from regrow.motion.clouds import LidarFeatures
from regrow.motion.features import Featurer
from regrow.motion.lidar import LIMTR, LidarShape
from regrow.motion.network import SIZES, MotionTransformer, Shape
from regrow.motion.scene import Points, Scene

__all__ = [
    "LIMTR",
    "SIZES",
    "Featurer",
    "LidarFeatures",
    "LidarShape",
    "MotionTransformer",
    "Points",
    "Scene",
    "Shape",
]
