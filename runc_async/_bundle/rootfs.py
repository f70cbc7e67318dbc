"""Root file systems: of busybox, from a tar archive."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from tarfile import EmptyHeaderError, EOFHeaderError, HeaderError, ReadError  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, cast

import anyio
import anyio.from_thread
import anyio.to_thread

from .._eventloop.shield import shielded
from .removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from typing import Self

    from .._cli.options import StrPath

__all__ = ["arriving", "busybox_rootfs", "tar_rootfs", "tool"]

BLOCK = 1 << 20


def tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"the program {name} is missing: install the Debian package {package}")
    return found


@contextlib.asynccontextmanager
async def arriving(folder: StrPath, mode: int = 0o755) -> AsyncGenerator[Path]:
    """A new directory beside the wanted one, which takes its place when all went well, and is removed when not."""
    wanted = Path(os.path.abspath(folder))
    if wanted.exists():
        raise FileExistsError(f"{wanted} exists")
    wanted.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{wanted.name}-", dir=wanted.parent))
    try:
        yield partial
        os.chmod(partial, mode)
        os.rename(partial, wanted)
    except BaseException:
        await shielded(anyio.to_thread.run_sync, remove_tree, partial)
        raise


async def busybox_rootfs(folder: StrPath) -> Path:
    """Make a root file system of a static busybox: a shell and some 300 programs in 2 MB.

    :param folder: the directory to make.
    :returns: its path.
    :raises FileExistsError: it exists.
    :raises FileNotFoundError: busybox is missing on this machine; the message names the package.
    """
    busybox = tool("busybox", "busybox-static")
    with open(busybox, "rb") as file:
        if b"/ld-" in file.read(8192):  # the name of a dynamic linker
            raise FileNotFoundError(f"{busybox} is not static: install the Debian package busybox-static")

    def fill(rootfs: Path) -> None:
        for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "var"):
            (rootfs / name).mkdir()
        (rootfs / "tmp").chmod(0o1777)  # runc gives a tmpfs the mode of the directory below it
        (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n")
        (rootfs / "etc/group").write_text("root:x:0:\nnogroup:x:65534:\n")
        shutil.copy(busybox, rootfs / "bin/busybox")
        listed = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
        for applet in listed:
            if applet != "busybox":
                (rootfs / "bin" / applet).symlink_to("busybox")

    async with arriving(folder) as rootfs:
        await anyio.to_thread.run_sync(fill, rootfs)
    return Path(os.path.abspath(folder))


async def tar_rootfs(archive: StrPath, folder: StrPath) -> Path:
    """Unpack a tar archive (plain, gzip, bzip2 or xz; zstd from Python 3.14 on) into a root file system.

    Refused are members with an absolute name or ``..`` in it, that go through a link that leaves the root, hard links
    to anything but a file unpacked before, and device nodes. Symbolic links stay as they are, absolute ones too, for
    they point into the container. Set-user-id and set-group-id bits and extended attributes (file capabilities) are
    left out; owners are kept when root unpacks; holes stay holes. It is a whole file system, not an image's layer: a
    whiteout (``.wh.NAME``) is a file like any other.

    :param archive: the archive's path.
    :param folder: the directory to make.
    :returns: its path.
    :raises FileExistsError: it exists.
    :raises OSError: the archive cannot be read, or something cannot be written.
    :raises ValueError: the archive has a member that is refused, or is no archive. Nothing is left of it.
    """

    def unpack(rootfs: Path) -> None:
        try:
            with tarfile.open(archive, tarinfo=_Member) as tar:
                _unpack(tar, rootfs)
                while tar.fileobj and tar.fileobj.read(BLOCK):
                    anyio.from_thread.check_cancelled()  # a checksum is looked at where the compressed data end
        except Exception as exc:
            if isinstance(exc, OSError) and exc.errno not in (None, errno.EINVAL, errno.ENAMETOOLONG):
                raise
            # Every compression has errors of its own, and an archive's numbers may be too large for anything.
            raise ValueError(f"{os.fspath(archive)}: {exc}") from exc

    async with arriving(folder) as rootfs:
        await anyio.to_thread.run_sync(unpack, Path(os.path.realpath(rootfs)))
    return Path(os.path.abspath(folder))


class _Member(tarfile.TarInfo):
    """One whose header must be right: tarfile takes a broken one for the end of the archive."""

    @classmethod
    def fromtarfile(cls, tarfile: tarfile.TarFile) -> Self:
        try:
            return super().fromtarfile(tarfile)
        except (EmptyHeaderError, EOFHeaderError):
            raise
        except HeaderError as exc:
            raise ReadError(f"broken header: {exc}") from exc


def _unpack(tar: tarfile.TarFile, rootfs: Path) -> None:
    """By hand, because tarfile's own filters are not in Python 3.11.2, and had holes in later ones."""
    folders: dict[Path, tarfile.TarInfo] = {}
    for member in tar:
        anyio.from_thread.check_cancelled()
        path = _place(rootfs, member.name, member.name)
        there = os.path.lexists(path)
        if member.isdir():
            if there and (path.is_symlink() or not path.is_dir()):
                path.unlink()
            path.mkdir(mode=0o700, exist_ok=True)
            folders[path] = member
            continue
        if there:
            if path.is_dir() and not path.is_symlink():
                raise ValueError(f"{member.name!r} would take the place of a directory")
            path.unlink()
        if member.isreg():
            _copy(tar, member, path)
        elif member.issym() and member.linkname:
            path.symlink_to(member.linkname)
        elif member.islnk():
            target = _place(rootfs, member.linkname, member.name)
            if target.is_symlink() or not target.is_file():
                raise ValueError(f"{member.name!r} is a hard link to {member.linkname!r}, no file unpacked before it")
            os.link(target, path)
            continue  # it has that file's attributes
        elif member.isfifo():
            os.mkfifo(path)
        else:
            raise ValueError(f"{member.name!r} is a device, or nothing that a root file system has")
        _dress(path, member)
    for path in sorted(folders, reverse=True):  # a directory that nobody may write in, after what is in it
        _dress(path, folders[path])


