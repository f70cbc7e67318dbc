"""Checks of values that the caller gives, shared by everything that takes some."""

from __future__ import annotations

import contextlib
import json
import operator
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = [
    "INT64",
    "MOST_ID",
    "UINT64",
    "byte_size",
    "check_type",
    "encode_document",
    "naming",
    "parse_ids",
    "parse_integer",
    "parse_text",
    "reject_nul",
    "wrong_type",
]

INT64 = (1 << 63) - 1
UINT64 = (1 << 64) - 1
MOST_ID = (1 << 32) - 2
"""The greatest user or group. The next is "no id"; of those beyond runc takes the lower 32 bits, so 1 << 32 is root."""

_POWERS = {unit: 1 << 10 * power for power, unit in enumerate(("", "k", "m", "g", "t", "p"))}


@contextlib.contextmanager
def naming(what: str) -> Generator[None]:
    """Begin the sentence of a `TypeError` or `ValueError` with what it is about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{what} {error}") from None


def wrong_type(wanted: str, value: object) -> TypeError:
    """Make the error for a value of the wrong type; see `naming`.

    :param wanted: what it must be: ``int``.
    :param value: what was given.
    """
    return TypeError(f"must be {wanted}, not {type(value).__name__}")


def check_type(name: str, value: object, *types: type | None, wanted: str = "") -> None:
    """Check the type of a parameter that its annotation alone does not enforce.

    :param name: the parameter's.
    :param value: what was given; a bool is not an int here.
    :param types: those that it may have; None for None itself.
    :param wanted: the types in words; empty is their names.
    :raises TypeError: it has another type. The message names the parameter, what it must be and what it is.
    """
    classes = tuple(type(None) if each is None else each for each in types)
    if isinstance(value, classes) and (not isinstance(value, bool) or bool in types or object in types):
        return
    wanted = wanted or " or ".join("None" if each is None else each.__name__ for each in types)
    raise TypeError(f"{name} must be {wanted}, not {type(value).__name__}")


def reject_nul(what: str, value: str) -> None:
    """Refuse a text that cannot be an argument of a program.

    :param what: begins the sentence of the error.
    :raises ValueError: it has a NUL character, which ends an argument.
    """
    if "\0" in value:
        raise ValueError(f"{what}has a NUL character: {value!r}")


def parse_text(value: object) -> str:
    """Give back a text that can be the value of a flag.

    :raises TypeError: it is not str.
    :raises ValueError: it has a NUL character, or is empty: the runtimes take an empty value for an absent one.
    """
    if not isinstance(value, str):
        raise wrong_type("str", value)
    if not value:
        raise ValueError("is empty")
    reject_nul("", value)
    return value


def parse_integer(value: object, least: int, most: int | None = None) -> int:
    """Give back an integer within limits.

    :param value: an int, or another type's object that is one (``__index__``); not a bool.
    :param least: the smallest that is allowed.
    :param most: the greatest that is allowed; None means no limit.
    :raises TypeError: it is not an integer.
    :raises ValueError: it is out of the limits.
    """
    if isinstance(value, bool):
        raise wrong_type("int", value)
    try:
        number = operator.index(cast("int", value))
    except TypeError:
        raise wrong_type("int", value) from None
    if number < least or (most is not None and number > most):
        limits = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"must be {limits}, not {number}")
    return number


def parse_ids(value: object) -> tuple[int, int | None]:
    """Read a user, with or without a group.

    :param value: a uid as int, or ``uid`` or ``uid:gid`` in digits.
    :returns: the uid, and the gid or None.
    :raises TypeError: it is neither int nor str.
    :raises ValueError: it has another form, or an id that cannot be.
    """
    if not isinstance(value, str):
        return parse_integer(value, 0, MOST_ID), None
    found = re.fullmatch(r"([0-9]+)(?::([0-9]+))?", value)
    if found is None:
        raise ValueError(f"must be uid or uid:gid, in numbers, not {value!r}")
    uid, gid = (None if part is None else parse_integer(int(part), 0, MOST_ID) for part in found.groups())
    return cast("int", uid), gid


def byte_size(value: object) -> int:
    """A number of bytes.

    :param value: bytes as int, or a str with a unit or without: ``"512"``, ``"256M"``, ``"1.5 GiB"`` (powers of 1024).
    :raises TypeError: it is neither.
    :raises ValueError: the str is not a number with one of these units.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"must be bytes as int, or a str with a unit, not {type(value).__name__}")
    if isinstance(value, int):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([kmgtp]?)(?:i?b)?", value.strip().lower(), re.ASCII)
    if found is None:
        raise ValueError(f'must be a number of bytes, or one with a unit such as "256M", not {value!r}')
    return int(Decimal(found[1]) * _POWERS[found[2]])


def encode_document(document: object) -> bytes:
    """Encode a specification, or a part of one, as the runtime reads it.

    :raises TypeError: it has something in it that JSON has not, such as bytes.
    :raises ValueError: it has a number or a character in it that JSON has not, such as NaN.
    """
    return json.dumps(document, ensure_ascii=False, allow_nan=False, default=_as_dict).encode()


def _as_dict(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    raise TypeError(f"JSON has nothing such as {value!r}")
