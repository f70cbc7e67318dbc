"""Children by `asyncio.create_subprocess_exec`, on asyncio's own event loops."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, TypeVarTuple

from .._linux.exit_status import wait_for_exit_status
from .._linux.pidfd import reap_ended
from .posix_spawn import open_pidfd

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self, Unpack

    from .request import Request

__all__ = ["start"]

LOST = 255
"""What asyncio says of a child that somebody else has reaped; also a true status."""


async def start(request: Request) -> AsyncioChild:
    """Start a child; see `Request`."""
    if sys.version_info < (3, 12):
        _watch_children_by_pidfd()
    stdin, stdout, stderr = request.descriptors.numbered
    program, *arguments = request.argv
    child = AsyncioChild()
    options: dict[str, Any] = {"extra": _TransportInfo(child)}
    if request.process_group:
        options["process_group"] = 0
    # The event loop runs this before it reaps the child, however soon that ends: no other turn comes between.
    asyncio.get_running_loop().call_soon(child.watch)
    child.process = await asyncio.create_subprocess_exec(
        program,
        *arguments,
        executable=request.executable,
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        env=request.env,
        cwd=request.cwd,
        pass_fds=request.descriptors.kept or (),
        **options,
    )
    return child


class AsyncioChild:
    """A child that the event loop watches and reaps. Its status is read from the kernel before that, by pidfd."""

    process: asyncio.subprocess.Process

    def __init__(self) -> None:
        self.pid = 0
        self._loop = asyncio.get_running_loop()
        self._pidfd: int | None = None
        self._watching = False
        self._status: int | None = None

    def started(self, pid: int) -> None:
        """Open its pidfd, in the same step of the event loop in which it was started: before anything can reap it."""
        self.pid = pid
        with contextlib.suppress(ProcessLookupError):  # another thread waits for every child
            self._pidfd = open_pidfd(pid)

    def watch(self) -> None:
        """See to it that `_look` comes before asyncio reaps the child.

        Both wait for a pidfd of it. The kernel reports the one first that was registered last, as long as the child
        lives when that is done.
        """
        if self._pidfd is not None:
            self._watching = True
            self._loop.add_reader(self._pidfd, self._look)
            if reap_ended(self._pidfd, leave=True) is not None:
                self._look()

    def _look(self) -> None:
        assert self._pidfd is not None
        self._stop_watching()
        self._status = reap_ended(self._pidfd, leave=True)

    def _stop_watching(self) -> None:
        if self._watching:
            self._watching = False
            assert self._pidfd is not None
            self._loop.remove_reader(self._pidfd)

    async def wait(self) -> int | None:
        """See `Child.wait`."""
        told = await self.process.wait()
        if self._status is None and told != LOST:
            self._status = told
        if self._pidfd is not None:
            self._stop_watching()
            if self._status is None:
                self._status = await wait_for_exit_status(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        return self._status

    def send_signal(self, number: int) -> None:
        """See `Child.send_signal`. Not by asyncio: `subprocess.Popen.send_signal` may reap it."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)


class _TransportInfo(dict[str, object]):
    """Where the event loop puts what `BaseTransport.get_extra_info` tells: the `subprocess.Popen`, once it is there.

    When `asyncio.create_subprocess_exec` returns, the child may have ended and been reaped.
    """

    def __init__(self, child: AsyncioChild) -> None:
        super().__init__()
        self._child = child

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        if name == "subprocess":
            self._child.started(value.pid)


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

            def reap() -> None:
                loop.remove_reader(pidfd)
                status = reap_ended(pidfd)
                os.close(pidfd)
                callback(pid, LOST if status is None else status, *args)

            loop.add_reader(pidfd, reap)

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
