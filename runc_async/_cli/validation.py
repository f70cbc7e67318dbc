"""What is asked of values, wherever they are given."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["INT64", "MOST_ID", "UINT64", "byte_size", "named", "written"]

INT64 = (1 << 63) - 1
UINT64 = (1 << 64) - 1
MOST_ID = (1 << 32) - 2
"""The greatest user or group. The next is "no id"; of those beyond runc takes the lower 32 bits, so 1 << 32 is root."""

_POWERS = {unit: 1 << 10 * power for power, unit in enumerate(("", "k", "m", "g", "t", "p"))}


@contextlib.contextmanager
def named(what: str) -> Generator[None]:
    """Begin the sentence of a `TypeError` or `ValueError` with what it is about."""
    try:
        yield
    except (TypeError, ValueError) as error:
        raise type(error)(f"{what} {error}") from None


def byte_size(value: object) -> int:
    """A number of bytes.

    :param value: bytes as int, or a str with a unit or without: ``"512"``, ``"256M"``, ``"1.5 GiB"`` (powers of 1024).
    :raises TypeError: it is neither.
    :raises ValueError: the str is no number with one of these units.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise TypeError(f"must be bytes as int, or a str with a unit, not {type(value).__name__}")
    if isinstance(value, int):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([kmgtp]?)(?:i?b)?", value.strip().lower(), re.ASCII)
    if found is None:
        raise ValueError(f'must be a number of bytes, or one with a unit such as "256M", not {value!r}')
    return int(Decimal(found[1]) * _POWERS[found[2]])


def written(document: object) -> bytes:
    """A specification, or a part of one, as the runtime reads it.

    :raises TypeError: it has something in it that JSON has not, such as bytes.
    :raises ValueError: it has a number or a character in it that JSON has not, such as NaN.
    """
    return json.dumps(document, ensure_ascii=False, allow_nan=False, default=_as_dict).encode()


def _as_dict(value: object) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return dict(cast("Mapping[str, Any]", value))
    raise TypeError(f"JSON has nothing such as {value!r}")
