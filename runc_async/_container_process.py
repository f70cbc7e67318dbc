"""`ContainerProcess`: a further process in a container."""

from __future__ import annotations

import contextlib
import signal as signals
from typing import TYPE_CHECKING

import anyio

from ._linux.signals import signal_number
from ._monitor import Watched, make_exit

if TYPE_CHECKING:
    from ._io import IO
    from ._lifecycle.start import Launched
    from ._models import Exit
    from ._monitor import Monitor

__all__ = ["ContainerProcess"]


class ContainerProcess:
    """A further process in a container, from `Container.exec`.

    :ivar pid: its pid on the host.
    :ivar io: its streams, as given to `Container.exec`.
    """

    def __init__(self, launched: Launched, io: IO | None, monitor: Monitor | None) -> None:
        self.pid = launched.started_pid or 0
        self.io = io
        self._launched = launched
        self._monitor = monitor
        """The monitor of its end, if the runtime process does not stay with it."""
        self._waiting = anyio.Lock()
        self._exit: Exit | None = None
        self._process = launched.open_started()
        self._watched: Watched | None = None
        if self._process is not None:
            if monitor is not None:
                monitor.started(self._process)
            else:
                self._watched = Watched(self._process)

    def __repr__(self) -> str:
        return f"<ContainerProcess pid={self.pid}>"

    async def wait(self) -> Exit:
        """Wait until it has ended. Any number of tasks may, at once and again afterwards.

        :returns: its `Exit`: the status as a shell gives it (128 + N for signal N).
        """
        async with self._waiting:
            if self._exit is None and self._monitor is not None:
                self._exit = await self._wait_monitored(self._monitor)
            if self._exit is None:
                status = await self._launched.wait()
                ended = self._watched.timestamp if self._watched else None
                self._exit = make_exit(self.pid, status, ended)
        return self._exit

    async def kill(self, signal: int | signals.Signals | str = signals.SIGTERM) -> None:
        """Send it a signal: by pidfd, or by the runtime if its pid on the host is not its own (gVisor).

        :param signal: a number, a `signal.Signals` or a name, with or without ``SIG``.
        :raises ProcessLookupError: it has ended.
        """
        if self._process is None:
            raise ProcessLookupError(f"process {self.pid} has ended")
        number = 0 if signal == 0 else signal_number(signal)
        if not await self._launched.signal_inside(number):
            self._process.send_signal(number)
        await anyio.lowlevel.checkpoint()

    async def _wait_monitored(self, monitor: Monitor) -> Exit:
        if self._process is None:
            return make_exit(self.pid, None)
        return await monitor.wait(self._process)

    async def _leave(self) -> None:
        if self._process is None:
            return
        if self._monitor is not None:
            with contextlib.suppress(ProcessLookupError):
                if not await self._launched.signal_inside(signals.SIGKILL):
                    self._process.send_signal(signals.SIGKILL)
            await self._process.wait()
            self._monitor.forgotten(self._process)
        if self._watched is not None:
            self._watched.close()
        self._process.close()
