"""IO strategies: what a container's stdin, stdout and stderr are."""

from __future__ import annotations

import abc
import contextlib
import math
import os
import stat
import threading
from typing import TYPE_CHECKING, NamedTuple

import anyio

from ._eventloop.shield import shielded
from ._eventloop.streams import FdReceiveStream, FdSendStream
from ._linux.descriptors import number_of

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from anyio.abc import ByteReceiveStream, ByteSendStream

    from ._cli.options import StrPath
    from ._linux.descriptors import Descriptor

__all__ = ["IO", "FileIO", "InheritIO", "NullIO", "OutputCollector", "PipeIO", "Stdio", "feed"]


class Stdio(NamedTuple):
    """The descriptors that a container gets as 0, 1 and 2. None is ``/dev/null``."""

    stdin: int | None = None
    stdout: int | None = None
    stderr: int | None = None


class IO(abc.ABC):
    """The strategy by which a container gets its streams.

    To write one, implement `open`. The call duplicates what `open` gives; it calls `started` right after the
    start of the runtime, and also when it was never started.
    """

    @abc.abstractmethod
    async def open(self) -> Stdio:
        """The container's ends, which stay this object's own. May wait, without blocking the loop.

        :raises OSError: one cannot be opened; then nothing is started.
        """

    def started(self) -> None:  # noqa: B027
        """The child has its own copies, or never will: close the container's ends.

        Only then does a reader see the end of a stream when the last process in the container closes it.
        """

    async def aclose(self) -> None:
        """Close whatever is still open on our side. Idempotent."""
        self.started()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class NullIO(IO):
    """``/dev/null`` for all three."""

    async def open(self) -> Stdio:
        """See `IO.open`."""
        return Stdio()


class InheritIO(IO):
    """This process's own stdin, stdout and stderr."""

    async def open(self) -> Stdio:
        """See `IO.open`.

        :raises OSError: one of them is not open (``EBADF``).
        """
        return Stdio(0, 1, 2)


class FileIO(IO):
    """Files for the container's streams, each a path, a descriptor (an int or an object with ``fileno()``), or None.

    :param stdin: read from its beginning.
    :param stdout: written to; a path is made if it is missing.
    :param stderr: the same; one path for both is opened once, so that lines stay whole.
    :param append: whether what is there stays, and every write goes to the end, as for logs; else it is truncated.
    :param mode: permissions of a file that is made.
    :raises TypeError: neither a path nor a descriptor.

    A path may be a FIFO. As in a shell, opening it then waits until somebody opens its other end; the event loop goes
    on meanwhile. None is ``/dev/null``. Descriptors are duplicated when the call starts; the caller keeps its own.
    """

    def __init__(
        self,
        *,
        stdin: Descriptor | StrPath | None = None,
        stdout: Descriptor | StrPath | None = None,
        stderr: Descriptor | StrPath | None = None,
        append: bool = True,
        mode: int = 0o644,
    ) -> None:
        self._ends = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        for name, end in self._ends.items():
            if end is not None and not isinstance(end, str | os.PathLike):
                number_of(end, name)
        self._append = append
        self._mode = mode
        self._opened: list[int] = []

    async def open(self) -> Stdio:
        """See `IO.open`."""
        found: dict[object, int] = {}
        numbers: list[int | None] = []
        writing = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if self._append else os.O_TRUNC)
        try:
            for name, end in self._ends.items():
                if end is None:
                    numbers.append(None)
                elif isinstance(end, str | os.PathLike):
                    key = name == "stdin", os.path.abspath(end)
                    if key not in found:
                        found[key] = await self._open(end, os.O_RDONLY if name == "stdin" else writing)
                    numbers.append(found[key])
                else:
                    numbers.append(number_of(end, name))
        except BaseException:
            self.started()
            raise
        return Stdio(*numbers)

    async def _open(self, path: StrPath, flags: int) -> int:
        if _is_fifo(path):
            fd = await _open_fifo(os.fspath(path), flags & os.O_ACCMODE)
        else:
            fd = os.open(path, flags | os.O_CLOEXEC | os.O_NOCTTY, self._mode)
        self._opened.append(fd)
        return fd

    def started(self) -> None:
        """See `IO.started`."""
        opened, self._opened = self._opened, []
        for fd in opened:
            os.close(fd)


