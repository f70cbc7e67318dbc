"""Descriptors as callers pass them: a number, or an object with ``fileno()``."""

from __future__ import annotations

import errno
from typing import Protocol

__all__ = ["Descriptor", "HasFileno", "number_of"]

MOST_DESCRIPTORS = (1 << 31) - 1  # a C int


class HasFileno(Protocol):
    """Anything with a descriptor: a file, a socket, a `Pidfd`."""

    def fileno(self) -> int:
        """The number of the descriptor."""
        ...


Descriptor = int | HasFileno


def number_of(descriptor: Descriptor, what: str = "a descriptor") -> int:
    """The number behind an int or an object with ``fileno()``.

    :raises TypeError: it is neither.
    :raises OSError: it cannot be one (``EBADF``).
    """
    if isinstance(descriptor, bool) or not (isinstance(descriptor, int) or hasattr(descriptor, "fileno")):
        raise TypeError(f"{what} must be an int or have fileno(), not {descriptor!r}")
    number = descriptor if isinstance(descriptor, int) else descriptor.fileno()
    if not 0 <= number <= MOST_DESCRIPTORS:
        raise OSError(errno.EBADF, f"{what} is not open: {descriptor!r}")
    return number
