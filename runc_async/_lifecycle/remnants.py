"""Taking a container down: quickly where it can be, thoroughly where its runtime was killed half-way."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
from typing import TYPE_CHECKING, Protocol

import anyio

from .._errors import CommandError, ContainerNotRunningError
from .._linux.pidfd import Pidfd, reap_ended
from .._models import ContainerState, decode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .._process.process import Outcome

__all__ = [
    "CRUNS_OWN",
    "cgroups_of",
    "clear_failed",
    "clear_remnants",
    "kill_by_file",
    "pid_in",
    "remove",
    "sweep_cgroups",
    "unmount_cgyard",
    "unmount_remnants",
]

CGROUPS = "/sys/fs/cgroup"
CRUNS_OWN = {".cache", ".empty-directory"}
"""What crun keeps in its root beside the containers: compiled filters, a mount point."""
MNT_DETACH = 2
EMPTY_WITHIN = 5.0
"""Seconds that the cgroups of a container that a runtime did not finish get to be empty."""
IN_PASSING = 0.05
"""Seconds after which a mount that is there for microseconds is taken for a remnant."""


class Runtime(Protocol):
    """The part of `Road` that is needed here."""

    async def captured(
        self, command: str, options: Mapping[str, object] = {}, positional: Sequence[str] = ()
    ) -> Outcome:
        """See `Road.captured`."""
        ...


async def remove(road: Runtime, id: str) -> None:
    """Kill a container of ours and delete it.

    ``delete --force`` polls every 100 ms for the end of what it killed. Where init has a pid namespace of its
    own, whose processes all end with it, it is killed here and its end awaited by pidfd, so that the runtime
    finds it stopped.

    :raises CommandError: the runtime could not delete it.
    """
    try:
        state = await _state(road, id)
    except CommandError:  # none, or half written: the runtime clears that
        await road.captured("delete", {"force": True}, [id])
        return
    with contextlib.ExitStack() as stack:
        init = None
        if state.pid > 0:
            with contextlib.suppress(ProcessLookupError):
                init = stack.enter_context(Pidfd.open(state.pid))
        if init is not None and leads_pid_namespace(init.pid):
            await _kill_init(road, state, init)
        await road.captured("delete", {"force": True}, [id])
        if init is not None:
            reap_ended(init.fileno())  # nobody else knows of it, if it had become our child


async def _state(road: Runtime, id: str) -> ContainerState:
    return decode(ContainerState, (await road.captured("state", {}, [id])).stdout)


async def _kill_init(road: Runtime, state: ContainerState, init: Pidfd) -> None:
    with contextlib.suppress(ProcessLookupError):
        init.send_signal(signal.SIGKILL)
    if state.status == "paused":  # a frozen process dies when it is thawed; on cgroup v2 at once
        with contextlib.suppress(ContainerNotRunningError):
            await road.captured("resume", {}, [state.id])
    await init.wait()


def leads_pid_namespace(pid: int) -> bool:
    """Whether a process is the init of a pid namespace below ours."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            numbers = next(line for line in file if line.startswith(b"NSpid:")).split()[1:]
    except (FileNotFoundError, ProcessLookupError, StopIteration):
        return False
    return len(numbers) > 1 and numbers[-1] == b"1"


async def clear_remnants(road: Runtime, id: str, begun: int) -> None:
    """Clear what a runtime left that was killed while it made a container.

    That may be a state directory, whole or half written, ``runc init``, and cgroups that no state tells of.

    :param begun: when the call began, in nanoseconds since the epoch; a container older than it is not ours.
    """
    try:
        state = await _state(road, id)
    except CommandError:
        pass
    else:
        if state.created_ns < begun:
            return
    await unmount_remnants(id)
    folders = {*cgroups_of(id)}
    await _kill_all_in(folders)
    await remove(road, id)
    await _remove_cgroups(folders, EMPTY_WITHIN, kill=True)  # runc init may have been about to start another process
    if folders:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), min(folders))


async def clear_failed(road: Runtime, id: str, begun: int) -> None:
    """Clear what a runtime left that failed to start or restore a container: crun leaves a state directory, a cgroup.

    Its processes have been killed; so a cgroup of this name that is not empty belongs to somebody else.

    :param begun: as for `clear_remnants`.
    """
    try:
        if (await _state(road, id)).created_ns < begun:
            return
    except CommandError:
        pass
    await unmount_remnants(id)
    with contextlib.suppress(CommandError):
        await remove(road, id)
    for folder in cgroups_of(id):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


