"""Bundles: a directory with a ``config.json``, and where its root file system comes from."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec

from ._default_spec import default_spec
from ._private import private_directory
from ._shield import shielded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence

    from ._options import StrPath
    from ._spec import Mount, Process, Spec

__all__ = ["Bundle", "Image", "busybox_rootfs", "tar_rootfs", "temporary_bundle", "unpack_image"]

CONFIG = "config.json"
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
            spec = msgspec.json.decode(config.read_bytes(), type=dict[str, Any])
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
        """
        folder = Path(os.path.abspath(path))
        config = folder / CONFIG
        if config.exists():
            raise FileExistsError(f"{config} exists")
        if not os.path.isdir(rootfs):
            raise NotADirectoryError(f"rootfs is no directory: {os.fspath(rootfs)!r}")
        lower = Path(os.path.abspath(rootfs))
        own = cast("Spec", msgspec.json.decode(msgspec.json.encode(spec)))
        own.setdefault("root", {"path": ""})["path"] = str(lower)
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            bundle = cls(folder, own)
            if writable:
                own.setdefault("mounts", [])[0:0] = _overlays(lower, folder)
            bundle._write()
        except BaseException:
            if made:
                _remove(folder)
            raise
        return bundle

    async def save(self) -> None:
        """Write `spec` back, atomically: whoever reads finds the old one or the new one, whole.

        :raises OSError: it cannot be written; the old one is still there.
        :raises TypeError: `spec` has something in it that JSON has not.
        """
        await anyio.to_thread.run_sync(self._write)

    def _write(self) -> None:
        data = msgspec.json.format(msgspec.json.encode(self.spec), indent=2)
        descriptor, name = tempfile.mkstemp(prefix=f".{CONFIG}-", dir=self.path)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fchmod(descriptor, 0o644)
            os.replace(name, self.path / CONFIG)
        except BaseException:
            os.unlink(name)
            raise


