"""``regrow completion``: a shell script that completes commands, options and what they take.

All that can be typed is written into the script as a table, which its shell reads with awk: torch
takes too long to import at every press of a key.
"""

from __future__ import annotations

import inspect
import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from regrow.cli.commands import COMMANDS, GROUPS, load
from regrow.cli.fields import argument_texts, whole

__all__ = ["Row", "completion", "table"]

Row = tuple[str, str, str, str]
"""Command, what is completed, candidate, what it is. Completed are options (""), an argument (":"),
one of several (":+"), or values of an option ("--log"), which may take several ("--log+")."""

_FILES = "/"  # as a candidate: the shell's own names of files
_FIRST = re.compile(r"[^.;:(]*(?:[.:;](?! )[^.;:(]*)*")  # of a sentence


def completion(shell: Literal["bash", "zsh", "fish"], /) -> None:
    """Print a script that completes commands, options and names in a shell.

    Write it again after an update of regrow. Where it goes:
    bash: ~/.local/share/bash-completion/completions/regrow;
    zsh: _regrow in a folder of $fpath;
    fish: ~/.config/fish/completions/regrow.fish.

    Args:
        shell: Which.
    """
    rows = "\n".join("\t".join(row) for row in table())
    if shell == "fish":  # where it is in quotes
        rows = rows.replace("\\", "\\\\").replace("'", "\\'")
    print(_SCRIPTS[shell].replace("@AWK@", _AWK.strip()).replace("@TABLE@", rows).strip())


def table() -> list[Row]:
    """Return all that can be typed."""
    rows: list[Row] = [("", "", group, _short(about)) for group, about in GROUPS.items()]
    for command in COMMANDS:
        group, _, name = command.rpartition(" ")
        about = (inspect.getdoc(load(command)) or "").partition("\n")[0]
        rows.append((group, "", name, _short(about)))
        rows.append((command, "", "--help", "Tell what it does and takes"))
        ways: list[Sequence[str]] = [()]
        if command == "control train":  # which has other options for agents that see
            ways.append((command, "--method", "MaDi"))
        made = [row for words in ways for row in _of_command(command, words)]
        rows += {row[1:3]: row for row in reversed(made)}.values()
    return sorted(rows)


def _of_command(command: str, words: Sequence[str]) -> Iterator[Row]:
    found = whole(load(command, words), (), command)
    texts = argument_texts(inspect.getdoc(found) or "")
    names = _names(command)
    for name, parameter in inspect.signature(found).parameters.items():
        option, about = f"--{name.replace('_', '-')}", _short(texts.get(name, ""))
        values, many = _values(parameter.annotation)
        values = [*names.get(name, []), *values]
        if parameter.kind is parameter.POSITIONAL_ONLY:
            key = ":"
        elif values == ["True", "False"]:
            yield command, "", option, about
            yield command, "", f"--no-{option[2:]}", about
            continue
        else:
            yield command, "", option, about
            key = option
        for value in values or [""]:  # which says that it takes one
            yield command, key, value, ""
            if many:
                yield command, f"{key}+", value, ""


def _names(command: str) -> Mapping[str, list[str]]:
    """Return what is known by name, of the arguments of a command."""
    from regrow.engine.methods import METHODS  # noqa: PLC0415  (imports torch)
    from regrow.studies.registry import STUDIES  # noqa: PLC0415
    from regrow.studies.supervised.source import known_data  # noqa: PLC0415
    from regrow.vision.models.catalogue import MODELS  # noqa: PLC0415

    return {
        "train": {"method": [*METHODS], "data": [*known_data(), _FILES], "model": [*MODELS]},
        "segment train": {"method": [*METHODS], "data": [_FILES]},
        "speech train": {"method": [*METHODS]},
        "motion train": {"method": [*METHODS]},
        "methods": {"name": [*METHODS]},
        "study run": {"name": [*STUDIES]},
    }.get(command, {})