def _is_fifo(path: StrPath) -> bool:
    try:
        return stat.S_ISFIFO(os.stat(path).st_mode)
    except FileNotFoundError:
        return False


async def _open_fifo(path: str, flags: int) -> int:
    """Open a FIFO when its other end is opened. Nothing but a thread can wait for that."""
    opening = _FifoOpening(path, flags)
    unlimited = anyio.CapacityLimiter(math.inf)  # one that waits for its other end must not hold up the others
    try:
        return await anyio.to_thread.run_sync(opening.run, abandon_on_cancel=True, limiter=unlimited)
    except BaseException:
        opening.abandon()
        # Until the thread has let go, somebody who opens the other end would take it for his reader or writer.
        await shielded(anyio.to_thread.run_sync, opening.ended.wait, limiter=unlimited)
        raise


class _FifoOpening:
    """The opening of a FIFO in a thread, which can be let go."""

    def __init__(self, path: str, flags: int) -> None:
        self._flags = flags | os.O_CLOEXEC
        self._held = os.open(path, os.O_PATH | os.O_CLOEXEC)  # the same FIFO, whatever becomes of its name
        self._path = f"/proc/self/fd/{self._held}"
        self._lock = threading.Lock()
        self._begun = False
        self._fd = -1
        self._other_end = -1
        self.ended = threading.Event()

    def run(self) -> int:
        """Open it; in the thread."""
        with self._lock:
            if self.ended.is_set():
                return -1
            self._begun = True
        try:
            self._fd = os.open(self._path, self._flags)
        finally:
            with self._lock:
                self._end(abandoned=self._other_end >= 0)
        return self._fd

    def abandon(self) -> None:
        """Nobody wants it any more: open the other end, so that the thread goes on, and close both."""
        with self._lock:
            if self.ended.is_set() or not self._begun:
                self._end(abandoned=True)
            else:
                self._other_end = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)

    def _end(self, *, abandoned: bool) -> None:
        unwanted = (self._held, self._fd, self._other_end) if abandoned else (self._held,)
        self._held = -1
        for fd in unwanted:
            if fd >= 0:
                os.close(fd)
        self.ended.set()  # not before: a program that opens the other end now must not find this end


