"""Executors: how each call reaches the runtime's binary."""

from __future__ import annotations

import abc
import errno
import fcntl
import os
import re
import shutil
import stat
import threading
from typing import TYPE_CHECKING, NamedTuple, cast

from ._errors import ExecutorError
from ._linux.descriptors import number_of
from ._linux.ownership import check_program

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType
    from typing import Self

    from ._linux.descriptors import HasFileno

__all__ = ["Executable", "Executor", "FdExecutor", "PathExecutor", "SealedExecutor"]

MFD_EXEC = 0x10
CHUNK = 1 << 20

# runc 1.1 takes a memfd for its own clone only with exactly these (newer ones allow F_SEAL_EXEC besides).
SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
SEALED_MODE = 0o511


class Executable(NamedTuple):
    """What one call executes. Exactly one of `path` and `fd` is given."""

    argv: tuple[str, ...]
    """The words before the runtime's own arguments, the program's own name first: ``("runc",)``, ``("nice", "runc")``.

    A launcher must pass open descriptors on to the runtime. One that closes them, as ``sudo`` does, is reported by the
    first call that fails.
    """
    path: str | None = None
    """The absolute path of the file to execute."""
    fd: int | None = None
    """A descriptor of the file to execute. It belongs to the call, which closes it."""


class Executor(abc.ABC):
    """The strategy by which `Runc` reaches the runtime's binary.

    To write one, implement `executable`; `close` and `closed` where there is something to close. One
    executor may serve several event loops in several threads at once, so `executable` must be thread-safe.
    """

    @abc.abstractmethod
    def executable(self) -> Executable:
        """What the next call executes. Called once per call, in the event loop's thread: it must not block.

        :raises ExecutorError: there is nothing to execute; the message says why.
        """

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return False

    def close(self) -> None:  # noqa: B027
        """Give up what is held. Idempotent; calls under way are unharmed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PathExecutor(Executor):
    """By path, or by name on ``PATH``, resolved at every call.

    :param path: a path (with a slash, relative to the working directory of the moment) or a bare name.

    To root, `executable` gives no file that others may write or replace: an `ExecutorError` names it. Root's look-up on
    ``PATH`` skips relative entries such as ``.``.
    """

    def __init__(self, path: str | os.PathLike[str] = "runc") -> None:
        self.path = _fspath(path)
        self._closed = False

    def __repr__(self) -> str:
        return f"PathExecutor({self.path!r})"

    def executable(self) -> Executable:
        if self._closed:
            raise ExecutorError(f"{self!r} is closed")
        path = os.path.abspath(_find(self.path))
        check_program(path)
        return Executable((os.path.basename(path),), path=path)

    @property
    def closed(self) -> bool:
        """See `Executor.closed`."""
        return self._closed

    def close(self) -> None:
        self._closed = True


class FdExecutor(Executor):
    """By one descriptor that stays open across calls; executes that file, whatever becomes of its path.

    :param fd: a descriptor of a regular, executable file (``O_PATH`` suffices), or an object with
        ``fileno()``. It is duplicated; the caller keeps its own.
    :param name: argv[0] of the runtime; None takes the file's own name.
    :raises ExecutorError: it is not a regular file, not executable, or others may write it and this process is root's.
    :raises OSError: it is not open (``EBADF``), or no descriptor is free (``EMFILE``).
    :raises TypeError: it is a path (use `open`), or something else without ``fileno()``.
    """

    def __init__(self, fd: int | HasFileno, *, name: str | None = None) -> None:
        if isinstance(cast("object", fd), str | bytes | os.PathLike):
            raise TypeError(f"fd must be a descriptor, not a path: use FdExecutor.open({fd!r})")
        self._adopt(fcntl.fcntl(number_of(fd, "fd"), fcntl.F_DUPFD_CLOEXEC, 3), name)
        status = os.fstat(self._fd)
        if os.geteuid() == 0 and status.st_nlink and status.st_mode & stat.S_IWOTH:  # a memfd has no link
            self.close()
            mode = stat.S_IMODE(status.st_mode)
            raise ExecutorError(f"{self.name}: others may write it (mode {mode:04o}), so root does not execute it")

    def _adopt(self, fd: int, name: str | None) -> None:
        try:
            self.name = name or _name_of(fd)
            _check_executable(os.fstat(fd), self.name)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        # Held for the length of one dup or close: a number read before another thread's close() could
        # belong to another file by the time it is duplicated.
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open the runtime's binary and keep it.

        :param path: its path, or a bare name to look up on ``PATH``.
        :raises ExecutorError: it is missing, not a regular file, not executable, or others than root may write or
            replace it and this process is root's.
        """
        found, fd = _open(path, os.O_PATH)
        executor = cls.__new__(cls)
        executor._adopt(fd, os.path.basename(found))
        return executor

    def __repr__(self) -> str:
        state = "closed" if self.closed else f"fd={self._fd}"
        return f"<{type(self).__name__} {self.name!r} {state}>"

    def fileno(self) -> int:
        """The descriptor that is held.

        :raises ExecutorError: the executor is closed.
        """
        if self.closed:
            raise ExecutorError(f"{self!r} is closed")
        return self._fd

    def executable(self) -> Executable:
        with self._lock:
            if self._fd < 0:
                raise ExecutorError(f"{self!r} is closed")
            return Executable((self.name,), fd=fcntl.fcntl(self._fd, fcntl.F_DUPFD_CLOEXEC, 3))

    @property
    def closed(self) -> bool:
        """See `Executor.closed`."""
        return self._fd < 0

    def close(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            self.close()


class SealedExecutor(FdExecutor):
    """By a sealed, executable copy in memory: nobody can alter it, and it needs no file system.

    runc and crun take it for the protective clone of themselves that they would otherwise make at every
    call. Made by `open` or `from_bytes`.
    """

    def __init__(self, fd: int | HasFileno, *, name: str | None = None) -> None:
        raise TypeError("use SealedExecutor.open(path) or SealedExecutor.from_bytes(data)")

    @classmethod
    def open(cls, path: str | os.PathLike[str], *, sha256: str | None = None) -> Self:
        """Copy the runtime's binary into memory and seal it. Reads the file at once.

        :param path: its path, or a bare name to look up on ``PATH``.
        :param sha256: the digest that it must have, 64 hexadecimal digits; None takes what is there.
        :raises ExecutorError: it is missing, unreadable, not an executable regular file, or has another digest; or,
            without a digest, others than root may write or replace it and this process is root's.
        :raises ValueError: `sha256` is not such a digest.
        """
        expected = _digest(sha256)
        found, fd = _open(path, os.O_RDONLY, trusted=expected is not None)
        try:
            _check_executable(os.fstat(fd), found)
            with open(fd, "rb", buffering=0, closefd=False) as file:
                chunks = iter(lambda: file.read(CHUNK), b"")
                return cls._seal(chunks, name=os.path.basename(found), source=found, expected=expected)
        finally:
            os.close(fd)

    @classmethod
    def from_bytes(cls, data: bytes | bytearray | memoryview, *, name: str = "runc", sha256: str | None = None) -> Self:
        """Seal a runtime that arrived as bytes, on a host that has none.

        :param data: the whole binary (or script).
        :param name: argv[0] of the runtime.
        :param sha256: as in `open`.
        :raises ExecutorError: the digest differs, or there are no bytes.
        :raises ValueError: `sha256` is not such a digest, or `name` cannot be one.
        """
        if not name or "/" in name or "\0" in name:
            raise ValueError(f"name must be a plain file name, not {name!r}")
        return cls._seal([data], name=name, source="these bytes", expected=_digest(sha256))

    @classmethod
    def _seal(
        cls, chunks: Iterable[bytes | bytearray | memoryview], *, name: str, source: str, expected: str | None
    ) -> Self:
        fd = _executable_memfd(name)
        try:
            for chunk in chunks:
                view = memoryview(chunk).cast("B")
                while view:
                    view = view[os.write(fd, view) :]
            if os.fstat(fd).st_size == 0:
                raise ExecutorError(f"{source}: empty")
            os.fchmod(fd, SEALED_MODE)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS)
            # Only now: until here the caller's buffer could change between the write and the digest.
            digest = _digest_of(fd)
            if expected is not None and digest != expected:
                raise ExecutorError(f"{source}: sha256 is {digest}, not the expected {expected}")
            # Re-opened for reading: a descriptor open for writing would make every execution ETXTBSY.
            read_only = _reopen(fd)
        finally:
            os.close(fd)
        executor = cls.__new__(cls)
        executor._adopt(read_only, name)
        executor.sha256 = digest
        return executor

    sha256: str
    """The digest of the copy, 64 hexadecimal digits."""


