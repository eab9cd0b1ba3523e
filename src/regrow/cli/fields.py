"""Lets a command take the fields of a dataclass as its options."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from pkgutil import resolve_name
from typing import Annotated, Any, NamedTuple, TypeVar, get_type_hints

from regrow.cli.settings import CONFIG, configured, given_config

__all__ = ["argument_texts", "takes_fields", "typed_options", "whole"]

Command = TypeVar("Command", bound=Callable[..., Any])

_NAMED = (Path, Path | None, str, str | None)  # whose own names say less than the argument's


class _Taken(NamedTuple):
    """What a command takes; arguments are those of :func:`takes_fields`."""

    where: str
    leave_out: Collection[str]
    defaults: Mapping[str, Any]


def takes_fields(
    where: str, leave_out: Collection[str], defaults: Mapping[str, Any]
) -> Callable[[Command], Command]:
    """Decorate a command: ``**fields``, its last parameter, becomes the fields of a dataclass.

    Types and help texts are the dataclass's, the latter from the "Args" of its docstring and those
    of its bases. tyro reads them like parameters that were written down, once :func:`whole` has
    found them out.

    Args:
        where: the dataclass, as "module:name"; it is imported when it is needed.
        leave_out: fields that are no options.
        defaults: of fields, where they are not the dataclass's own.
    """

    def decorate(command: Command) -> Command:
        command.__takes__ = _Taken(where, leave_out, defaults)  # type: ignore[attr-defined]
        return command

    return decorate


typed_options: ContextVar[Mapping[str, Any] | None] = ContextVar("typed_options", default=None)
"""Options of the training command that runs, by name, defaults included; None: it was called."""

_ABOUT_CONFIG = (
    "A TOML or JSON file with options of this command, such as the settings.toml that a run "
    "writes beside its record; what is given here counts more."
)


def whole(command: Callable[..., Any], words: Sequence[str] = (), of: str = "") -> Any:
    """Give a command the fields that it takes as options, and arguments their names in the help.

    One that takes fields gets the option ``--config``, too, and its options are known while it runs
    (:data:`typed_options`).

    Args:
        command: stays as it is.
        words: of the command line, which may name a file of options.
        of: the command's own words.

    Raises:
        ValueError: the file of options cannot be read, or an option in it is wrong.
    """
    from tyro.conf import arg  # noqa: PLC0415  (an extra)

    taken: _Taken | None = getattr(command, "__takes__", None)

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> Any:
        if taken is None:
            return command(*arguments, **options)
        parameters = inspect.signature(run).parameters
        bound = inspect.signature(run).bind(*arguments, **options)
        bound.apply_defaults()
        del bound.arguments[CONFIG]
        told = {
            n: v for n, v in bound.arguments.items() if (v, parameters[n].default) != (None,) * 2
        }
        token = typed_options.set(told)
        try:
            return command(*bound.args, **bound.kwargs)
        finally:
            typed_options.reset(token)

    del run.__wrapped__  # whose types and texts tyro would read instead
    run.__signature__ = inspect.signature(command, eval_str=True)  # type: ignore[attr-defined]
    if taken is not None:
        _take(run, taken)
        if (path := given_config(words)) is not None:
            run.__signature__ = configured(run, path, of)  # type: ignore[attr-defined]
    signature = inspect.signature(run)
    parameters = [
        p.replace(annotation=Annotated[p.annotation, arg(metavar=p.name.upper())])
        if p.kind is p.POSITIONAL_ONLY and p.annotation in _NAMED
        else p
        for p in signature.parameters.values()
    ]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return run


def _take(command: Callable[..., Any], taken: _Taken) -> None:
    kind = resolve_name(taken.where)
    fields = [f for f in dataclasses.fields(kind) if f.init and f.name not in taken.leave_out]
    own = list(vars(kind)["__annotations__"])
    fields.sort(key=lambda f: own.index(f.name) if f.name in own else len(own))  # bases last
    types, texts = get_type_hints(kind), _argument_texts(kind)
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=taken.defaults.get(field.name, field.default),
            annotation=types[field.name],
        )
        for field in fields
    ]
    written = [*inspect.signature(command).parameters.values()][:-1]
    config = inspect.Parameter(
        CONFIG, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Path | None
    )
    doc = (inspect.getdoc(command) or "").partition("    **fields:")[0]
    command.__doc__ = doc + "\n".join(f"    {f.name}: {texts[f.name]}" for f in fields)
    command.__doc__ += f"\n    {CONFIG}: {_ABOUT_CONFIG}"
    both = sorted([*options, *written, config], key=lambda parameter: parameter.kind)
    command.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]


def _argument_texts(kind: type) -> dict[str, str]:
    """Read what the docstrings of a class and its bases say of each argument, as sentences."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        texts |= argument_texts(inspect.getdoc(base) or "")
    return texts


def argument_texts(doc: str) -> dict[str, str]:
    r"""Read what a docstring says of each argument, as sentences.

    Example:
        >>> argument_texts("Make tea.\n\nArgs:\n    heat: of the water,\n        in °C.")
        {'heat': 'Of the water, in °C.'}
        >>> argument_texts("Learn.\n\nArgs:\n    discount: γ.")
        {'discount': 'γ.'}
    """
    section = doc.partition("Args:\n")[2].split("\n\n")[0]
    found = re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", section, re.MULTILINE)
    return {name: _sentence(re.sub(r"\s+", " ", text)) for name, text in found}


def _sentence(text: str) -> str:
    """Begin with a capital, but for symbols: γ and Γ are two."""
    return text[0].upper() + text[1:] if text[0].isascii() else text
