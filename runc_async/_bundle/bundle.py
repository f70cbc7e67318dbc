"""Bundles: a directory with a ``config.json``."""

from __future__ import annotations

import contextlib
import copy
import os
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import anyio.to_thread
import msgspec

from .._cli.validation import encode_document
from .._eventloop.shield import shielded
from .._linux.tempdir import private_directory
from .._models import parse_json
from .mounts import check_mount_points
from .overlay import LAYERS, make_writable, overlay_size, root_on_host
from .removal import remove_tree

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from .._cli.options import StrPath
    from .spec import Spec

__all__ = ["Bundle", "temporary_bundle"]

CONFIG = "config.json"
PASSABLE = 0o711


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
    def create(cls, path: StrPath, spec: Spec, *, rootfs: StrPath, writable: bool | str | int = False) -> Bundle:
        """Write a bundle.

        Only the owner may enter its directory and read its ``config.json``, which has the environment in it. With user
        namespaces and `writable`, others may pass through the directory, since the container's root is another user.

        :param path: its directory; made if it is missing.
        :param spec: its ``config.json``; it is copied.
        :param rootfs: the directory of the root file system. It is never changed, so any number of bundles may
            share it.
        :param writable: whether the container may change its root file system, whatever ``root.readonly`` says. With
            True the changes are kept in the bundle: ``/`` is a directory of the bundle, with copies of the files that
            lie in `rootfs` itself, and each directory in it is an overlay, mounted by the runtime in the container's
            mount namespace. Nothing limits how much the container writes. A size, as int or with a unit
            (``"256M"``), limits it: the changes are kept in a tmpfs, which counts as memory of the container and ends
            with it. ``/`` itself is then read-only; the directories in it are writable.
        :raises NotADirectoryError: `rootfs` is not a directory.
        :raises FileExistsError: the directory already has a ``config.json``.
        :raises TypeError: `spec` contains a value that JSON does not have.
        :raises ValueError: likewise, such as NaN; or ``dev``, ``proc``, ``sys`` or ``tmp`` in `rootfs` is not a
            directory (runtimes would follow a link there); or, if `writable`, a path that an overlay cannot have, or
            a size that is not one.
        """
        size = overlay_size(writable)
        folder = Path(os.path.abspath(path))
        if (folder / CONFIG).exists():
            raise FileExistsError(f"{folder / CONFIG} exists")
        if not os.path.isdir(rootfs):
            raise NotADirectoryError(f"rootfs is not a directory: {os.fspath(rootfs)!r}")
        lower = Path(os.path.abspath(rootfs))
        check_mount_points(lower)
        bundle = cls(folder, copy.deepcopy(spec))
        bundle.spec.setdefault("root", {"path": ""})["path"] = str(lower)
        make_layers = make_writable(bundle.spec, lower, folder, size) if writable else None
        data = bundle._encode()
        made = not folder.exists()
        folder.mkdir(0o700, parents=True, exist_ok=True)
        try:
            if make_layers is not None:
                make_layers()
                if made and root_on_host(bundle.spec) != os.geteuid():
                    folder.chmod(PASSABLE)
            bundle._write(data)
        except BaseException:
            for remnant in [folder] if made else [folder / name for name in LAYERS]:
                remove_tree(remnant)
            raise
        return bundle

    async def save(self) -> None:
        """Write `spec` back, atomically: a reader finds either the old file or the new one, whole.

        :raises OSError: it cannot be written; the old one is still there.
        :raises TypeError: `spec` contains a value that JSON does not have.
        :raises ValueError: likewise, such as NaN.
        """
        await anyio.to_thread.run_sync(self._write, self._encode())

    def _encode(self) -> bytes:
        return msgspec.json.format(encode_document(self.spec), indent=2)

    def _write(self, data: bytes) -> None:
        config = self.path / CONFIG
        descriptor, name = tempfile.mkstemp(prefix=f".{CONFIG}-", dir=self.path)
        try:
            with open(descriptor, "wb") as file:
                file.write(data)
                with contextlib.suppress(FileNotFoundError):
                    old = config.stat()  # the owner decided who may read it
                    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))
                    if os.geteuid() == 0:
                        os.fchown(descriptor, old.st_uid, old.st_gid)
            os.replace(name, config)
        except BaseException:
            os.unlink(name)
            raise


@contextlib.asynccontextmanager
async def temporary_bundle(
    spec: Spec, *, rootfs: StrPath, writable: bool | str | int = False
) -> AsyncGenerator[Bundle]:
    """A bundle in a private directory, gone afterwards.

    `spec`, `rootfs` and `writable`, and what it raises, are as for `Bundle.create`.
    """
    with private_directory() as folder:
        try:
            bundle = Bundle.create(folder, spec, rootfs=rootfs, writable=writable)
            if writable and root_on_host(spec) != os.geteuid():
                os.chmod(folder, PASSABLE)
            yield bundle
        finally:
            if writable:  # may be large, and has directories that nobody may enter
                await shielded(anyio.to_thread.run_sync, remove_tree, Path(folder))
