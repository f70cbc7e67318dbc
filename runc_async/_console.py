"""`Console`: the master of a container's terminal."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import termios
import tty
from typing import TYPE_CHECKING, NamedTuple

import anyio

from ._eventloop.streams import FdStream

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Console", "TerminalSize"]

DETACH_KEYS = b"\x10\x11"
"""Ctrl-P, Ctrl-Q: what docker(1) and podman-attach(1) use."""
ENDED = (anyio.BrokenResourceError, anyio.ClosedResourceError)


class TerminalSize(NamedTuple):
    """The size of a terminal, in characters."""

    rows: int
    columns: int


class Console(FdStream):
    """The master of a container's pty, an anyio `ByteStream`. `ConsoleSocket.receive` gives it.

    The container reads what you send as if it were typed: ``b"\\x03"`` is Ctrl-C, ``b"\\x04"`` Ctrl-D. `receive`
    raises `anyio.EndOfStream` when the last process in the container has closed the terminal. Closing the console
    hangs the terminal up: the container's foreground processes get SIGHUP.

    :param fd: a pty master, which now belongs to this object.
    """

    async def send_eof(self) -> None:
        """Type the terminal's end-of-file character, usually Ctrl-D.

        A program that reads at the beginning of a line sees the end of its input. A terminal has no other end of
        input, and you can send more afterwards.

        :raises anyio.BrokenResourceError: nobody has the terminal open any more.
        :raises anyio.ClosedResourceError: the console is closed.
        """
        await self.send(termios.tcgetattr(self.fileno())[6][termios.VEOF])

    def resize(self, rows: int, cols: int) -> None:
        """Change the terminal's size; its foreground processes get SIGWINCH.

        :param rows: lines, 1 to 65535.
        :param cols: columns, 1 to 65535.
        :raises ValueError: a number is out of that range.
        :raises anyio.ClosedResourceError: the console is closed.
        """
        for name, number in (("rows", rows), ("cols", cols)):
            if not 1 <= number <= 65535:
                raise ValueError(f"{name} must be from 1 to 65535, not {number}")
        termios.tcsetwinsize(self.fileno(), (rows, cols))

    def size(self) -> TerminalSize:
        """The terminal's size.

        :raises anyio.ClosedResourceError: the console is closed.
        """
        return TerminalSize(*termios.tcgetwinsize(self.fileno()))

    async def attach(self, terminal: int = 0, *, detach_keys: bytes = DETACH_KEYS) -> bool:
        """Connect your own terminal to this one, until the container closes it or you type the detach keys.

        Your terminal becomes raw, so that every key (Ctrl-C, Ctrl-Z) goes to the container, and gets its old settings
        back afterwards, also after an exception or a cancellation. The container's terminal takes the size of yours,
        and follows its changes; for that the call takes over this process's SIGWINCH while it lasts, and must be
        made in the main thread.

        :param terminal: a descriptor of your terminal, for reading and writing; 0 is stdin.
        :param detach_keys: the keys that end the call and leave the container running, Ctrl-P Ctrl-Q if not
            given; ``b""`` for none.
        :returns: True if you typed the detach keys, False if the container's terminal has ended.
        :raises OSError: `terminal` is not a terminal (``ENOTTY``) or not open (``EBADF``).
        :raises anyio.ClosedResourceError: the console is closed.
        """
        if not os.isatty(terminal):
            os.fstat(terminal)  # EBADF if it is not open
            raise OSError(errno.ENOTTY, f"descriptor {terminal} is not a terminal")
        self.fileno()
        detached = False
        # A second open file: making the first one non-blocking would also do it for the shell that started us.
        path = f"/proc/self/fd/{terminal}"
        async with Console(os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)) as user:
            with anyio.open_signal_receiver(signal.SIGWINCH) as changes, _raw(user.fileno()):
                async with anyio.create_task_group() as group:

                    async def follow_size() -> None:
                        with contextlib.suppress(anyio.ClosedResourceError):
                            self._take_size_of(user)
                            async for _ in changes:
                                self._take_size_of(user)

                    async def show() -> None:
                        with contextlib.suppress(*ENDED):
                            async for chunk in self:
                                await user.send(chunk)
                        group.cancel_scope.cancel()

                    group.start_soon(follow_size)
                    group.start_soon(show)
                    detached = await self._type(user, detach_keys)
                    group.cancel_scope.cancel()
        self.fileno()  # raises, if another task has closed it
        return detached

    def _take_size_of(self, user: Console) -> None:
        rows, columns = user.size()
        if rows and columns:  # a serial line may not know its size
            self.resize(rows, columns)

    async def _type(self, user: Console, detach_keys: bytes) -> bool:
        """Send what the user types, until the detach keys (True) or a hang-up of the user's terminal (False)."""
        held = b""  # what may be the beginning of the detach keys
        try:
            async for chunk in user:
                typed, found, _ = (held + chunk).partition(detach_keys) if detach_keys else (chunk, b"", b"")
                count = 0 if found else _beginning_of(detach_keys, typed)
                typed, held = typed[: len(typed) - count], typed[len(typed) - count :]
                if typed:
                    await self.send(typed)
                if found:
                    return True
        except ENDED:
            await anyio.sleep_forever()  # until all output has been shown
        return False


def _beginning_of(keys: bytes, typed: bytes) -> int:
    """How many bytes at the end of `typed` are a beginning of `keys`."""
    return next((n for n in range(min(len(keys) - 1, len(typed)), 0, -1) if typed.endswith(keys[:n])), 0)


@contextlib.contextmanager
def _raw(fd: int) -> Generator[None]:
    """A terminal in raw mode (``termios(3)``); then as it was."""
    settings = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        with contextlib.suppress(termios.error):  # it has hung up
            termios.tcsetattr(fd, termios.TCSANOW, settings)
