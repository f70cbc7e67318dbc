"""Whether other users can have made or changed what this process is about to trust: a directory, a program."""

from __future__ import annotations

import errno
import logging
import os
import stat
from typing import TYPE_CHECKING

from .._errors import ExecutorError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["check_private", "check_program"]

logger = logging.getLogger("runc_async")

OVERFLOW_ID = 65534
"""The owner that a user namespace shows for files of users outside it."""
_logged: set[str] = set()
"""Files and directories of which a warning was logged."""

MAX_KNOWN = 256
_known: dict[str, tuple[int, ...]] = {}
"""Directories that were checked. As long as a path leads to the same one, no other user can have changed it."""
MAX_LINKS = 40
"""As the kernel has it (path_resolution(7))."""
OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


def check_private(path: str) -> None:
    """Check that nobody but this user and root can have made a directory, or can change or replace it.

    A runtime runs the hooks that a state file names, as its own user. So a directory of state that another user has
    prepared must not be used.

    :param path: the directory. It may be missing; then only the directories above it are checked.
    :raises PermissionError: it is a symbolic link, or belongs to another user, or others may write to it; or that
        holds for a directory above it. The sticky bit, as on ``/tmp``, suffices above. Above, a link of this user's or
        root's is followed.
    """
    path = os.path.abspath(path)
    try:
        status = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        _check(path)
        return
    identity = (status.st_dev, status.st_ino, status.st_mode, status.st_uid, os.geteuid())
    if _known.get(path) != identity:
        _check(path)
        if len(_known) == MAX_KNOWN:
            _known.clear()
        _known[path] = identity


def _check(path: str) -> None:
    link = _check_upwards(path)
    for _ in range(MAX_LINKS):
        if link is None:
            return
        path = os.path.join(os.path.dirname(link), os.readlink(link), os.path.relpath(path, link))
        link = _check_upwards(path)
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)


def _check_upwards(path: str) -> str | None:
    """Check a directory and each one above it.

    :returns: the lowest of the links above it; None if there is none.
    """
    linked, folder, user = None, path, os.geteuid()
    while True:
        try:
            status = os.lstat(folder)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            pass
        else:
            if stat.S_ISLNK(status.st_mode):
                _check_link(folder, status, user, is_above=folder is not path)
                linked = linked or folder
            else:
                _check_directory(folder, status, user, is_above=folder is not path)
        if folder == (above := os.path.dirname(folder)):
            return linked
        folder = above


def _check_link(path: str, status: os.stat_result, user: int, *, is_above: bool) -> None:
    if not is_above:
        raise PermissionError(errno.EPERM, "a symbolic link is not taken for a directory of state", path)
    if status.st_uid not in (0, user):
        raise PermissionError(errno.EPERM, "a symbolic link of another user leads to the directory of state", path)


def _check_directory(path: str, status: os.stat_result, user: int, *, is_above: bool) -> None:
    if status.st_uid not in (0, user):
        reason = "a directory of state must not belong to another user, or be below such a directory"
        raise PermissionError(errno.EPERM, f"{reason}: uid {status.st_uid}", path)
    if status.st_mode & OTHERS_MAY_WRITE and not (is_above and status.st_mode & stat.S_ISVTX):
        reason = "other users may write to a directory of state, or above it"
        raise PermissionError(errno.EPERM, f"{reason}: mode {stat.S_IMODE(status.st_mode):04o}", path)


def check_program(path: str) -> None:
    """As root, refuse a file that others may write, or that they may replace in a directory on the way to it.

    What belongs to another user, or another group may write, is only logged: a checkout in a container often does.

    :param path: an absolute path.
    :raises ExecutorError: others may write or replace the file.
    """
    if os.geteuid() != 0:
        return
    real = os.path.realpath(path)
    for place in {path, real, *_parents(path), *_parents(real)}:
        try:
            status = os.stat(place)
        except OSError:  # whatever executes it reports that it is missing
            continue
        if _is_shared(status):  # its entries are their owners' alone
            continue
        if status.st_mode & stat.S_IWOTH:
            mode = f"{place} has mode {stat.S_IMODE(status.st_mode):04o}"
            raise ExecutorError(f"{path}: others may write or replace it ({mode}), so root does not execute it")
        if place not in _logged and _is_writable_by_some(status):
            _logged.add(place)
            logger.warning("%s: users other than root may write %s, and so replace what root executes", path, place)


def _is_shared(status: os.stat_result) -> bool:
    """Whether it is a directory such as ``/tmp``, where nobody can replace another user's files."""
    return stat.S_ISDIR(status.st_mode) and bool(status.st_mode & stat.S_ISVTX) and status.st_uid in (0, OVERFLOW_ID)


def _is_writable_by_some(status: os.stat_result) -> bool:
    owned = status.st_uid not in (0, OVERFLOW_ID)
    return owned or bool(status.st_mode & stat.S_IWGRP and status.st_gid not in (0, OVERFLOW_ID))


def _parents(path: str) -> Iterator[str]:
    while path != "/":
        path = os.path.dirname(path)
        yield path
