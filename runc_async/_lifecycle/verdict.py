"""Tells the runtime's own failure from the exit status of what it ran.

A runtime writes its pid file only after it has started the process. So a call without a pid file has started nothing,
whatever its status; and a foreground call with one gives the process's own status.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio

from .._cli.messages import may_have_ended, parse_log
from .._errors import (
    BundleError,
    CommandError,
    ContainerExistsError,
    ContainerNotFoundError,
    ContainerNotRunningError,
)
from .._linux import procfs
from .._linux.pidfd import Pidfd
from . import undo
from .remnants import open_started

if TYPE_CHECKING:
    from .._process.capture import Outcome
    from .call import Started
    from .runner import Runner

__all__ = ["judge"]

ENDS_WITHIN = 0.25
"""Seconds in which a container ends in which ``exec`` failed because it was ending."""


async def judge(runner: Runner, started: Started, outcome: Outcome, log: int) -> None:
    """Return if the status of an outcome is that of the process that the runtime started.

    :param log: the descriptor of the call's log.
    :raises CommandError: the runtime failed; what it left has been removed.
    """
    pid = started.pid_file.read()
    has_failed = outcome.status == runner.dialect.failure_status and _has_logged_error(outcome)
    if pid is not None and not has_failed and _is_the_processs_own(outcome.status, pid, started):
        return
    try:
        error = await _explain(runner, started, outcome)
        if may_have_ended(error) and await _ends(runner, started.id):
            error = ContainerNotRunningError(error.argv, error.status, error.message, error.log)
    except BaseException:  # cancelled, or the runtime could not be asked
        await undo.clear_failed(runner, started, log)
        raise
    if not isinstance(error, ContainerExistsError):  # what exists belongs to another call
        await undo.clear_failed(runner, started, log)
    raise error


def _has_logged_error(outcome: Outcome) -> bool:
    return any(entry.level in ("error", "fatal") for entry in parse_log(outcome.log))


def _is_the_processs_own(status: int, pid: int, started: Started) -> bool:
    if started.detached:
        return status == 0
    if status and started.names_no_program:  # crun has written its pid file by the time that its init finds out
        return False
    if status < 0:  # the runtime was killed
        return False
    # A runtime in the foreground ends after its process; if that process lives, the runtime has crashed.
    return status == 0 or not _is_alive(pid, started)


def _is_alive(pid: int, started: Started) -> bool:
    process = open_started(pid, started.before.begun)
    if process is None:
        return False
    with process:
        found = procfs.stat(pid)
        return found is not None and found.state not in "ZX"


async def _ends(runner: Runner, id: str) -> bool:
    """Whether a container has ended, or does so within `ENDS_WITHIN`: its init may be dying for a while."""
    try:
        pid = (await runner.state(id)).pid
        process = Pidfd.open(pid) if pid > 0 else None
    except (ContainerNotFoundError, ProcessLookupError):
        return True
    except CommandError:
        return False
    if process is None:
        return True
    with process, anyio.move_on_after(ENDS_WITHIN):
        await process.wait()
        return True
    return False


async def _explain(runner: Runner, started: Started, outcome: Outcome) -> CommandError:
    """Make the error of a failed call, with the runtime's reason wherever there is one."""
    if outcome.status > 0 and not outcome.log:
        found = await _ask(runner, started, outcome)
        if found is not None:
            return found
    if outcome.status == 0:
        name = started.command.name
        reason = f"the runtime ended with status 0 but started nothing: {name} wrote no pid file"
        return CommandError(outcome.argv, 0, reason, parse_log(outcome.log))
    return await runner.make_error(outcome)


async def _ask(runner: Runner, started: Started, outcome: Outcome) -> CommandError | None:
    """Find the reason of a failure that only went to stderr, which is the container's; None if there is none.

    These are an unknown flag (crun, runc 1.5), and a bundle that is missing, or whose ``config.json`` cannot be read or
    is not a specification (crun).
    """
    if started.missing_config is not None:
        message = f"{started.missing_config}: no such file"
        return BundleError(outcome.argv, outcome.status, message, parse_log(outcome.log))
    # The same flags before ``--help`` fail on the flag, or do nothing.
    answer = await runner.ask(runner.global_options, [*started.flags, "--help"])
    if answer.status:
        return await runner.make_error(answer._replace(argv=outcome.argv))
    if started.command.makes_container and started.command.reads_bundle_first:
        # With a root that cannot be, nothing can start; crun reads the bundle before it finds that out.
        others = [word for word in runner.global_options if not word.startswith("--root=")]
        answer = await runner.ask([*others, f"--root={os.devnull}"], [*started.flags, started.id])
        if answer.stderr.strip() and not answer.log:
            return await runner.make_error(answer._replace(argv=outcome.argv))
    if started.names_no_program:
        reason = "args must not be empty: config.json names no program"
        return BundleError(outcome.argv, outcome.status, reason)
    # A runtime that cannot open its log says so on stderr only. ``state`` changes nothing.
    answer = await runner.ask(runner.global_options, ["state", started.id])
    if answer.status and not answer.log:
        return await runner.make_error(answer._replace(argv=outcome.argv))
    return None
