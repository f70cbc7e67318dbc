"""Files of a container, through a descriptor of one of its directories: no host directory, no copy, nothing to remove.

Files of up to a mebibyte are read and written in the event loop's thread, which takes less time than to wake another
one. What is larger, and trees, go to a worker thread, where a slow disk does not stop the event loop.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import anyio.lowlevel

from ._eventloop.threads import check_stopped, run_in_thread
from ._linux import beneath
from ._linux.procfs import IdMap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType
    from typing import Self

__all__ = ["ContainerFiles", "Found", "Owner"]

T = TypeVar("T")

Owner = int | tuple[int, int]
"""A user, and a group, by their numbers in the container; of one number both."""

INLINE = 1 << 20
"""Bytes that are read or written in the event loop's thread."""
READ_BYTES = 16 << 20
COPY_BYTES = 256 << 20
ENTRIES = 10_000


class Found(NamedTuple):
    """What `ContainerFiles.collect` has brought out.

    :ivar files: the content of regular files, by their names.
    :ivar refused: what was left, by its name, and why.
    """

    files: dict[str, bytes]
    refused: dict[str, str]


class ContainerFiles:
    """The files in one directory of a container, from `Container.files`. A context manager.

    It holds a descriptor of the directory in the container's mount namespace. So it works on what is mounted there,
    also a tmpfs, and also when the container has ended and was removed. While a program runs in the container, that
    program may put anything anywhere: no symbolic link is followed, no other mount is entered, and only regular files
    and directories are brought out, without set-user-id and set-group-id bits.

    Names are relative to the directory, ``a/b``; ``..`` is refused.

    :ivar path: the directory in the container.
    """

    def __init__(self, fd: int, path: str, maps: tuple[IdMap, IdMap]) -> None:
        self.path = path
        self._fd = fd
        self._maps = maps

    @classmethod
    def open(cls, pid: int, path: str | os.PathLike[str]) -> Self:
        """Open a directory of a container.

        :param pid: a process in the container. The caller makes sure that it has not been reaped.
        :param path: the directory, absolute. Before the container has started nothing in it can be swapped.
        :raises ValueError: it is not absolute, or contains ``..``.
        :raises OSError: it is not there, is not a directory, or is behind a symbolic link; or the process is gone.
        """
        text = os.fspath(path)
        if not text.startswith("/"):
            raise ValueError(f"path must be absolute: {text!r}")
        parts = beneath.parse_name(text.lstrip("/") or ".")
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fd = beneath.open_beneath(root, parts, same_mount=False)
        finally:
            os.close(root)
        try:
            if not stat.S_ISDIR(os.fstat(fd).st_mode):
                raise NotADirectoryError(errno.ENOTDIR, "is not a directory", text)
            return cls(fd, text, (IdMap.read(pid, "uid_map"), IdMap.read(pid, "gid_map")))
        except BaseException:
            os.close(fd)
            raise

    def __repr__(self) -> str:
        return f"<ContainerFiles {self.path!r}{' closed' if self._fd < 0 else ''}>"

    def fileno(self) -> int:
        """The directory's descriptor (``O_PATH``).

        :raises ValueError: it is closed.
        """
        if self._fd < 0:
            raise ValueError(f"{self!r} is closed")
        return self._fd

    async def write(
        self, name: str | os.PathLike[str], data: bytes | str, *, mode: int = 0o644, owner: Owner | None = None
    ) -> None:
        """Write a file, whole or not at all, in the place of what has the name. Directories above it are made.

        :param name: below the directory.
        :param data: its content; a str is encoded as UTF-8.
        :param mode: its permissions, whatever the umask.
        :param owner: whose it is, ``uid`` or ``(uid, gid)`` in the container's numbers; None is the owner of the
            directory.
        :raises OSError: it cannot be written: a directory has the name, a component of it is a symbolic link, the disk
            is full (``ENOSPC``).
        """
        content = data.encode() if isinstance(data, str) else data
        write = partial(self._write, beneath.parse_name(name), content, mode, self._ids(owner))
        await self._run(write, in_thread=len(content) > INLINE)

    async def read(self, name: str | os.PathLike[str], *, max_bytes: int = READ_BYTES) -> bytes:
        """Read a regular file.

        :param name: below the directory.
        :param max_bytes: how large it may be.
        :raises OSError: it is not there; it is larger (``EFBIG``); it is something else: a symbolic link (``ELOOP``), a
            FIFO, a device.
        """
        parts = beneath.parse_name(name)
        found = beneath.open_beneath(self.fileno(), parts)
        try:
            source = _Source(found, max_bytes, "/".join(parts))
        finally:
            os.close(found)
        with source:
            return await self._run(source.read, in_thread=source.size > INLINE)

    async def list(self, name: str | os.PathLike[str] = ".", *, max_entries: int = ENTRIES) -> list[str]:
        """The names in the directory, or in one below it, in order.

        :param name: below the directory.
        :param max_entries: how many there may be.
        :raises OSError: it is not a directory; or there are more names in it (``E2BIG``).
        """

        def names() -> list[str]:
            found = beneath.open_beneath(self.fileno(), parts)
            try:
                return beneath.list_names(found, max_entries)
            finally:
                os.close(found)

        parts = beneath.parse_name(name)
        found = await self._run(names, in_thread=True)
        if len(found) > max_entries:
            raise OSError(errno.E2BIG, f"there are more than {max_entries} names", os.fspath(name))
        return found

    async def copy_in(
        self, path: str | os.PathLike[str], name: str | os.PathLike[str], *, owner: Owner | None = None
    ) -> None:
        """Copy a file of the host, or a directory with all that is in it. Symbolic links in it stay such.

        :param path: on the host.
        :param name: what it will be below the directory; of a directory, ``"."`` is the directory itself.
        :param owner: as for `write`, of all that is copied.
        :raises OSError: it cannot be read or written; something in it is neither a file, a directory nor a link.
        """
        copy = partial(self._copy_in, os.fspath(path), beneath.parse_name(name), self._ids(owner))
        await self._run(copy, in_thread=True)

    async def copy_out(
        self,
        name: str | os.PathLike[str],
        path: str | os.PathLike[str],
        *,
        max_bytes: int = COPY_BYTES,
        max_entries: int = ENTRIES,
    ) -> dict[str, str]:
        """Copy a file, or a directory with all that is in it, to the host. Nothing that is there is overwritten.

        :param name: below the directory; ``"."`` is the directory itself.
        :param path: what it will be on the host. A directory that is copied may exist there.
        :param max_bytes: how many bytes are copied in all.
        :param max_entries: how many files and directories are copied.
        :returns: what was left, by its name below the directory, and why: links, FIFOs, sockets, devices, other mounts,
            and what is too large.
        :raises FileExistsError: a file is in the place of one that is copied.
        :raises OSError: it is not there; a single file cannot be copied.
        """
        copy = partial(self._copy_out, beneath.parse_name(name), os.fspath(path), max_bytes, max_entries)
        return await self._run(copy, in_thread=True)

    async def collect(
        self, matches: Callable[[str], bool], *, max_bytes: int = READ_BYTES, max_entries: int = ENTRIES
    ) -> Found:
        """Read all regular files whose names match.

        :param matches: given a name below the directory, ``a/b``: whether it is wanted.
        :param max_bytes: how many bytes are read in all.
        :param max_entries: how many files and directories are looked at.
        """
        return await self._run(partial(self._collect, matches, max_bytes, max_entries), in_thread=True)

    def close(self) -> None:
        """Close the descriptor. Idempotent."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()

    async def _run(self, work: Callable[[], T], *, in_thread: bool) -> T:
        if in_thread:
            return await run_in_thread(work)
        await anyio.lowlevel.checkpoint()
        return work()

    def _ids(self, owner: Owner | None) -> tuple[int, int]:
        """Whose a new file is to be, in the host's numbers."""
        if owner is None:
            status = os.fstat(self.fileno())
            return status.st_uid, status.st_gid
        uid, gid = (owner, owner) if isinstance(owner, int) else owner
        return self._maps[0].on_host(uid), self._maps[1].on_host(gid)

    def _write(self, parts: tuple[str, ...], data: bytes, mode: int, ids: tuple[int, int]) -> None:
        self._put(parts, mode, ids, partial(_write_all, memoryview(data)))

    def _put(self, parts: tuple[str, ...], mode: int, ids: tuple[int, int], fill: Callable[[int], object]) -> None:
        """Make a file, and the directories above it."""

        def prepare(fd: int) -> None:
            fill(fd)
            _give(fd, ids, mode)

        directory = self._make(parts[:-1], ids)
        try:
            beneath.create_file(directory, _last(parts), prepare)
        finally:
            os.close(directory)

    def _make(self, parts: tuple[str, ...], ids: tuple[int, int]) -> int:
        return beneath.make_directories(self.fileno(), parts, partial(_give, ids=ids, mode=0o755))

    def _copy_in(self, path: str, parts: tuple[str, ...], ids: tuple[int, int]) -> None:
        if os.path.isdir(path):
            os.close(self._make(parts, ids))
            with os.scandir(path) as entries:
                for entry in entries:
                    check_stopped()
                    self._copy_entry_in(entry, (*parts, entry.name), ids)
            return
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as source:
            status = os.fstat(source.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.EINVAL, "is neither a file, a directory nor a symbolic link", path)
            self._put(parts, stat.S_IMODE(status.st_mode) & 0o777, ids, partial(_copy_all, source.fileno()))

    def _copy_entry_in(self, entry: os.DirEntry[str], parts: tuple[str, ...], ids: tuple[int, int]) -> None:
        if not entry.is_symlink():
            self._copy_in(entry.path, parts, ids)
            return
        directory = self._make(parts[:-1], ids)
        try:
            link = partial(os.symlink, os.readlink(entry.path), parts[-1], dir_fd=directory)
            beneath.create(directory, link)
            status = os.stat(parts[-1], dir_fd=directory, follow_symlinks=False)
            if ids != (status.st_uid, status.st_gid):
                os.chown(parts[-1], *ids, dir_fd=directory, follow_symlinks=False)
        finally:
            os.close(directory)

    def _copy_out(self, parts: tuple[str, ...], path: str, max_bytes: int, max_entries: int) -> dict[str, str]:
        top = beneath.open_beneath(self.fileno(), parts)
        try:
            if not stat.S_ISDIR(os.fstat(top).st_mode):
                with _Source(top, max_bytes, "/".join(parts)) as source:
                    source.copy(path)
                return {}
            refused: dict[str, str] = {}
            _make_host_directory(path)
            for at, found in beneath.walk(top, parts, max_entries):
                check_stopped()
                name, target = "/".join(at) or ".", os.path.join(path, *at[len(parts) :])
                if isinstance(found, int) and stat.S_ISDIR(os.fstat(found).st_mode):
                    _make_host_directory(target)
                    continue
                try:
                    with _Source(found, max_bytes, name) as source:
                        max_bytes -= source.copy(target)
                except _RefusedError as exc:
                    refused[name] = exc.strerror or str(exc)
            return refused
        finally:
            os.close(top)

    def _collect(self, matches: Callable[[str], bool], max_bytes: int, max_entries: int) -> Found:
        result = Found({}, {})
        for at, found in beneath.walk(self.fileno(), (), max_entries):
            check_stopped()
            name = "/".join(at) or "."
            if isinstance(found, int) and stat.S_ISDIR(os.fstat(found).st_mode):
                continue
            if at and not matches(name):
                continue
            try:
                with _Source(found, max_bytes, name) as source:
                    result.files[name] = source.read()
            except _RefusedError as exc:
                result.refused[name] = exc.strerror or str(exc)
            else:
                max_bytes -= len(result.files[name])
        return result


