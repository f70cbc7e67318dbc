"""Root file systems: of busybox, from a tar archive; and what a runtime must not find in one."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from .._cli.validation import byte_size, naming, parse_integer
from .._eventloop.shield import shielded
from .archive import Limits, unpack
from .mounts import check_mount_points
from .removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .._cli.options import StrPath

__all__ = ["arriving", "busybox_rootfs", "tar_rootfs", "tool"]


def tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"the program {name} is missing: install the Debian package {package}")
    return found


@contextlib.asynccontextmanager
async def arriving(folder: StrPath, mode: int = 0o755) -> AsyncGenerator[Path]:
    """A new directory beside the wanted one, renamed to it at the end of the block, or removed after an error."""
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


async def tar_rootfs(
    archive: StrPath,
    folder: StrPath,
    *,
    max_bytes: str | int = "8G",
    max_members: int = 500_000,
    max_header: str | int = "1M",
) -> Path:
    """Unpack a tar archive (plain, gzip, bzip2 or xz; zstd from Python 3.14 on) into a root file system.

    Refused are members with an absolute name or ``..`` in it, that go through a link that leaves the root, hard links
    to anything but a file unpacked before, device nodes, and an archive after which ``dev``, ``proc``, ``sys`` or
    ``tmp`` is not a directory: runtimes mount there. Symbolic links stay as they are, absolute ones too, for
    they point into the container. Set-user-id and set-group-id bits and extended attributes (file capabilities) are
    left out; owners are kept when root unpacks; holes stay holes. It is a whole file system, not an image's layer: a
    whiteout (``.wh.NAME``) is a file like any other.

    :param archive: the archive's path.
    :param folder: the directory to make.
    :param max_bytes: the most bytes that the archive may have when it is decompressed, as int or with a unit
        (``"512M"``). The files have no more than that in all; holes do not count.
    :param max_members: the most files, directories and links.
    :param max_header: the most bytes of what describes one member: its name, its attributes, its holes.
    :returns: its path.
    :raises FileExistsError: it exists.
    :raises OSError: the archive cannot be read, or something cannot be written.
    :raises ValueError: the archive has a member that is refused, is beyond a limit, or is not an archive. Nothing is
        left of it.
    """
    sizes: dict[str, int] = {}
    for name, value in (("max_bytes", max_bytes), ("max_header", max_header)):
        with naming(name):
            sizes[name] = parse_integer(byte_size(value), 1)
    with naming("max_members"):
        limits = Limits(**sizes, max_members=parse_integer(max_members, 1))

    def fill(rootfs: Path) -> None:
        unpack(archive, os.path.realpath(rootfs), limits)
        try:
            check_mount_points(rootfs)
        except ValueError as error:
            raise ValueError(f"{os.fspath(archive)}: {error}") from None

    async with arriving(folder) as rootfs:
        await anyio.to_thread.run_sync(fill, rootfs)
    return Path(os.path.abspath(folder))
