"""The sockets over which a runtime hands a descriptor back: a terminal's master, a container's pidfd."""

from __future__ import annotations

import abc
import contextlib
import errno
import os
import socket
import struct
from array import array
from typing import TYPE_CHECKING, Generic, TypeVar

import anyio

from ._console import Console
from ._errors import RuncError
from ._eventloop.shield import at_checkpoints_only
from ._linux.pidfd import Pidfd
from ._linux.tempdir import private_directory

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["ConsoleSocket", "PidfdSocket"]

T = TypeVar("T")

LONGEST = 107
"""Bytes that the path of a Unix socket can have (``unix(7)``)."""
MOST_DESCRIPTORS = 16
"""How many descriptors are looked at in a message that should have one, so that all can be closed."""


class RuntimeSocket(abc.ABC, Generic[T]):
    """A listening Unix socket that a runtime connects to, to send one descriptor. An async context manager.

    :param path: where it is bound; None makes a private temporary directory for it, under ``XDG_RUNTIME_DIR`` where
        that is set, gone afterwards. Only this process's user may connect, and root.
    :raises OSError: on entering; the path exists, or cannot be bound.

    It goes wherever a method takes a path: ``console_socket=sock``. Then `receive` also ends, with the runtime's own
    error, when the runtime fails before it connects.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self._wanted = None if path is None else os.path.abspath(os.fsdecode(path))
        self._stack = contextlib.ExitStack()
        self._listener: socket.socket | None = None
        self._path = ""
        self._calls = 0
        self._missing = 0
        self._failure: Exception | None = None
        self._awaited: set[socket.socket] = set()

    @property
    def path(self) -> str:
        """The path that the runtime is to connect to. Of a long one, a short name for the same socket.

        :raises RuntimeError: the socket is not open.
        """
        if self._listener is None:
            raise RuntimeError(f"{type(self).__name__} is not open: use it with `async with`")
        return self._path

    def __fspath__(self) -> str:
        return self.path

    @at_checkpoints_only
    async def __aenter__(self) -> Self:
        if self._listener is not None:
            raise RuntimeError(f"{type(self).__name__} is open already")
        with contextlib.ExitStack() as stack:
            wanted = self._wanted
            if wanted is None:
                wanted = os.path.join(stack.enter_context(private_directory()), "socket")
            # A name that is short enough for a Unix socket, whatever the directory's: both we and the runtime get
            # at the directory by our descriptor of it.
            folder = os.open(os.path.dirname(wanted), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, folder)
            name = os.path.basename(wanted)
            place = f"/proc/{os.getpid()}/fd/{folder}"
            short = f"{place}/{name}"
            if len(os.fsencode(short)) > LONGEST:
                raise ValueError(f"the name of a socket can have {LONGEST - len(place) - 1} bytes at most: {name!r}")
            listener = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            listener.setblocking(False)
            os.fchmod(listener.fileno(), 0o600)  # the mode that bind gives the file
            try:
                listener.bind(short)
            except OSError as exc:
                raise OSError(exc.errno, os.strerror(exc.errno or 0), wanted) from None
            stack.callback(_unlink, wanted, os.stat(wanted))
            listener.listen()
            self._listener = listener
            self._path = wanted if len(os.fsencode(wanted)) <= LONGEST else short
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener = None
        self._wake()
        self._stack.close()

    @at_checkpoints_only
    async def receive(self) -> T:
        """Wait for the runtime, and take what it sends.

        :returns: what the descriptor is.
        :raises CommandError: the runtime failed before it connected.
        :raises RuncError: it ended without connecting, or sent something else than one descriptor of the right kind.
        :raises OSError: no descriptor is free for it.
        :raises anyio.ClosedResourceError: the socket was closed meanwhile.
        """
        while True:
            with await self._accept() as connection:
                fds = await self._sent(connection) if self._is_friend(connection) else None
            if fds is None:
                continue
            self._missing -= 1
            if self._missing <= 0:
                self._failure = None
            if len(fds) == 1:
                return self._adopt(fds[0])
            for fd in fds:
                os.close(fd)
            raise RuncError(f"{self._path}: the runtime sent {len(fds)} descriptors where it should send one")

    async def _accept(self) -> socket.socket:
        await anyio.lowlevel.checkpoint()
        while True:
            if self._listener is None:
                raise anyio.ClosedResourceError
            try:
                connection, _ = self._listener.accept()
            except BlockingIOError:
                if self._failure is not None and not self._calls:
                    raise self._failure from None
                await self._readable(self._listener)
            else:
                connection.setblocking(False)
                return connection

    @staticmethod
    def _is_friend(connection: socket.socket) -> bool:
        credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        _, uid, _ = struct.unpack("3i", credentials)
        return uid in (0, os.geteuid())

    async def _sent(self, connection: socket.socket) -> list[int] | None:
        """The descriptors of the one message; None where nothing comes, and it cannot be the runtime's connection."""
        while True:
            try:
                data, fds, flags = _receive_fds(connection)
            except BlockingIOError:
                if self._listener is None or (self._failure is not None and not self._calls):
                    return None
                await self._readable(connection)
                continue
            except ConnectionError:
                return None
            if not data:  # it has gone; if it was the runtime, `call_ended` tells
                return None
            if not fds and flags & socket.MSG_CTRUNC:  # there was one, and no number free for it
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), self._path)
            return fds

    async def _readable(self, sock: socket.socket) -> None:
        """Wait; woken also by `call_ended`, and by the end of the context."""
        self._awaited.add(sock)
        try:
            with contextlib.suppress(anyio.ClosedResourceError):
                await anyio.wait_readable(sock)
        finally:
            self._awaited.discard(sock)

    def _wake(self) -> None:
        for sock in self._awaited:
            anyio.notify_closing(sock)

    def _adopt(self, fd: int) -> T:
        try:
            return self._made_of(fd)
        except BaseException as exc:
            os.close(fd)
            raise RuncError(f"{self._path}: the runtime sent another kind of descriptor: {exc}") from exc

    @staticmethod
    @abc.abstractmethod
    def _made_of(fd: int) -> T:
        """The object for a descriptor; it takes the descriptor over."""

    def call_begins(self) -> None:
        """A call of the runtime was given this socket. By `Runc`."""
        self._calls += 1
        self._missing += 1
        self._failure = None

    def call_ended(self, exc: BaseException | None) -> None:
        """The call has ended: nobody will connect for it any more. By `Runc`."""
        self._calls -= 1
        if self._missing > 0:
            ended = RuncError("the runtime has ended without connecting")
            self._failure = exc if isinstance(exc, Exception) else ended
        if exc is not None:
            self._missing = max(0, self._missing - 1)
        self._wake()


