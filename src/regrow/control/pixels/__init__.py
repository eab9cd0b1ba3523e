"""Agents that see: soft actor-critic on images, augmentations, and masks learnt from reward."""

from regrow.control.pixels.agent import PixelAgent
from regrow.control.pixels.augment import read_photos
from regrow.control.pixels.masker import Masker
from regrow.control.pixels.method import PIXEL_METHODS, PixelMethod
from regrow.control.pixels.setting import PIXEL_SETTINGS, PixelSetting
from regrow.control.pixels.train import PixelTraining, train_from_pixels

__all__ = [
    "PIXEL_METHODS",
    "PIXEL_SETTINGS",
    "Masker",
    "PixelAgent",
    "PixelMethod",
    "PixelSetting",
    "PixelTraining",
    "read_photos",
    "train_from_pixels",
]
