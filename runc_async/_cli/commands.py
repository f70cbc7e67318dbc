"""Keyword → flag: one declarative table per runtime command, and the command line made from it.

One rule names every keyword: it is the runtime's own flag, dashes as underscores. The tables hold every flag
of runc 1.1 to 1.5 and of crun 1.8 to 1.28 (``runc(8)``, ``crun(1)`` and the pages of their commands); which version
has which flag is in `quirks`. A flag that the runtime lacks is refused by the runtime, not here. Pure: nothing is read,
nothing is run.

A value is written ``--flag=value``, which none of the runtimes can take for another flag. Two exceptions:

- runc 1.5 strips white space at the end of an argument, so a value that ends in white space goes separately.
- crun declares ``--network-lock`` without a value and then takes the next argument.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, cast

from .._linux.signals import signal_number
from .quirks import SINCE
from .validation import (
    INT64,
    MOST_ID,
    UINT64,
    byte_size,
    check_type,
    named,
    parse_ids,
    parse_integer,
    parse_text,
    reject_nul,
    wrong_type,
)

if TYPE_CHECKING:
    import signal as signals

__all__ = [
    "COMMANDS",
    "GLOBAL",
    "Command",
    "Flag",
    "command_line",
    "global_options",
    "path_argument",
    "signal_argument",
]


# -- values ------------------------------------------------------------------------------------------------


def path_argument(value: object) -> str:
    """A path as the runtime gets it.

    :raises TypeError: it is not a path of str.
    :raises ValueError: it is empty or has a NUL character.
    """
    if not isinstance(value, str | os.PathLike):
        raise wrong_type("str or os.PathLike", value)
    path = cast("str | bytes", os.fspath(cast("str | os.PathLike[str]", value)))
    if isinstance(path, bytes):
        raise wrong_type("a path of str", path)
    return parse_text(path)


def _int(least: int, most: int | None = None) -> Callable[[object], str]:
    """An integer from `least` to `most`, both allowed."""
    return lambda value: str(parse_integer(value, least, most))


def _size(value: object) -> str:
    """Bytes, -1 for no limit. Written without a unit: crun would read ``512m`` as 512 bytes."""
    return _int(-1, INT64)(-1 if value == "-1" else byte_size(value))


def _one_of(*words: str) -> Callable[[object], str]:
    def convert(value: object) -> str:
        if (word := parse_text(value)) not in words:
            raise ValueError(f"must be one of {', '.join(words)}, not {value!r}")
        return word

    return convert


def _true_false_auto(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else _one_of("true", "false", "auto")(value)


def _duration(value: object) -> str:
    """Seconds, written as Go reads a duration, down to its nanosecond."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type("seconds as int or float", value)
    if not math.isfinite(value) or not 1e-9 <= value <= 9e9:  # an int64 of nanoseconds, and not zero
        raise ValueError(f"must be more than 0 seconds and at most 9e9, not {value}")
    return f"{value:.9f}".rstrip("0").rstrip(".") + "s"


_id = _int(0, MOST_ID)


def _user(value: object) -> str:
    return ":".join(str(part) for part in parse_ids(value) if part is not None)


def _name(value: object) -> str:
    if "=" in (name := parse_text(value)):
        raise ValueError(f"has a name with an equals sign: {value!r}")
    return name


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise wrong_type("str", value)
    return value


def _variable(value: object) -> str:
    if not re.match("[^=]+=", text := parse_text(value)):
        raise ValueError(f"must be NAME=value, not {value!r}")
    return text


def signal_argument(value: int | signals.Signals | str) -> str:
    """Write a signal as the runtime's ``kill`` takes it: as a number, since each runtime knows other names.

    :param value: as for `signal_number`; or 0, which is not sent, but fails where a signal would.
    :raises TypeError: it is neither int nor str.
    :raises ValueError: there is no such signal.
    """
    return "0" if type(value) is int and value == 0 else str(signal_number(value))


