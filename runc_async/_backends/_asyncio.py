"""Children by `asyncio.create_subprocess_exec`, on asyncio's own loops and on uvloop."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._base import Request


async def start(request: Request) -> AsyncioChild:
    """Start a child; see `Request`."""
    if sys.version_info < (3, 12):
        _watch_children_by_pidfd()
    stdin, stdout, stderr = request.descriptors.stdio
    program, *arguments = request.argv
    options: dict[str, Any] = {"process_group": 0} if request.process_group else {}
    if is_uvloop():
        program = request.executable  # see `can_start`
    else:
        options["executable"] = request.executable
    process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=request.env,
        cwd=request.cwd,
        pass_fds=request.descriptors.kept,
        **options,
    )
    return AsyncioChild(process)


def can_start(request: Request) -> bool:
    """Whether the running loop has every option that this child needs.

    uvloop has no ``process_group``, and its ``executable`` overwrites argv[0]: of a held descriptor the
    runtime would see ``/proc/self/fd/N`` as its own name.
    """
    return not is_uvloop() or not (request.process_group or request.executable.startswith("/proc/self/"))


def is_uvloop() -> bool:
    """Whether the running loop is uvloop's."""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0] == "uvloop"


class AsyncioChild:
    """A child that the event loop watches."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self.pid = process.pid

    async def wait(self) -> int:
        """See `Child.wait`."""
        return await self._process.wait()

    def kill(self) -> None:
        """See `Child.kill`."""
        if self._process.returncode is None:
            self._process.kill()


def _watch_children_by_pidfd() -> None:
    # The default of Python 3.11 starts a thread per child; that of 3.12 is this one.
    if sys.version_info < (3, 12):  # gone in 3.14
        if type(asyncio.get_child_watcher()) is asyncio.ThreadedChildWatcher:  # pyright: ignore[reportDeprecated]
            asyncio.set_child_watcher(asyncio.PidfdChildWatcher())  # pyright: ignore[reportDeprecated]
