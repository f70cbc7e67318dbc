"""What `default_spec` mounts: what every container has, what the caller names, an init, files for names."""

from __future__ import annotations

import copy
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, cast

from .._cli.validation import byte_size, check_type, naming, parse_integer, parse_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._cli.options import StrPath
    from .spec import Mount

__all__ = [
    "INIT",
    "add_inode_limit",
    "all_mounts",
    "check_mount_points",
    "find_init",
    "inodes_for",
    "masked_in_sys",
    "parse_destination",
    "parse_inodes",
]

INIT = "/dev/init"
"""Where `find_init` is mounted: on a tmpfs, so that nothing is made in the root file system."""

INITS = ("tini-static", "tini", "catatonit", "/usr/libexec/podman/catatonit")
"""Programs that run another program as their child, reap orphans and pass signals on. Each takes ``-- PROGRAM``."""

# "ro" alone leaves what is mounted below the source writable.
ACCESS = {"": ["rw"], "rw": ["rw"], "ro": ["ro", "rro"]}

PRIVATE = "rprivate"
"""What is mounted on the host later does not appear in the container, where it would be writable."""

MOUNT_POINTS = ("dev", "proc", "sys", "tmp")
"""What runtimes mount on, and make files below, while the host's files can still be reached."""

BYTES_PER_INODE = 1 << 12
LEAST_INODES = 1024
INODES_WITHOUT_SIZE = 1 << 16
RECURSIVE_READONLY = (5, 12)
"""The Linux version from which on a mount is read-only with all that is mounted below it: ``mount_setattr(2)``."""


def inodes_for(size: int) -> int:
    """The limit of files on a tmpfs: one for each 4 KiB, and not fewer than a program that makes small files needs.

    Without a limit a tmpfs has as many inodes as half of the machine's pages. Each takes about a kilobyte of kernel
    memory, and none of the tmpfs's size.

    :param size: that of the tmpfs, in bytes.
    """
    return max(LEAST_INODES, size // BYTES_PER_INODE)


def add_inode_limit(mount: Mount, limit: int | None) -> None:
    """Limit the files of a tmpfs, unless its options do.

    :param mount: changed; any kind of mount.
    :param limit: the most files; None is what its size suggests (`inodes_for`).
    """
    options = mount.get("options", [])
    if mount.get("type") != "tmpfs" or any(option.startswith("nr_inodes=") for option in options):
        return
    if limit is None:
        limit = INODES_WITHOUT_SIZE
        for option in options:
            name, _, value = option.partition("=")
            if name == "size" and re.fullmatch(r"\d+[kmgtp]?", value, re.IGNORECASE):
                limit = inodes_for(byte_size(value))
    mount["options"] = [*options, f"nr_inodes={limit}"]


def all_mounts(
    *,
    tmp: int,
    nr_inodes: int | None,
    own_network: bool,
    user_namespace: bool,
    one_id: bool,
    init: str | None,
    resolv_conf: StrPath | None,
    hosts: StrPath | None,
    mounts: Sequence[Mount | str],
) -> list[Mount]:
    """The mounts of a container, in their order.

    :param tmp: the size of ``/tmp``, in bytes.
    :param nr_inodes: the most files on each tmpfs that does not say so itself; None is what its size suggests.
    :param own_network: whether it has a new network namespace.
    :param user_namespace: whether it has a user namespace.
    :param one_id: whether that has one id only.
    :param init: the path of an init on the host.
    :param resolv_conf: what is mounted on ``/etc/resolv.conf``.
    :param hosts: what is mounted on ``/etc/hosts``.
    :param mounts: those of the caller.
    """
    found = _standard(tmp, own_network, user_namespace, one_id)
    if init is not None:
        found.append(_bind(init, INIT, "ro", "nodev", "nosuid"))
    for name, source in (("resolv_conf", resolv_conf), ("hosts", hosts)):
        if source is not None:
            with naming(name):
                path = _existing(source)
            found.append(_bind(path, f"/etc/{name.replace('_', '.')}", "ro", "nodev", "nosuid", "noexec"))
    found.extend(_parse_mount(mount) for mount in mounts)
    for mount in found:
        add_inode_limit(mount, nr_inodes)
    return found


def masked_in_sys(own_network: bool, user_namespace: bool) -> list[str]:
    """What must be masked because the host's ``/sys`` is there and the kernel cannot make all of it read-only."""
    if own_network or not user_namespace or _has_recursive_readonly():
        return []
    return ["/sys/fs", "/sys/kernel"]  # whatever is mounted in /sys is mounted below these or /sys/firmware


def find_init(init: bool | StrPath) -> str | None:
    """The init that the parameter ``init`` asks for, if any.

    :raises FileNotFoundError: there is none on this machine; the message names the Debian package.
    :raises TypeError: it is neither a bool nor a path.
    :raises ValueError: it needs a dynamic linker, which the container may not have, or cannot be executed.
    """
    if init is False:
        return None
    if init is True:
        paths = (shutil.which(name) for name in INITS)
        static = next((path for path in paths if path is not None and not _needs_linker(path)), None)
        if static is None:
            raise FileNotFoundError("no static init was found: install the Debian package tini or catatonit")
        return static
    check_type("init", init, str, os.PathLike, bool)
    path = os.fspath(init)
    with naming("init"):
        path = _existing(path)
        if not os.access(path, os.X_OK) or os.path.isdir(path):
            raise ValueError(f"must be a program, not {path!r}")
        if _needs_linker(path):
            raise ValueError(f"must be a static program, since the container may have no dynamic linker: {path!r}")
    return path


def parse_destination(destination: object) -> str:
    """Give back a path in the container that something can be mounted on.

    :raises TypeError: it is not str.
    :raises ValueError: it is not absolute, is ``/``, or has ``..`` in it.
    """
    check_type("mounts", destination, str)
    path = cast("str", destination)
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not path.startswith("/") or not parts or ".." in parts or "\0" in path:
        raise ValueError(f"mounts: the destination must be an absolute path below /, without .., not {path!r}")
    return path


def _standard(tmp: int, own_network: bool, user_namespace: bool, one_id: bool) -> list[Mount]:
    sys: Mount = {
        "destination": "/sys",
        "type": "sysfs",
        "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    }
    if user_namespace and not own_network:
        # A user namespace may mount sysfs only for a network namespace of its own: it gets the host's, read-only.
        recursive = ["rro"] if _has_recursive_readonly() else []
        sys = {"destination": "/sys", "type": "none", "source": "/sys",
               "options": ["rbind", PRIVATE, "nosuid", "noexec", "nodev", "ro", *recursive]}  # fmt: skip
    # The group of terminals, 5, does not exist in a user namespace of one id.
    terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *([] if one_id else ["gid=5"])]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=64k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": terminals},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
         "options": ["nosuid", "noexec", "nodev"]},
        sys,
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "nodev", "mode=1777", f"size={tmp}"]},
    ]  # fmt: skip


