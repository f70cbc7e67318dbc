"""Unpacking of a tar archive that may be hostile: nothing outside of the root, nothing without limit."""

from __future__ import annotations

import errno
import os
import tarfile
from tarfile import EmptyHeaderError, EOFHeaderError, HeaderError, ReadError  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, cast

import anyio.from_thread

if TYPE_CHECKING:
    from typing import Self

    from .._cli.options import StrPath

__all__ = ["Limits", "unpack"]

BLOCK = 1 << 20
# How the kernel says that a name, an offset or a size is impossible: the archive's fault, not the machine's.
IMPOSSIBLE = frozenset({None, errno.EINVAL, errno.ENAMETOOLONG, errno.EFBIG})


class Limits(NamedTuple):
    """What an archive may cost; the parameters of `tar_rootfs`."""

    max_bytes: int
    max_members: int
    max_header: int


def unpack(archive: StrPath, rootfs: str, limits: Limits) -> None:
    """Unpack an archive into an empty directory that nobody else writes to. For a worker thread.

    tarfile reads it, but does not extract: its own filters are not in Python 3.11.2 and had holes in later versions.

    :param rootfs: the directory's real path.
    :raises OSError: the archive cannot be read, or something cannot be written.
    :raises ValueError: it is refused, with its path and the reason.
    """
    try:
        with open(archive, "rb") as file:
            tar: _Archive = cast("Any", _Archive).open(fileobj=file, tarinfo=_Member, limits=limits)
            with tar:
                _Unpacking(rootfs, limits).run(tar)
    except Exception as exc:
        if isinstance(exc, OSError) and exc.errno not in IMPOSSIBLE:
            raise
        # Every compression has errors of its own, and an archive's numbers may be too large for anything.
        raise ValueError(f"{os.fspath(archive)}: {exc}") from exc


class _Stream:
    """A decompressed archive, of which no more is read than the limits allow."""

    def __init__(self, file: BinaryIO, limits: Limits) -> None:
        self._file = file
        self._limits = limits
        self._position = 0
        self.header_left: int | None = None
        """While a header is being read: how much longer it may become."""

    def read(self, size: int = -1) -> bytes:
        if self.header_left is not None:
            self.header_left -= size
            if self.header_left < 0:
                raise ValueError(f"what describes one member has more than max_header={self._limits.max_header} bytes")
        data = self._file.read(size)
        self._move(self._position + len(data))
        return data

    def seek(self, position: int) -> int:
        self._move(position)
        return self._file.seek(position)

    def tell(self) -> int:
        return self._position

    def close(self) -> None:
        self._file.close()

    def _move(self, position: int) -> None:
        if position > self._limits.max_bytes:
            raise ValueError(f"it has more than max_bytes={self._limits.max_bytes} bytes when it is decompressed")
        self._position = position


class _Archive(tarfile.TarFile):
    """A tar archive that is read through a `_Stream` and keeps no list of its members."""

    def __init__(
        self, name: str | None = None, mode: Any = "r", fileobj: Any = None, *, limits: Limits, **keywords: Any
    ) -> None:
        self.stream_ = _Stream(fileobj, limits)
        self._limits = limits
        super().__init__(name, mode, cast("Any", self.stream_), **keywords)

    def next(self) -> tarfile.TarInfo | None:
        self.stream_.header_left = self._limits.max_header + tarfile.BLOCKSIZE
        try:
            member = super().next()
        finally:
            self.stream_.header_left = None
        cast("Any", self).members.clear()
        # Global headers apply to all members that follow, so they add up.
        if sum(len(name) + len(value) for name, value in self.pax_headers.items()) > self._limits.max_header:
            raise ValueError(f"its global headers have more than max_header={self._limits.max_header} bytes")
        return member