async def unmount_remnants(id: str) -> bool:
    """Take away what is mounted in a container's state directory by a runc that was killed there.

    ``runc restore`` has the root file system there, and ``delete`` would remove all that is in it. ``runc init`` of
    runc 1.1 has a read-only bind mount of the binary there for a few microseconds, until it has opened it.

    :returns: whether there was anything.
    :raises OSError: it cannot be unmounted; then nothing may be deleted.
    """
    remnant = re.compile(rb".*/" + re.escape(os.fsencode(id)) + rb"/(criu-root|runc\.\w{6})$")
    found = _mounted(remnant)
    if not found:
        return False
    await anyio.sleep(IN_PASSING)
    for point in found & _mounted(remnant):
        _unmount(point)
        if not point.endswith(b"/criu-root"):
            os.unlink(point)
    return True


def unmount_cgyard(work_path: str, begun: int) -> None:
    """Take away what a killed CRIU has mounted in its work path: the cgroups, to restore a container's.

    :param begun: when the call began, in nanoseconds since the epoch; what is older is another's.
    :raises OSError: it cannot be unmounted.
    """
    for point in _mounted(re.compile(re.escape(os.fsencode(work_path)) + rb"/\.criu\.cgyard\.\w{6}$")):
        if os.stat(point).st_ctime_ns >= begun:
            _unmount(point)  # and all that is mounted in it
            os.rmdir(point)


def _mounted(pattern: re.Pattern[bytes]) -> set[bytes]:
    """The mount points that match."""
    with open("/proc/self/mountinfo", "rb") as file:
        points = [line.split()[4].decode("unicode_escape").encode("latin-1") for line in file]
    return {point for point in points if pattern.match(point)}


def _unmount(point: bytes) -> None:
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(point, MNT_DETACH):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), os.fsdecode(point))


async def sweep_cgroups(log: bytes, id: str, timeout: float) -> None:
    """Remove the cgroups of a deleted container that its runtime says it could not remove.

    On a busy machine a cgroup can stay busy for a moment after its last process. runc tries for 150 ms, logs the
    failure, forgets the container and reports success.

    :param log: the runtime's log of the call.
    :param timeout: seconds to go on trying.
    """
    if b"emove" not in log:
        return
    named = {os.fsdecode(path.rstrip(b":")) for path in re.findall(rb"/sys/fs/cgroup/[^\s\\\"\]]+", log)}
    await _remove_cgroups({path for path in named if os.path.basename(path) == id}, timeout)


async def _remove_cgroups(left: set[str], timeout: float, *, kill: bool = False) -> None:
    """Remove cgroups, and forget those that are gone.

    :param timeout: seconds to go on trying, since a cgroup can stay busy for a moment after its last process.
    :param kill: whether to kill what is still in them.
    """
    with anyio.move_on_after(timeout):
        while left:
            for path in sorted(left, key=len, reverse=True):
                try:
                    os.rmdir(path)
                except FileNotFoundError:
                    pass
                except OSError:
                    continue
                left.discard(path)
            if left:
                if kill:
                    await _kill_all_in(left)
                await anyio.sleep(0.01)


def cgroups_of(id: str) -> list[str]:
    """A container's cgroups in every hierarchy and what is below (crun makes ``.proxy-crun``), the deepest first."""
    return [folder for folder, _, _ in os.walk(CGROUPS, topdown=False) if id in folder.split("/")]


def _processes(folder: str) -> list[int]:
    try:
        with open(os.path.join(folder, "cgroup.procs"), "rb") as file:
            return [int(line) for line in file]
    except FileNotFoundError:
        return []


async def _kill_all_in(folders: Iterable[str]) -> None:
    for folder in folders:
        for pid in _processes(folder):
            await _kill_and_wait(pid)


async def _kill_and_wait(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError), Pidfd.open(pid) as process:
        process.send_signal(signal.SIGKILL)
        await process.wait()
        reap_ended(process.fileno())


def kill_by_file(pid_file: str | os.PathLike[str]) -> None:
    """Kill the process whose pid a runtime wrote to a file."""
    with contextlib.suppress(OSError, ValueError):
        os.kill(pid_in(pid_file), signal.SIGKILL)


def pid_in(pid_file: str | os.PathLike[str]) -> int:
    """The pid that a runtime wrote to a file."""
    with open(pid_file) as file:
        return int(file.read())
