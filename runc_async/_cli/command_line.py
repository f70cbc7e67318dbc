"""Builds the runtime's command line from keywords. Pure: nothing is read, nothing is run.

A value is written ``--flag=value``, which none of the runtimes can take for another flag. Two exceptions:

- runc 1.5 strips white space at the end of an argument, so a value that ends in white space goes separately.
- crun declares ``--network-lock`` without a value and then takes the next argument.

A flag that runc or crun lacks is refused by the runtime; what the other runtimes lack is refused here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .._errors import UnsupportedError
from .._linux.signals import signal_number
from .commands import COMMANDS, FURTHER_COMMANDS, GLOBAL, STARTING
from .dialects import RUNC
from .flags import Command, Flag, make_command, path_argument
from .validation import check_type, naming, parse_text, reject_nul

if TYPE_CHECKING:
    import signal as signals

    from .dialects import Dialect

__all__ = ["call_line", "command_line", "global_options", "signal_argument"]


def signal_argument(value: int | signals.Signals | str) -> str:
    """Write a signal as the runtime's ``kill`` takes it: as a number, since each runtime knows other names.

    :param value: as for `signal_number`; or 0, which is not sent, but fails where a signal would.
    :raises TypeError: it is neither int nor str.
    :raises ValueError: there is no such signal.
    """
    return "0" if type(value) is int and value == 0 else str(signal_number(value))


def _options(command: Command, options: Mapping[str, object], dialect: Dialect) -> list[str]:
    for keyword in options:
        if keyword not in command.flags:
            raise TypeError(f"{command.name}() got an unexpected keyword argument {keyword!r}")
    rendered: dict[str, list[str]] = {}
    for keyword, flag in command.flags.items():
        if (value := options.get(keyword)) is None:
            continue
        with naming(keyword):
            words = flag.render(value)
            if words and command is not GLOBAL:
                _refuse_lacking(dialect, command.name, flag.name)
                words = dialect.renders[flag.name](value) if flag.name in dialect.renders else words
        if words:
            rendered[keyword] = words
    for keyword, others in command.ignores.items():
        if keyword in rendered and (ignored := [other for other in rendered if other in others]):
            raise ValueError(f"{command.name}: the runtime ignores {', '.join(ignored)} beside {keyword}")
    return [word for words in rendered.values() for word in words]


def _refuse_lacking(dialect: Dialect, command: str, flag: str = "") -> None:
    if sentence := dialect.lacks(command, flag):
        raise UnsupportedError((dialect.name, command), 1, sentence)


def _refuse_signal(dialect: Dialect, signal: str) -> None:
    if signal.isdecimal() and not dialect.least_signal <= int(signal) <= dialect.greatest_signal:
        raise UnsupportedError((dialect.name, "kill"), 1, f"{dialect.name} kill cannot send signal {signal}")


def _extra(extra_args: Sequence[str]) -> list[str]:
    if isinstance(extra_args, str | bytes):
        raise TypeError(f"extra_args must be a sequence of str, not {type(extra_args).__name__}")
    check_type("extra_args", extra_args, Iterable, wanted="a sequence of str")
    for argument in extra_args:
        check_type("extra_args: each", argument, str)
        reject_nul("extra_args: one ", argument)
    return list(extra_args)


def _words(command: str, words: Sequence[str]) -> list[str]:
    for word in words:
        check_type(f"{command}: each argument", word, str)
        reject_nul(f"{command}: an argument ", word)
    return list(words)


def _arguments(command: Command, words: Sequence[str]) -> list[str]:
    least, most = command.arguments
    if len(words) < least or (most is not None and len(words) > most):
        raise TypeError(f"{command.name} takes {least} to {most} arguments, not {len(words)}")
    _words(command.name, words)
    if words:
        _container_id(words[command.id_at])
    if len(words) > 1 and words[1].strip() in (
        "",
        "--",
    ):  # runc 1.5 drops the one, and reads flags after the other
        raise ValueError(f"{command.name}: the first argument must not be {words[1]!r}")
    return list(words)


def _container_id(value: str) -> None:
    if not value:
        raise ValueError("the container id is empty")
    if value.startswith("-"):
        raise ValueError(f"a container id must not begin with a dash: {value!r}")
    if {".", ".."} & set(value.split("/")):  # crun 1.8 takes it for a path: `delete --force ..` empties it
        raise ValueError(f"a container id must not be a path: {value!r}")
    if value != value.strip():  # runc 1.5 strips it, and means another container
        raise ValueError(f"a container id must not begin or end with white space: {value!r}")


def command_line(
    command: str,
    options: Mapping[str, object],
    *,
    positional: Sequence[str] = (),
    extra_args: Sequence[str] = (),
    dialect: Dialect = RUNC,
) -> list[str]:
    """The arguments from the command's name on: flags in the table's order, extra ones, positional ones.

    :param command: the runtime's name for the command.
    :param options: keyword to value; None is absent, and False for a switch.
    :param positional: the container's id, and what follows it; for ``kill`` see `signal_argument`.
    :param extra_args: arguments for flags that the tables do not know, put after the known flags.
    :param dialect: how the runtime talks.
    :raises UnsupportedError: the runtime has no such command or flag, as far as its dialect knows.
    :raises TypeError: an unknown keyword, or a value of the wrong type.
    :raises ValueError: a value that cannot be right: an empty id, a negative interval, a NUL character, a
        flag that the runtime would silently ignore beside another.
    """
    table = COMMANDS[command]
    flags, words = _options(table, options, dialect), _arguments(table, positional)
    _refuse_lacking(dialect, command)
    if command == "kill" and len(words) > 1:
        _refuse_signal(dialect, words[1])
    words = [command, *flags, *_extra(extra_args), *words]
    if command == "exec":
        whole = options.get("process") is not None
        if whole and len(positional) > 1:
            raise ValueError("exec: the runtime ignores arguments beside process")
        if not whole and len(positional) < 2:
            raise ValueError("exec: no arguments: what shall be executed?")
    if command == "ps" and options.get("format") == "json" and len(positional) > 1:
        raise ValueError("ps: the runtime ignores the options of ps beside format='json'")
    return words


def call_line(
    command: str,
    options: Mapping[str, object],
    *,
    positional: Sequence[str] = (),
    extra_args: Sequence[str] = (),
    dialect: Dialect = RUNC,
) -> list[str]:
    """The arguments of any command, also one that the tables do not know.

    :param command: its name.
    :param options: keyword to value. Flags that the tables know are checked and written as in `command_line`. Of other
        flags True is a switch, None and False are absent, a sequence repeats the flag, and anything else is a value.
    :param positional: what follows the flags.
    :param extra_args: further arguments, put after the flags.
    :param dialect: how the runtime talks.
    :raises TypeError: a value of the wrong type.
    :raises ValueError: the command starts something, and so has a method of its own; or a value that cannot be right.
    """
    with naming("command"):
        if parse_text(command).startswith("-"):
            raise ValueError(f"must not begin with a dash: {command!r}")
    if command in STARTING:
        raise ValueError(f"{command} starts something: use the method {command}")
    if command in COMMANDS:
        return command_line(command, options, positional=positional, extra_args=extra_args, dialect=dialect)
    table = FURTHER_COMMANDS.get(command, make_command(command, arguments=(0, None)))
    flags = {keyword: _guess_flag(keyword, value) for keyword, value in options.items()}
    table = replace(table, flags={**flags, **table.flags})
    given = {keyword: value for keyword, value in options.items() if value is not False}
    arguments = _arguments(table, positional) if command in FURTHER_COMMANDS else _words(command, positional)
    return [command, *_options(table, given, RUNC), *_extra(extra_args), *arguments]


def _guess_flag(keyword: str, value: object) -> Flag:
    name = f"--{keyword.replace('_', '-')}"
    if isinstance(value, bool):
        return Flag(name)
    return Flag(name, _plain_value, repeatable=not isinstance(value, os.PathLike) and isinstance(value, Iterable))


def _plain_value(value: object) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return str(value)
    return path_argument(value)


def global_options(options: Mapping[str, object], extra_args: Sequence[str] = ()) -> list[str]:
    """The arguments before the command's name.

    :param options: keyword to value, as for `command_line`; ``rootless`` may be True, False or ``"auto"``.
    :param extra_args: further arguments, put after them.
    :raises TypeError: as `command_line`.
    :raises ValueError: as `command_line`.
    """
    return [*_options(GLOBAL, options, RUNC), *_extra(extra_args)]
