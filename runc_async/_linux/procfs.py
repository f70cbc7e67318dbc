"""What ``/proc`` says of a process, and the pid that a runtime writes to a file.

Each function reads once. A pid names a process only as long as something keeps that process from being reaped: hold a
pidfd, or be its parent, and look again afterwards.
"""

from __future__ import annotations

import contextlib
import os
from typing import NamedTuple

__all__ = [
    "IdMap",
    "Stat",
    "children",
    "comm",
    "environ",
    "is_alive",
    "leads_pid_namespace",
    "parse_stat",
    "pid_namespace",
    "processes",
    "read_file",
    "read_pid_file",
    "stat",
    "status",
]


CHUNK = 1 << 16


class Stat(NamedTuple):
    """The first fields of ``/proc/PID/stat`` (proc_pid_stat(5)).

    :ivar state: one letter; ``Z`` and ``X`` have ended, ``T`` is stopped by a signal.
    :ivar start_time: in clock ticks since the system started. A process with another number is another process.
    :ivar exit_status: of one that has ended and was not reaped, as waitpid(2) gives it; 0 where this process may not
        know it, and of a living one.
    """

    pid: int
    comm: str
    state: str
    parent: int
    process_group: int
    session: int
    start_time: int
    exit_status: int


class IdMap(NamedTuple):
    """How a user namespace numbers users, or groups (user_namespaces(7)): number in it, outside, count."""

    ranges: tuple[tuple[int, int, int], ...]
    kind: str

    @classmethod
    def read(cls, pid: int, name: str) -> IdMap:
        """Read ``uid_map`` or ``gid_map`` of a process; the outside is this process's own user namespace."""
        with open(f"/proc/{pid}/{name}") as file:
            lines = [[int(word) for word in line.split()] for line in file]
        return cls(tuple((inside, outside, count) for inside, outside, count in lines), name.removesuffix("_map"))

    def on_host(self, number: int) -> int:
        """The number that the host has for one of the container.

        :raises ValueError: the container has no such number.
        """
        for inside, outside, count in self.ranges:
            if inside <= number < inside + count:
                return outside + number - inside
        raise ValueError(f"owner: the container's user namespace has no {self.kind} {number}")


def parse_stat(line: bytes) -> Stat:
    """Parse a line of ``/proc/PID/stat``. The name of a program may contain blanks and parentheses."""
    pid, _, rest = line.partition(b" (")
    name, _, fields = rest.rpartition(b") ")
    values = fields.split()
    return Stat(
        int(pid),
        os.fsdecode(name),
        values[0].decode(),
        parent=int(values[1]),
        process_group=int(values[2]),
        session=int(values[3]),
        start_time=int(values[19]),
        exit_status=int(values[49]),
    )


def stat(pid: int) -> Stat | None:
    """Read ``/proc/PID/stat``; None if there is no such process."""
    line = _read(pid, "stat")
    return parse_stat(line) if line else None


def is_alive(pid: int) -> bool:
    """Whether there is such a process, and it has not ended; one that has ended may wait to be reaped."""
    found = stat(pid)
    return found is not None and found.state not in "ZX"


def status(pid: int) -> dict[str, str]:
    """Read ``/proc/PID/status``: name to value; empty if there is no such process."""
    lines = (os.fsdecode(line).partition(":") for line in _read(pid, "status").splitlines())
    return {name: value.strip() for name, _, value in lines}


def children(pid: int) -> list[int]:
    """The children that all threads of a process have; none if it has ended, or if the kernel keeps no such lists."""
    found: list[int] = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            found += map(int, _read(pid, f"task/{thread}/children").split())
    return found


def comm(pid: int) -> str:
    """The name of its program (``/proc/PID/comm``), cut to 15 bytes; empty if there is no such process."""
    return os.fsdecode(_read(pid, "comm").removesuffix(b"\n"))


def environ(pid: int) -> list[bytes]:
    """The environment that a process had when it was executed; empty if it is gone, or another user's."""
    try:
        return _read(pid, "environ").split(b"\0")
    except PermissionError:
        return []


def processes() -> list[int]:
    """Every process that this one sees."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]


def leads_pid_namespace(pid: int) -> bool:
    """Whether a process is the init of a pid namespace below this process's own."""
    for line in _read(pid, "status").splitlines():
        if line.startswith(b"NSpid:"):
            numbers = line.split()[1:]
            return len(numbers) > 1 and numbers[-1] == b"1"
    return False


def pid_namespace(pid: int | None = None) -> int | None:
    """The inode of a process's pid namespace; None if the process is gone or another user's.

    :param pid: None is this process.
    """
    try:
        return os.stat(f"/proc/{pid or 'self'}/ns/pid").st_ino
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def read_pid_file(path: str | os.PathLike[str]) -> int | None:
    """The pid in a file that a runtime writes; None as long as the file is not there, or not written to its end.

    :raises ValueError: the file contains something else.
    """
    try:
        text = read_file(path)
    except FileNotFoundError:
        return None
    return int(text) if text.strip() else None


def read_file(path: str | os.PathLike[str], *, dir_fd: int | None = None) -> bytes:
    """Read a small file whole. A file object needs twice the system calls, and every call reads some files.

    :param dir_fd: the directory that a relative path starts at; None is the working directory.
    :raises OSError: it cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=dir_fd)
    try:
        chunks: list[bytes] = []
        while chunk := os.read(fd, CHUNK):
            chunks.append(chunk)
        return b"".join(chunks)
    finally:
        os.close(fd)


def _read(pid: int, name: str) -> bytes:
    """Read a file of a process; empty if the process is gone."""
    try:
        return read_file(f"/proc/{pid}/{name}")
    except (FileNotFoundError, ProcessLookupError):
        return b""