def _place(rootfs: Path, name: str, member: str) -> Path:
    """Where a name of an archive is below the root, with real directories on the way, which are made if missing."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise ValueError(f"{member!r} would leave the root: {name!r} is absolute or has .. in it")
    path = rootfs
    for part in parts[:-1]:
        path = path / part
        if path.is_symlink():
            try:
                path = Path(os.path.realpath(path, strict=True))
            except OSError:
                path = Path("/")  # leads nowhere, or nobody knows where
        if not path.is_relative_to(rootfs) or (path.exists() and not path.is_dir()):
            raise ValueError(f"{member!r} would leave the root, or goes through what is no directory: {name!r}")
        path.mkdir(mode=0o755, exist_ok=True)
    return path / parts[-1] if parts else path


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, path: Path) -> None:
    if member.size < 0:  # tarfile of Python 3.11 would go back, and round in circles
        raise ReadError(f"{member.name!r} has a negative size")
    source = tar.extractfile(member)
    assert source is not None
    with source, open(path, "xb") as file:
        # A hole of terabytes costs no more than it does in the archive.
        for start, length in cast("list[tuple[int, int]]", member.sparse) or [(0, member.size)]:
            source.seek(start)
            file.seek(start)
            while length > 0:
                anyio.from_thread.check_cancelled()
                block = source.read(min(BLOCK, length))
                if not block:
                    raise ReadError("unexpected end of data")
                file.write(block)
                length -= len(block)
        file.truncate(member.size)


def _dress(path: Path, member: tarfile.TarInfo) -> None:
    """Owner, mode and time of what was just unpacked."""
    if os.geteuid() == 0:
        os.chown(path, member.uid, member.gid, follow_symlinks=False)
    if not member.issym():
        os.chmod(path, member.mode & 0o1777)
    os.utime(path, (member.mtime, member.mtime), follow_symlinks=False)
