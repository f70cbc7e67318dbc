"""Finds and removes what a runtime left that was killed, or that failed, while it made a container.

One rule: a process is signalled only if it provably belongs to this call, and a directory is removed only if this call
created it. What proves it:

- A process is named by the call's private pid file, or by the state file in a state directory that this call created,
  and started while the call ran; or it holds the call's log open, a memory file that nothing but the runtime process
  and its descendants can have.
- A state directory or cgroup was created by this call if it did not exist before the call (`survey`), and is where
  the container's specification and the runtime put it.

What is in doubt is left, and logged. Nothing here runs the runtime.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import signal
import stat
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import anyio
import msgspec

from .._cli.quirks import CRIU_ROOT, STATE_FILES
from .._linux import cgroups, mounts, procfs
from .._linux.pidfd import Pidfd, reap_ended
from .._linux.statx import birth

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "Identity",
    "Survey",
    "clear_cgroups",
    "clear_state",
    "identify",
    "kill_processes",
    "open_started",
    "read_helpers",
    "read_state_file",
    "survey",
    "sweep_cgroups",
    "unmount_cgyard",
    "unmount_root",
]

logger = logging.getLogger("runc_async")

HERTZ = os.sysconf("SC_CLK_TCK")
AGAIN = 0.01
"""Seconds until the next try to remove a cgroup: it can stay busy for a moment after its last process."""
LOCK = ".lock"
"""What the name of the file ends in that runsc keeps as long as a container, beside its state file."""
UNREMOVED = re.compile(rb"emove")
CGROUP_PATH = re.compile(rb"/sys/fs/cgroup/[^\s\\\"\]]+")


@dataclass(frozen=True, slots=True)
class Identity:
    """A directory or file that exists now, and not another one of the same name later."""

    path: str
    device: int
    inode: int
    birth: int
    """Nanoseconds since the epoch; 0 if the file system does not say. A file system may use an inode number again."""

    def is_there(self) -> bool:
        """Whether the path still leads to the same."""
        return identify(self.path) == self


def identify(path: str | None) -> Identity | None:
    """Identify a directory or a regular file; None if the path is None, or leads to nothing or to something else."""
    if path is None:
        return None
    try:
        status = os.lstat(path)
        is_one = stat.S_ISDIR(status.st_mode) or stat.S_ISREG(status.st_mode)
        return Identity(path, status.st_dev, status.st_ino, birth(path)) if is_one else None
    except OSError:
        return None


@dataclass(frozen=True, slots=True)
class Survey:
    """What a call may create: looked at before the runtime process starts."""

    state: str | None
    """The container's state directory, if it did not exist; else None."""
    cgroups: tuple[str, ...]
    """The container's cgroups that did not exist."""
    begun: int = field(default_factory=lambda: clock_ticks())
    """When the call began, in clock ticks since the system started."""

    def created_state(self) -> Identity | None:
        """The state directory, if it exists by now."""
        return identify(self.state)

    def created_cgroups(self) -> dict[str, tuple[int, int]]:
        """The cgroups that exist by now, and the identity of each."""
        found = ((path, cgroups.identity(path)) for path in self.cgroups)
        return {path: identity for path, identity in found if identity is not None}

    def has_left_anything(self) -> bool:
        """Whether anything exists by now."""
        return self.created_state() is not None or bool(self.created_cgroups())


def survey(state: str | None, cgroup_paths: Iterable[str]) -> Survey:
    """Look which of a container's directories exist before a call may create them."""
    return Survey(
        state=None if state is None or os.path.lexists(state) else state,
        cgroups=tuple(path for path in cgroup_paths if not os.path.lexists(path)),
    )


def clock_ticks() -> int:
    """The time since the system started, as ``/proc/PID/stat`` gives the start of a process."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * HERTZ)


# -- processes ---------------------------------------------------------------------------------------------


def open_started(pid: int | None, begun: int) -> Pidfd | None:
    """Open a process that a private file of a call names; None if it has ended.

    :param begun: when the call began, in clock ticks: an older process is another one.
    """
    if not pid or pid <= 0:
        return None
    try:
        process = Pidfd.open(pid)
    except ProcessLookupError:
        return None
    found = procfs.stat(pid)
    if found is None or found.start_time < begun - 1:
        process.close()
        return None
    return process


class _RuncState(msgspec.Struct):
    init_process_pid: int = 0
    init_process_start: int = 0
    config: _RuncConfig | None = None


class _RuncConfig(msgspec.Struct):
    labels: list[str] = []


class _CrunState(msgspec.Struct, rename="kebab"):
    pid: int = 0
    process_start_time: int = 0
    bundle: str = ""


class _RunscState(msgspec.Struct, rename="camel"):
    bundle_dir: str = ""
    gofer_pid: int = 0
    sandbox: _RunscSandbox | None = None


class _RunscSandbox(msgspec.Struct):
    pid: int = 0


class StateFile(msgspec.Struct):
    """What a runtime's state file says of a container."""

    pid: int
    start_time: int
    bundle: str


