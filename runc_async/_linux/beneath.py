"""Files below a directory whose content somebody else controls: no link is followed, no other mount entered.

Every component of a path is opened by itself with ``O_PATH | O_NOFOLLOW``, which has no effect on what is opened: no
FIFO waits, no device is asked. Only then is it looked at, and read through the same descriptor.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from .libc import file_system_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = [
    "CHUNK",
    "create",
    "create_file",
    "list_names",
    "make_directories",
    "mount_id",
    "open_beneath",
    "parse_name",
    "reopen",
    "reopen_regular",
    "walk",
]

T = TypeVar("T")

CHUNK = 1 << 18
"""Bytes that are read or written at a time."""

DEEPEST = 100
"""How deep `walk` goes: every directory is opened from the top."""

PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
KINDS = {
    stat.S_IFLNK: (errno.ELOOP, "is a symbolic link"),
    stat.S_IFIFO: (errno.EINVAL, "is a FIFO"),
    stat.S_IFSOCK: (errno.EINVAL, "is a socket"),
    stat.S_IFCHR: (errno.EINVAL, "is a character device"),
    stat.S_IFBLK: (errno.EINVAL, "is a block device"),
    stat.S_IFDIR: (errno.EISDIR, "is a directory"),
    stat.S_IFREG: (errno.ENOTDIR, "is not a directory"),
}


def parse_name(name: str | os.PathLike[str]) -> tuple[str, ...]:
    """The components of a relative path; of ``"."`` none.

    :raises ValueError: it is empty or absolute, or contains ``..`` or a NUL byte.
    """
    text = os.fspath(name)
    parts = tuple(part for part in text.split("/") if part not in ("", "."))
    if not text or text.startswith("/") or ".." in parts or "\0" in text:
        raise ValueError(f"name must be a relative path without '..': {text!r}")
    return parts


def open_beneath(top: int, parts: tuple[str, ...], *, same_mount: bool = True) -> int:
    """Open what is at a path below a directory (``O_PATH``).

    :param top: the directory's descriptor.
    :param same_mount: whether what is mounted below is refused.
    :returns: a descriptor, which the caller closes.
    :raises OSError: it is not there; a component is a symbolic link, or not a directory; or on another mount.
    """
    mount = mount_id(top) if same_mount else None
    current = os.open(".", PATH | os.O_DIRECTORY, dir_fd=top)
    try:
        for depth, part in enumerate(parts):
            name = "/".join(parts[: depth + 1])
            try:
                following = os.open(part, PATH, dir_fd=current)
            except OSError as exc:
                raise OSError(exc.errno, os.strerror(exc.errno or 0), name) from None
            os.close(current)
            current = following
            mode = os.fstat(current).st_mode
            if stat.S_ISLNK(mode) or (depth + 1 < len(parts) and not stat.S_ISDIR(mode)):
                raise _refusal(mode, name)
            if mount is not None and mount_id(current) != mount:
                raise OSError(errno.EXDEV, "is on another mount", name)
    except BaseException:
        os.close(current)
        raise
    return current


def reopen_regular(found: int, name: str) -> int:
    """Open for reading what an ``O_PATH`` descriptor stands for.

    :param name: its path, for the error.
    :raises OSError: it is not a regular file, or must not be read.
    """
    mode = os.fstat(found).st_mode
    if not stat.S_ISREG(mode):
        raise _refusal(mode, name)
    try:
        return reopen(found, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as exc:
        raise OSError(exc.errno, os.strerror(exc.errno or 0), name) from None


def reopen(fd: int, flags: int) -> int:
    """Open what an ``O_PATH`` descriptor stands for, and nothing that is at its path by now."""
    return os.open(f"/proc/self/fd/{fd}", flags | os.O_CLOEXEC)


def mount_id(fd: int) -> int:
    """Which mount a descriptor's file is on (proc_pid_fdinfo(5))."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(b"mnt_id:"))


