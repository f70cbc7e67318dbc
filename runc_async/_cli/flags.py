"""One flag of one command: its keyword, and how its value is checked and written."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import cast

from .validation import INT64, MOST_ID, byte_size, parse_ids, parse_integer, parse_text, wrong_type

__all__ = [
    "Command",
    "Flag",
    "duration",
    "identifier",
    "integer_between",
    "make_command",
    "one_of",
    "path_argument",
    "several",
    "size",
    "switch",
    "true_false_auto",
    "user",
    "variable",
    "with_value",
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


def integer_between(least: int, most: int | None = None) -> Callable[[object], str]:
    """An integer from `least` to `most`, both allowed."""
    return lambda value: str(parse_integer(value, least, most))


def size(value: object) -> str:
    """Bytes, -1 for no limit. Written without a unit: crun would read ``512m`` as 512 bytes."""
    return integer_between(-1, INT64)(-1 if value == "-1" else byte_size(value))


def one_of(*words: str) -> Callable[[object], str]:
    def convert(value: object) -> str:
        if (word := parse_text(value)) not in words:
            raise ValueError(f"must be one of {', '.join(words)}, not {value!r}")
        return word

    return convert


def true_false_auto(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else one_of("true", "false", "auto")(value)


def duration(value: object) -> str:
    """Seconds, written as Go reads a duration, down to its nanosecond."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type("seconds as int or float", value)
    if not math.isfinite(value) or not 1e-9 <= value <= 9e9:  # an int64 of nanoseconds, and not zero
        raise ValueError(f"must be more than 0 seconds and at most 9e9, not {value}")
    return f"{value:.9f}".rstrip("0").rstrip(".") + "s"


identifier = integer_between(0, MOST_ID)


def user(value: object) -> str:
    return ":".join(str(part) for part in parse_ids(value) if part is not None)


def _name(value: object) -> str:
    if "=" in (name := parse_text(value)):
        raise ValueError(f"has a name with an equals sign: {value!r}")
    return name


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise wrong_type("str", value)
    return value


def variable(value: object) -> str:
    if not re.match("[^=]+=", text := parse_text(value)):
        raise ValueError(f"must be NAME=value, not {value!r}")
    return text


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
    :ivar arguments: the least and the greatest number of arguments after the flags; None means no limit.
    :ivar ignores: beside a flag (keyword), the ones that the runtime then silently ignores.
    :ivar id_at: which argument is the container's id, if there are any.
    """

    name: str
    flags: Mapping[str, Flag]
    arguments: tuple[int, int | None]
    ignores: Mapping[str, frozenset[str]]
    id_at: int = 0


def switch(name: str) -> Flag:
    return Flag(name)


def with_value(name: str, convert: Callable[[object], str] = parse_text) -> Flag:
    return Flag(name, convert)


def several(name: str, convert: Callable[[object], str] = parse_text) -> Flag:
    return Flag(name, convert, repeatable=True)


def _table(flags: Iterable[Flag]) -> Mapping[str, Flag]:
    return MappingProxyType({flag.keyword: flag for flag in flags})


def make_command(
    name: str,
    *flags: Flag,
    arguments: tuple[int, int | None] = (1, 1),
    ignores: Mapping[str, Iterable[str]] = MappingProxyType({}),
    id_at: int = 0,
) -> Command:
    ignored = MappingProxyType({keyword: frozenset(others) for keyword, others in ignores.items()})
    return Command(name, _table(flags), arguments, ignored, id_at)