def read_helpers(path: str) -> Sequence[int]:
    """Read the pids of the runtime's processes that live as long as a container, besides its init.

    :param path: as for `read_state_file`.
    """
    state = _read_runsc_state(path)
    return [state.gofer_pid] if state is not None and state.gofer_pid else []


def _read_runsc_state(path: str) -> _RunscState | None:
    if not path.endswith(LOCK):
        return None
    try:
        return msgspec.json.decode(procfs.read_file(f"{path.removesuffix(LOCK)}.state"), type=_RunscState)
    except (OSError, msgspec.DecodeError, ValueError):
        return None


def read_state_file(directory: str) -> StateFile | None:
    """Read the state file of a container; None if it is missing, empty or half written.

    :param directory: the container's state directory; of runsc the lock file beside its state file.
    """
    if (found := _read_runsc_state(directory)) is not None:
        return StateFile(found.sandbox.pid if found.sandbox else 0, 0, found.bundle_dir)
    for name, shape in zip(STATE_FILES, (_RuncState, _CrunState), strict=True):
        try:
            state = msgspec.json.decode(procfs.read_file(os.path.join(directory, name)), type=shape)
        except FileNotFoundError:
            continue
        except (OSError, msgspec.DecodeError, ValueError):
            return None
        if isinstance(state, _CrunState):
            return StateFile(state.pid, state.process_start_time, state.bundle)
        labels = state.config.labels if state.config else []
        bundle = next((label.removeprefix("bundle=") for label in labels if label.startswith("bundle=")), "")
        return StateFile(state.init_process_pid, state.init_process_start, bundle)
    return None


async def kill_processes(survey: Survey, pid: int | None, log: int, timeout: float, *, restorer: str = "") -> None:
    """Kill the processes that a call left.

    :param pid: what the call's private pid file names.
    :param log: the descriptor of the call's log.
    :param restorer: the name of the program that makes the container's processes (CRIU): until they are themselves,
        they have its name.
    """
    with contextlib.ExitStack() as stack, anyio.move_on_after(timeout):
        killed: set[int] = set()
        while found := [
            process for process in _find_processes(survey, pid, log, restorer, stack) if process.pid not in killed
        ]:
            for process in found:
                killed.add(process.pid)
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    process.send_signal(signal.SIGKILL)
            for process in found:
                await process.wait()
                reap_ended(process.fileno())


def _find_processes(
    survey: Survey, pid: int | None, log: int, restorer: str, stack: contextlib.ExitStack
) -> list[Pidfd]:
    found = [open_started(pid, survey.begun), _open_by_state(survey)]
    inits = [stack.enter_context(process) for process in found if process is not None]
    processes = [process for process in inits if _is_alive(process.pid)]
    shares_pids = [process for process in processes if not procfs.leads_pid_namespace(process.pid)]
    ours: set[str] = set()
    with contextlib.suppress(FileNotFoundError):
        # A cgroup that this call created, with the container's init in it, has no processes but the container's.
        ours = {path for process in shares_pids for path in cgroups.cgroups_of(process.pid).values()}
    for path in survey.created_cgroups():
        for process in _open_members(path):
            stack.enter_context(process)
            if path in ours or _holds(process.pid, log) or (restorer and procfs.comm(process.pid) == restorer):
                processes.append(process)
    return processes


def _open_members(path: str) -> list[Pidfd]:
    """Open every process in a cgroup and below it."""
    try:
        cgroup = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return cgroups.processes(cgroup)
    finally:
        os.close(cgroup)


def _is_alive(pid: int) -> bool:
    found = procfs.stat(pid)
    return found is not None and found.state not in "ZX"


