"""Cgroups: which are mounted, which a process is in, what is in one, and how one is removed.

Three layouts exist: v1 (a hierarchy for each controller), v2 (one for all) and hybrid (v1, and v2 without controllers
beside it). See cgroups(7), and "Control groups" in ``config-linux.md`` of the OCI runtime specification.

A path proves nothing, since anybody may have made a directory there before. Compare `identity` from before and after a
call, or open the cgroups of a process that provably belongs to the call (`open_cgroups`).
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import posixpath
import signal
from typing import TYPE_CHECKING, NamedTuple

from .mounts import parse_mountinfo
from .pidfd import Pidfd
from .procfs import read_file

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "HYBRID",
    "ROOT",
    "Hierarchy",
    "cgroups_of",
    "freeze",
    "hierarchies",
    "identity",
    "is_populated",
    "kill",
    "open_cgroups",
    "parse_membership",
    "processes",
    "read",
    "remove_cgroup",
]

ROOT = "/sys/fs/cgroup"
HYBRID = f"{ROOT}/unified"
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Hierarchy(NamedTuple):
    """A mounted hierarchy of cgroups.

    :ivar version: 1 or 2.
    :ivar controllers: of v1, as ``/proc/PID/cgroup`` names them (``name=systemd`` is one without a controller); of v2
        none.
    :ivar point: where it is mounted.
    :ivar root: which of its cgroups is mounted there.
    """

    version: int
    controllers: tuple[str, ...]
    point: str
    root: str

    def path(self, cgroup: str) -> str | None:
        """The directory of a cgroup that ``/proc/PID/cgroup`` names; None if it is not below what is mounted.

        ``/..`` is outside this process's cgroup namespace (cgroup_namespaces(7)).
        """
        root, names = _split(self.root), _split(cgroup)
        if names[: len(root)] != root or ".." in names[len(root) :]:
            return None
        return "/".join([self.point, *names[len(root) :]])


def hierarchies() -> tuple[Hierarchy, ...]:
    """The mounted hierarchies of cgroups, each once.

    They are read again only in other namespaces, and after something else was mounted on ``/sys/fs/cgroup``: on a
    machine with many mounts reading takes a millisecond.
    """
    namespaces = (os.stat(f"/proc/self/ns/{kind}").st_ino for kind in ("mnt", "cgroup"))
    return _hierarchies(*namespaces, identity(ROOT))


@functools.lru_cache(maxsize=1)
def _hierarchies(*_key: object) -> tuple[Hierarchy, ...]:
    with open("/proc/self/mountinfo", "rb") as file:
        # Only these lines are parsed.
        mounts = parse_mountinfo(b"".join(line for line in file if b" - cgroup" in line))
    found: dict[tuple[str, ...], Hierarchy] = {}
    options = _controllers()
    for mount in mounts:
        if mount.kind == "cgroup2":
            hierarchy = Hierarchy(2, (), mount.point, mount.root)
        else:
            controllers = next((names for names in options if names and set(names) & set(mount.options)), None)
            if controllers is None:
                continue
            hierarchy = Hierarchy(1, controllers, mount.point, mount.root)
        known = found.get(hierarchy.controllers)
        if known is None or _is_usual(hierarchy) > _is_usual(known):
            found[hierarchy.controllers] = hierarchy
    return tuple(found.values())


def _controllers() -> list[tuple[str, ...]]:
    """The names of every hierarchy, mounted or not."""
    return list(_membership(None))


def _split(path: str) -> list[str]:
    return [name for name in path.split("/") if name]


def _is_usual(hierarchy: Hierarchy) -> bool:
    """Whether a runtime looks for a hierarchy there first."""
    if hierarchy.version == 2:
        return hierarchy.point in (ROOT, HYBRID)
    return hierarchy.point in (f"{ROOT}/{name.removeprefix('name=')}" for name in hierarchy.controllers)


def parse_membership(content: bytes) -> dict[tuple[str, ...], str]:
    """Parse ``/proc/PID/cgroup``: the controllers of each hierarchy (of v2 none), and the process's cgroup in it."""
    found: dict[tuple[str, ...], str] = {}
    for line in content.splitlines():
        _, controllers, path = os.fsdecode(line).split(":", 2)
        found[tuple(controllers.split(",")) if controllers else ()] = path
    return found


