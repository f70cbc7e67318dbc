"""Children by `asyncio.create_subprocess_exec`, on asyncio's own loops and on uvloop."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import TYPE_CHECKING, Any, TypeVarTuple

from .._linux.fd_reserve import room_for
from .request import reap

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self, Unpack

    from .request import Request


UVLOOP_NEEDS = 8
"""Descriptors that uvloop takes to start a child. When it gets fewer, it leaves those that it got open."""


async def start(request: Request) -> AsyncioChild:
    """Start a child; see `Request`."""
    if sys.version_info < (3, 12):
        _watch_children_by_pidfd()
    stdin, stdout, stderr = request.descriptors.stdio
    program, *arguments = request.argv
    options: dict[str, Any] = {"process_group": 0} if request.process_group else {}
    if is_uvloop():
        room_for(UVLOOP_NEEDS)
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


if sys.version_info < (3, 12):
    # Python 3.11 starts a thread per child, and its own PidfdChildWatcher serves one event loop only. Python 3.12
    # does what follows. The watcher is the event loop policy's, so this holds for the whole process; one that
    # somebody else has chosen stays.

    _Ts = TypeVarTuple("_Ts")

    class _PidfdWatcher(asyncio.AbstractChildWatcher):
        """Waits for each child by pidfd, in the event loop that started it."""

        def add_child_handler(self, pid: int, callback: Callable[[int, int, Unpack[_Ts]], object], *args: *_Ts) -> None:
            loop = asyncio.get_running_loop()
            pidfd = os.pidfd_open(pid)

            def ended() -> None:
                loop.remove_reader(pidfd)
                os.close(pidfd)
                callback(pid, reap(pid), *args)

            loop.add_reader(pidfd, ended)

        def remove_child_handler(self, pid: int) -> bool:
            return True  # asyncio closes the transport by waiting for the end

        def attach_loop(self, loop: asyncio.AbstractEventLoop | None) -> None:
            pass

        def is_active(self) -> bool:
            return True

        def close(self) -> None:
            pass

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *exc: object) -> None:
            pass

    def _watch_children_by_pidfd() -> None:
        if type(asyncio.get_child_watcher()) is asyncio.ThreadedChildWatcher:  # pyright: ignore[reportDeprecated]
            asyncio.set_child_watcher(_PidfdWatcher())  # pyright: ignore[reportDeprecated]
