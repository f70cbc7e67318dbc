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


SHARED_MEMORY = "/dev/shm"
"""A file system in memory (shm_overview(7)). runc waits until its pid file is on the disk: 2 ms where that is one."""


@contextlib.contextmanager
def private_directory(*, in_memory: bool = False) -> Generator[str]:
    """A new directory of mode 0700, gone afterwards; its path.

    It is made below ``XDG_RUNTIME_DIR`` where that is set and of use, else in the temporary directory.

    :param in_memory: prefer a file system in memory to the temporary directory. For a few small files only.
    :raises OSError: it cannot be made.
    """
    fd_reserve.fill()
    path = tempfile.mkdtemp(prefix="runc-async-", dir=_place(in_memory=in_memory))
    try:
        yield path
    finally:
        try:
            for name in os.listdir(path):
                os.unlink(os.path.join(path, name))
            os.rmdir(path)
        except OSError:
            _remove_tree(path)


def _remove_tree(path: str) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if os.path.exists(path):  # it could not be read for lack of a descriptor
        with fd_reserve.give_up():
            shutil.rmtree(path, ignore_errors=True)


def _place(*, in_memory: bool) -> str:
    """A directory in which no other user can replace what this process makes.

    :raises PermissionError: there is none.
    """
    # A relative one is to be ignored (XDG Base Directory Specification); after `su` it is often another user's.
    for folder in (os.environ.get("XDG_RUNTIME_DIR", ""), SHARED_MEMORY if in_memory else ""):
        if os.path.isabs(folder) and _is_safe(folder) and os.access(folder, os.W_OK | os.X_OK):
            return folder
    temporary = tempfile.gettempdir()
    if not _is_safe(temporary):
        raise PermissionError(errno.EPERM, "other users can replace what is made in", temporary)
    return temporary


def _is_safe(folder: str) -> bool:
    """Whether only root and this user can remove or rename what this process makes in a directory."""
    try:
        status = os.stat(folder)
    except OSError:
        return False
    others_may_write = status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return status.st_uid in (0, os.geteuid()) and (not others_may_write or bool(status.st_mode & stat.S_ISVTX))
