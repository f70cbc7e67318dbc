"""A writable root file system over one that is shared: overlays that the runtime mounts in the container."""

from __future__ import annotations

import os
import shutil
import stat
from typing import TYPE_CHECKING, Any, cast

from .._cli.validation import byte_size, naming, parse_integer
from .mounts import inodes_for

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .spec import Mount, Spec

__all__ = ["LAYERS", "make_writable", "overlay_size", "root_on_host"]

LAYERS = ("root", "upper", "work")
"""The names of what `make_writable` makes in a bundle."""

SCRATCH = ".writable"
"""The directory in ``/`` of the container where the tmpfs of limited overlays is mounted, under a mask."""

# What the container gets as mounts of its own, or must not get from the image.
NOT_OVERLAID = frozenset({"dev", "proc", "sys", "tmp", SCRATCH})
LEAST_SIZE = 1 << 16


def overlay_size(writable: bool | str | int) -> int | None:
    """The size, in bytes, that the parameter ``writable`` asks for; None for True and False.

    :raises TypeError: it is neither a bool nor a size.
    :raises ValueError: it is not a size, or too small for anything.
    """
    if isinstance(writable, bool):
        return None
    with naming("writable"):
        return parse_integer(byte_size(writable), LEAST_SIZE)


def make_writable(spec: Spec, rootfs: Path, folder: Path, size: int | None) -> Callable[[], None]:
    """Change a specification so that its container can write over a root file system.

    :param spec: changed: its root and its mounts.
    :param rootfs: the root file system, which stays as it is.
    :param folder: the bundle's directory.
    :param size: the most that the container can write, in bytes; None means no limit.
    :returns: a function that makes the directories; see `LAYERS`.
    :raises ValueError: an overlay cannot have one of these paths.
    """
    root = folder / "root"
    names = sorted(entry.name for entry in os.scandir(rootfs) if entry.is_dir(follow_symlinks=False))
    names = [name for name in names if name not in NOT_OVERLAID]
    layers = folder if size is None else root / SCRATCH
    namespaces = spec.get("linux", {}).get("namespaces", [])
    in_user_namespace = any(namespace["type"] == "user" for namespace in namespaces)
    mounts = [_overlay(rootfs, layers, name, in_user_namespace) for name in names]
    spec["root"] = {"path": str(root), "readonly": size is not None}
    if size is not None:
        if (rootfs / SCRATCH).exists():
            raise ValueError(f"writable: the root file system has a /{SCRATCH} already: {rootfs}")
        options = ["nosuid", "nodev", "tmpcopyup", "mode=700", f"size={size}", f"nr_inodes={inodes_for(size)}"]
        mounts.insert(0, {"destination": f"/{SCRATCH}", "type": "tmpfs", "source": "tmpfs", "options": options})
        linux = cast("dict[str, Any]", spec.setdefault("linux", cast("Any", {})))
        linux["maskedPaths"] = [*linux.get("maskedPaths", []), f"/{SCRATCH}"]
    spec["mounts"] = [*mounts, *spec.get("mounts", [])]

    def make_layers() -> None:
        _write_root(rootfs, root)
        owner = root_on_host(spec)
        for name in names:
            upper, work = layers / "upper" / name, layers / "work" / name
            upper.mkdir(parents=True)
            work.mkdir(parents=True)
            _copy_owner((rootfs / name).stat(), upper)  # the merged directory looks like its upper one
            if owner != os.geteuid():
                os.chown(work, owner, -1)  # without this, the overlay is read-only

    return make_layers


def root_on_host(spec: Spec) -> int:
    """The user on the host that is root in the container."""
    mappings = spec.get("linux", {}).get("uidMappings", [])
    return next((each["hostID"] for each in mappings if each["containerID"] == 0), os.geteuid())


def _overlay(rootfs: Path, layers: Path, name: str, in_user_namespace: bool) -> Mount:
    """The mount for one directory in the root: runc mounts nothing over the root itself."""
    paths = {"lowerdir": rootfs / name, "upperdir": layers / "upper" / name, "workdir": layers / "work" / name}
    for option, path in paths.items():
        if set(str(path)) & set(",:\\"):
            raise ValueError(f"writable: an overlay's {option} cannot have a comma, colon or backslash: {str(path)!r}")
    options = [*(f"{option}={path}" for option, path in paths.items()), "nosuid", "nodev"]
    if in_user_namespace:  # whose root may not write the attributes trusted.overlay.*
        options.append("userxattr")
    return {"destination": f"/{name}", "type": "overlay", "source": "overlay", "options": options}


def _write_root(rootfs: Path, root: Path) -> None:
    """Make a ``/`` of one's own: directories to mount on, and copies of the files and links that are not in one."""
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
