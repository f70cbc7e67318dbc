"""What a finished runtime printed, captured in memory files: no reader, no pipe that could hang.

A memory file for output is sealed at its limit, so a runtime that prints without end runs into ``EPERM``
there and costs no more than that. The log is opened by the runtime itself, for appending, which a file of
fixed size cannot bear; of that one only so much is read.
"""

from __future__ import annotations

import fcntl
import os

STDOUT_LIMIT = 16 << 20
STDERR_LIMIT = 1 << 20
LOG_LIMIT = 1 << 20

FIXED_SIZE = fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL


def memory_file(name: str, *, limit: int | None = None, content: bytes = b"") -> int:
    """A descriptor of a new memory file.

    :param name: shown in ``/proc/PID/fd``.
    :param limit: the most bytes that can be written to it; None for no limit.
    :param content: what it holds; the offset is at its beginning.
    """
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        if limit is not None:
            os.ftruncate(fd, limit)  # sparse: pages come as they are written
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, FIXED_SIZE)
        elif content:
            os.pwrite(fd, content, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def printed(fd: int) -> bytes:
    """What the child wrote to a memory file with a limit: it shares our offset."""
    return os.pread(fd, os.lseek(fd, 0, os.SEEK_CUR), 0)


def overflowed(fd: int, limit: int) -> bool:
    """Whether the child ran into the limit."""
    return os.lseek(fd, 0, os.SEEK_CUR) >= limit


def logged(fd: int) -> bytes:
    """What the child logged: the last entries, where it is very much."""
    size = os.fstat(fd).st_size
    skipped = max(0, size - LOG_LIMIT)
    data = os.pread(fd, LOG_LIMIT, skipped)
    return data.partition(b"\n")[2] if skipped else data
