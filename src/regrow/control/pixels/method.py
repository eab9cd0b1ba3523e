"""What an agent that sees is: which images it learns from, what is masked, what else it learns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from regrow.control.pixels.masker import MaskerKind, Threshold
from regrow.control.setting import check_number
from regrow.engine.checks import check_choice

__all__ = ["PIXEL_METHODS", "Mask", "PixelMethod"]

Mask = Literal["none", "learned", "ones", "random", "segmentation"]
_CROPPED = 100 / 84  # how much larger frames are rendered that are cropped


@dataclass(frozen=True, kw_only=True)
class PixelMethod:
    """How one agent treats what it sees. All methods share networks, losses and the loop.

    Args:
        crop: whether frames are rendered 100/84 larger and cut at random; in the middle to act.
        shift: whether observations are shifted by up to 4 pixels: those learnt from, or those of
            targets, too.
        strong: whether the critic also learns, towards the same target, from a copy that is
            augmented strongly.
        auxiliary: what the encoder learns beside: to foresee a target encoder's view of the plain
            image from the augmented one (soda), or to foresee which pixels the critic's value hangs
            on, and values that hang on these alone (sgqn).
        mask: what hides pixels: nothing; a masker that learns with the critic; and controls: ones,
            smooth random masks drawn anew at each look, or the true foreground.
        masker: the network of a learned mask.
        hard: whether a learned mask is made 0 or 1: never (soft), always (hard), or only in
            tests (mixed).
        threshold: how; see :func:`regrow.control.pixels.masker.binarised`.
        level: of the threshold.
        auxiliary_rate: learning rate of the auxiliary loss.
        weight_decay: of the critic and the encoder.
        quantile: the share of pixels that sgqn leaves out.

    Raises:
        ValueError: a choice is unknown, a number is out of its range, or choices exclude each
            other.

    Example:
        >>> PIXEL_METHODS["MaDi"].strong, PIXEL_METHODS["SAC"].mask
        (True, 'none')
    """

    crop: bool = False
    shift: Literal["none", "observations", "both"] = "none"
    strong: bool = False
    auxiliary: Literal["none", "soda", "sgqn"] = "none"
    mask: Mask = "none"
    masker: MaskerKind = "full"
    hard: Literal["soft", "hard", "mixed"] = "soft"
    threshold: Threshold = "fixed"
    level: float = 0.5
    auxiliary_rate: float = 1e-3
    weight_decay: float = 0.0
    quantile: float = 0.95

    def __post_init__(self) -> None:
        check_choice(self.shift, ("none", "observations", "both"), "shift")
        check_choice(self.auxiliary, ("none", "soda", "sgqn"), "auxiliary")
        check_choice(self.mask, get_args(Mask), "mask")
        check_choice(self.masker, get_args(MaskerKind), "masker")
        check_choice(self.hard, ("soft", "hard", "mixed"), "hard")
        check_choice(self.threshold, get_args(Threshold), "threshold")
        for name in ("level", "quantile", "weight_decay"):
            check_number(self, name, 0.0, 1.0)
        check_number(self, "auxiliary_rate", 0.0, 1.0, above=True)
        if self.hard != "soft" and self.mask != "learned":
            raise ValueError(
                f"hard={self.hard!r}, mask={self.mask!r}: only learned masks are made 0 or 1"
            )
        if self.auxiliary != "none" and self.mask != "none":
            raise ValueError(
                f"auxiliary={self.auxiliary!r}, mask={self.mask!r}: one of them, not both; what is "
                "learnt beside looks at whole images"
            )
        if self.crop and self.shift != "none":
            raise ValueError(f"crop=True, shift={self.shift!r}: one of them, not both")

    def rendered(self, size: int) -> int:
        """Return the side of frames as they are rendered, for an agent that sees ``size``.

        Example:
            >>> PIXEL_METHODS["RAD"].rendered(84), PIXEL_METHODS["MaDi"].rendered(84)
            (100, 84)
        """
        return round(size * _CROPPED) if self.crop else size


def _madi(masker: MaskerKind = "full", mask: Mask = "learned") -> PixelMethod:
    return PixelMethod(shift="observations", strong=True, mask=mask, masker=masker)


PIXEL_METHODS: dict[str, PixelMethod] = {
    "SAC": PixelMethod(),
    "DrQ": PixelMethod(shift="both"),
    "RAD": PixelMethod(crop=True),
    "SODA": PixelMethod(crop=True, auxiliary="soda", auxiliary_rate=3e-4),
    "SVEA": PixelMethod(shift="observations", strong=True),
    "SGQN": PixelMethod(shift="both", auxiliary="sgqn", auxiliary_rate=3e-4, weight_decay=1e-5),
    "MaDi": _madi(),
    "MaDi-half": _madi("half"),
    "MaDi-strided": _madi("strided"),
    "MaDi-shared": _madi("shared"),
    "mask-ones": _madi(mask="ones"),
    "mask-random": _madi(mask="random"),
    "mask-segmentation": _madi(mask="segmentation"),
}
"""The published methods, ours (MaDi with a lean masker, of three kinds), and controls, by name."""