def _open_by_state(survey: Survey) -> Pidfd | None:
    """Open the init that the state file in this call's state directory names."""
    if survey.state is None:
        return None
    state = read_state_file(survey.state)
    if state is None:
        return None
    process = open_started(state.pid, survey.begun)
    if process is not None:
        found = procfs.stat(process.pid)
        if found is None or (state.start_time and found.start_time != state.start_time):
            process.close()
            return None
    return process


def _holds(pid: int, log: int) -> bool:
    """Whether a process has the call's log open, which only the runtime process and its descendants can have."""
    mine = os.fstat(log)
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{name}"), mine):
                    return True
    return False


# -- directories -------------------------------------------------------------------------------------------


def clear_state(state: Identity) -> None:
    """Remove a state directory that this call created, with what is mounted in it.

    ``runc restore`` mounts the container's root file system there; ``runc init`` of runc 1.1, killed between two system
    calls, leaves a bind mount of the runtime's binary. What is mounted is unmounted first: nothing in it is removed.

    :raises OSError: it cannot be unmounted or removed.
    """
    if not state.is_there():
        return
    if not os.path.isdir(state.path):
        for path in (f"{state.path.removesuffix(LOCK)}.state", state.path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
        return
    for point in _mount_points_below(state.path):
        mounts.unmount(point)
    # Not a whole tree: something may be mounted in it meanwhile, and what is in there must stay.
    with os.scandir(state.path) as entries:
        for entry in entries:
            (os.rmdir if entry.is_dir(follow_symlinks=False) else os.unlink)(entry.path)
    os.rmdir(state.path)


def unmount_root(state: Identity) -> None:
    """Unmount the root file system that ``runc restore`` mounts in a state directory: ``runc delete`` would empty it.

    :raises OSError: it cannot be unmounted; then the container must not be deleted.
    """
    place = os.path.join(state.path, CRIU_ROOT)
    if os.path.lexists(place):
        for point in _mount_points_below(state.path):
            if point == place or point.startswith(f"{place}/"):
                mounts.unmount(point)


def _mount_points_below(directory: str) -> list[str]:
    """What is mounted in a directory, the deepest first."""
    points = {mount.point for mount in mounts.read_mountinfo()}
    return sorted((point for point in points if point.startswith(f"{directory}/")), key=len, reverse=True)


async def clear_cgroups(created: Mapping[str, tuple[int, int]], timeout: float) -> None:
    """Remove cgroups that a call created and what is below them, as soon as they are empty.

    :param created: the path and identity of each.
    :param timeout: seconds to go on trying, since a cgroup can stay busy for a moment after its last process.
    """
    left = {*created}
    with anyio.move_on_after(timeout):
        while left := {path for path in left if not _remove_cgroup(path, created[path])}:  # noqa: ASYNC110 (nothing tells)
            await anyio.sleep(AGAIN)
    for path in left:
        logger.warning("cgroup %s stays: it has processes that are not known to be the container's", path)


def _remove_cgroup(path: str, expected: tuple[int, int]) -> bool:
    """Remove a cgroup and what is below it; whether it is gone."""
    try:
        cgroups.remove_cgroup(path, expected)
    except OSError:
        return False
    return True


async def sweep_cgroups(log: bytes, timeout: float) -> None:
    """Remove the cgroups that a runtime says it could not remove when a container had ended.

    On a busy machine a cgroup can stay busy for a moment after its last process. runc tries for 150 ms, logs the
    failure with the paths, forgets the container and reports success.

    :param log: the runtime's log of the call.
    :param timeout: seconds to go on trying.
    """
    if not UNREMOVED.search(log):
        return
    lines = [line for line in log.splitlines() if UNREMOVED.search(line)]
    paths = {os.fsdecode(path.rstrip(b":,")) for line in lines for path in CGROUP_PATH.findall(line)}
    named = {path: identity for path in paths if (identity := cgroups.identity(path)) is not None}
    if named:
        await clear_cgroups(named, timeout)


def unmount_cgyard(work_path: str, begun: int) -> None:
    """Unmount what a killed CRIU has mounted in its work path: the cgroups, to restore a container's.

    :param begun: when the call began, in nanoseconds since the epoch; an older mount is another call's.
    :raises OSError: it cannot be unmounted.
    """
    yard = re.compile(re.escape(work_path) + r"/\.criu\.cgyard\.\w{6}")
    for point in _mount_points_below(work_path):
        if yard.fullmatch(point) and os.stat(point).st_ctime_ns >= begun:
            mounts.unmount(point)
            os.rmdir(point)
