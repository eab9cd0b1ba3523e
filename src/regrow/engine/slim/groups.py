"""Channels that live and die together, because they are joined or one layer reads them all."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

__all__ = ["Channels", "Group", "Groups", "Key", "Read", "side"]

Key = tuple[int, str]  # a module, by identity, and its "in", "out" or "each" side


@dataclass(frozen=True)
class Channels:
    """Where the channels of a tensor lie, and which are constant.

    Args:
        key: of the side of a layer that they belong to.
        dim: of the tensor, counted from its end: negative.
        span: consecutive entries of one channel; more than one after a flatten.
        constant: (n,), the value that a channel has everywhere, whatever the input; NaN: it varies.
    """

    key: Key
    dim: int
    span: int
    constant: Tensor


@dataclass(frozen=True)
class Read:
    """A layer that reads channels: a linear layer or a convolution.

    Args:
        module: the layer.
        constant: as in :class:`Channels`.
        span: as in :class:`Channels`.
    """

    module: nn.Module
    constant: Tensor
    span: int


@dataclass
class Group:
    """Channels that are cut together.

    Attributes:
        makes: layers whose outputs they are.
        each: layers with one entry a channel, such as a batch norm.
        reads: calls of layers that read them.
        why_not: why none of them can be cut; None: some may.
    """

    makes: dict[int, nn.Module] = field(default_factory=dict)
    each: dict[int, nn.Module] = field(default_factory=dict)
    reads: list[Read] = field(default_factory=list)
    why_not: str | None = None


class Groups:
    """Groups by the sides of layers, joined as they turn out to be the same channels.

    Example:
        >>> groups, one, two = Groups(), (1, "out"), (2, "out")
        >>> groups.join(one, two)
        >>> groups.pin(two, "the model returns it")
        >>> groups.of(one).why_not
        'the model returns it'
    """

    def __init__(self) -> None:
        self._parent: dict[Key, Key] = {}
        self._groups: dict[Key, Group] = {}

    def of(self, key: Key) -> Group:
        """Return the group of a side."""
        root = self._root(key)
        return self._groups.setdefault(root, Group())

    def join(self, one: Key, other: Key) -> None:
        """Note that two sides are the same channels."""
        first, second = self._root(one), self._root(other)
        if first == second:
            return
        group, joined = self.of(first), self.of(second)
        group.makes |= joined.makes
        group.each |= joined.each
        group.reads += joined.reads
        group.why_not = group.why_not or joined.why_not
        self._parent[second] = first
        del self._groups[second]

    def pin(self, key: Key, why: str) -> None:
        """Note why the channels of a side cannot be cut; the first reason stays."""
        group = self.of(key)
        group.why_not = group.why_not or why

    def all(self) -> list[Group]:
        """Return every group once."""
        return list(self._groups.values())

    def _root(self, key: Key) -> Key:
        while (above := self._parent.get(key, key)) != key:
            key = above
        return key


def side(module: nn.Module, name: str) -> Key:
    """Return the key of a side of a layer: "in", "out", or "each" of one entry a channel."""
    return id(module), name
