"""Lets a command take the fields of a dataclass as its options."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, TypeVar, get_type_hints

__all__ = ["named", "takes_fields"]

Command = TypeVar("Command", bound=Callable[..., Any])


def takes_fields(
    kind: type, leave_out: Collection[str], defaults: Mapping[str, Any]
) -> Callable[[Command], Command]:
    """Decorate a command: ``**fields``, its last parameter, becomes the fields of a dataclass.

    Types and help texts are the dataclass's, the latter from the "Args" of its docstring and those
    of its bases. tyro reads them like parameters that were written down.

    Args:
        kind: the dataclass.
        leave_out: fields that are no options.
        defaults: of fields, where they are not the dataclass's own.
    """
    fields = [f for f in dataclasses.fields(kind) if f.init and f.name not in leave_out]
    own = list(vars(kind)["__annotations__"])
    fields.sort(key=lambda f: own.index(f.name) if f.name in own else len(own))  # bases last
    types, texts = get_type_hints(kind), _argument_texts(kind)

    def decorate(command: Command) -> Command:
        options = [
            inspect.Parameter(
                field.name,
                inspect.Parameter.KEYWORD_ONLY,
                default=defaults.get(field.name, field.default),
                annotation=types[field.name],
            )
            for field in fields
        ]
        written = [*inspect.signature(command, eval_str=True).parameters.values()][:-1]
        doc = (inspect.getdoc(command) or "").partition("    **fields:")[0]
        command.__doc__ = doc + "\n".join(f"    {f.name}: {texts[f.name]}" for f in fields)
        command.__annotations__ = {option.name: option.annotation for option in options + written}
        both = sorted(options + written, key=lambda parameter: parameter.kind)
        command.__signature__ = inspect.Signature(both)  # type: ignore[attr-defined]
        return command

    return decorate


def named(command: Command, **names: str) -> Command:
    """Give arguments without an option a name in the help, in place of that of their type.

    Args:
        command: whose arguments they are.
        names: by argument.
    """
    from tyro.conf import arg  # noqa: PLC0415 an extra

    signature = inspect.signature(command, eval_str=True)
    types = {p.name: p.annotation for p in signature.parameters.values()}
    for argument, name in names.items():
        types[argument] = Annotated[types[argument], arg(metavar=name)]
    command.__annotations__ = types
    parameters = [p.replace(annotation=types[p.name]) for p in signature.parameters.values()]
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return command


def _argument_texts(kind: type) -> dict[str, str]:
    """Read what the docstrings of a class and its bases say of each argument, as sentences."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        section = (inspect.getdoc(base) or "").partition("Args:\n")[2].split("\n\n")[0]
        for name, text in re.findall(r"^    (\w+): (.+(?:\n {8}.+)*)", section, re.MULTILINE):
            texts[name] = text[0].upper() + re.sub(r"\s+", " ", text[1:])
    return texts
