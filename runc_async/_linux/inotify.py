"""Watching a directory for files that are written there, or moved there (``inotify(7)``)."""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["DirectoryWatch"]

IN_CLOSE_WRITE = 0x08
IN_MOVED_TO = 0x80

libc = ctypes.CDLL(None, use_errno=True)


class DirectoryWatch:
    """A descriptor that is readable when a file has been written in a directory. A context manager.

    :param directory: the directory; it is watched from now on.
    :raises OSError: no descriptor, or no inotify instance, is free. A user may have 128 instances as a rule, and
        containers that run as that user take from the same ones: the caller must have another way.
    """

    def __init__(self, directory: str) -> None:
        self._fd: int = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        if libc.inotify_add_watch(self._fd, os.fsencode(directory), IN_CLOSE_WRITE | IN_MOVED_TO) < 0:
            number = ctypes.get_errno()
            os.close(self._fd)
            raise OSError(number, os.strerror(number), directory)

    def fileno(self) -> int:
        """The descriptor."""
        return self._fd

    def clear(self) -> None:
        """Forget what has happened so far, so that the descriptor is readable again with the next file."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._fd, 4096)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._fd)
