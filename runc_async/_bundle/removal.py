"""Removal of directory trees that a container may have made: as deep as it likes, full of links and closed doors."""

from __future__ import annotations

import errno
import logging
import os
import stat
from typing import TYPE_CHECKING, NamedTuple

from .._linux import fd_reserve

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["remove_tree"]

logger = logging.getLogger("runc_async")

FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class _Level(NamedTuple):
    """A directory on the way down."""

    name: str
    """Its name in the directory above."""
    identity: tuple[int, int]
    """Its device and inode."""
    folders: list[str]
    """The directories in it that are still to be removed."""


def remove_tree(path: Path) -> None:
    """Remove a directory with everything in it; nothing happens if it is missing.

    The way down and up again leads from one directory's descriptor to the next, so neither the depth nor the length
    of a path matters. No symbolic link is followed and no other file system is entered. What cannot be removed stays,
    and is logged.
    """
    try:
        errors = _remove(path)
        if errors and any(error.errno in fd_reserve.EXHAUSTED for error in errors):
            with fd_reserve.give_up():
                errors = _remove(path)
    except FileNotFoundError:
        return
    except OSError as error:
        errors = [error]
    if errors and os.path.lexists(path):
        logger.warning("%s could not be removed: %s", path, errors[0])


def _remove(path: Path) -> list[OSError]:
    """Remove as much as is possible.

    :returns: why the rest is still there.

    :raises OSError: another process moved a directory, so it is not safe to go on.
    """
    errors: list[OSError] = []
    here = os.open(path.parent, FOLDER)
    levels = [_Level("", _identity(here), [path.name])]
    try:
        while levels[-1].folders or len(levels) > 1:
            if levels[-1].folders:
                name = levels[-1].folders.pop()
                try:
                    below = _enter(here, name, None if len(levels) == 1 else levels[-1].identity[0])
                except OSError as error:
                    errors.append(error)
                    continue
                os.close(here)
                here = below
                levels.append(_Level(name, _identity(here), _remove_files(here, errors)))
            else:
                above = os.open("..", FOLDER, dir_fd=here)
                os.close(here)
                here = above
                done = levels.pop()
                if _identity(here) != levels[-1].identity:
                    raise OSError(errno.ESTALE, "a directory was moved while it was being removed", done.name)
                try:
                    os.rmdir(done.name, dir_fd=here)
                except OSError as error:
                    errors.append(error)
    finally:
        os.close(here)
    return errors


def _enter(here: int, name: str, device: int | None) -> int:
    """Open a directory, and make it accessible first if it is not.

    :param device: the number of the file system that it must be on; None is any.
    """
    try:
        below = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=here)
    except PermissionError:
        closed = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here)
        try:
            os.chmod(f"/proc/self/fd/{closed}", stat.S_IRWXU)
        finally:
            os.close(closed)
        below = os.open(name, FOLDER | os.O_NOFOLLOW, dir_fd=here)
    try:
        status = os.fstat(below)
        if device is not None and status.st_dev != device:
            raise OSError(errno.EXDEV, "is on another file system", name)
        if status.st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(below, stat.S_IRWXU)
    except BaseException:
        os.close(below)
        raise
    return below


def _remove_files(here: int, errors: list[OSError]) -> list[str]:
    """Remove everything in a directory but the directories.

    :returns: their names.
    """
    folders: list[str] = []
    try:
        with os.scandir(here) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except OSError as error:
        errors.append(error)
        return folders
    for name, is_folder in found:
        if is_folder:
            folders.append(name)
            continue
        try:
            os.unlink(name, dir_fd=here)
        except OSError as error:
            errors.append(error)
    return folders


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
