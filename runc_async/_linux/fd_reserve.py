"""Descriptors in reserve, so that a container can be taken down when this process has no other descriptor left.

Processes cannot be kept in reserve. Where none can be started, clean-up waits until one can, as long as it may.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

from .._errors import CommandError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = ["fill", "give_up", "with_room"]

T = TypeVar("T")

SIZE = 16
"""What taking a container down has open at a time, and some more: see docs/cancellation.md."""
AGAIN = 0.05
"""Seconds until the next try, if another task has taken the reserve meanwhile, or no process can be started."""
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.EAGAIN})
NO_PROCESS = re.compile("resource temporarily unavailable|failed to create new OS thread|pthread_create", re.IGNORECASE)
"""How a runtime says that it could start no thread or process of its own."""

held: list[int] = []


def fill() -> None:
    """Open the reserve. There is one for the whole process and all its event loops.

    :raises OSError: there are not enough descriptors; then nothing should be started.
    """
    while len(held) < SIZE:
        held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


async def with_room(call: Callable[..., Awaitable[T]], /, *args: Any) -> T:
    """Await a call that cleans up, which may use the reserve if no other descriptor is left.

    The call may be begun several times, also where no process could be started. The caller limits how long it waits.
    """
    while True:
        for room in (contextlib.nullcontext, give_up):
            with room():
                try:
                    return await call(*args)
                except (OSError, CommandError) as exc:
                    if not _may_pass(exc):
                        raise
        await anyio.sleep(AGAIN)


def _may_pass(exc: OSError | CommandError) -> bool:
    """Whether a call failed for a descriptor or a process that may be there a moment later."""
    return bool(NO_PROCESS.search(exc.message)) if isinstance(exc, CommandError) else exc.errno in EXHAUSTED


@contextlib.contextmanager
def give_up() -> Generator[None]:
    """Close the reserve for what is done inside, which must be clean-up."""
    while held:
        with contextlib.suppress(IndexError):  # another thread was faster
            os.close(held.pop())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fill()