def make_directories(top: int, parts: tuple[str, ...], prepare: Callable[[int], object]) -> int:
    """Open a directory below another one, and make it and those above it where they are missing.

    :param prepare: called with a descriptor of each that was made.
    :returns: its descriptor (``O_PATH``), which the caller closes.
    """
    for depth in range(len(parts)):
        try:
            os.close(open_beneath(top, parts[: depth + 1]))
        except FileNotFoundError:
            above = open_beneath(top, parts[:depth])
            try:
                create(above, partial(os.mkdir, parts[depth], 0o755, dir_fd=above))
                made = os.open(parts[depth], os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
            finally:
                os.close(above)
            try:
                prepare(made)
            finally:
                os.close(made)
    found = open_beneath(top, parts)
    mode = os.fstat(found).st_mode
    if not stat.S_ISDIR(mode):
        os.close(found)
        raise _refusal(mode, "/".join(parts))
    return found


def create(directory: int, make: Callable[[], T]) -> T:
    """Make something in a directory.

    On a file system that was mounted in a user namespace only users whom that namespace knows can make something. Root
    outside is not among them; then it is done as the user whose directory it is.
    """
    try:
        return make()
    except OSError as exc:
        if exc.errno != errno.EOVERFLOW:
            raise
    status = os.fstat(directory)
    with file_system_user(status.st_uid, status.st_gid):
        return make()


def create_file(directory: int, name: str, fill: Callable[[int], object]) -> None:
    """Create a file, or put it in the place of one, whole or not at all.

    What is in its place already is never opened: it might be a link, a FIFO or a device.

    :param directory: a descriptor of the directory.
    :param fill: called with a descriptor that can be written.
    """
    temporary = f".{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = create(directory, partial(os.open, temporary, flags, 0o600, dir_fd=directory))
    try:
        try:
            fill(fd)
        finally:
            os.close(fd)
        create(directory, partial(os.replace, temporary, name, src_dir_fd=directory, dst_dir_fd=directory))
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary, dir_fd=directory)
        raise


def walk(top: int, parts: tuple[str, ...], most: int) -> Iterator[tuple[tuple[str, ...], int | OSError]]:
    """Everything below a directory, in the order of the names: a directory before what is in it.

    :param top: the directory's descriptor.
    :param parts: its own path, which those of the entries begin with.
    :param most: how many entries are visited.
    :returns: the path of each, and a descriptor (``O_PATH``) that is valid until the next one is asked for; or why it
        was not opened: it is a symbolic link or on another mount, or too deep. If there are too many, the last path is
        the directory's own.
    """
    pending = [(*parts, name) for name in list_names(top, most)]
    pending.reverse()
    visited = 0
    while pending:
        path = pending.pop()
        visited += 1
        if visited > most:
            yield parts, OSError(errno.E2BIG, f"there are more than {most} files and directories")
            return
        try:
            found = open_beneath(top, path[len(parts) :])
        except FileNotFoundError:  # removed meanwhile
            continue
        except OSError as exc:
            yield path, exc
            continue
        try:
            yield path, found
            if not stat.S_ISDIR(os.fstat(found).st_mode):
                continue
            if len(path) - len(parts) >= DEEPEST:
                yield path, OSError(errno.ENAMETOOLONG, f"is {DEEPEST} directories deep: what is in it is left out")
                continue
            pending += [(*path, below) for below in reversed(list_names(found, most))]
        finally:
            os.close(found)


def list_names(directory: int, most: int) -> list[str]:
    """The names in a directory, in order; of a directory with more names than allowed, one more than that."""
    fd = reopen(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with os.scandir(fd) as entries:
            return sorted(entry.name for entry in itertools.islice(entries, most + 1))
    finally:
        os.close(fd)


def _refusal(mode: int, name: str) -> OSError:
    code, reason = KINDS.get(stat.S_IFMT(mode), (errno.EINVAL, "is of an unknown kind"))
    return OSError(code, reason, name)