@contextlib.asynccontextmanager
async def temporary_bundle(spec: Spec, *, rootfs: StrPath, writable: bool = False) -> AsyncGenerator[Bundle]:
    """A bundle in a private directory, gone afterwards.

    Its parameters, and what it raises, are those of `Bundle.create`.
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
            upper, work = folder / "upper" / entry.name, folder / "work" / entry.name
            for directory in (upper, work):
                directory.mkdir(parents=True)
            shutil.copystat(entry.path, upper)
            status = entry.stat()
            if os.geteuid() == 0:
                os.chown(upper, status.st_uid, status.st_gid)
            paths = {"lowerdir": entry.path, "upperdir": str(upper), "workdir": str(work)}
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


def _remove(folder: Path) -> None:
    """Remove a directory, with what overlays leave in it."""

    for parent, names, _ in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                os.chmod(os.path.join(parent, name), stat.S_IRWXU, follow_symlinks=False)
    shutil.rmtree(folder, ignore_errors=True)


# -- where root file systems come from -----------------------------------------------------------------------


def _tool(name: str, package: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"the program {name} is missing: install the Debian package {package}")
    return found


@contextlib.asynccontextmanager
async def _arriving(folder: StrPath) -> AsyncGenerator[Path]:
    """A new directory beside the wanted one, which takes its place when all went well, and is removed when not."""
    wanted = Path(os.path.abspath(folder))
    if wanted.exists():
        raise FileExistsError(f"{wanted} exists")
    wanted.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{wanted.name}-", dir=wanted.parent))
    try:
        os.chmod(partial, 0o755)
        yield partial
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
        if b"ld-linux" in file.read(8192):
            raise FileNotFoundError(f"{busybox} is not static: install the Debian package busybox-static")

    def fill(rootfs: Path) -> None:
        for name in ("bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "var"):
            (rootfs / name).mkdir()
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
    """Unpack a tar archive (plain, gzip, bzip2 or xz) into a root file system.

    Members that would leave it, by ``..``, through a link, or as a hard link, and device nodes are refused; absolute
    symbolic links stay as they are, for they point into the container. Set-user-id bits are taken away.

    :param archive: the archive's path.
    :param folder: the directory to make.
    :returns: its path.
    :raises FileExistsError: it exists.
    :raises ValueError: the archive has a member that is refused, or is no archive. Nothing is left of it.
    """

    def unpack(rootfs: Path) -> None:
        root = os.path.realpath(rootfs)

        def member(found: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
            anyio.from_thread.check_cancelled()
            if found.isdev() and not found.isfifo():
                raise ValueError(f"{archive}: {found.name!r} is a device")
            if found.islnk() and not _inside(root, os.path.join(root, found.linkname)):
                raise ValueError(f"{archive}: {found.name!r} links to {found.linkname!r}, outside of the root")
            if not _inside(root, os.path.join(root, os.path.dirname(found.name.lstrip("/")))):
                raise ValueError(f"{archive}: {found.name!r} would be outside of the root")
            if found.issym():  # where it points is looked at when something is put through it
                return found.replace(name=found.name.lstrip("/"), deep=False)
            return tarfile.tar_filter(found, path)

        try:
            with tarfile.open(archive) as tar:
                tar.extractall(rootfs, filter=member, numeric_owner=True)
        except tarfile.TarError as exc:
            raise ValueError(f"{archive}: {exc}") from exc

    async with _arriving(folder) as rootfs:
        await anyio.to_thread.run_sync(unpack, rootfs)
    return Path(os.path.abspath(folder))


def _inside(root: str, path: str) -> bool:
    real = os.path.realpath(path)
    return real == root or real.startswith(f"{root}/")


class Image(msgspec.Struct, frozen=True):
    """An image that was unpacked by `unpack_image`.

    :ivar rootfs: its root file system.
    :ivar args: what it runs: its entrypoint and command.
    :ivar env: its environment.
    :ivar cwd: its working directory.
    :ivar user: ``uid:gid`` of its user.
    """

    rootfs: Path
    args: list[str]
    env: dict[str, str]
    cwd: str
    user: str

    def spec(self, args: Sequence[str] | None = None, **keywords: Any) -> Spec:
        """`default_spec` with what the image says, where the keywords say nothing else.

        :param args: what to run instead of the image's own.
        :param keywords: those of `default_spec`; ``env`` adds to the image's.
        """
        env: dict[str, str] = {**self.env, **(keywords.pop("env", None) or {})}
        rootless = keywords.get("rootless")
        if not (os.geteuid() != 0 if rootless is None else rootless):
            keywords.setdefault("user", self.user)
        keywords.setdefault("cwd", self.cwd)
        return default_spec(list(args) if args is not None else self.args, env=env, **keywords)


async def unpack_image(layout: StrPath, folder: StrPath, *, tag: str = "latest") -> Image:
    """Unpack an image of an OCI image layout, by the program umoci.

    Images come from registries into a layout by ``skopeo copy docker://NAME oci:LAYOUT:TAG``.

    :param layout: the layout's directory.
    :param folder: the directory to make; the root file system is ``rootfs`` in it.
    :param tag: the image's name in the layout.
    :returns: where it is, and what it is to run.
    :raises FileNotFoundError: umoci is missing; the message names the package.
    :raises FileExistsError: the directory exists.
    :raises ValueError: umoci could not unpack it; the message is umoci's.
    """
    umoci = _tool("umoci", "umoci")
    wanted = Path(os.path.abspath(folder))
    async with _arriving(folder) as partial:
        command = [umoci, "unpack", *(["--rootless"] if os.geteuid() != 0 else []), "--image"]
        unpacked = partial / "unpacked"
        ended = await anyio.run_process([*command, f"{os.fspath(layout)}:{tag}", str(unpacked)], check=False)
        if ended.returncode:
            words = ended.stderr.decode(errors="replace").strip() or f"umoci ended with status {ended.returncode}"
            raise ValueError(f"{os.fspath(layout)}:{tag}: {words}")
        process: Process = Bundle.load(unpacked).spec.get("process") or {"cwd": "/"}
        os.rename(unpacked / "rootfs", partial / "rootfs")
        await anyio.to_thread.run_sync(_remove, unpacked)
    return Image(
        rootfs=wanted / "rootfs",
        args=process.get("args", []),
        env=dict(line.split("=", 1) for line in process.get("env", []) if "=" in line),
        cwd=process["cwd"],
        user=f"{process['user']['uid']}:{process['user']['gid']}" if "user" in process else "0:0",
    )
