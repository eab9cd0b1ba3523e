"""What all agents that see share: sizes, rates and schedule; and the settings by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from regrow.control.pixels.networks import encoded_side
from regrow.control.setting import check_fields, check_number
from regrow.engine.checks import check_choice

__all__ = ["PIXEL_SETTINGS", "Augmentation", "PixelSetting"]

Augmentation = Literal["auto", "overlay", "conv", "splice", "none"]


@dataclass(frozen=True, kw_only=True)
class PixelSetting:
    """Sizes, rates and schedule; the defaults are the MaDi paper's.

    Args:
        steps: of the agent in the environment.
        seed_steps: of random actions; as many updates follow them at once, then one a step.
        size: of the sides of what is seen, in pixels.
        layers: of the encoder.
        filters: of encoder and masker.
        projection: width of the projections.
        width: hidden units of actor and critics, in each of two layers.
        batch: transitions in an update.
        augmentation: the strong one: overlay of photographs, conv, splice, none; auto: overlay if
            there are photographs, else conv.
        overlay: the share of the photograph.
        shift: pixels that observations are shifted by at most.
        learning_rate: of encoder, critics and actor.
        masker_rate: of the masker.
        temperature: α at first.
        temperature_rate: the learning rate of log α.
        discount: γ.
        target_rate: how far the critics' targets move.
        encoder_target_rate: how far the encoder's target moves.
        actor_every: updates of the critic between two of the actor.
        target_every: between two moves of the targets.
        auxiliary_every: between two steps of the auxiliary loss.
        soda_batch: observations of SODA's loss.
        soda_rate: how far SODA's target moves.
        replay: frames kept; None: all.
        precision: of images and convolutions; auto: bfloat16 on a GPU, else float32.
        compiled: whether torch.compile fuses what lies between convolutions.
        evaluate_every: steps between two evaluations.
        episodes: of an evaluation, in each environment.

    Raises:
        ValueError: a number is out of its range, or nothing is left of images this small, or
            nothing is learnt in so few steps.
    """

    steps: int = 500_000
    seed_steps: int = 1_000
    size: int = 84
    layers: int = 11
    filters: int = 32
    projection: int = 100
    width: int = 1024
    batch: int = 128
    augmentation: Augmentation = "auto"
    overlay: float = 0.5
    shift: int = 4
    learning_rate: float = 1e-3
    masker_rate: float = 1e-3
    temperature: float = 0.1
    temperature_rate: float = 1e-4
    discount: float = 0.99
    target_rate: float = 0.01
    encoder_target_rate: float = 0.05
    actor_every: int = 2
    target_every: int = 2
    auxiliary_every: int = 2
    soda_batch: int = 256
    soda_rate: float = 0.005
    replay: int | None = None
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    compiled: bool = False
    evaluate_every: int = 10_000
    episodes: int = 20

    def __post_init__(self) -> None:
        check_fields(self, PixelSetting, zero=("shift",))
        for name in ("discount", "target_rate", "encoder_target_rate", "soda_rate", "overlay"):
            check_number(self, name, 0.0, 1.0)
        check_choice(self.augmentation, get_args(Augmentation), "augmentation")
        check_choice(self.precision, ("auto", "float32", "bfloat16"), "precision")
        if self.seed_steps >= self.steps:
            raise ValueError(
                f"seed_steps={self.seed_steps}: must be below steps={self.steps}, else all actions "
                "are random, and nothing is learnt"
            )
        if encoded_side(self.size, self.layers) < 1:
            raise ValueError(
                f"size={self.size}: nothing is left of it after layers={self.layers}; take larger "
                "images or fewer layers"
            )


PIXEL_SETTINGS: dict[str, PixelSetting] = {
    "paper": PixelSetting(),
    "code": PixelSetting(batch=64, augmentation="none"),
    "small": PixelSetting(
        steps=2_000, seed_steps=200, size=48, layers=6, filters=8, projection=32, width=64,
        batch=16, soda_batch=16, shift=2, evaluate_every=1_000, episodes=2,
    ),
}  # fmt: skip
"""The MaDi paper's, its code's defaults, and one that a CPU can compute, by name."""