# -- flags -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Flag:
    """One flag of one command.

    :ivar name: as the runtime names it, with its dashes: ``--pid-file``.
    :ivar convert: checks one value and writes it; None for a switch, which takes none.
    :ivar repeatable: whether the keyword takes a sequence (or mapping) of values, each a flag of its own.
    :ivar separate: whether the value is an argument of its own instead of following ``=``.
    """

    name: str
    convert: Callable[[object], str] | None = None
    repeatable: bool = False
    separate: bool = False

    @property
    def keyword(self) -> str:
        """The Python keyword: the name, dashes as underscores."""
        return self.name.removeprefix("--").replace("-", "_")

    def render(self, value: object) -> list[str]:
        """The arguments for a value, none at all for an absent one (None; for a switch, False)."""
        if value is None:
            return []
        if self.convert is None:
            if not isinstance(value, bool):
                raise wrong_type("bool", value)
            return [self.name] if value else []
        return [word for item in self._items(value) for word in self._words(self.convert(item))]

    def _items(self, value: object) -> Iterable[object]:
        if not self.repeatable or isinstance(value, str):
            return [value]
        if isinstance(value, Mapping):
            pairs = cast("Mapping[object, object]", value)
            return [f"{_name(name)}={_string(content)}" for name, content in pairs.items()]
        if isinstance(value, bytes) or not isinstance(value, Iterable):
            raise wrong_type("a sequence of values", value)
        return cast("Iterable[object]", value)

    def _words(self, text: str) -> list[str]:
        ends_in_space = text != text.rstrip()
        if ends_in_space and text.startswith("-"):  # runc 1.1 may take it for a flag, runc 1.5 strips it
            raise ValueError(f"begins with a dash and ends in white space: {text!r}")
        return [self.name, text] if self.separate or ends_in_space else [f"{self.name}={text}"]


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the runtime.

    :ivar name: as the runtime names it.
    :ivar flags: keyword to flag.
    :ivar arguments: the least and the greatest number of arguments after the flags; None is no limit.
        Wherever there are any, the first is the container's id.
    :ivar ignores: beside a flag (keyword), the ones that the runtime then silently ignores.
    """

    name: str
    flags: Mapping[str, Flag]
    arguments: tuple[int, int | None]
    ignores: Mapping[str, frozenset[str]]


def _switch(name: str) -> Flag:
    return Flag(name)


def _value(name: str, convert: Callable[[object], str] = parse_text) -> Flag:
    return Flag(name, convert)


def _several(name: str, convert: Callable[[object], str] = parse_text) -> Flag:
    return Flag(name, convert, repeatable=True)


_BUNDLE = _value("--bundle", path_argument)
_CONSOLE_SOCKET = _value("--console-socket", path_argument)
_PIDFD_SOCKET = _value("--pidfd-socket", path_argument)
_PID_FILE = _value("--pid-file", path_argument)
_DETACH = _switch("--detach")
_NO_SUBREAPER = _switch("--no-subreaper")
_NO_PIVOT = _switch("--no-pivot")
_FORMAT = _value("--format", _one_of("table", "json"))
_REGEX = _switch("--regex")

_START = (
    _BUNDLE,
    _CONSOLE_SOCKET,
    _PIDFD_SOCKET,
    _PID_FILE,
    _NO_PIVOT,
    _switch("--no-new-keyring"),
    _value("--preserve-fds", _int(0)),
    _NO_SUBREAPER,
    _value("--config", path_argument),
)
_CRIU = (
    _value("--image-path", path_argument),
    _value("--work-path", path_argument),
    _switch("--tcp-established"),
    _switch("--ext-unix-sk"),
    _switch("--shell-job"),
    _switch("--lazy-pages"),
    _switch("--file-locks"),
    _value("--manage-cgroups-mode"),
    _several("--empty-ns"),
    _switch("--auto-dedup"),
    Flag("--network-lock", parse_text, separate=True),
)
# What is part of an OCI process object: ignored beside a whole one.
_PROCESS = (
    _value("--cwd", path_argument),
    _several("--env", _variable),
    _switch("--tty"),
    _value("--user", _user),
    _several("--additional-gids", _id),
    _value("--process-label"),
    _value("--apparmor"),
    _switch("--no-new-privs"),
    _several("--cap"),
)
# What is part of an OCI linux.resources object, likewise.
_RESOURCES = (
    _value("--blkio-weight", _int(10, 1000)),
    _value("--cpu-period", _int(0, UINT64)),
    _value("--cpu-quota", _int(-1, INT64)),
    _value("--cpu-burst", _int(0, UINT64)),
    _value("--cpu-share", _int(0, UINT64)),
    _value("--cpu-rt-period", _int(0, UINT64)),
    _value("--cpu-rt-runtime", _int(-1, INT64)),
    _value("--cpuset-cpus"),
    _value("--cpuset-mems"),
    _value("--cpu-idle", _int(0, 1)),
    _value("--kernel-memory", _size),  # crun; runc hides and ignores it
    _value("--kernel-memory-tcp", _size),
    _value("--memory", _size),
    _value("--memory-reservation", _size),
    _value("--memory-swap", _size),
    _value("--pids-limit", _int(-1, INT64)),
)


def _table(flags: Iterable[Flag]) -> Mapping[str, Flag]:
    return MappingProxyType({flag.keyword: flag for flag in flags})


def _command(
    name: str,
    *flags: Flag,
    arguments: tuple[int, int | None] = (1, 1),
    ignores: Mapping[str, Iterable[str]] = MappingProxyType({}),
) -> Command:
    ignored = MappingProxyType({keyword: frozenset(others) for keyword, others in ignores.items()})
    return Command(name, _table(flags), arguments, ignored)


GLOBAL = _command(
    "runtime",
    _switch("--debug"),
    _value("--log", path_argument),
    _value("--log-format", _one_of("text", "json")),
    _value("--log-level", _one_of("error", "warning", "debug")),
    _value("--root", path_argument),
    _value("--criu", path_argument),  # hidden and ignored since runc 1.2
    _switch("--systemd-cgroup"),
    _value("--cgroup-manager", _one_of("cgroupfs", "systemd", "disabled")),
    _value("--rootless", _true_false_auto),
    arguments=(0, 0),
    ignores={"debug": ["log_level"], "systemd_cgroup": ["cgroup_manager"]},
)
"""The options before the command."""

COMMANDS: Mapping[str, Command] = MappingProxyType(
    {
        command.name: command
        for command in (
            _command(
                "checkpoint",
                *_CRIU,
                _value("--parent-path", path_argument),
                _switch("--leave-running"),
                _switch("--tcp-skip-in-flight"),
                _switch("--link-remap"),
                _value("--status-fd", _int(0)),
                _value("--page-server"),
                _switch("--pre-dump"),
            ),
            _command("create", *_START),
            _command("delete", _switch("--force"), _REGEX),
            _command("events", _value("--interval", _duration), _switch("--stats"), ignores={"stats": ["interval"]}),
            _command(
                "exec",
                _CONSOLE_SOCKET,
                _PIDFD_SOCKET,
                _PID_FILE,
                _DETACH,
                _value("--preserve-fds", _int(0)),
                _several("--cgroup"),
                _switch("--ignore-paused"),
                _value("--process", path_argument),
                *_PROCESS,
                arguments=(1, None),
                ignores={"process": [flag.keyword for flag in _PROCESS]},
            ),
            _command("features", arguments=(0, 0)),
            _command("kill", _switch("--all"), _REGEX, arguments=(1, 2), ignores={"regex": ["all"]}),
            _command("list", _FORMAT, _switch("--quiet"), arguments=(0, 0), ignores={"quiet": ["format"]}),
            _command("pause"),
            _command("ps", _FORMAT, arguments=(1, None)),
            _command(
                "restore",
                *_CRIU,
                _BUNDLE,
                _CONSOLE_SOCKET,
                _PID_FILE,
                _DETACH,
                _NO_SUBREAPER,
                _NO_PIVOT,
                _switch("--tcp-close"),
                _value("--lsm-profile"),
                _value("--lsm-mount-context"),
            ),
            _command("resume"),
            _command("run", *_START, _DETACH, _switch("--keep")),
            _command("spec", _BUNDLE, _switch("--rootless"), _value("--file", path_argument), arguments=(0, 0)),
            _command("start"),
            _command("state"),
            _command(
                "update",
                _value("--resources", path_argument),
                *_RESOURCES,
                _value("--l3-cache-schema"),  # these two are no resources, and are heeded beside them
                _value("--mem-bw-schema"),
                ignores={"resources": [flag.keyword for flag in _RESOURCES]},
            ),
        )
    }
)
"""The runtime's commands, by name."""

