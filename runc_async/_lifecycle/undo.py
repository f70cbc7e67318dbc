"""Takes down what a call started: after a cancellation, after a failure, and when a container's context is left."""

from __future__ import annotations

import contextlib
import logging
import signal
from typing import TYPE_CHECKING

import anyio

from .._cli.messages import failure, parse_log
from .._errors import CommandError, ContainerExistsError, ContainerNotFoundError
from .._eventloop.shield import shielded
from .._linux import procfs
from .._linux.fd_reserve import with_room
from .._linux.pidfd import Pidfd, reap_ended
from .._process import cancel
from .._process.memfile import read_log
from . import remnants
from .sandbox import kill_tree_inside

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._process.process import Process
    from .call import Started
    from .remnants import Identity
    from .runner import Runner

__all__ = ["clear", "delete", "remove", "undo"]

logger = logging.getLogger("runc_async")

THAW_AFTER = 0.2
"""Seconds after which a killed init that has not ended is taken for a frozen one."""


async def undo(runner: Runner, started: Started, process: Process, log: int) -> None:
    """Leave nothing of a command that was cancelled. Never raises; what fails is logged."""
    try:
        with anyio.fail_after(3 * runner.settings.cleanup_timeout):
            await with_room(_undo, runner, started, process, log)
    except Exception:
        logger.exception("%s %s was cancelled, and could not be cleaned up", started.command.name, started.id)


async def _undo(runner: Runner, started: Started, process: Process, log: int) -> None:
    command = started.command
    if process.pid:
        await _kill_inside(runner, started, process)
    status = await cancel.abandon(process, spared=command.spared, kill_when_alone=not command.makes_container)
    if not process.pid:  # it was never started
        return
    runner_ended(runner)
    await remnants.sweep_cgroups(read_log(log), runner.settings.cleanup_timeout)
    error = failure(process.argv, status or 0, log=parse_log(read_log(log)))
    if status != 0 and isinstance(error, ContainerExistsError):
        return
    await clear(runner, started, log)


def runner_ended(runner: Runner) -> None:
    """Tell the monitor that a runtime process has ended: what that had started may be this process's to reap now."""
    runner.monitor.runtime_ended()


async def clear(runner: Runner, started: Started, log: int) -> None:
    """Remove everything that a call has left: processes, mounts, the state directory, cgroups.

    :raises OSError: a mount or a directory cannot be removed.
    """
    timeout = runner.settings.cleanup_timeout
    before = started.before
    if not started.command.makes_container:
        await _kill_inside(runner, started)
        process = remnants.open_started(started.pid_file.read(), before.begun)
        if process is not None:
            with process:
                await kill_and_wait(process)
        return
    if started.token:
        await cancel.end_strays(started.command.spared, started.token, timeout)
    work_path = started.criu_work_path
    if work_path is not None:
        remnants.unmount_cgyard(work_path, started.begun)
    pid = started.pid_file.read()
    if pid is None and not before.has_left_anything():
        return
    await remnants.kill_processes(before, pid, log, timeout, restorer=started.command.spared)
    state = before.created_state()
    if state is not None:
        remnants.unmount_root(state)
        if remnants.read_state_file(state.path) is not None:
            with contextlib.suppress(CommandError):  # what it leaves is removed below
                await runner.run("delete", {"force": True}, [started.id])
        if state.is_there():
            remnants.clear_state(state)
    elif before.state is None and runner.state_directory(started.id) is None and pid is not None:
        # Only the runtime knows where its state is; the id is this call's, since the runtime has written the pid file.
        await runner.run("delete", {"force": True}, [started.id])
    await remnants.clear_cgroups(before.created_cgroups(), timeout)


async def _kill_inside(runner: Runner, started: Started, process: Process | None = None) -> None:
    """Kill what a call has started inside a sandbox, where its pid on the host is not its own.

    :param process: the runtime process, which may not have started it yet.
    """
    if started.inner_pid_file is None:
        return
    pid = started.inner_pid_file.read()
    if pid is None and process is not None and process.is_running:
        with anyio.move_on_after(runner.settings.cleanup_timeout):
            pid = await started.inner_pid_file.wait(process)
    if pid is not None:
        await kill_tree_inside(runner, started.id, pid)


async def kill_and_wait(process: Pidfd) -> None:
    """Kill a process, wait for its end, and reap it if it has become this process's child."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGKILL)
    await process.wait()
    reap_ended(process.fileno())


async def remove(
    runner: Runner,
    id: str,
    init: Pidfd | None,
    state: Identity | None,
    cgroups: Mapping[str, tuple[int, int]] = {},
) -> None:
    """Kill a container of this client and delete it.

    ``delete --force`` polls every 100 ms for the end of what it killed. An init with a pid namespace of its own, whose
    processes all end with it, is killed here and its end awaited by pidfd, so that the runtime finds it stopped.

    :param init: the container's init; None if it has ended.
    :param state: the container's state directory; None if only the runtime knows where it is.
    :param cgroups: those that were created for the container.
    :raises CommandError: the runtime could not delete it.
    """
    if init is not None and (procfs.leads_pid_namespace(init.pid) or not runner.dialect.has_host_pids):
        await kill_init(runner, id, init, state)
    if await is_same(runner, id, init, state):
        await delete(runner, id, force=True)
    await remnants.clear_cgroups(cgroups, runner.settings.cleanup_timeout)


async def kill_init(runner: Runner, id: str, init: Pidfd, state: Identity | None) -> None:
    """Kill a container's init, whose pid namespace ends with it. A frozen one is thawed."""
    with contextlib.suppress(ProcessLookupError):
        init.send_signal(signal.SIGKILL)
    with anyio.move_on_after(THAW_AFTER):
        await init.wait()
        return
    with contextlib.suppress(CommandError):  # it was not frozen, or was thawed meanwhile
        if await is_same(runner, id, init, state):
            await runner.run("resume", {}, [id])
    await init.wait()


async def is_same(runner: Runner, id: str, init: Pidfd | None, state: Identity | None) -> bool:
    """Whether an id still means the container that it meant.

    Somebody may have deleted the container and given its id to another one.
    """
    if state is not None:
        return state.is_there()
    try:
        found = await runner.state(id)
    except ContainerNotFoundError:
        return False
    except CommandError:  # half-written state, which `delete` clears
        return True
    if found.pid > 0 and init is not None and found.pid != init.pid:
        logger.warning("container %s is another one by now and stays: its init is %d, not %d", id, found.pid, init.pid)
        return False
    return True


async def delete(runner: Runner, id: str, *, force: bool, extra_args: Sequence[str] = ()) -> None:
    """Run ``delete``, and remove a state directory that the runtime leaves.

    runc reports success although something is mounted there, which an ``exec`` that was killed can have left. With
    `force`, a state directory is also removed that the runtime cannot read, because it was killed while it wrote there.
    """
    state = remnants.identify(runner.state_directory(id))
    # A container without a state file may just be restored by another call: only `force` ends that.
    if state is not None and (force or remnants.read_state_file(state.path) is not None):
        remnants.unmount_root(state)
    try:
        await runner.run("delete", {"force": force}, [id], extra_args, on_cancel="finish")
    except CommandError:
        if not force or state is None or remnants.read_state_file(state.path) is not None:
            raise
        logger.warning("container %s: its state cannot be read, so its directory %s is removed", id, state.path)
    if state is not None:
        remnants.clear_state(state)


async def clear_failed(runner: Runner, started: Started, log: int) -> None:
    """Clear what a failed command left, if it left anything. Shielded from cancellation."""
    await shielded(clear, runner, started, log)
