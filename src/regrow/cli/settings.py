"""Options of a command as a file: read from TOML or JSON, written as TOML."""

from __future__ import annotations

import inspect
import json
import tomllib
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from regrow.reading import read_file
from regrow.spelling import did_you_mean

__all__ = ["CONFIG", "SETTINGS", "configured", "given_config", "read_settings", "to_toml"]

CONFIG = "config"
"""The option that names such a file."""
SETTINGS = "settings.toml"
"""The file that each run writes beside its record."""

_NONE = "None"  # TOML has no null; on the command line it is written so, too


def given_config(words: Sequence[str]) -> Path | None:
    """Return the file of options that a command line names.

    Raises:
        ValueError: it names several.

    Example:
        >>> given_config(["train", "--config", "a.toml"]), given_config(["train"])
        (PosixPath('a.toml'), None)
    """
    option = f"--{CONFIG}"
    found = [word.partition("=")[2] for word in words if word.startswith(f"{option}=")]
    found += [words[i + 1] for i, word in enumerate(words[:-1]) if word == option]
    if len(found) > 1:
        raise ValueError(f"{option} is given twice, as {found[0]!r} and {found[1]!r}: give it once")
    return Path(found[0]) if found else None


def read_settings(path: Path) -> dict[str, Any]:
    r"""Read options from a file; names may be written with hyphens, too.

    Args:
        path: a file of TOML that ends in ``.toml``, or of JSON that ends in ``.json``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no TOML or JSON, or holds no table of options.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "run.toml"
        ...     _ = path.write_text('epochs = 3\nlearning-rate = 0.1\n')
        ...     read_settings(path)
        {'epochs': 3, 'learning_rate': 0.1}
    """
    kinds: dict[str, Callable[[str], Any]] = {".toml": tomllib.loads, ".json": json.loads}
    if path.suffix not in kinds:
        raise ValueError(f"{CONFIG}={path}: must be a file that ends in .toml or .json")
    try:
        found = kinds[path.suffix](read_file(path).decode())
    except ValueError as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: must be a table of options, such as epochs = 3")
    return {name.replace("-", "_"): value for name, value in found.items()}


def configured(command: Callable[..., Any], path: Path, of: str) -> inspect.Signature:
    """Return a command's signature with the options of a file as its defaults.

    Args:
        command: whose options they are.
        path: of the file.
        of: the command's words, for errors.

    Raises:
        ValueError: an option is unknown, or its value of another type; the file is named.
    """
    signature = inspect.signature(command)
    parameters = dict(signature.parameters)
    for name, value in read_settings(path).items():
        if name not in parameters or name == CONFIG:
            meant = did_you_mean(name, parameters)
            raise ValueError(f"{path}: regrow {of} has no option {name!r}{meant}")
        kind = parameters[name].annotation
        try:
            fitted = _fitted(value, kind)
        except TypeError:
            raise ValueError(f"{path}: {name} = {value!r}: must be {_said(kind)}") from None
        parameters[name] = parameters[name].replace(default=fitted)
    return signature.replace(parameters=[*parameters.values()])


def _fitted(value: Any, kind: Any) -> Any:
    """Return a value of a file as its option has it.

    Raises:
        TypeError: it is of another type.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _fitted(value, inner[0])
    if origin in (Union, types.UnionType):
        if type(None) in inner and (value is None or value == _NONE):
            return None
        for one in inner:
            try:
                return _fitted(value, one)
            except TypeError:
                continue
        raise TypeError
    if origin is Literal:
        if value in inner and not isinstance(value, bool):
            return value
        raise TypeError
    if origin is tuple and isinstance(value, list):
        each = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        if len(each) != len(value):
            raise TypeError
        return tuple(_fitted(one, what) for one, what in zip(value, each, strict=True))
    if kind is Path and isinstance(value, str):
        return Path(value)
    if kind is float and type(value) is int:
        return float(value)
    if kind in (bool, float, int, str) and type(value) is kind:
        return value
    raise TypeError


def _said(kind: Any) -> str:
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _said(inner[0])
    if origin is Literal:
        return f"one of {', '.join(map(str, inner))}"
    if origin in (Union, types.UnionType):
        return " or ".join(f'"{_NONE}"' if one is type(None) else _said(one) for one in inner)
    if origin is tuple:
        return f"a list, each {_said(inner[0])}"
    said = {int: "a whole number", float: "a number", bool: "true or false"}
    return said.get(kind, "text in quotes")


def to_toml(values: Mapping[str, Any], about: str) -> str:
    """Write options as TOML, which :func:`read_settings` reads; None is written as text.

    Args:
        values: numbers, texts, paths, None, and tuples of them.
        about: a line above them.

    Example:
        >>> print(to_toml({"epochs": 3, "out": Path("a"), "include": ("fc.*",)}, "a run"))
        # a run
        epochs = 3
        out = "a"
        include = ["fc.*"]
        <BLANKLINE>
    """
    lines = [f"# {about}", *(f"{name} = {_toml(value)}" for name, value in values.items())]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, bool | int | float):
        return json.dumps(value)  # true, 3, 0.1, 1e-05: as TOML has them
    # JSON's text is TOML's, less surrogates, which no option may hold; DEL must be escaped.
    return json.dumps(_NONE if value is None else str(value), ensure_ascii=False).replace(
        "\x7f", "\\u007f"
    )