FLAGS_OF_OLD = frozenset(
    {flag.name for command in COMMANDS.values() for flag in command.flags.values()}
    - {what.rpartition(" ")[2] for what in SINCE}
)
"""Flags that every version since runc 1.1 and crun 1.8 has, on whatever command."""


# -- command lines -----------------------------------------------------------------------------------------


def _options(command: Command, options: Mapping[str, object]) -> list[str]:
    for keyword in options:
        if keyword not in command.flags:
            raise TypeError(f"{command.name}() got an unexpected keyword argument {keyword!r}")
    rendered: dict[str, list[str]] = {}
    for keyword, flag in command.flags.items():
        if (value := options.get(keyword)) is None:
            continue
        with named(keyword):
            words = flag.render(value)
        if words:
            rendered[keyword] = words
    for keyword, others in command.ignores.items():
        if keyword in rendered and (ignored := [other for other in rendered if other in others]):
            raise ValueError(f"{command.name}: the runtime ignores {', '.join(ignored)} beside {keyword}")
    return [word for words in rendered.values() for word in words]


def _extra(extra_args: Sequence[str]) -> list[str]:
    if isinstance(extra_args, str | bytes):
        raise TypeError(f"extra_args must be a sequence of str, not {type(extra_args).__name__}")
    check_type("extra_args", extra_args, Iterable, wanted="a sequence of str")
    for argument in extra_args:
        check_type("extra_args: each", argument, str)
        reject_nul("extra_args: one ", argument)
    return list(extra_args)