# Cgroups of a process


def cgroups_of(pid: int | None = None) -> dict[tuple[str, ...], str]:
    """The directories of a process's cgroups, by the controllers of their hierarchies; of v2 ``()``.

    :param pid: None is this process.
    :raises FileNotFoundError: there is no such process.
    """
    member = _membership(pid)
    paths = (
        (found.controllers, found.path(member[found.controllers]))
        for found in hierarchies()
        if found.controllers in member
    )
    return {controllers: path for controllers, path in paths if path is not None}


def _membership(pid: int | None) -> dict[tuple[str, ...], str]:
    return parse_membership(read_file(f"/proc/{pid or 'self'}/cgroup"))


def _is_above(cgroup: str, other: str) -> bool:
    """Whether a cgroup is another one, or above it, by their names in ``/proc/PID/cgroup``."""
    names = _split(cgroup)
    return names == _split(other)[: len(names)] or set(names) == {".."}


def open_cgroups(pid: int, controllers: frozenset[str] | None = None) -> dict[tuple[str, ...], int]:
    """Open the cgroups that a container's init has and that are not this process's too.

    Without permission for cgroups a container stays in the caller's own. What is counted there is not the container's,
    and must not be killed with it.

    :param pid: the init; the caller makes sure that it has not been reaped.
    :param controllers: only hierarchies of v1 with one of these; None is all. v2 is always among them.
    :returns: descriptors of the directories (``O_PATH``), by the controllers of their hierarchies. The caller closes
        them.
    """
    own, member = _membership(None), _membership(pid)
    found: dict[tuple[str, ...], int] = {}
    try:
        for hierarchy in hierarchies():
            names = hierarchy.controllers
            if names not in member or (controllers is not None and names and not controllers.intersection(names)):
                continue
            path = hierarchy.path(member[names])
            if path is None or _is_above(member[names], own[names]):
                continue
            with contextlib.suppress(FileNotFoundError, PermissionError):
                found[names] = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except BaseException:
        for fd in found.values():
            os.close(fd)
        raise
    return found


def identity(path: str | int) -> tuple[int, int] | None:
    """The device and inode of a directory, by its path or descriptor; None if it does not exist."""
    try:
        status = os.stat(path, follow_symlinks=False) if isinstance(path, str) else os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_dev, status.st_ino


# What is in a cgroup


def processes(cgroup: int) -> list[Pidfd]:
    """Open every process in a cgroup and below; each was in there after its pidfd had been opened.

    :param cgroup: a descriptor of its directory.
    :returns: pidfds, which the caller closes.
    """
    found: list[Pidfd] = []
    try:
        for pid in sorted(_pids(cgroup)):
            with contextlib.suppress(ProcessLookupError):
                found.append(Pidfd.open(pid))
        # A number that another process had by then is not listed any more.
        still = _pids(cgroup)
    except BaseException:
        for process in found:
            process.close()
        raise
    for process in found:
        if process.pid not in still:
            process.close()
    return [process for process in found if process.pid in still]


def _pids(cgroup: int) -> set[int]:
    found: set[int] = set()
    for directory in _directories(cgroup):
        found.update(map(int, read(directory, "cgroup.procs").split()))
    return found - {0}  # of a process in another pid namespace the number is not known


def is_populated(cgroup: int) -> bool:
    """Whether a process, also one that has ended and was not reaped, is in a cgroup or below."""
    events = read(cgroup, "cgroup.events")
    if events:
        return b"populated 1" in events.splitlines()
    return any(read(directory, "cgroup.procs") for directory in _directories(cgroup))


