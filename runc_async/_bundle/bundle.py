"""Bundles: a directory with a ``config.json``, and where its root file system comes from."""

from __future__ import annotations

import contextlib
import copy
import errno
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path
from tarfile import EmptyHeaderError, EOFHeaderError, HeaderError, ReadError  # type: ignore[attr-defined]
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec

from .._cli.validation import written
from .._eventloop.shield import shielded
from .._linux.tempdir import private_directory
from .._models import parse_json
from .default_spec import default_spec

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from typing import Self

    from .._cli.options import StrPath
    from .spec import Mount, Process, Spec, User

__all__ = ["Bundle", "Image", "busybox_rootfs", "tar_rootfs", "temporary_bundle", "unpack_image"]

CONFIG = "config.json"
BLOCK = 1 << 20
# What the container gets as mounts of its own, or must not get from the image.
NOT_OVERLAID = frozenset({"dev", "proc", "sys", "tmp"})


class Bundle(os.PathLike[str]):
    """A bundle (OCI runtime specification, ``bundle.md``). It goes wherever a method takes one.

    :ivar path: its directory.
    :ivar spec: its ``config.json``, a plain dictionary: change it and `save`.
    """

    def __init__(self, path: StrPath, spec: Spec) -> None:
        self.path = Path(os.path.abspath(path))
        self.spec = spec

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"Bundle({str(self.path)!r})"

    @classmethod
    def load(cls, path: StrPath) -> Bundle:
        """Read a bundle.

        :param path: its directory.
        :raises OSError: there is none, or it cannot be read.
        :raises ValueError: its ``config.json`` is no JSON object.
        """
        config = Path(path, CONFIG)
        try:
            spec = parse_json(dict[str, Any], config.read_bytes())
        except msgspec.DecodeError as exc:
            raise ValueError(f"{config}: {exc}") from exc
        return cls(path, cast("Spec", spec))

    @classmethod
    def create(cls, path: StrPath, spec: Spec, *, rootfs: StrPath, writable: bool = False) -> Bundle:
        """Write a bundle.

        :param path: its directory; made if it is missing.
        :param spec: its ``config.json``; it is copied.
        :param rootfs: the directory of the root file system. Nothing in it is changed or copied, so any number of
            bundles may share it.
        :param writable: whether the container may change what lies in the root's directories: each gets an overlay
            of its own, kept in the bundle, that is mounted by the runtime in the container's mount namespace.
        :raises NotADirectoryError: `rootfs` is no directory.
        :raises FileExistsError: there is a ``config.json`` already.
        :raises TypeError: `spec` has something in it that JSON has not.
        :raises ValueError: likewise, such as NaN; or, if `writable`, a path that no overlay can have.
        """
        folder = Path(os.path.abspath(path))
        if (folder / CONFIG).exists():
            raise FileExistsError(f"{folder / CONFIG} exists")
        if not os.path.isdir(rootfs):
            raise NotADirectoryError(f"rootfs is no directory: {os.fspath(rootfs)!r}")
        lower = Path(os.path.abspath(rootfs))
        bundle = cls(folder, copy.deepcopy(spec))
        bundle.spec.setdefault("root", {"path": ""})["path"] = str(lower)
        overlays = _overlays(lower, folder) if writable else []
        bundle.spec["mounts"] = [*overlays, *bundle.spec.get("mounts", [])]
        data = bundle._encoded()
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for overlay in overlays:
                _layers(lower, folder, overlay["destination"].removeprefix("/"))
            bundle._write(data)
        except BaseException:
            for remnant in [folder] if made else [folder / "upper", folder / "work"]:
                _remove(remnant)
            raise
        return bundle

    async def save(self) -> None:
        """Write `spec` back, atomically: whoever reads finds the old one or the new one, whole.

        :raises OSError: it cannot be written; the old one is still there.
        :raises TypeError: `spec` has something in it that JSON has not.
        :raises ValueError: likewise, such as NaN.
        """
        await anyio.to_thread.run_sync(self._write, self._encoded())

    def _encoded(self) -> bytes:
        return msgspec.json.format(written(self.spec), indent=2)

    def _write(self, data: bytes) -> None:
        config = self.path / CONFIG
        descriptor, name = tempfile.mkstemp(prefix=f".{CONFIG}-", dir=self.path)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                os.fchmod(descriptor, 0o644)
                with contextlib.suppress(FileNotFoundError):
                    old = config.stat()  # it may have secrets in it
                    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
                    if os.geteuid() == 0:
                        os.fchown(descriptor, old.st_uid, old.st_gid)
            os.replace(name, config)
        except BaseException:
            os.unlink(name)
            raise


@contextlib.asynccontextmanager
async def temporary_bundle(spec: Spec, *, rootfs: StrPath, writable: bool = False) -> AsyncGenerator[Bundle]:
    """A bundle in a private directory, gone afterwards.

    `spec`, `rootfs` and `writable`, and what it raises, are as for `Bundle.create`.
    """
    with private_directory() as folder:
        try:
            yield Bundle.create(folder, spec, rootfs=rootfs, writable=writable)
        finally:
            if writable:  # may be large, and has directories that nobody may enter
                await shielded(anyio.to_thread.run_sync, _remove, Path(folder))