class _RefusedError(OSError):
    """Something is not brought out of a container: the error lies there, not on the host."""


class _Source:
    """A regular file of a container that is read. A context manager.

    :param found: its ``O_PATH`` descriptor, or why there is none.
    :param limit: how many bytes it may have.
    :raises _RefusedError: it is something else, it is larger, or it must not be read.
    """

    def __init__(self, found: int | OSError, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        try:
            if isinstance(found, OSError):
                raise found
            self.fd = beneath.reopen_regular(found, name)
        except OSError as exc:
            raise _RefusedError(exc.errno, exc.strerror, name) from None
        self.size = os.fstat(self.fd).st_size
        if self.size > limit:
            os.close(self.fd)
            raise _RefusedError(errno.EFBIG, f"has {self.size} bytes, and {limit} are allowed", name)

    def read(self) -> bytes:
        """Its content."""
        return b"".join(self._chunks())

    def copy(self, path: str) -> int:
        """Copy it to a new file of the host; how many bytes it has."""
        count = 0
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            for chunk in self._chunks():
                _write_all(memoryview(chunk), target)
                count += len(chunk)
            os.fchmod(target, stat.S_IMODE(os.fstat(self.fd).st_mode) & 0o777)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(target)
        return count

    def _chunks(self) -> Iterator[bytes]:
        """Its content. It may grow meanwhile."""
        left = self._limit
        while chunk := os.read(self.fd, min(beneath.CHUNK, left + 1)):
            left -= len(chunk)
            if left < 0:
                raise _RefusedError(errno.EFBIG, f"has more than {self._limit} bytes", self._name)
            yield chunk
            check_stopped()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.fd)


def _last(parts: tuple[str, ...]) -> str:
    if not parts:
        raise IsADirectoryError(errno.EISDIR, "is a directory", ".")
    return parts[-1]


def _give(fd: int, ids: tuple[int, int], mode: int) -> None:
    """Set owner, group and permissions of a new file or directory."""
    status = os.fstat(fd)
    if ids != (status.st_uid, status.st_gid):
        os.fchown(fd, *ids)
    os.fchmod(fd, mode)  # after the owner, since a new one takes set-user-id bits away


def _make_host_directory(path: str) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path)
        return
    if not stat.S_ISDIR(os.lstat(path).st_mode):
        raise FileExistsError(errno.EEXIST, "is in the place of a directory", path)


def _write_all(data: memoryview, fd: int) -> None:
    while data:
        check_stopped()
        data = data[os.write(fd, data[: beneath.CHUNK]) :]


def _copy_all(source: int, target: int) -> None:
    while chunk := os.read(source, beneath.CHUNK):
        _write_all(memoryview(chunk), target)
