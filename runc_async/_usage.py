"""What a container uses of the system, from its own cgroups.

The sources: cgroups(7), and the kernel's ``admin-guide/cgroup-v2.rst`` and ``admin-guide/cgroup-v1``.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from ._linux.cgroups import open_cgroups, read

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Usage", "UsageReader"]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What a container has used, from its start until now. None is not counted on this system.

    What the runtime's own init uses before it executes the container's program is in it: some milliseconds of CPU time,
    and some megabytes in ``memory_peak``.

    :ivar cpu: seconds of CPU time of all its processes, also of those that have ended.
    :ivar cpu_user: of these, seconds in programs.
    :ivar cpu_system: of these, seconds in the kernel.
    :ivar memory: bytes of memory in use, with the page cache of files that it reads and writes.
    :ivar memory_peak: the most bytes that were in use at a time.
    :ivar oom_kills: how many of its processes the kernel has killed for want of memory.
    :ivar pids: its processes and threads.
    :ivar pids_peak: the most processes and threads at a time (Linux 6.1 and newer).
    :ivar pids_limit_hits: how often it could start no process or thread because of its limit.
    :ivar throttled: seconds that it had to wait because of its limit of CPU time.
    """

    cpu: float | None = None
    cpu_user: float | None = None
    cpu_system: float | None = None
    memory: int | None = None
    memory_peak: int | None = None
    oom_kills: int | None = None
    pids: int | None = None
    pids_peak: int | None = None
    pids_limit_hits: int | None = None
    throttled: float | None = None

    def since(self, before: Usage) -> Usage:
        """What was used since an earlier moment. What is in use and the peaks stay as they are.

        :param before: the use until then.
        """
        grown = {
            name: max(0, value - earlier)
            for name in SUMS
            if (value := getattr(self, name)) is not None and (earlier := getattr(before, name)) is not None
        }
        return msgspec.structs.replace(self, **grown)


SUMS = ("cpu", "cpu_user", "cpu_system", "oom_kills", "pids_limit_hits", "throttled")
"""The fields of `Usage` that only grow."""


class Source(NamedTuple):
    """Where the kernel tells a value.

    :ivar controller: of the hierarchy; of v2, which must be enabled for the file to be there, or empty.
    :ivar key: the word before it, in a file of several values.
    :ivar unit: what one means, in the unit of `Usage`.
    :ivar since: the first version of Linux that has the file.
    """

    controller: str
    file: str
    key: str = ""
    unit: float = 1
    since: str = ""

    def value(self, content: bytes) -> float | None:
        """The value in a file; None if it is not there."""
        lines = (line.rpartition(b" ") for line in content.splitlines())
        number = next((int(number) for word, _, number in lines if word == self.key.encode()), None)
        return number if number is None or self.unit == 1 else number * self.unit


V1 = {
    "cpu": Source("cpuacct", "cpuacct.usage", unit=1e-9),
    "cpu_user": Source("cpuacct", "cpuacct.usage_user", unit=1e-9),
    "cpu_system": Source("cpuacct", "cpuacct.usage_sys", unit=1e-9),
    "throttled": Source("cpu", "cpu.stat", "throttled_time", 1e-9),
    "memory": Source("memory", "memory.usage_in_bytes"),
    "memory_peak": Source("memory", "memory.max_usage_in_bytes"),
    "oom_kills": Source("memory", "memory.oom_control", "oom_kill", since="4.13"),
    "pids": Source("pids", "pids.current"),
    "pids_peak": Source("pids", "pids.peak", since="6.1"),
    "pids_limit_hits": Source("pids", "pids.events", "max"),
}
V2 = {
    "cpu": Source("", "cpu.stat", "usage_usec", 1e-6),
    "cpu_user": Source("", "cpu.stat", "user_usec", 1e-6),
    "cpu_system": Source("", "cpu.stat", "system_usec", 1e-6),
    "throttled": Source("cpu", "cpu.stat", "throttled_usec", 1e-6),
    "memory": Source("memory", "memory.current"),
    "memory_peak": Source("memory", "memory.peak", since="5.19"),
    "oom_kills": Source("memory", "memory.events", "oom_kill"),
    "pids": Source("pids", "pids.current"),
    "pids_peak": Source("pids", "pids.peak", since="6.1"),
    "pids_limit_hits": Source("pids", "pids.events", "max"),
}
CONTROLLERS = frozenset(source.controller for source in V1.values())


