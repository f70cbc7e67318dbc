"""Descriptors kept in reserve, so that what was started can be taken down when a process has none left."""

from __future__ import annotations

import contextlib
import errno
import os
from typing import TYPE_CHECKING, Any, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator

__all__ = ["fill", "given_up", "room_for", "with_room"]

T = TypeVar("T")

SIZE = 16
"""What one call of the runtime needs at most, and what is read beside it."""
AGAIN = 0.05
"""Seconds until the next try, where somebody else has taken what was given up."""
EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE})

held: list[int] = []


def fill() -> None:
    """Have the reserve; once for the whole process, and for all its event loops.

    :raises OSError: there are not enough descriptors; then nothing should be started.
    """
    while len(held) < SIZE:
        held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


def room_for(count: int) -> None:
    """Find out before a call that would not clean up after itself whether so many descriptors are free.

    :raises OSError: they are not.
    """
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))


async def with_room(call: Callable[..., Awaitable[T]], /, *args: Any) -> T:
    """Await a call that cleans up, with the reserve given up for it if there is no descriptor left otherwise.

    The call may be begun several times. Whoever waits for it limits how long.
    """
    while True:
        try:
            return await call(*args)
        except OSError as exc:
            if exc.errno not in EXHAUSTED:
                raise
        with given_up():
            try:
                return await call(*args)
            except OSError as exc:
                if exc.errno not in EXHAUSTED:
                    raise
        await anyio.sleep(AGAIN)


@contextlib.contextmanager
def given_up() -> Generator[None]:
    """Let go the reserve for what is done inside, which must be clean-up."""
    while held:
        with contextlib.suppress(IndexError):  # another thread was faster
            os.close(held.pop())
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            fill()
