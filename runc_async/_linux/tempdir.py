"""Temporary files that no other user can read, swap or make in advance."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
import tempfile
from typing import TYPE_CHECKING

from . import fd_reserve

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["private_directory"]


@contextlib.contextmanager
def private_directory() -> Generator[str]:
    """A new directory of mode 0700, gone afterwards; its path.

    It is made below ``XDG_RUNTIME_DIR`` where that is set and of use, else in the temporary directory.

    :raises OSError: it cannot be made.
    """
    fd_reserve.fill()
    path = tempfile.mkdtemp(prefix="runc-async-", dir=_place())
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if os.path.exists(path):  # it could not be read for lack of a descriptor
            with fd_reserve.given_up():
                shutil.rmtree(path, ignore_errors=True)


def _place() -> str:
    """A directory in which nobody else can put something in the place of what we make.

    :raises PermissionError: there is none.
    """
    runtime_dir = os.environ.get("XDG_RUNTIME_DIR", "")
    # A relative one is to be ignored (XDG Base Directory Specification); after `su` it is often another user's.
    if os.path.isabs(runtime_dir) and _is_safe(runtime_dir) and os.access(runtime_dir, os.W_OK | os.X_OK):
        return runtime_dir
    temporary = tempfile.gettempdir()
    if not _is_safe(temporary):
        raise PermissionError(errno.EPERM, "other users can replace what is made in", temporary)
    return temporary


def _is_safe(folder: str) -> bool:
    """Whether only root and we can remove or rename what we make in a directory."""
    try:
        status = os.stat(folder)
    except OSError:
        return False
    theirs = stat.S_IWGRP | stat.S_IWOTH
    return status.st_uid in (0, os.geteuid()) and (not status.st_mode & theirs or bool(status.st_mode & stat.S_ISVTX))