class PinnedExecutor(Executor):
    """What another executor executes at this moment, kept after the other is closed.

    A descriptor is duplicated and kept open; a path stays a path.

    :param executor: the other one.
    :raises ExecutorError: it is closed.
    """

    def __init__(self, executor: Executor) -> None:
        self._name = repr(executor)
        self._executable = executor.executable()
        self._lock = threading.Lock()
        self._closed = False

    def __repr__(self) -> str:
        return self._name

    def executable(self) -> Executable:
        with self._lock:
            if self._closed:
                raise ExecutorError(f"{self!r} is closed")
            fd = self._executable.fd
            return self._executable._replace(fd=None if fd is None else fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3))

    @property
    def closed(self) -> bool:
        """See `Executor.closed`."""
        return self._closed

    def close(self) -> None:
        with self._lock:
            if not self._closed and self._executable.fd is not None:
                os.close(self._executable.fd)
            self._closed = True


Identity = tuple[tuple[str, ...], int, int, int, int]
"""What tells an executable from others, and from what is at its place later."""


def identify_executable(executor: Executor) -> Identity | None:
    """Identify what an executor executes; None for a file in memory, or if the file is missing.

    :raises ExecutorError: there is nothing to execute.
    """
    executable = executor.executable()
    try:
        status = os.stat(executable.path or "") if executable.fd is None else os.fstat(executable.fd)
    except OSError:
        return None
    finally:
        if executable.fd is not None:
            os.close(executable.fd)
    if not status.st_nlink:
        return None
    return executable.argv, status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size


