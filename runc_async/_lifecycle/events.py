"""The events of a container, as the runtime prints them: one JSON object per line."""

from __future__ import annotations

import contextlib
import math
import os
from collections import deque
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import anyio
import msgspec

from .._cli.command_line import command_line
from .._errors import CommandError, DecodeError
from .._eventloop.detect import clock
from .._eventloop.readable import Watch
from .._eventloop.shield import at_checkpoints_only, shielded
from .._eventloop.streams import FdReceiveStream
from .._linux.pidfd import Pidfd
from .._models import Event, decode
from .._process import cancel, capture
from .._process.capture import Outcome
from .._process.memfile import memory_file, read_log, read_output
from .._process.process import Process

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from typing import Self

    from .runner import Runner

__all__ = ["stream_events"]

LINE_LIMIT = 1 << 20
"""The most bytes that one event can have."""

LAST_WORDS = 0.25
"""Seconds after the container's end in which the runtime may still report, say, that it ran out of memory."""


@contextlib.asynccontextmanager
@at_checkpoints_only
async def stream_events(
    runner: Runner, id: str, interval: float, extra_args: Sequence[str]
) -> AsyncGenerator[AsyncIterator[Event]]:
    """Run ``events`` and give its events until the container's init has ended; on leaving, kill the runtime process."""
    state = await runner.state(id)
    options = {"interval": interval}
    line = command_line("events", options, positional=[id], extra_args=extra_args, dialect=runner.dialect)
    with contextlib.ExitStack() as stack:
        init = None
        if state.pid > 0:
            with contextlib.suppress(ProcessLookupError):
                init = stack.enter_context(Pidfd.open(state.pid))
        fds, log = stack.enter_context(runner.open_descriptors())
        read_end, write_end = os.pipe()
        stdout = fds.adopt(write_end)
        async with FdReceiveStream(read_end) as stream:
            null = fds.adopt(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
            stderr = fds.adopt(memory_file("stderr", limit=capture.STDERR_LIMIT))
            fds.stdio(null, stdout, stderr)
            arguments = runner.build_arguments(fds, log, line)
            process = Process(runner.settings, fds, arguments, runner.build_environment(), log)
            try:
                await process.start()
                fds.close(log, stderr)
                # runc goes on until the cgroup is gone; the events end with the container's init.
                with _Deadline(init) as deadline:
                    events = _Events(runner, process, stream, stderr, log, deadline)
                    try:
                        yield events
                    finally:
                        events.close()
            finally:
                await shielded(cancel.kill, process)


class _Deadline:
    """The time after which nothing more is waited for: known as soon as the container has ended."""

    def __init__(self, init: Pidfd | None) -> None:
        self._time = math.inf
        self._now = clock()
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


class _Events(AsyncIterator[Event]):
    """The iterator. No generator, since one that is cancelled has ended; of this one the next step goes on."""

    def __init__(
        self, runner: Runner, process: Process, stream: FdReceiveStream, stderr: int, log: int, deadline: _Deadline
    ) -> None:
        self._runner = runner
        self._process = process
        self._stream = stream
        self._stderr = stderr
        self._log = log
        self._deadline = deadline
        self._lines: deque[bytes] = deque()
        self._rest = b""
        self._stopped = False
        """Whether the runtime was killed, since its container has ended."""
        self._no_more = False
        """Whether the runtime has closed its end."""
        self._closed = False

    def close(self) -> None:
        """There are none after this."""
        self._closed = True

    async def __anext__(self) -> Event:
        try:
            while not self._closed:
                while self._lines:
                    line = self._lines.popleft()
                    if line.strip():
                        return _event(self._process, line)
                if self._no_more:
                    await self._check_status()
                    self._closed = True
                else:
                    await self._read()
        except (CommandError, DecodeError):
            self._closed = True
            raise
        raise StopAsyncIteration

    async def _read(self) -> None:
        try:
            received = await (self._stream.receive() if self._stopped else self._deadline.receive(self._stream))
        except anyio.EndOfStream:
            self._no_more = True
            if not self._stopped:
                self._lines.append(self._rest)
            return
        if received is None:
            self._stopped = True
            await shielded(cancel.kill, self._process)
            return  # and read what is in the pipe
        *lines, self._rest = (self._rest + received).split(b"\n")
        self._lines.extend(lines)
        if len(self._rest) > LINE_LIMIT:
            raise DecodeError(self._process.argv, self._rest, f"an event of more than {LINE_LIMIT} bytes")

    async def _check_status(self) -> None:
        status = await self._process.wait()
        if status and not self._stopped:
            stderr, log = read_output(self._stderr), read_log(self._log)
            raise await self._runner.make_error(Outcome(self._process.argv, status, stderr=stderr, log=log))


def _event(process: Process, line: bytes) -> Event:
    try:
        return decode(Event, line)
    except (msgspec.DecodeError, ValueError) as exc:
        raise DecodeError(process.argv, line, str(exc)) from exc
