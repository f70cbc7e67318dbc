"""How a process has ended, from the kernel, by its pidfd: its own exit status, or None. Never a guess.

Statuses are those of `subprocess`: ``-N`` when signal N ended the process.
"""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import select

import anyio

from . import fd_reserve, procfs
from .libc import sigchld_is_ignored
from .pidfd import pid_of, reap_ended

__all__ = [
    "exit_status",
    "kernel_keeps_statuses",
    "shell_status",
    "wait_for_exit_status",
    "why_unknown",
]

# linux/pidfd.h
PIDFD_GET_INFO = 0xC040FF0B
PIDFD_INFO_EXIT = 1 << 3
PIDFD_INFO_SIZE = 64

KEEPS_STATUSES = (6, 15)
"""The first Linux that tells the status of a process that was reaped, as long as somebody holds its pidfd."""
SHOWS_STATUSES = (6, 6)
"""A Linux that shows the status of a whole process in ``/proc/PID/stat``; older ones show that of its first thread."""
REAPED_WITHIN = 0.25
"""Seconds that an ended process may take to be reaped, if its status can be known only then."""


async def wait_for_exit_status(pidfd: int) -> int | None:
    """As `exit_status`, of a process that has ended: also where it is being reaped at this moment."""
    status = exit_status(pidfd)
    if status is None and kernel_keeps_statuses():
        with select.epoll() as reaped, anyio.move_on_after(REAPED_WITHIN):
            reaped.register(pidfd, 0)  # of no event but EPOLLHUP, which says that it is reaped
            await anyio.wait_readable(reaped.fileno())
        status = exit_status(pidfd)
    return status


def exit_status(pidfd: int) -> int | None:
    """The status of a process that has ended, whatever process is its parent. If this process is, it reaps it.

    :param pidfd: its pidfd.
    :returns: None if the process lives; or if its parent has reaped it and the kernel keeps no statuses
        (`kernel_keeps_statuses`), or is yet to reap it and nobody else may see the status.
    """
    status = reap_ended(pidfd)
    if status is None:
        status = _kept_status(pidfd)
    if status is None:
        try:
            status = _shown_status(pidfd)
        except OSError as exc:
            if exc.errno not in fd_reserve.EXHAUSTED:
                raise
            with fd_reserve.give_up():
                status = _shown_status(pidfd)
    # Between the two its parent may have reaped it.
    return _kept_status(pidfd) if status is None else status


def _shown_status(pidfd: int) -> int | None:
    """The status of a process that its parent has not reaped yet (``/proc/PID/stat``)."""
    if _linux_version() < SHOWS_STATUSES:
        return None
    try:
        pid = pid_of(pidfd)
        found = procfs.stat(pid)
        if found is None or found.state != "Z" or not _may_see(pid):
            return None
        pid_of(pidfd)  # not reaped meanwhile, so it was this process and not another one of its number
    except ProcessLookupError:
        return None
    return os.waitstatus_to_exitcode(found.exit_status)


def _may_see(pid: int) -> bool:
    """Whether the kernel shows this process the other one's status; where it does not, it shows 0."""
    try:
        os.readlink(f"/proc/{pid}/exe")
    except OSError as exc:
        return exc.errno == errno.ENOENT  # one that has ended has no program any more
    return True


def _kept_status(pidfd: int) -> int | None:
    """The status of a process that was reaped (``PIDFD_GET_INFO``)."""
    info = bytearray(PIDFD_INFO_SIZE)
    info[0:8] = PIDFD_INFO_EXIT.to_bytes(8, "little")
    try:
        fcntl.ioctl(pidfd, PIDFD_GET_INFO, info)
    except OSError:  # an older kernel, or it has not been reaped
        return None
    if not int.from_bytes(info[0:8], "little") & PIDFD_INFO_EXIT:
        return None
    return os.waitstatus_to_exitcode(int.from_bytes(info[60:64], "little"))


def shell_status(status: int) -> int:
    """A status as a shell gives it: 128 + N when signal N ended the process."""
    return status if status >= 0 else 128 - status


@functools.cache
def _linux_version() -> tuple[int, int]:
    major, minor, *_ = os.uname().release.split(".")
    return int(major), int(minor.partition("-")[0])


@functools.cache
def kernel_keeps_statuses() -> bool:
    """Whether the kernel tells the status of a process that somebody else has reaped."""
    if _linux_version() < KEEPS_STATUSES:
        return False
    own = os.pidfd_open(os.getpid())
    try:
        fcntl.ioctl(own, PIDFD_GET_INFO, bytearray(PIDFD_INFO_SIZE))
    except OSError:  # forbidden, or another kernel that says it is Linux
        return False
    finally:
        os.close(own)
    return True


def why_unknown() -> str:
    """Why the status of a child of this process, which has ended, cannot be known."""
    if sigchld_is_ignored():
        return (
            "SIGCHLD is ignored in this process, so the kernel forgets how its children end "
            "(call signal.signal(signal.SIGCHLD, signal.SIG_DFL) first)"
        )
    return "another waiter in this process has taken it (os.wait, os.waitpid(-1), or a handler of SIGCHLD)"