def kill(cgroup: int) -> list[Pidfd]:
    """Kill every process in a cgroup and below (``cgroup.kill``, Linux 5.14; else each by pidfd).

    By pidfd a process that is starting others may be faster: call it again until the cgroup is empty.

    :returns: pidfds of the processes, to wait for; the caller closes them.
    """
    found = processes(cgroup)
    try:
        _write(cgroup, "cgroup.kill", b"1")
    except OSError:
        for process in found:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                process.send_signal(signal.SIGKILL)
    return found


def freeze(cgroup: int, frozen: bool = True) -> bool:
    """Suspend every process in a cgroup and below, or let them go on. Returns before the last one is suspended.

    :returns: whether this cgroup can be frozen; of v1 only the hierarchy of ``freezer`` can.
    """
    for name, value in (
        ("cgroup.freeze", b"1" if frozen else b"0"),
        ("freezer.state", b"FROZEN" if frozen else b"THAWED"),
    ):
        with contextlib.suppress(OSError):
            _write(cgroup, name, value)
            return True
    return False


def remove_cgroup(path: str, expected: tuple[int, int]) -> None:
    """Remove a cgroup and those below it, unless it is gone. Processes in them are not touched.

    :param path: its directory.
    :param expected: its `identity`. A directory with another one is somebody else's, and stays.
    :raises OSError: it cannot be removed; EBUSY: a process is in it.
    """
    parent, name = posixpath.split(path)
    with contextlib.ExitStack() as stack, contextlib.suppress(FileNotFoundError, NotADirectoryError):
        top = os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, top)
        cgroup = os.open(name, DIRECTORY, dir_fd=top)
        stack.callback(os.close, cgroup)
        if identity(cgroup) != expected:
            return
        for above, below in _walk(cgroup):
            with contextlib.suppress(FileNotFoundError):
                os.rmdir(below, dir_fd=above)
        status = os.stat(name, dir_fd=top, follow_symlinks=False)
        if (status.st_dev, status.st_ino) == expected:  # else somebody was faster
            os.rmdir(name, dir_fd=top)


def _directories(cgroup: int) -> Iterator[int]:
    """Descriptors of a cgroup and of all below, each valid until the next one is asked for."""
    yield cgroup
    for above, below in _walk(cgroup):
        with contextlib.suppress(FileNotFoundError):
            directory = os.open(below, DIRECTORY, dir_fd=above)
            try:
                yield directory
            finally:
                os.close(directory)


def _walk(cgroup: int) -> Iterator[tuple[int, str]]:
    """Every directory below a cgroup, as its parent's descriptor and its name; the deepest first.

    A container may have made them thousands deep. So only one is open at a time.
    """
    current = os.open(".", DIRECTORY, dir_fd=cgroup)
    try:
        names: list[str] = []
        pending = [_names(current)]
        while pending:
            if pending[-1]:
                name = pending[-1].pop()
                try:
                    current = _move(current, name)
                except FileNotFoundError:
                    continue
                names.append(name)
                pending.append(_names(current))
                continue
            pending.pop()
            if names:
                current = _move(current, "..")
                yield current, names.pop()
    finally:
        os.close(current)


def _move(current: int, name: str) -> int:
    other = os.open(name, DIRECTORY, dir_fd=current)
    os.close(current)
    return other


def _names(directory: int) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except OSError as exc:
        if exc.errno in (errno.ENOENT, errno.ENODEV, errno.EACCES):  # removed meanwhile, or another user's
            return []
        raise


def read(directory: int, name: str) -> bytes:
    """Read a file of a cgroup; empty where this cgroup has none, or is gone."""
    try:
        return read_file(name, dir_fd=directory)
    except (FileNotFoundError, PermissionError):
        return b""
    except OSError as exc:
        # Removed meanwhile; a threaded cgroup lists no processes, the one above it does.
        if exc.errno in (errno.ENODEV, errno.EOPNOTSUPP):
            return b""
        raise


def _write(directory: int, name: str, data: bytes) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