class UsageReader:
    """Reads the `Usage` of one container, by descriptors of its cgroups.

    They name these cgroups for good, whoever makes others at the same paths later. They can be read until the runtime
    removes the container, also when its processes have ended; after that what was read last is given again.

    :param directories: descriptors, by the controllers of their hierarchies, see `open_cgroups`. They now belong to
        this object.
    """

    def __init__(self, directories: dict[tuple[str, ...], int]) -> None:
        by_controller = {name: fd for names, fd in directories.items() for name in names}
        unified = directories.get(())
        self._sources: dict[str, tuple[int, Source]] = {}
        for name, source in V1.items():
            if source.controller in by_controller:
                self._sources[name] = by_controller[source.controller], source
            elif unified is not None:
                self._sources[name] = unified, V2[name]
        self._directories = {fd for fd, _ in self._sources.values()}
        for fd in directories.values():
            if fd not in self._directories:
                os.close(fd)
        self._unified = unified if unified in self._directories else None
        self._peak: int | None = None
        self._last = Usage()

    @classmethod
    def open(cls, pid: int) -> Self:
        """Open the cgroups of a container; none if the process is gone.

        :param pid: its init, in the container's cgroups. The caller makes sure that it has not been reaped.
        :raises OSError: no descriptor is free.
        """
        try:
            return cls(open_cgroups(pid, CONTROLLERS))
        except (FileNotFoundError, ProcessLookupError):
            return cls({})

    def read(self) -> Usage:
        """What the container has used until now; what was read last, once its cgroups are gone."""
        files: dict[tuple[int, str], bytes] = {}
        values: dict[str, float] = {}
        for name, (directory, source) in self._sources.items():
            at = directory, source.file
            if at not in files:
                files[at] = self._read(*at)
            value = source.value(files[at])
            if value is not None:
                values[name] = value
        _split_time(values)
        self._last = msgspec.structs.replace(self._last, **values)
        return self._last

    def cpu(self) -> float | None:
        """Seconds of CPU time until now, as `read` gives them, by reading one file."""
        return self._read_one("cpu")

    def oom_kills(self) -> int | None:
        """How many processes the kernel has killed until now, as `read` gives it, by reading one file."""
        count = self._read_one("oom_kills")
        return None if count is None else int(count)

    def oom_killed(self) -> bool | None:
        """Whether the kernel has killed a process for want of memory; None if it is not counted, or cannot be read."""
        count = self._read_live("oom_kills")
        if count is None:  # no count before does not prove that there was none since
            return True if self._last.oom_kills else None
        return count > 0

    def forget_peak(self) -> bool:
        """Let ``memory_peak`` count from now on.

        :returns: whether the kernel can: cgroup v1, and v2 since Linux 6.12.
        """
        if "memory_peak" not in self._sources:
            return False
        directory, source = self._sources["memory_peak"]
        with contextlib.suppress(OSError):
            fd = os.open(source.file, os.O_RDWR | os.O_CLOEXEC, dir_fd=directory)
            try:
                os.write(fd, b"0")
            except OSError:
                os.close(fd)
                raise
            if source is V1["memory_peak"]:
                os.close(fd)
            else:  # it counts anew for this descriptor alone
                self._close_peak()
                self._peak = fd
            return True
        return False

    def reasons(self) -> dict[str, str]:
        """Why fields of `Usage` are None here: their names, and a reason."""
        if not self._sources:
            reason = "the container has no cgroup of its own, or none is mounted"
            return dict.fromkeys(Usage.__struct_fields__, reason)
        usage, found = self.read(), dict[str, str]()
        for name in Usage.__struct_fields__:
            if getattr(usage, name) is None:
                directory, source = self._sources[name] if name in self._sources else (None, V1[name])
                found[name] = self._reason(directory, source)
        return found

    def _reason(self, directory: int | None, source: Source) -> str:
        if directory is None:
            return f"no cgroup hierarchy with the controller {source.controller} is mounted"
        enabled = read(directory, "cgroup.controllers").decode().split()
        if directory == self._unified and source.controller and source.controller not in enabled:
            return f"the controller {source.controller} is not enabled in the container's cgroup"
        return f"this kernel has no {source.file}" + (f" (Linux {source.since} and newer have)" if source.since else "")

    def _read_one(self, name: str) -> float | None:
        live = self._read_live(name)
        last: float | None = getattr(self._last, name)
        return last if live is None else live

    def _read_live(self, name: str) -> float | None:
        if name not in self._sources:
            return None
        directory, source = self._sources[name]
        value = source.value(self._read(directory, source.file))
        if value is not None:
            self._last = msgspec.structs.replace(self._last, **{name: value})
        return value

    def _read(self, directory: int, file: str) -> bytes:
        if file == "memory.peak" and self._peak is not None:
            try:
                return os.pread(self._peak, 64, 0)
            except OSError:  # the cgroup is gone
                return b""
        return read(directory, file)

    def _close_peak(self) -> None:
        fd, self._peak = self._peak, None
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Close the descriptors; `read` goes on to give what was read last. Idempotent."""
        self._sources.clear()
        self._close_peak()
        while self._directories:
            os.close(self._directories.pop())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _split_time(values: dict[str, float]) -> None:
    """Divide the CPU time as cgroup v2 and getrusage(2) do.

    v1 counts by the clock's ticks which part programs and which part the kernel had: these sum up to something else,
    and for a short program to nothing.
    """
    if not {"cpu", "cpu_user", "cpu_system"} <= values.keys():
        return
    cpu, user, system = values["cpu"], values["cpu_user"], values["cpu_system"]
    values["cpu_system"] = cpu * system / (user + system) if user + system else 0.0
    values["cpu_user"] = cpu - values["cpu_system"]