class PipeIO(IO):
    """Pipes, whose other ends are anyio streams. For one container or process.

    :param stdin: whether stdin is a pipe; else it is ``/dev/null``.
    :param stdout: the same for stdout.
    :param stderr: the same for stderr.
    :param uid: owner of the container's ends, a user id on the host: needed where the container's root is a mapped
        user and its program opens ``/dev/stdout`` anew. None leaves them to this process's user.
    :param gid: the same for the group.
    :raises OSError: no descriptor is free.

    The streams are unbuffered: a slow reader slows the container. Close them (or the whole, which is an async
    context manager) when done.
    """

    def __init__(
        self,
        *,
        stdin: bool = True,
        stdout: bool = True,
        stderr: bool = True,
        uid: int | None = None,
        gid: int | None = None,
    ) -> None:
        for name, number in (("uid", uid), ("gid", gid)):
            if number is not None and number < 0:
                raise ValueError(f"{name} must not be negative: {number}")
        self._container_ends: list[int | None] = [None, None, None]
        self._stdin: FdSendStream | None = None
        self._outputs: list[FdReceiveStream | None] = [None, None]
        self._used = False
        try:
            if stdin:
                self._container_ends[0], own = os.pipe()
                self._stdin = FdSendStream(own)
            for number, wanted in ((1, stdout), (2, stderr)):
                if wanted:
                    own, self._container_ends[number] = os.pipe()
                    self._outputs[number - 1] = FdReceiveStream(own)
            if uid is not None or gid is not None:
                for end in self._container_ends:
                    if end is not None:
                        os.fchown(end, -1 if uid is None else uid, -1 if gid is None else gid)
        except BaseException:
            self._close_now()
            raise

    @property
    def stdin(self) -> ByteSendStream:
        """What is sent here the container reads; closing it is the end of its stdin.

        :raises AttributeError: stdin is not a pipe.
        """
        if self._stdin is None:
            raise AttributeError("stdin is not a pipe: PipeIO(stdin=False)")
        return self._stdin

    @property
    def stdout(self) -> ByteReceiveStream:
        """What the container writes to its stdout.

        :raises AttributeError: stdout is not a pipe.
        """
        return self._output(1)

    @property
    def stderr(self) -> ByteReceiveStream:
        """What the container writes to its stderr.

        :raises AttributeError: stderr is not a pipe.
        """
        return self._output(2)

    @property
    def outputs(self) -> tuple[FdReceiveStream, FdReceiveStream]:
        """The streams of stdout and stderr.

        :raises AttributeError: one of them is not a pipe.
        """
        return self._output(1), self._output(2)

    def _output(self, number: int) -> FdReceiveStream:
        stream = self._outputs[number - 1]
        if stream is None:
            name = ("stdout", "stderr")[number - 1]
            raise AttributeError(f"{name} is not a pipe: PipeIO({name}=False)")
        return stream

    async def open(self) -> Stdio:
        """See `IO.open`.

        :raises RuntimeError: it has served already.
        """
        if self._used:
            raise RuntimeError("a PipeIO serves one container or process; make a new one")
        self._used = True
        return Stdio(*self._container_ends)

    def started(self) -> None:
        """See `IO.started`."""
        self._used = True
        for number, fd in enumerate(self._container_ends):
            if fd is not None:
                self._container_ends[number] = None
                os.close(fd)

    async def aclose(self) -> None:
        """See `IO.aclose`."""
        self._close_now()

    def _close_now(self) -> None:
        self.started()
        for stream in (self._stdin, *self._outputs):
            if stream is not None:
                stream.close()

    def __del__(self) -> None:
        if any(fd is not None for fd in getattr(self, "_container_ends", ())):
            self.started()


class OutputCollector:
    """Keeps what a stream gives, up to a limit, and counts what it drops.

    :param limit: bytes that are kept; None keeps everything.
    :param tail: whether the last bytes are kept; else the first ones.
    :raises ValueError: the limit is negative.
    """

    def __init__(self, limit: int | None, *, tail: bool = False) -> None:
        if limit is not None and limit < 0:
            raise ValueError(f"the output limit must not be negative: {limit}")
        self.data = bytearray()
        self.dropped = 0
        self._limit = limit
        self._tail = tail

    def add(self, data: bytes) -> None:
        """Keep some bytes."""
        self.data += data
        excess = 0 if self._limit is None else len(self.data) - self._limit
        if excess > 0:
            self.dropped += excess
            if self._tail:
                del self.data[:excess]
            else:
                del self.data[len(self.data) - excess :]

    async def read(self, stream: ByteReceiveStream) -> None:
        """Read a stream to its end."""
        with contextlib.suppress(anyio.EndOfStream):
            while True:
                self.add(await stream.receive())

    def drain(self, stream: FdReceiveStream) -> None:
        """Read what is there. The end may be far: a process that was left behind can hold the stream open."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(stream.fileno(), 65536):
                self.add(data)


async def feed(io: PipeIO, data: bytes) -> None:
    """Write to the stdin of a process, and close it. It is not an error if the process does not read it all."""
    async with io.stdin as stream:
        with contextlib.suppress(anyio.BrokenResourceError):
            await stream.send(data)