def _parse_mount(mount: Mount | str) -> Mount:
    if isinstance(mount, str):
        source, _, rest = mount.partition(":")
        destination, _, access = rest.partition(":")
        if access not in ACCESS:
            raise ValueError(f"mounts: {mount!r}: {access!r} is neither ro nor rw")
        with naming("mounts:"):
            source = _existing(source)
        options = ["rbind", PRIVATE, "nosuid", "nodev", *ACCESS[access]]
        mount = {"destination": destination, "type": "none", "source": source, "options": options}
    check_type("mounts", mount, dict, wanted="OCI mount objects or str")
    parse_destination(mount.get("destination", ""))
    return copy.deepcopy(mount)


def _bind(source: str, destination: str, *options: str) -> Mount:
    return {"destination": destination, "type": "none", "source": source, "options": ["bind", PRIVATE, *options]}


def _existing(path: StrPath) -> str:
    """Give back an absolute path of something that exists."""
    if not isinstance(cast("object", path), str | os.PathLike):
        raise TypeError(f"must be a path, not {type(path).__name__}")
    text = os.fspath(path)
    parse_text(text or "?")
    if not os.path.isabs(text) or not os.path.exists(text):
        raise ValueError(f"{text!r} is not an absolute path of something that exists")
    return text


def _has_recursive_readonly() -> bool:
    numbers = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return numbers is None or (int(numbers[1]), int(numbers[2])) >= RECURSIVE_READONLY


def _needs_linker(path: str) -> bool:
    """Whether an ELF file names a dynamic linker (its segment PT_INTERP, at the beginning of the file)."""
    return b"/ld-" in Path(path).read_bytes()[:8192]


def parse_inodes(value: object) -> int | None:
    """Read the parameter ``nr_inodes``."""
    with naming("nr_inodes"):
        return None if value is None else parse_integer(value, 16)


def check_mount_points(rootfs: Path) -> None:
    """Refuse a root file system in which a runtime would mount on, or make files in, another place.

    runc before 1.2 follows a link in the place of ``/dev`` while the host's files are still in reach.

    :raises ValueError: one of `MOUNT_POINTS` is there and not a directory.
    """
    for name in MOUNT_POINTS:
        path = rootfs / name
        if path.is_symlink():
            raise ValueError(f"/{name} is a symbolic link in the root file system, to {os.readlink(path)!r}")
        if path.exists() and not path.is_dir():
            raise ValueError(f"/{name} is not a directory in the root file system")