class ConsoleSocket(RuntimeSocket[Console]):
    """Receives the master of a container's terminal (``--console-socket``), for ``process.terminal`` true.

    ::

        async with ConsoleSocket() as sock:
            await runc.create(id, bundle, console_socket=sock)
            console = await sock.receive()
    """

    @staticmethod
    def _made_of(fd: int) -> Console:
        if not os.isatty(fd):
            raise ValueError("no terminal")
        return Console(fd)


class PidfdSocket(RuntimeSocket[Pidfd]):
    """Receives the pidfd of a container's init (``--pidfd-socket``, runc 1.2 and newer)."""

    @staticmethod
    def _made_of(fd: int) -> Pidfd:
        return Pidfd(fd)


def _unlink(path: str, made: os.stat_result) -> None:
    """Remove the socket's file, if it is still this socket's."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.samestat(os.lstat(path), made):
            os.unlink(path)


def _receive_fds(connection: socket.socket) -> tuple[bytes, list[int], int]:
    """A message, its descriptors, its flags. `socket.recv_fds` drops the flags it is given: all would be inherited."""
    room = socket.CMSG_LEN(MOST_DESCRIPTORS * array("i").itemsize)
    data, ancillary, flags, _ = connection.recvmsg(4096, room, socket.MSG_CMSG_CLOEXEC)
    fds = array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(content[: len(content) - len(content) % fds.itemsize])
    return data, [*fds], flags
