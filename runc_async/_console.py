"""`Console`: the master of a container's terminal."""

from __future__ import annotations

import termios
from typing import NamedTuple

from ._eventloop.streams import FdStream

__all__ = ["Console", "TerminalSize"]


class TerminalSize(NamedTuple):
    """The size of a terminal, in characters."""

    rows: int
    columns: int


class Console(FdStream):
    """The master of a container's pty, an anyio `ByteStream`. From `ConsoleSocket.receive`.

    What is sent the container reads as typed: ``b"\\x03"`` is Ctrl-C, ``b"\\x04"`` Ctrl-D. `receive` raises
    `anyio.EndOfStream` when the last process in the container has closed the terminal. Closing it hangs the terminal
    up: the container's foreground processes get SIGHUP.

    :param fd: a pty master, which now belongs to this object.
    """

    async def send_eof(self) -> None:
        """Type the terminal's end-of-file character, Ctrl-D as a rule: who reads a line or nothing yet sees the end.

        A terminal has no other end of its input; more can be sent afterwards.

        :raises anyio.BrokenResourceError: nobody has the terminal open any more.
        :raises anyio.ClosedResourceError: the console is closed.
        """
        await self.send(termios.tcgetattr(self.fileno())[6][termios.VEOF])

    def resize(self, rows: int, cols: int) -> None:
        """Change the terminal's size; its foreground processes get SIGWINCH.

        :param rows: lines, 1 to 65535.
        :param cols: columns, 1 to 65535.
        :raises ValueError: out of that range.
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
