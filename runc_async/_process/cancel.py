"""How a runtime process is ended early. The caller shields each of these functions from cancellation.

- `kill`: at once; for commands that change nothing that could be left half done.
- `finish`: the runtime may finish first; for ``delete``.
- `interrupt`: the runtime is killed, its children may finish; for ``checkpoint``, which CRIU carries out.
- `abandon`: what the runtime is starting is killed, and the runtime may clean up after it; for commands that start
  a container or a process.

A process is signalled only through a pidfd that was opened while the process was a child or descendant of the runtime
process. The runtime process is this process's child and not reaped before the last signal is sent to it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING, Self

import anyio

from .._linux import procfs
from .._linux.pidfd import Pidfd, reap_ended

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .process import Process

__all__ = ["TOKEN", "Descendants", "abandon", "end_strays", "finish", "interrupt", "kill"]

TOKEN = "RUNC_ASYNC_CALL"
"""The variable by which `end_strays` knows the descendants of a runtime process that has ended."""

RETRY = 0.003
"""Seconds between two looks at the children of a runtime process that is being abandoned."""
STOPS_WITHIN = 0.1
"""Seconds that a runtime process gets to stop. One that does not is in the middle of a system call."""
COPIES_FOR = 0.1
"""Seconds that ``exec`` gets to end after its process has gone: it may still copy what is in its streams."""
MOST_LOOKS = 10
"""How often a tree of processes is looked at until no look finds a new process."""


async def kill(process: Process) -> None:
    """Kill the process and reap it, and those of its children that have ended.

    These may become this process's to reap: a Go program that asks for its first pidfd starts a child that ends
    at once.
    """
    if not process.is_running:
        return
    await _stop(process)
    with Descendants() as ended:
        for pid in procfs.children(process.pid):
            ended.add(pid, process.pid)
        process.send_signal(signal.SIGKILL)
        await process.reap()
        ended.reap()


async def finish(process: Process) -> None:
    """Let the process end by itself within ``cleanup_timeout``, then kill it."""
    if process.is_running:
        with anyio.move_on_after(process.settings.cleanup_timeout):
            await process.reap()
        await kill(process)


async def interrupt(process: Process) -> None:
    """Kill the process, let its children end by themselves within ``cleanup_timeout``, then kill them, too.

    CRIU answers the loss of its runtime by letting go the container that it was writing. CRIU killed outright leaves
    the container's tasks frozen.
    """
    if not process.is_running:
        return
    await _stop(process)
    with Descendants() as children:
        for pid in procfs.children(process.pid):
            children.add(pid, process.pid)
        await kill(process)
        with anyio.move_on_after(process.settings.cleanup_timeout):
            await children.wait()
        children.kill()


async def abandon(process: Process, *, spared: str = "", kill_when_alone: bool = False) -> int | None:
    """Kill what the process is starting, let it clean up after that, and reap it.

    A runtime that is killed while it makes a container leaves its init, its cgroup or both. A runtime whose children
    are killed handles the error and removes what it made. It is killed itself only after ``cleanup_timeout``.

    :param spared: the name of a child that is not killed at first, but only its own children: CRIU, which leaves mounts
        in its work path when it is killed.
    :param kill_when_alone: kill the process when it has been without children for `COPIES_FOR` seconds: ``exec`` has
        nothing to clean up, and may go on to copy the streams that other processes hold open.
    :returns: its exit status, ``-N`` when signal N ended it; None if it was never started, or if that cannot be known.
    """
    timeout = process.settings.cleanup_timeout
    with Descendants() as descendants:
        for name in (spared, "") if spared else ("",):
            with anyio.move_on_after(timeout):
                await _kill_descendants_until_end(process, descendants, name, kill_when_alone=kill_when_alone)
        if process.is_running:
            await _stop(process)
            descendants.add_tree(process.pid)
            await kill(process)
            descendants.kill()
        with anyio.move_on_after(timeout):
            await descendants.wait()
    return process.status


async def end_strays(name: str, token: str, timeout: float) -> None:
    """End the processes of a program that a runtime process has left, because somebody else has killed it.

    :param name: the program's: CRIU. As in `abandon`, its own children are killed first.
    :param token: the value of `TOKEN`, which no process has but the descendants of that runtime process.
    :param timeout: seconds in which it may end by itself then.
    """
    mark = f"{TOKEN}={token}".encode()
    with Descendants() as strays, Descendants() as below:
        for pid in procfs.processes():
            found = procfs.stat(pid) if procfs.comm(pid) == name and mark in procfs.environ(pid) else None
            if found is not None:
                strays.add(pid, found.parent)
                below.add_tree(pid)
        with anyio.move_on_after(timeout):
            while below.kill():
                await below.wait()
                for pid in strays:
                    below.add_tree(pid)
            await strays.wait()
        strays.kill()
        with anyio.move_on_after(timeout):
            await strays.wait()


async def _kill_descendants_until_end(
    process: Process, descendants: Descendants, spared: str, *, kill_when_alone: bool
) -> None:
    alone_since = anyio.current_time()
    while process.is_running:
        if procfs.children(process.pid):
            alone_since = anyio.current_time()
            await _kill_descendants(process, descendants, spared)
        with anyio.move_on_after(RETRY):
            await process.reap()
        if kill_when_alone and anyio.current_time() > alone_since + COPIES_FOR:
            await _kill_if_alone(process)


async def _kill_descendants(process: Process, descendants: Descendants, spared: str) -> None:
    """Kill what is below the process while the process is stopped: else it could end before all are found."""
    process.send_signal(signal.SIGSTOP)
    try:
        _hold_descendants(process, descendants, spared)
        while descendants.kill():
            await descendants.wait()
            _hold_descendants(process, descendants, spared)  # ``crun exec`` inherits what its process leaves
    finally:
        process.send_signal(signal.SIGCONT)


def _hold_descendants(process: Process, descendants: Descendants, spared: str) -> None:
    if not spared:
        descendants.add_tree(process.pid)
        return
    for pid in procfs.children(process.pid):
        if procfs.comm(pid) == spared:
            descendants.add_tree(pid)
        else:
            descendants.add(pid, process.pid)


async def _kill_if_alone(process: Process) -> None:
    await _stop(process)
    if procfs.children(process.pid):
        process.send_signal(signal.SIGCONT)
    else:
        await kill(process)


async def _stop(process: Process) -> None:
    """SIGSTOP the process so that its list of children cannot change while we read it."""
    process.send_signal(signal.SIGSTOP)
    for _ in range(round(STOPS_WITHIN / RETRY)):
        if _has_stopped(process.pid):
            return
        await anyio.sleep(RETRY)


def _has_stopped(pid: int) -> bool:
    """Whether a child of this process has stopped, with all its threads, or ended."""
    try:
        return os.waitid(os.P_PID, pid, os.WSTOPPED | os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:
        return True


class Descendants:
    """Processes below a runtime process, each held by a pidfd that was opened while it was there. A context manager.

    When the runtime process has ended, they may be this process's to reap.
    """

    def __init__(self) -> None:
        self._processes: dict[int, Pidfd] = {}
        self._killed: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for process in self._processes.values():
            process.close()

    def __iter__(self) -> Iterator[int]:
        return iter(self._processes)

    def add(self, pid: int, parent: int) -> None:
        """Hold a process, if it is still a child of the process that was its parent when `pid` was read."""
        if pid in self._processes:
            return
        with contextlib.suppress(ProcessLookupError):
            process = Pidfd.open(pid)
            # Read after the pidfd was opened: if the process is the parent's child now, it is the one that was listed.
            found = procfs.stat(pid)
            if found is not None and found.parent == parent:
                self._processes[pid] = process
            else:
                process.close()

    def add_tree(self, pid: int) -> None:
        """Hold everything below a process, and stop it, so that nothing new appears there unseen.

        What leads a pid namespace is not looked into: its processes end with it.
        """
        for _ in range(MOST_LOOKS):
            known = len(self._processes)
            self._add_below(pid)
            if len(self._processes) == known:
                return

    def _add_below(self, pid: int) -> None:
        pending = [pid]
        while pending:
            parent = pending.pop()
            for child in procfs.children(parent):
                if child not in self._processes:
                    self.add(child, parent)
                    if child in self._processes:
                        _send(self._processes[child], signal.SIGSTOP)
                if child in self._processes and not procfs.leads_pid_namespace(child):
                    pending.append(child)

    def kill(self) -> bool:
        """Kill those that were not killed yet; whether there were any."""
        fresh = self._processes.keys() - self._killed
        for pid in fresh:
            _send(self._processes[pid], signal.SIGKILL)
        self._killed |= fresh
        return bool(fresh)

    def reap(self) -> None:
        """Reap those that have ended and are this process's children by now."""
        for process in self._processes.values():
            reap_ended(process.fileno())

    async def wait(self) -> None:
        """Wait until all have ended: until then their cgroup is busy. Reap those that are this process's children."""
        for process in self._processes.values():
            await process.wait()
            reap_ended(process.fileno())


def _send(process: Pidfd, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # newuidmap is set-user-id, and ends by itself
        process.send_signal(number)
