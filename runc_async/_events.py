"""The events of a container, as the runtime prints them: one JSON object per line."""

from __future__ import annotations

import contextlib
import math
import os
from typing import TYPE_CHECKING

import anyio
import msgspec

from . import _output
from ._call import Outcome, Process
from ._errors import CommandError, DecodeError
from ._models import Event, decode
from ._shield import in_trio, shielded
from ._streams import FdReceiveStream
from ._watch import Watch

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
    from typing import Self

    from ._leases import Leases
    from ._pidfd import Pidfd

__all__ = ["event_stream"]

LINE_LIMIT = 1 << 20
"""The most bytes that one event can have."""

LAST_WORDS = 0.25
"""Seconds after the container's end in which the runtime may still report, say, that it ran out of memory."""


@contextlib.asynccontextmanager
async def event_stream(
    process: Process,
    leases: Leases,
    log: int,
    error: Callable[[Outcome], Awaitable[CommandError]],
    init: Pidfd | None,
) -> AsyncGenerator[AsyncIterator[Event]]:
    """Start ``events`` and give its events; on leaving, kill and reap it.

    :param error: makes the exception for a failure.
    :param init: the container's; its end is the end of the events, since runc goes on until the cgroup is gone.
    """
    ours, theirs = os.pipe()
    stdout = leases.adopt(theirs)
    async with FdReceiveStream(ours) as stream:
        null = leases.adopt(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        stderr = leases.adopt(_output.memory_file("stderr", limit=_output.STDERR_LIMIT))
        leases.stdio(null, stdout, stderr)
        try:
            await process.start()
            leases.close(log, stderr)
            with _Deadline(init) as deadline:
                events = _events(process, stream, stderr, log, error, deadline)
                async with contextlib.aclosing(events):
                    yield events
        finally:
            await shielded(process.kill)


def _clock() -> Callable[[], float]:
    """The event loop's clock. Not anyio's: callbacks of a loop that anyio did not start cannot ask that one."""
    if in_trio():
        import trio

        return trio.current_time
    import asyncio

    return asyncio.get_running_loop().time


class _Deadline:
    """The time after which nothing more is waited for: known as soon as the container has ended."""

    def __init__(self, init: Pidfd | None) -> None:
        self._time = math.inf
        self._now = _clock()
        self._scope: anyio.CancelScope | None = None
        self._watch = None if init is None else Watch(init.fileno(), lambda _: self._begin())

    def _begin(self) -> None:
        self._time = self._now() + LAST_WORDS
        if self._scope is not None:
            self._scope.deadline = self._time

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._watch is not None:
            self._watch.close()

    async def receive(self, stream: FdReceiveStream) -> bytes | None:
        """What comes next; None when the time is up."""
        with anyio.CancelScope(deadline=self._time) as self._scope:
            return await stream.receive()
        return None


async def _events(
    process: Process,
    stream: FdReceiveStream,
    stderr: int,
    log: int,
    error: Callable[[Outcome], Awaitable[CommandError]],
    deadline: _Deadline,
) -> AsyncGenerator[Event, None]:
    rest = b""
    stopped = False
    while True:
        try:
            received = await (stream.receive() if stopped else deadline.receive(stream))
        except anyio.EndOfStream:
            break
        if received is None:
            stopped = True
            await shielded(process.kill)
            continue  # with what is in the pipe
        data = rest + received
        *lines, rest = data.split(b"\n")
        for line in lines:
            if line.strip():
                yield _event(process, line)
        if len(rest) > LINE_LIMIT:
            raise DecodeError(process.argv, rest, f"an event of more than {LINE_LIMIT} bytes")
    if rest.strip() and not stopped:
        yield _event(process, rest)
    status = await process.wait()
    if status and not stopped:
        raise await error(Outcome(process.argv, status, stderr=_output.printed(stderr), log=_output.logged(log)))


def _event(process: Process, line: bytes) -> Event:
    try:
        return decode(Event, line)
    except (msgspec.DecodeError, ValueError) as exc:
        raise DecodeError(process.argv, line, str(exc)) from exc