class _Member(tarfile.TarInfo):
    """A member whose header must be right: tarfile takes a broken header for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except (EmptyHeaderError, EOFHeaderError):
            raise
        except HeaderError as exc:
            raise ReadError(f"broken header: {exc}") from exc


class _Unpacking:
    """Unpacks one archive into one directory."""

    def __init__(self, rootfs: str, limits: Limits) -> None:
        self._rootfs = rootfs
        self._limits = limits
        self._is_root = os.geteuid() == 0
        self._folders: dict[str, tarfile.TarInfo] = {}
        self._parents: dict[str, str] = {}
        """Directories as members name them, and their real paths."""

    def run(self, tar: _Archive) -> None:
        count = 0
        while (member := tar.next()) is not None:
            anyio.from_thread.check_cancelled()
            count += 1
            if count > self._limits.max_members:
                raise ValueError(f"it has more than max_members={self._limits.max_members} members")
            self._add(tar, member)
        while tar.stream_.read(BLOCK):  # a checksum is looked at where the compressed data end
            anyio.from_thread.check_cancelled()
        for path in sorted(self._folders, reverse=True):  # a read-only directory is finished after what is in it
            anyio.from_thread.check_cancelled()
            self._dress(path, self._folders[path])

    def _add(self, tar: _Archive, member: tarfile.TarInfo) -> None:
        path = self._place(member.name, member.name)
        if member.isdir():
            if os.path.islink(path) or (os.path.lexists(path) and not os.path.isdir(path)):
                self._unlink(path)
            if not os.path.isdir(path):
                os.mkdir(path, 0o700)
            self._folders[path] = member
            return
        if os.path.lexists(path):
            if os.path.isdir(path) and not os.path.islink(path):
                raise ValueError(f"{member.name!r} would take the place of a directory")
            self._unlink(path)
        if member.islnk():
            self._link(member, path)  # it has that file's attributes
            return
        if member.isreg():
            _copy(tar, member, path)
        elif member.issym() and member.linkname:
            os.symlink(member.linkname, path)
        elif member.isfifo():
            os.mkfifo(path)
        else:
            raise ValueError(f"{member.name!r} is a device, or nothing that a root file system has")
        self._dress(path, member)

    def _unlink(self, path: str) -> None:
        if os.path.islink(path):  # another directory may be behind a name from now on
            self._parents.clear()
        os.unlink(path)

    def _link(self, member: tarfile.TarInfo, path: str) -> None:
        target = self._place(member.linkname, member.name)
        if os.path.islink(target) or not os.path.isfile(target):
            raise ValueError(f"{member.name!r} is a hard link to {member.linkname!r}, no file unpacked before it")
        os.link(target, path)

    def _place(self, name: str, member: str) -> str:
        """Where a name of an archive is below the root, with real directories on the way, which are made if missing."""
        above, _, last = name.rpartition("/")
        if last not in ("", ".", "..") and above in self._parents:
            return f"{self._parents[above]}/{last}"
        parts = [part for part in name.split("/") if part not in ("", ".")]
        if name.startswith("/") or ".." in parts:
            raise ValueError(f"{member!r} would leave the root: {name!r} is absolute or has .. in it")
        path = self._rootfs
        for part in parts[:-1]:
            path = self._enter(path, part, name, member)
        if parts and last == parts[-1]:
            self._parents[above] = path
        return f"{path}/{parts[-1]}" if parts else path

    def _enter(self, path: str, part: str, name: str, member: str) -> str:
        path = f"{path}/{part}"
        if os.path.islink(path):
            try:
                path = os.path.realpath(path, strict=True)
            except OSError:
                path = "/"  # the link leads nowhere, or round in circles
        if f"{path}/".startswith(f"{self._rootfs}/"):
            if os.path.isdir(path):
                return path
            if not os.path.lexists(path):
                os.mkdir(path, 0o755)
                return path
        raise ValueError(
            f"{member!r} would leave the root, or goes through something that is not a directory: {name!r}"
        )

    def _dress(self, path: str, member: tarfile.TarInfo) -> None:
        """Owner, mode and time of what was just unpacked."""
        if self._is_root:
            os.chown(path, member.uid, member.gid, follow_symlinks=False)
        if not member.issym():
            os.chmod(path, member.mode & 0o1777)
        os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)


def _copy(tar: _Archive, member: tarfile.TarInfo, path: str) -> None:
    if member.size < 0:  # tarfile of Python 3.11 would go back, and round in circles
        raise ReadError(f"{member.name!r} has a negative size")
    stream = tar.stream_
    stream.seek(member.offset_data)
    end = 0
    with open(path, "xb", buffering=0) as file:
        # A hole of terabytes costs no more than it does in the archive.
        for start, length in cast("list[tuple[int, int]]", member.sparse) or [(0, member.size)]:
            if start < end or length < 0:
                raise ReadError(f"{member.name!r} has data at a negative offset, or not in order")
            end = start + length
            file.seek(start)
            while length > 0:
                anyio.from_thread.check_cancelled()
                block = stream.read(min(BLOCK, length, tar.offset - stream.tell()))
                if not block:
                    raise ReadError("unexpected end of data")
                file.write(block)
                length -= len(block)
        if end != member.size:
            file.truncate(member.size)
