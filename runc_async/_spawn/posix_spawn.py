"""Children by ``posix_spawn``: on uvloop, on trio, and wherever numbers of descriptors are chosen.

No event loop can choose them (CPython issue 107573). uvloop forks, which takes the longer the larger this process is,
and lets no caller choose argv[0]. trio starts a child from a worker thread: that is a thread hop per call, and the
end of that thread, ten idle seconds later, would be the end of the child's parent for ``PR_SET_PDEATHSIG``.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import TYPE_CHECKING

from .._eventloop.readable import wait_until_readable
from .._linux.exit_status import wait_for_exit_status
from .._linux.libc import posix_spawn

if TYPE_CHECKING:
    from .request import Request

__all__ = ["start"]


async def start(request: Request) -> PidfdChild:
    """Start a child; see `Request`."""
    sources = request.descriptors.numbered
    spare = os.dup(sources[0])  # keeps a number free for the pidfd, so that a child that was started can be watched
    try:
        pid = posix_spawn(
            request.executable,
            request.argv,
            request.env,
            sources,
            cwd=request.cwd,
            process_group=request.process_group,
        )
    finally:
        os.close(spare)
    return PidfdChild(pid)


class PidfdChild:
    """A child that no event loop knows, waited for by pidfd."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._status: int | None = None
        self._pidfd: int | None = None
        # Where SIGCHLD is ignored, or another thread waits for every child, it may have been reaped already.
        with contextlib.suppress(ProcessLookupError):
            self._pidfd = open_pidfd(pid)

    async def wait(self) -> int | None:
        """See `Child.wait`."""
        if self._pidfd is not None:
            await wait_until_readable(self._pidfd)
            self._status = await wait_for_exit_status(self._pidfd)
            os.close(self._pidfd)
            self._pidfd = None
        return self._status

    def send_signal(self, number: int) -> None:
        """See `Child.send_signal`."""
        if self._pidfd is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._pidfd, number)


def open_pidfd(pid: int) -> int:
    """Open the pidfd of a child that was just started. If no descriptor is free, the child is killed and reaped.

    :raises ProcessLookupError: it has ended and was reaped.
    """
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        raise
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        raise
