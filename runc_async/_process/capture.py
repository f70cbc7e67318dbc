"""Runs a command to its end and captures what it prints and logs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, NamedTuple

import anyio

from .._eventloop.shield import shielded
from . import cancel
from .limiter import LONGEST_TURN, turns
from .memfile import has_overflowed, memory_file, read_log, read_output
from .process import Process, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .child_fds import ChildFds

__all__ = ["OnCancel", "Outcome", "run"]

OnCancel = Literal["kill", "finish", "interrupt"]
"""How the runtime process of a cancelled call is ended: see the functions of these names in `cancel`."""

STDOUT_LIMIT = 16 << 20
STDERR_LIMIT = 1 << 20


class Outcome(NamedTuple):
    """What a runtime process left when it ended."""

    argv: tuple[str, ...]
    status: int
    stdout: bytes = b""
    stderr: bytes = b""
    log: bytes = b""
    overflowed: bool = False
    """Whether its output reached the limit."""


async def run(
    settings: Settings,
    arguments: Sequence[str],
    env: Mapping[str, str] | None,
    fds: ChildFds,
    log: int,
    on_cancel: OnCancel = "kill",
) -> Outcome:
    """Run a command that starts nothing that outlives it, and capture what it prints and logs.

    A cancellation first ends the runtime process as `on_cancel` says, and then goes on.

    :param fds: the descriptors of the call.
    :param log: the descriptor among them that the runtime logs to.
    """
    stdin = fds.adopt(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    stdout = fds.adopt(memory_file("stdout", limit=STDOUT_LIMIT))
    stderr = fds.adopt(memory_file("stderr", limit=STDERR_LIMIT))
    fds.stdio(stdin, stdout, stderr)
    process = Process(settings, fds, arguments, env, log)
    try:
        async with turns() as turn:
            await process.start()
            fds.close(stdout, stderr, log)
            if turn.value == 0:  # A process that hangs must not hold up the other calls: the last turn is limited.
                with anyio.move_on_after(LONGEST_TURN):
                    await process.wait()
            else:
                await process.wait()
        status = await process.wait()
    except BaseException:
        await shielded(_ON_CANCEL[on_cancel], process)
        raise
    return Outcome(
        process.argv,
        status,
        read_output(stdout),
        read_output(stderr),
        read_log(log),
        has_overflowed(stdout),
    )


_ON_CANCEL = {"kill": cancel.kill, "finish": cancel.finish, "interrupt": cancel.interrupt}