def is_sealed(executor: Executor) -> bool:
    """Whether an executor executes a file in memory that nobody can write.

    :raises ExecutorError: there is nothing to execute.
    """
    fd = executor.executable().fd
    if fd is None:
        return False
    try:
        return bool(fcntl.fcntl(fd, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)
    except OSError:  # a file of a file system that knows no seals
        return False
    finally:
        os.close(fd)


def name_runtime(executor: Executor) -> str:
    """Say under which name an executor runs the runtime: ``runc``, ``crun``.

    :raises ExecutorError: there is nothing to execute.
    """
    if isinstance(executor, PathExecutor):  # without a look for it on PATH
        return os.path.basename(executor.path)
    executable = executor.executable()
    if executable.fd is not None:
        os.close(executable.fd)
    return os.path.basename(executable.argv[-1])


def _fspath(path: str | os.PathLike[str]) -> str:
    text = os.fsdecode(os.fspath(path))
    if not text or "\0" in text:
        raise ValueError(f"the runtime's path must be a path or a name, not {text!r}")
    return text


def _find(path: str) -> str:
    """Find a program as a shell would. For root, not by a relative entry of PATH: anybody may have put a file there."""
    if "/" in path:
        return path
    entries = os.environ.get("PATH", os.defpath).split(os.pathsep)
    if os.geteuid() == 0:
        entries = [entry for entry in entries if os.path.isabs(entry)]
    found = shutil.which(path, path=os.pathsep.join(entries)) if entries else None
    if found is None:
        raise ExecutorError(f"{path}: no such program on PATH")
    return found


def _open(path: str | os.PathLike[str], flags: int, *, trusted: bool = False) -> tuple[str, int]:
    """Find a file and open it; the path and the descriptor.

    :param trusted: whether its content is checked anyway, so that it does not matter who may write it.
    """
    found = _find(_fspath(path))
    try:
        fd = os.open(found, flags | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE):
            raise
        raise ExecutorError(f"{found}: {exc.strerror}") from exc
    if not trusted:
        try:
            check_program(os.path.abspath(found))
        except BaseException:
            os.close(fd)
            raise
    return found, fd


def _check_executable(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ExecutorError(f"{name}: not a regular file")
    if not status.st_mode & 0o111:
        raise ExecutorError(f"{name}: not executable (mode {stat.S_IMODE(status.st_mode):04o})")


def _name_of(fd: int) -> str:
    """The file's own name: of /usr/sbin/runc, of a removed one, of a memfd called runc: runc."""
    try:
        target = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:  # /proc is not mounted: the first call will say so
        return "runc"
    return os.path.basename(target.removesuffix(" (deleted)").removeprefix("/memfd:"))


def _digest(sha256: str | None) -> str | None:
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise ValueError(f"sha256 must be 64 hexadecimal digits, not {sha256!r}")
    return sha256 and sha256.lower()


def _digest_of(fd: int) -> str:
    import hashlib

    with open(fd, "rb", buffering=0, closefd=False) as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()


def _executable_memfd(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | MFD_EXEC)
    except PermissionError as exc:
        reason = (
            "this kernel makes no executable memory files (sysctl vm.memfd_noexec=2): use FdExecutor, or set it to 1"
        )
        raise ExecutorError(f"{name}: {reason}") from exc
    except OSError as exc:  # EINVAL: a kernel before 6.3, where every memfd is executable
        if exc.errno != errno.EINVAL:
            raise
        return os.memfd_create(name, flags)


def _reopen(fd: int) -> int:
    try:
        return os.open(f"/proc/self/fd/{fd}", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise ExecutorError("/proc is not mounted: a descriptor is executed by /proc/self/fd/N") from exc
