"""Descriptors as anyio byte streams, written once for asyncio, uvloop and trio.

Nothing is buffered here: a reader that is slow fills the pipe and slows the writer.
"""

from __future__ import annotations

import contextlib
import errno
import os

import anyio
from anyio.abc import ByteReceiveStream, ByteSendStream, ByteStream

__all__ = ["FdReceiveStream", "FdSendStream", "FdStream"]


class _Fd:
    """A non-blocking descriptor that nothing else uses, closed once.

    :param fd: the descriptor; it now belongs to the stream.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._receiving = anyio.ResourceGuard("reading from")
        self._sending = anyio.ResourceGuard("writing to")
        os.set_blocking(fd, False)

    def fileno(self) -> int:
        """The descriptor.

        :raises anyio.ClosedResourceError: the stream is closed.
        """
        if self._fd < 0:
            raise anyio.ClosedResourceError
        return self._fd

    def close(self) -> None:
        """Close it at once. Idempotent; a task that waits in it gets `anyio.ClosedResourceError`."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            # Without an event loop nobody can be waiting.
            with contextlib.suppress(RuntimeError, anyio.NoEventLoopError):
                anyio.notify_closing(fd)
            os.close(fd)

    async def aclose(self) -> None:
        """Close it. Idempotent."""
        self.close()
        await anyio.lowlevel.checkpoint()

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    async def _receive(self, max_bytes: int) -> bytes:
        if max_bytes < 1:
            raise ValueError(f"max_bytes must be positive, not {max_bytes}")
        await anyio.lowlevel.checkpoint()
        with self._receiving:
            while True:
                try:
                    data = os.read(self.fileno(), max_bytes)
                except BlockingIOError:
                    await anyio.wait_readable(self._fd)
                except OSError as exc:
                    if exc.errno != errno.EIO:
                        raise anyio.BrokenResourceError from exc
                    data = b""  # how the end of a terminal looks from its master
                    break
                else:
                    break
        if not data:
            raise anyio.EndOfStream
        return data

    async def _send(self, item: bytes | bytearray | memoryview) -> None:
        await anyio.lowlevel.checkpoint()
        with self._sending, memoryview(item) as whole:
            view = whole.cast("B")
            while view:
                try:
                    view = view[os.write(self.fileno(), view) :]
                except BlockingIOError:
                    await anyio.wait_writable(self._fd)
                except OSError as exc:
                    raise anyio.BrokenResourceError from exc


class FdReceiveStream(_Fd, ByteReceiveStream):
    """The reading end of a pipe."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Read at most so many bytes, as soon as there are any.

        :raises anyio.EndOfStream: the last writer has closed its end.
        """
        return await self._receive(max_bytes)


class FdSendStream(_Fd, ByteSendStream):
    """The writing end of a pipe."""

    async def send(self, item: bytes) -> None:
        """Write all of it.

        :raises anyio.BrokenResourceError: the last reader has closed its end.
        """
        await self._send(item)


class FdStream(_Fd, ByteStream):
    """A descriptor that is read and written. What the end of what is sent looks like, a subclass says."""

    async def receive(self, max_bytes: int = 65536) -> bytes:
        """Read at most so many bytes, as soon as there are any.

        :raises anyio.EndOfStream: the other side is closed.
        """
        return await self._receive(max_bytes)

    async def send(self, item: bytes) -> None:
        """Write all of it.

        :raises anyio.BrokenResourceError: the other side is closed.
        """
        await self._send(item)
