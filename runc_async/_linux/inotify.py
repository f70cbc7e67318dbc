"""Waiting until a file has been written in a directory: the runtime's pid file, without looking again and again."""

from __future__ import annotations

import ctypes
import os
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Written"]

IN_CLOSE_WRITE = 0x08
IN_MOVED_TO = 0x80

libc = ctypes.CDLL(None, use_errno=True)


class Written:
    """Tells when files in a directory have been written, or moved there.

    :param folder: the directory; it is watched from now on.
    :raises OSError: no descriptor, or no inotify instance, is free.
    """

    def __init__(self, folder: str) -> None:
        self._fd: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        if libc.inotify_add_watch(self._fd, os.fsencode(folder), IN_CLOSE_WRITE | IN_MOVED_TO) < 0:
            os.close(self._fd)
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), folder)

    async def wait(self) -> None:
        """Wait for the next one."""
        await anyio.wait_readable(self._fd)
        os.read(self._fd, 4096)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
