"""Whether a directory is this user's alone, so that what is in it can be trusted."""

from __future__ import annotations

import errno
import os
import stat

__all__ = ["check_private"]

OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_private(path: str) -> None:
    """Check that nobody but this user and root can have made a directory, or can change or replace it.

    A runtime runs the hooks that a state file names, as its own user. So a directory of state that another user has
    prepared must not be used.

    :param path: the directory. It may be missing; then only the directories above it are checked.
    :raises PermissionError: it is a symbolic link, or belongs to another user, or others may write to it; or that
        holds for a directory above it. The sticky bit, as on ``/tmp``, suffices above.
    """
    path = os.path.abspath(path)
    _check_link(path)
    real = os.path.realpath(path)
    _check(real, sticky_suffices=False)
    while (above := os.path.dirname(real)) != real:
        real = above
        _check(real, sticky_suffices=True)


def _check_link(path: str) -> None:
    """Refuse a symbolic link, and one above that another user may have made."""
    if os.path.islink(path):
        raise PermissionError(errno.EPERM, "a symbolic link is not taken for a directory of state", path)
    while (above := os.path.dirname(path)) != path:
        path = above
        if os.path.islink(path) and os.lstat(path).st_uid not in (0, os.geteuid()):
            raise PermissionError(errno.EPERM, "a symbolic link of another user leads to the directory of state", path)


def _check(path: str, *, sticky_suffices: bool) -> None:
    try:
        status = os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return
    if status.st_uid not in (0, os.geteuid()):
        reason = (
            f"a directory of state must not belong to another user, or be below such a directory: uid {status.st_uid}"
        )
        raise PermissionError(errno.EPERM, reason, path)
    if status.st_mode & OTHERS_MAY_WRITE and not (sticky_suffices and status.st_mode & stat.S_ISVTX):
        reason = f"other users may write to a directory of state, or above it: mode {stat.S_IMODE(status.st_mode):04o}"
        raise PermissionError(errno.EPERM, reason, path)
