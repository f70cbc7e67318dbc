"""Memory files that a runtime process writes to: no reader, no pipe that could hang.

A memory file for output is sealed at its limit: a runtime that prints without end gets ``EPERM`` there and costs no
more than that. The runtime opens its log by itself, for appending, which a file of a fixed size cannot bear; only the
end of a long log is read.
"""

from __future__ import annotations

import fcntl
import os
import resource

__all__ = ["has_overflowed", "memory_file", "read_log", "read_output"]

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
            os.ftruncate(fd, _within_rlimit(limit))  # sparse: pages come as they are written
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, FIXED_SIZE)
        elif content:
            os.pwrite(fd, content, 0)
    except BaseException:
        os.close(fd)
        raise
    return fd


def read_output(fd: int) -> bytes:
    """Read what the child wrote to a memory file with a limit: the child shares the offset of this descriptor."""
    return os.pread(fd, os.lseek(fd, 0, os.SEEK_CUR), 0)


def has_overflowed(fd: int) -> bool:
    """Whether the child reached the limit of a memory file."""
    return os.lseek(fd, 0, os.SEEK_CUR) >= os.fstat(fd).st_size


def _within_rlimit(size: int) -> int:
    """The size, or ``RLIMIT_FSIZE`` if that is less: a larger file cannot be made (``EFBIG``)."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    return size if limit == resource.RLIM_INFINITY else min(size, limit)


def read_log(fd: int) -> bytes:
    """Read what the child logged: the last entries of a long log."""
    size = os.fstat(fd).st_size
    skipped = max(0, size - LOG_LIMIT)
    data = os.pread(fd, LOG_LIMIT, skipped)
    return data.partition(b"\n")[2] if skipped else data