def _values(annotation: Any) -> tuple[list[str], bool]:
    """Return what an annotation lets be chosen from, and whether several may be."""
    inner = typing.get_args(annotation)
    kind = typing.get_origin(annotation)
    if kind is typing.Annotated:
        return _values(inner[0])
    if kind is Literal:
        return [str(value) for value in inner], False
    if kind in (typing.Union, types.UnionType):
        return [v for one in inner for v in _values(one)[0]], any(_values(one)[1] for one in inner)
    if isinstance(kind, type) and issubclass(kind, Sequence):
        return _values(inner[0])[0], True
    if annotation is bool:
        return ["True", "False"], False
    return ([_FILES] if annotation is Path else []), False


def _short(text: str) -> str:
    """Return the first part of a sentence, which has no tab and no line's end."""
    found = _FIRST.match(" ".join(text.split()))
    return found.group().strip(" .") if found else ""


# REGROW_WORDS holds the words of a command line but its first; the last is completed.
_AWK = r"""
BEGIN { FS = "\t"; n = split(ENVIRON["REGROW_WORDS"], word, "\037") }
{ key = $1 FS $2; known[$1]; rows[key]++; text[key, rows[key]] = $3 FS $4 }
function offer(key,    i) {
  for (i = 1; i <= rows[key]; i++)
    if (index(text[key, i], word[n]) == 1 || text[key, i] ~ "^/") print text[key, i]
}
END {
  for (k = 0; k + 1 < n; k++) {
    longer = command (k ? " " : "") word[k + 1]
    if (!(longer in known)) break
    command = longer
  }
  for (i = n - 1; i > k && word[i] !~ /^-/; i--);
  if (i > k && i == n - 1 && rows[command FS word[i]]) offer(command FS word[i])
  else {
    if (i > k && rows[command FS word[i] "+"] && word[n] !~ /^-/) offer(command FS word[i] "+")
    else if (n == k + 1) offer(command FS ":")
    else offer(command FS ":+")
    offer(command FS "")
  }
}
"""

_SCRIPTS: Mapping[str, str] = {
    "bash": r"""
# bash completion for regrow
_regrow() {
  local IFS=$'\x1f' found one
  COMPREPLY=()
  found=$(REGROW_WORDS="${COMP_WORDS[*]:1:COMP_CWORD}" awk '@AWK@' <<< "$_regrow_table")
  IFS=$'\n'
  for one in $found; do
    one=${one%%$'\t'*}
    case $one in
      "") ;;
      /) COMPREPLY+=($(compgen -f -- "${COMP_WORDS[COMP_CWORD]}")); compopt -o filenames ;;
      *) COMPREPLY+=("$one") ;;
    esac
  done 2> /dev/null
}
IFS= read -r -d '' _regrow_table << 'TABLE' || true
@TABLE@
TABLE
complete -F _regrow regrow
""",
    "zsh": r"""
#compdef regrow
# zsh completion for regrow
_regrow() {
  local one
  local -a offered
  local -x REGROW_WORDS="${(pj:\x1f:)words[2,CURRENT]}"
  for one in "${(@f)$(awk '@AWK@' <<< "$_regrow_table")}"; do
    case ${one%%$'\t'*} in
      "") ;;
      /) _files ;;
      *) offered+=("${${one%%$'\t'*}//:/\\:}:${one#*$'\t'}") ;;
    esac
  done
  (( $#offered )) && _describe regrow offered
}
typeset -g _regrow_table
IFS= read -r -d '' _regrow_table << 'TABLE' || true
@TABLE@
TABLE
if [ "$funcstack[1]" = "_regrow" ]; then _regrow "$@"; else compdef _regrow regrow; fi
""",
    "fish": r"""
# fish completion for regrow
function _regrow
    set -l current (commandline -ct)
    set -l words (commandline -opc) "$current"
    set -lx REGROW_WORDS (string join \x1f -- $words[2..-1])
    for one in (printf '%s\n' $_regrow_table | awk '@AWK@')
        switch (string split -f1 \t -- $one)
            case ''
            case /
                __fish_complete_path (commandline -ct)
            case '*'
                printf '%s\n' $one
        end
    end
end
set -g _regrow_table (string split \n -- '@TABLE@')
complete --command regrow --no-files --arguments '(_regrow)'
""",
}
