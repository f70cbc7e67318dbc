"""Watching a directory for files that are written there, or moved there (``inotify(7)``)."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from . import libc

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["DirectoryWatch"]

IN_CLOSE_WRITE = 0x08
IN_MOVED_TO = 0x80


class DirectoryWatch:
    """A descriptor that is readable when a file has been written in a directory. A context manager.

    :param directory: the directory; it is watched from now on.
    :raises OSError: no descriptor, or no inotify instance, is free. A user may have 128 instances as a rule, and
        containers that run as that user take from the same ones: the caller must have another way.
    """

    def __init__(self, directory: str) -> None:
        self._fd = libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            libc.inotify_add_watch(self._fd, directory, IN_CLOSE_WRITE | IN_MOVED_TO)
        except OSError:
            os.close(self._fd)
            raise

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
