"""The output of a running job: kept for its result, and a stream of it to read meanwhile."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import anyio
from anyio.abc import ByteReceiveStream

from .._io import OutputCollector

if TYPE_CHECKING:
    from collections.abc import Callable

    from .._eventloop.streams import FdReceiveStream

__all__ = ["JobOutput"]


class JobOutput(ByteReceiveStream):
    """What a job writes to one stream, from the beginning. It need not be read; a slow reader does not stop the job.

    With `Job.tail` a slow reader misses what is not kept any more.

    :param limit: bytes that are kept.
    :param tail: whether these are the last ones.
    :param exceeded: called when there is more than that, and the first ones are kept.
    """

    def __init__(self, limit: int, *, tail: bool, exceeded: Callable[[], object]) -> None:
        self.collector = OutputCollector(limit, tail=tail)
        self._tail = tail
        self._exceeded = exceeded
        self._offset = 0
        self._is_over = False
        self._is_closed = False
        self._changed = anyio.Event()

    async def read(self, stream: FdReceiveStream) -> None:
        """Keep what comes from a pipe, to its end."""
        with contextlib.suppress(anyio.EndOfStream):
            while True:
                self.collector.add(await stream.receive())
                self._wake()
                if self.collector.dropped and not self._tail:
                    self._exceeded()

    def finish(self, stream: FdReceiveStream) -> None:
        """Read the rest of the pipe, which nothing writes to any more."""
        self.collector.drain(stream)
        self.end()

    def end(self) -> None:
        """No more comes."""
        self._is_over = True
        self._wake()

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Read at most so many bytes, as soon as there are any.

        :raises anyio.EndOfStream: the program has ended, and everything was read.
        """
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be positive, not {max_bytes}")
        await anyio.lowlevel.checkpoint()
        while True:
            if self._is_closed:
                raise anyio.ClosedResourceError
            gone = self.collector.dropped if self._tail else 0
            at = max(0, self._offset - gone)
            data = bytes(self.collector.data[at : at + max_bytes])
            if data:
                self._offset = gone + at + len(data)
                return data
            if self._is_over:
                raise anyio.EndOfStream
            await self._changed.wait()

    async def aclose(self) -> None:
        """Read no more. The output is kept for the result none the less."""
        self._is_closed = True
        self._wake()
        await anyio.lowlevel.checkpoint()

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
