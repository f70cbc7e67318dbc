"""The events of a container, as the runtime prints them: one JSON object per line."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import anyio
import msgspec

from . import _output
from ._call import Outcome, Process
from ._errors import CommandError, DecodeError
from ._models import Event, decode
from ._shield import shielded
from ._streams import FdReceiveStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from ._leases import Leases

__all__ = ["event_stream"]

LINE_LIMIT = 1 << 20
"""The most bytes that one event can have."""


@contextlib.asynccontextmanager
async def event_stream(
    process: Process, leases: Leases, log: int, error: Callable[[Outcome], Awaitable[CommandError]]
) -> AsyncGenerator[AsyncIterator[Event]]:
    """Start ``events`` and give its events; on leaving, kill and reap it.

    :param error: makes the exception for a failure.
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
            events = _events(process, stream, stderr, log, error)
            async with contextlib.aclosing(events):
                yield events
        finally:
            await shielded(process.kill)


async def _events(
    process: Process,
    stream: FdReceiveStream,
    stderr: int,
    log: int,
    error: Callable[[Outcome], Awaitable[CommandError]],
) -> AsyncGenerator[Event, None]:
    rest = b""
    while True:
        try:
            data = rest + await stream.receive()
        except anyio.EndOfStream:
            break
        *lines, rest = data.split(b"\n")
        for line in lines:
            if line.strip():
                yield _event(process, line)
        if len(rest) > LINE_LIMIT:
            raise DecodeError(process.argv, rest, f"an event of more than {LINE_LIMIT} bytes")
    if rest.strip():
        yield _event(process, rest)
    status = await process.wait()
    if status:
        raise await error(Outcome(process.argv, status, stderr=_output.printed(stderr), log=_output.logged(log)))


def _event(process: Process, line: bytes) -> Event:
    try:
        return decode(Event, line)
    except (msgspec.DecodeError, ValueError) as exc:
        raise DecodeError(process.argv, line, str(exc)) from exc
