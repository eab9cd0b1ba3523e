"""Linear layers of 2:4 sparse weights, multiplied by sparse tensor cores."""

from regrow.execution.two_four.linear import PackedLinear, TwoFourLinear

__all__ = ["PackedLinear", "TwoFourLinear"]