def _arguments(command: Command, words: Sequence[str]) -> list[str]:
    least, most = command.arguments
    if len(words) < least or (most is not None and len(words) > most):
        raise TypeError(f"{command.name} takes {least} to {most} arguments, not {len(words)}")
    for word in words:
        check_type(f"{command.name}: each argument", word, str)
        reject_nul(f"{command.name}: an argument ", word)
    if words:
        _container_id(words[0])
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
) -> list[str]:
    """The arguments from the command's name on: flags in the table's order, extra ones, positional ones.

    :param command: the runtime's name for the command.
    :param options: keyword to value; None is absent, and False for a switch.
    :param positional: the container's id, and what follows it; for ``kill`` see `signal_argument`.
    :param extra_args: arguments for flags that the tables do not know, put after the known flags.
    :raises TypeError: an unknown keyword, or a value of the wrong type.
    :raises ValueError: a value that cannot be right: an empty id, a negative interval, a NUL character, a
        flag that the runtime would silently ignore beside another.
    """
    table = COMMANDS[command]
    words = [command, *_options(table, options), *_extra(extra_args), *_arguments(table, positional)]
    if command == "exec":
        whole = options.get("process") is not None
        if whole and len(positional) > 1:
            raise ValueError("exec: the runtime ignores arguments beside process")
        if not whole and len(positional) < 2:
            raise ValueError("exec: no arguments: what shall be executed?")
    if command == "ps" and options.get("format") == "json" and len(positional) > 1:
        raise ValueError("ps: the runtime ignores the options of ps beside format='json'")
    return words


def global_options(options: Mapping[str, object], extra_args: Sequence[str] = ()) -> list[str]:
    """The arguments before the command's name.

    :param options: keyword to value, as for `command_line`; ``rootless`` may be True, False or ``"auto"``.
    :param extra_args: further arguments, put after them.
    :raises TypeError: as `command_line`.
    :raises ValueError: as `command_line`.
    """
    return [*_options(GLOBAL, options), *_extra(extra_args)]
