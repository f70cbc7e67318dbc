"""What is mounted where (``/proc/self/mountinfo``), and unmounting."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from . import libc

__all__ = ["Mount", "parse_mountinfo", "read_mountinfo", "unmount"]

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

ESCAPED = re.compile(rb"\\([0-7]{3})")
"""How the kernel writes a blank, a tab, a newline or a backslash."""


class Mount(NamedTuple):
    """One mount (proc_pid_mountinfo(5)).

    :ivar root: the directory of its file system that is mounted; ``/..`` outside the cgroup namespace, for cgroups.
    :ivar point: where, from this process's root.
    :ivar device: ``st_dev`` of the files in it.
    :ivar options: of the file system (the "super options"); for a v1 hierarchy of cgroups its controllers are there.
    """

    root: str
    point: str
    kind: str
    device: int
    options: tuple[str, ...]


def parse_mountinfo(content: bytes) -> list[Mount]:
    """Parse ``/proc/PID/mountinfo``, in its order: of two mounts on one point the later one hides the earlier."""
    mounts: list[Mount] = []
    for line in content.splitlines():
        before, _, after = line.partition(b" - ")
        _, _, device, root, point, *_ = before.split(b" ")
        kind, _, options = after.split(b" ", 2)
        major, minor = device.split(b":")
        mounts.append(
            Mount(
                _unescape(root),
                _unescape(point),
                kind.decode(),
                os.makedev(int(major), int(minor)),
                tuple(_unescape(options).split(",")),
            )
        )
    return mounts


def read_mountinfo(pid: int | None = None) -> list[Mount]:
    """The mounts that a process sees.

    :param pid: None is this process.
    :raises OSError: ``/proc`` is not mounted, or there is no such process.
    """
    with open(f"/proc/{pid or 'self'}/mountinfo", "rb") as file:
        return parse_mountinfo(file.read())


def unmount(point: str | bytes) -> None:
    """Unmount what is mounted there and below, at once, also while it is in use (``umount2(2)``, ``MNT_DETACH``).

    :param point: the mount point; a symbolic link is not followed.
    :raises OSError: it cannot be unmounted.
    """
    libc.umount(os.fsencode(point), MNT_DETACH | UMOUNT_NOFOLLOW)


def _unescape(text: bytes) -> str:
    return os.fsdecode(ESCAPED.sub(lambda found: bytes([int(found[1], 8)]), text))
