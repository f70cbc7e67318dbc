"""Bundles: a directory with a ``config.json``."""

from __future__ import annotations

import contextlib
import copy
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio.to_thread
import msgspec

from .._cli.validation import written
from .._eventloop.shield import shielded
from .._linux.tempdir import private_directory
from .._models import parse_json
from .removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .._cli.options import StrPath
    from .spec import Mount, Spec

__all__ = ["Bundle", "temporary_bundle"]

CONFIG = "config.json"
ROOT = "root"
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
        :raises ValueError: its ``config.json`` is not a JSON object.
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
        :param rootfs: the directory of the root file system. It is never changed, so any number of bundles may
            share it.
        :param writable: whether the container may change its root file system, whatever ``root.readonly`` says. The
            changes are kept in the bundle: ``/`` is a directory of the bundle, with copies of the files that lie in
            `rootfs` itself, and each directory in it is an overlay, mounted by the runtime in the container's mount
            namespace.
        :raises NotADirectoryError: `rootfs` is not a directory.
        :raises FileExistsError: the directory already has a ``config.json``.
        :raises TypeError: `spec` contains a value that JSON does not have.
        :raises ValueError: likewise, such as NaN; or, if `writable`, a path that an overlay cannot have.
        """
        folder = Path(os.path.abspath(path))
        if (folder / CONFIG).exists():
            raise FileExistsError(f"{folder / CONFIG} exists")
        if not os.path.isdir(rootfs):
            raise NotADirectoryError(f"rootfs is not a directory: {os.fspath(rootfs)!r}")
        lower = Path(os.path.abspath(rootfs))
        bundle = cls(folder, copy.deepcopy(spec))
        root = bundle.spec.setdefault("root", {"path": ""})
        root["path"] = str(lower)
        if writable:
            root["path"] = str(folder / ROOT)
            root["readonly"] = False
        overlays = _overlays(lower, folder) if writable else []
        bundle.spec["mounts"] = [*overlays, *bundle.spec.get("mounts", [])]
        data = bundle._encoded()
        made = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            if writable:
                _write_root(lower, folder / ROOT)
            for overlay in overlays:
                _layers(lower, folder, overlay["destination"].removeprefix("/"))
            bundle._write(data)
        except BaseException:
            for remnant in [folder] if made else [folder / ROOT, folder / "upper", folder / "work"]:
                remove_tree(remnant)
            raise
        return bundle

    async def save(self) -> None:
        """Write `spec` back, atomically: a reader finds either the old file or the new one, whole.

        :raises OSError: it cannot be written; the old one is still there.
        :raises TypeError: `spec` contains a value that JSON does not have.
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
                await shielded(anyio.to_thread.run_sync, remove_tree, Path(folder))


def _write_root(rootfs: Path, root: Path) -> None:
    """Make a writable ``/``: directories to mount on, and copies of the files and links that are not in one."""
    root.mkdir()
    for entry in sorted(os.scandir(rootfs), key=lambda entry: entry.name):
        path = root / entry.name
        if entry.is_dir(follow_symlinks=False):
            path.mkdir()
        elif entry.is_file(follow_symlinks=False) or entry.is_symlink():
            shutil.copyfile(entry.path, path, follow_symlinks=False)
        else:
            continue  # a device, a FIFO or a socket
        _copy_owner(entry.stat(follow_symlinks=False), path)
    _copy_owner(rootfs.stat(), root)


def _copy_owner(status: os.stat_result, path: Path) -> None:
    if os.geteuid() == 0:
        os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    if not path.is_symlink():
        os.chmod(path, stat.S_IMODE(status.st_mode))


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
                    raise ValueError(f"writable: an overlay's {name} cannot have a comma, colon or backslash: {path!r}")
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
    _copy_owner((rootfs / name).stat(), upper)