def _overlays(rootfs: Path, folder: Path) -> list[Mount]:
    """A mount for each directory in the root: runc mounts nothing over the root itself."""
    overlays: list[Mount] = []
    for entry in sorted(os.scandir(rootfs), key=lambda entry: entry.name):
        if entry.is_dir(follow_symlinks=False) and entry.name not in NOT_OVERLAID:
            paths = {
                "lowerdir": entry.path,
                "upperdir": str(folder / "upper" / entry.name),
                "workdir": str(folder / "work" / entry.name),
            }
            for name, path in paths.items():
                if set(path) & set(",:\\"):
                    raise ValueError(f"writable: an overlay's {name} can have no comma, colon or backslash: {path!r}")
            overlays.append(
                {
                    "destination": f"/{entry.name}",
                    "type": "overlay",
                    "source": "overlay",
                    "options": [*(f"{name}={path}" for name, path in paths.items()), "nosuid", "nodev"],
                }
            )
    return overlays


def _layers(rootfs: Path, folder: Path, name: str) -> None:
    """What an overlay writes to: its upper directory is what the merged one looks like."""
    upper = folder / "upper" / name
    upper.mkdir(parents=True)
    (folder / "work" / name).mkdir(parents=True)
    status = (rootfs / name).stat()
    if os.geteuid() == 0:
        os.chown(upper, status.st_uid, status.st_gid)
    os.chmod(upper, stat.S_IMODE(status.st_mode))


def _remove(folder: Path) -> None:
    """Remove a directory, with what overlays leave in it."""
    for parent, names, _ in os.walk(folder):
        for path in (os.path.join(parent, name) for name in names):
            if not os.path.islink(path):
                with contextlib.suppress(OSError):
                    os.chmod(path, stat.S_IRWXU)
    shutil.rmtree(folder, ignore_errors=True)


# -- where root file systems come from -----------------------------------------------------------------------


def _tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"the program {name} is missing: install the Debian package {package}")
    return found


@contextlib.asynccontextmanager
async def _arriving(folder: StrPath, mode: int = 0o755) -> AsyncGenerator[Path]:
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
        await shielded(anyio.to_thread.run_sync, _remove, partial)
        raise


async def busybox_rootfs(folder: StrPath) -> Path:
    """Make a root file system of a static busybox: a shell and some 300 programs in 2 MB.

    :param folder: the directory to make.
    :returns: its path.
    :raises FileExistsError: it exists.
    :raises FileNotFoundError: busybox is missing on this machine; the message names the package.
    """
    busybox = _tool("busybox", "busybox-static")
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

    async with _arriving(folder) as rootfs:
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

    async with _arriving(folder) as rootfs:
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


class Image(msgspec.Struct, frozen=True):
    """An image that was unpacked by `unpack_image`.

    :ivar rootfs: its root file system.
    :ivar args: what it runs: its entrypoint and command.
    :ivar env: its environment.
    :ivar cwd: its working directory.
    :ivar user: ``uid:gid`` of its user, in numbers, as the image's own ``/etc/passwd`` has them.
    :ivar additional_gids: the further groups of that user, as the image's own ``/etc/group`` has them.
    """

    rootfs: Path
    args: list[str]
    env: dict[str, str]
    cwd: str
    user: str
    additional_gids: list[int]

    def spec(self, args: Sequence[str] | None = None, **keywords: Any) -> Spec:
        """`default_spec` with what the image says, where the keywords say nothing else.

        :param args: what to run instead of the image's own.
        :param keywords: those of `default_spec`; ``env`` adds to the image's. A rootless container has no other user
            than the caller, so the image's is then left out.
        """
        env: dict[str, str] = {**self.env, **(keywords.pop("env", None) or {})}
        rootless = keywords.get("rootless")
        mapped = os.geteuid() != 0 if rootless is None else rootless
        if not mapped and "user" not in keywords:
            keywords |= {"user": self.user, "additional_gids": self.additional_gids}
        keywords.setdefault("cwd", self.cwd)
        return default_spec(list(args) if args is not None else self.args, env=env, **keywords)


async def unpack_image(layout: StrPath, folder: StrPath, *, tag: str = "latest") -> Image:
    """Unpack an image of an OCI image layout, by the program umoci.

    Images come from registries into a layout by ``skopeo copy docker://NAME oci:LAYOUT:TAG``.

    :param layout: the layout's directory.
    :param folder: the directory to make; the root file system is ``rootfs`` in it. Only its owner can enter it, since
        an image may have set-user-id programs and device nodes, which are nothing for other users of the host.
    :param tag: the image's name in the layout.
    :returns: where it is, and what it is to run.
    :raises FileNotFoundError: umoci is missing; the message names the package.
    :raises FileExistsError: the directory exists.
    :raises ValueError: umoci could not unpack it; the message is umoci's.
    """
    umoci = _tool("umoci", "umoci")
    wanted = Path(os.path.abspath(folder))
    async with _arriving(folder, 0o700) as partial:
        command = [umoci, "unpack", *(["--rootless"] if os.geteuid() != 0 else []), "--image"]
        unpacked = partial / "unpacked"
        ended = await anyio.run_process([*command, f"{os.fspath(layout)}:{tag}", str(unpacked)], check=False)
        if ended.returncode:
            words = ended.stderr.decode(errors="replace").strip() or f"umoci ended with status {ended.returncode}"
            raise ValueError(f"{os.fspath(layout)}:{tag}: {words}")
        process: Process = Bundle.load(unpacked).spec.get("process") or {"cwd": "/"}
        os.rename(unpacked / "rootfs", partial / "rootfs")
        await anyio.to_thread.run_sync(_remove, unpacked)
    user: User = process.get("user") or {"uid": 0, "gid": 0}
    return Image(
        rootfs=wanted / "rootfs",
        args=process.get("args", []),
        env=dict(line.split("=", 1) for line in process.get("env", []) if "=" in line),
        cwd=process["cwd"],
        user=f"{user['uid']}:{user['gid']}",
        additional_gids=user.get("additionalGids", []),
    )
