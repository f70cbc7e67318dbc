"""What the runtime gives back, typed. Imports nothing of the package.

Fields that a newer runtime adds do no harm: what was decoded from JSON keeps it, and `raw` has everything.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, TypeVar, get_args, get_origin

import msgspec

__all__ = [
    "CompletedProcess",
    "ContainerState",
    "Event",
    "Exit",
    "Features",
    "Stats",
    "TopResults",
    "Version",
    "decode",
    "parse_json",
    "parse_top",
    "parse_version",
    "version_number",
]

T = TypeVar("T")


class Model(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A part of a result."""


class Result(Model, frozen=True, kw_only=True, rename="camel", dict=True):
    """A whole result, as one JSON document of the runtime."""

    @property
    def raw(self) -> dict[str, Any]:
        """The whole document, with the fields that this library does not know; decoded anew at each access."""
        document: dict[str, Any] = msgspec.json.decode(getattr(self, "_json", b"{}"))
        return document


def parse_json(shape: type[T], data: bytes) -> T:
    """Read JSON of any origin.

    :param shape: the type that it must have.
    :raises msgspec.DecodeError: it is not JSON, or has another shape, or too many brackets.
    """
    try:
        return msgspec.json.decode(data, type=shape)
    except RecursionError:
        raise msgspec.DecodeError("nested too deeply") from None


def decode(shape: type[T], data: bytes) -> T:
    """Decode one JSON document of the runtime.

    :param shape: a subclass of `Result`, a list of one, or a plain type.
    :param data: the document; ``null`` is an empty list where a list is due.
    :raises msgspec.DecodeError: it is not JSON, or has another shape.
    :raises ValueError: it has a time in it that is none.
    """
    if get_origin(shape) is list:
        (item,) = get_args(shape)
        parts: list[msgspec.Raw] = parse_json(list[msgspec.Raw] | None, data) or []  # type: ignore[arg-type]
        return [decode(item, bytes(part)) for part in parts]  # type: ignore[return-value]
    result = parse_json(shape, data)
    if isinstance(result, Result):
        # Frozen; and Python 3.11 refuses object.__setattr__ here.
        vars(result)["_json"] = data
    # What is broken in there fails here.
    if isinstance(result, Event):
        _ = result.data
    if isinstance(result, ContainerState):
        _ = result.created
        if result.pid < 0:  # runsc, of one that has stopped
            msgspec.structs.force_setattr(result, "pid", 0)
    return result


def _nanoseconds(text: str) -> int:
    """Nanoseconds since the epoch of an RFC 3339 time; the fraction may have nine digits."""
    found = re.fullmatch(r"(.+?)(?:\.(\d{1,9})\d*)?(Z|[+-]\d\d:\d\d)", text)
    if found is None:
        raise ValueError(f"not an RFC 3339 time: {text!r}")
    whole = datetime.fromisoformat(found[1] + ("+00:00" if found[3] == "Z" else found[3]))
    seconds = (whole - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(seconds=1)
    return seconds * 10**9 + int((found[2] or "0").ljust(9, "0"))


class ContainerState(Result, frozen=True, kw_only=True, rename="camel"):
    """The state of a container: the OCI specification's state, and what runc and crun add.

    :ivar id: the container's id.
    :ivar pid: the pid, on the host, of its init; 0 if it has none.
    :ivar status: ``creating``, ``created``, ``running``, ``paused`` or ``stopped``.
    :ivar bundle: the absolute path of its bundle.
    :ivar oci_version: the version of the specification that the state follows.
    :ivar rootfs: the path of its root file system.
    :ivar created_at: when it was created, as the runtime writes it.
    :ivar annotations: those of its ``config.json``.
    :ivar owner: the user who created it.
    :ivar systemd_scope: crun: the systemd scope.
    """

    id: str
    pid: int = 0
    status: str
    bundle: str = ""
    oci_version: str = ""
    rootfs: str = ""
    created_at: str = msgspec.field(default="0001-01-01T00:00:00Z", name="created")
    annotations: dict[str, str] | None = None
    owner: str = ""
    systemd_scope: str | None = msgspec.field(default=None, name="systemd-scope")

    @property
    def created(self) -> datetime:
        """When it was created, aware, in UTC, to the microsecond."""
        try:
            return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=self.created_ns // 1000)
        except OverflowError:  # a time zone can lead out of the calendar
            raise ValueError(f"not an RFC 3339 time: {self.created_at!r}") from None

    @property
    def created_ns(self) -> int:
        """When it was created, in nanoseconds since the epoch, as fine as the runtime gives it."""
        return _nanoseconds(self.created_at)


class Throttling(Model, frozen=True, kw_only=True, rename="camel"):
    """How often, and for how many nanoseconds, the CPU limit held the container back."""

    periods: int = 0
    throttled_periods: int = 0
    throttled_time: int = 0


class PressureData(Model, frozen=True, kw_only=True):
    """Pressure stall averages in per cent, and the total in microseconds."""

    avg10: float = 0.0
    avg60: float = 0.0
    avg300: float = 0.0
    total: int = 0


class Pressure(Model, frozen=True, kw_only=True):
    """Pressure stall information (cgroup v2)."""

    some: PressureData = PressureData()
    full: PressureData = PressureData()


class CpuUsage(Model, frozen=True, kw_only=True, rename=None):
    """CPU time in nanoseconds."""

    total: int = 0
    kernel: int = 0
    user: int = 0
    percpu: list[int] = []
    percpu_kernel: list[int] = []
    percpu_user: list[int] = []


class CpuStats(Model, frozen=True, kw_only=True):
    """CPU: usage, throttling, pressure."""

    usage: CpuUsage = CpuUsage()
    throttling: Throttling = Throttling()
    psi: Pressure | None = None


class CpuSet(Model, frozen=True, kw_only=True, rename=None):
    """The cpuset controller (cgroup v1)."""

    cpus: list[int] | None = None
    cpu_exclusive: int = 0
    mems: list[int] | None = None
    mem_hardwall: int = 0
    mem_exclusive: int = 0
    memory_migrate: int = 0
    memory_spread_page: int = 0
    memory_spread_slab: int = 0
    memory_pressure: int = 0
    sched_load_balance: int = 0
    sched_relax_domain_level: int = 0


class MemoryEntry(Model, frozen=True, kw_only=True):
    """One kind of memory, in bytes, and how often its limit was hit."""

    limit: int = 0
    usage: int = 0
    max: int = 0
    failcnt: int = 0


class MemoryStats(Model, frozen=True, kw_only=True, rename={"kernel_tcp": "kernelTCP"}):
    """Memory, in bytes. `raw_counters` are the kernel's own."""

    cache: int = 0
    usage: MemoryEntry = MemoryEntry()
    swap: MemoryEntry = MemoryEntry()
    kernel: MemoryEntry = MemoryEntry()
    kernel_tcp: MemoryEntry = MemoryEntry()
    raw_counters: dict[str, int] = msgspec.field(default_factory=dict, name="raw")
    psi: Pressure | None = None


class PidsStats(Model, frozen=True, kw_only=True):
    """The number of processes; a limit of 0 is none."""

    current: int = 0
    limit: int = 0


class BlkioEntry(Model, frozen=True, kw_only=True):
    """One counter of one block device."""

    major: int = 0
    minor: int = 0
    op: str = ""
    value: int = 0


class BlkioStats(Model, frozen=True, kw_only=True, rename="camel"):
    """Block devices."""

    io_service_bytes_recursive: list[BlkioEntry] | None = None
    io_serviced_recursive: list[BlkioEntry] | None = None
    io_queue_recursive: list[BlkioEntry] | None = None
    io_service_time_recursive: list[BlkioEntry] | None = None
    io_wait_time_recursive: list[BlkioEntry] | None = None
    io_merged_recursive: list[BlkioEntry] | None = None
    io_time_recursive: list[BlkioEntry] | None = None
    sectors_recursive: list[BlkioEntry] | None = None
    psi: Pressure | None = None


class HugetlbStats(Model, frozen=True, kw_only=True):
    """Huge pages of one size, in bytes."""

    usage: int = 0
    max: int = 0
    failcnt: int = 0


class NetworkInterface(Model, frozen=True, kw_only=True, rename="pascal"):
    """Counters of one network interface, as the container's network namespace has it."""

    name: str = ""
    rx_bytes: int = 0
    rx_packets: int = 0
    rx_errors: int = 0
    rx_dropped: int = 0
    tx_bytes: int = 0
    tx_packets: int = 0
    tx_errors: int = 0
    tx_dropped: int = 0


class L3CacheInfo(Model, frozen=True, kw_only=True, rename=None):
    """Intel RDT: L3 cache allocation."""

    cbm_mask: str = ""
    min_cbm_bits: int = 0
    num_closids: int = 0


class MemBwInfo(Model, frozen=True, kw_only=True, rename=None):
    """Intel RDT: memory bandwidth allocation."""

    bandwidth_gran: int = 0
    delay_linear: int = 0
    min_bandwidth: int = 0
    num_closids: int = 0


class MbmNumaNode(Model, frozen=True, kw_only=True, rename=None):
    """Intel RDT: memory bandwidth of one NUMA node."""

    mbm_total_bytes: int = 0
    mbm_local_bytes: int = 0


class CmtNumaNode(Model, frozen=True, kw_only=True, rename=None):
    """Intel RDT: cache occupancy of one NUMA node."""

    llc_occupancy: int = 0


class IntelRdtStats(Model, frozen=True, kw_only=True, rename=None):
    """Intel Resource Director Technology."""

    l3_cache_info: L3CacheInfo | None = None
    l3_cache_schema_root: str = ""
    l3_cache_schema: str = ""
    mem_bw_info: MemBwInfo | None = None
    mem_bw_schema_root: str = ""
    mem_bw_schema: str = ""
    schemata: list[str] | None = None
    mbm_stats: list[MbmNumaNode] | None = None
    cmt_stats: list[CmtNumaNode] | None = None


class Stats(Result, frozen=True, kw_only=True, rename=None):
    """A container's use of resources (``runc-events(8)``); cgroup v1 and v2 fill different parts of it.

    :ivar cpu: time in nanoseconds, throttling, and pressure.
    :ivar cpuset: which CPUs and memory nodes it may use (cgroup v1).
    :ivar memory: bytes, and in `raw_counters` the kernel's own counters (``memory.stat``).
    :ivar pids: the number of processes and threads, and its limit.
    :ivar blkio: bytes and operations of each block device.
    :ivar hugetlb: huge pages in bytes, by size: ``2MB``.
    :ivar intel_rdt: cache and memory bandwidth, on machines with Intel RDT.
    :ivar network_interfaces: bytes and packets of each interface; None where the runtime gives none.
    """

    cpu: CpuStats = CpuStats()
    cpuset: CpuSet = CpuSet()
    memory: MemoryStats = MemoryStats()
    pids: PidsStats = PidsStats()
    blkio: BlkioStats = BlkioStats()
    hugetlb: dict[str, HugetlbStats] = {}
    intel_rdt: IntelRdtStats = IntelRdtStats()
    network_interfaces: list[NetworkInterface] | None = None


class Event(Result, frozen=True, kw_only=True):
    """One event of a container.

    :ivar type: ``stats``, ``oom``, or what a newer runtime adds.
    :ivar id: the container's id.
    :ivar json: the data as the runtime wrote it, undecoded; see `data`.
    """

    type: str
    id: str
    json: msgspec.Raw = msgspec.field(default=msgspec.Raw(b"null"), name="data")

    @cached_property
    def data(self) -> Stats | Any:
        """The `Stats` of a ``stats`` event; of others their plain data, None where there is none."""
        if self.type == "stats":
            return decode(Stats, bytes(self.json))
        return parse_json(object, bytes(self.json))


class CgroupFeatures(Model, frozen=True, kw_only=True, rename="camel"):
    """What the runtime can do with cgroups; None is unknown."""

    v1: bool | None = None
    v2: bool | None = None
    systemd: bool | None = None
    systemd_user: bool | None = None
    rdma: bool | None = None


class SeccompFeatures(Model, frozen=True, kw_only=True, rename="camel"):
    """What the runtime can do with seccomp; None is unknown."""

    enabled: bool | None = None
    actions: list[str] | None = None
    operators: list[str] | None = None
    archs: list[str] | None = None
    known_flags: list[str] | None = None
    supported_flags: list[str] | None = None


class Enabled(Model, frozen=True, kw_only=True):
    """Whether a part is there; None is unknown."""

    enabled: bool | None = None


class IdmapFeatures(Model, frozen=True, kw_only=True):
    """Whether id-mapped mounts are there; None is unknown."""

    enabled: bool | None = None


class MountExtensions(Model, frozen=True, kw_only=True):
    """Extensions of mounts."""

    idmap: IdmapFeatures | None = None


class IntelRdtFeatures(Model, frozen=True, kw_only=True, rename="camel"):
    """What the runtime can do with Intel RDT; None is unknown."""

    enabled: bool | None = None
    schemata: bool | None = None
    monitoring: bool | None = None


class MemoryPolicyFeatures(Model, frozen=True, kw_only=True):
    """The memory policies that the runtime knows; None is unknown."""

    modes: list[str] | None = None
    flags: list[str] | None = None


class LinuxFeatures(Model, frozen=True, kw_only=True, rename="camel"):
    """The Linux part of `Features`; None is unknown."""

    namespaces: list[str] | None = None
    capabilities: list[str] | None = None
    cgroup: CgroupFeatures | None = None
    seccomp: SeccompFeatures | None = None
    apparmor: Enabled | None = None
    selinux: Enabled | None = None
    intel_rdt: IntelRdtFeatures | None = None
    memory_policy: MemoryPolicyFeatures | None = None
    mount_extensions: MountExtensions | None = None
    net_devices: Enabled | None = None


class Features(Result, frozen=True, kw_only=True, rename="camel"):
    """What a runtime was built with (OCI runtime specification, ``features.md``); None is unknown.

    :ivar oci_version_min: the oldest version of the specification that it takes.
    :ivar oci_version_max: the newest one.
    :ivar hooks: the hooks that it knows: ``createRuntime``.
    :ivar mount_options: the mount options that it knows: ``rro``.
    :ivar linux: what is Linux's own: namespaces, capabilities, cgroups, seccomp, AppArmor, SELinux, Intel RDT.
    :ivar annotations: what else it says of itself: ``org.opencontainers.runc.version``.
    :ivar potentially_unsafe_config_annotations: annotations of a ``config.json`` that change what the runtime does.
    """

    oci_version_min: str = ""
    oci_version_max: str = ""
    hooks: list[str] | None = None
    mount_options: list[str] | None = None
    linux: LinuxFeatures | None = None
    annotations: dict[str, str] | None = None
    potentially_unsafe_config_annotations: list[str] | None = None


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime's name and version.

    :ivar runtime: its own name: ``runc``, ``crun``, ``runsc``, ``youki``; empty if its output has no form known here.
    :ivar version: as it says: ``1.1.5+ds1``; empty likewise.
    :ivar commit: of its sources, or an empty string.
    :ivar spec: the version of the OCI specification that it follows, or an empty string.
    :ivar details: the further lines, name to value (``go``, ``libseccomp``, ``rundir``), and under ``features`` the
        words that crun prints with a plus sign.
    :ivar text: all that it printed, also what a wrapper printed before.
    """

    runtime: str
    version: str
    commit: str = ""
    spec: str = ""
    details: dict[str, str] = {}
    text: str = ""

    @property
    def release(self) -> tuple[int, ...]:
        """The numbers that the version begins with, to compare: ``(1, 1, 5)``."""
        found = re.match(r"\d+(?:\.\d+)*", self.version)
        return tuple(map(int, found[0].split("."))) if found else ()


_VERSIONS = (
    re.compile(r"^(?P<runtime>\S+) version:? +v?(?P<version>\S+)$", re.MULTILINE),  # runc, crun, runsc, youki
    re.compile(r"^(?P<runtime>\S+) +: (?P<version>\S+)$", re.MULTILINE),  # kata-runtime
    re.compile(r"^(?P<runtime>\S+)\n(?:\s.*\n)*?\s+version:\s+(?P<version>\S+)$", re.MULTILINE),  # sysbox-runc
)
"""Forms of ``--version``. A wrapper's own lines may come first (nvidia-container-runtime's)."""


def parse_version(text: str) -> Version:
    """Read what ``--version`` prints. A form that is not known is kept as `Version.text`.

    :raises ValueError: there is no text.
    """
    if not text.strip():
        raise ValueError("no version was printed")
    found = next(filter(None, (form.search(text) for form in _VERSIONS)), None)
    if found is None:
        return Version(runtime="", version="", text=text)
    details: dict[str, str] = {}
    for line in text[found.start() :].splitlines()[1:]:
        name, colon, value = line.partition(":")
        if line.startswith("+"):
            details["features"] = " ".join(word.removeprefix("+") for word in line.split())
        elif colon:
            details[name.strip()] = value.strip()
    return Version(
        runtime=found["runtime"],
        version=found["version"],
        commit=details.pop("commit", ""),
        spec=details.pop("spec", details.pop("OCI specs", "")),
        details=details,
        text=text,
    )


def version_number(output: bytes) -> str:
    """Find the version in what ``--version`` printed, for a sentence about it. Never raises.

    :returns: the version, or an empty string where there is none, or none in a known form.
    """
    try:
        return parse_version(output.decode(errors="replace")).version
    except ValueError:
        return ""


class TopResults(msgspec.Struct, frozen=True):
    """A table of processes.

    :ivar headers: the names of the columns.
    :ivar processes: a row per process, as many cells as there are headers; the last may have spaces.
    """

    headers: list[str]
    processes: list[list[str]]


def parse_top(text: str) -> TopResults:
    """Read a table of ``ps``.

    :raises ValueError: it is not a table.
    """
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError("ps printed no table")
    columns = list(re.finditer(r"\S+", lines[0]))
    if len(columns) == 1:  # nothing to tell apart
        return TopResults([columns[0][0]], [[line.strip()] for line in lines[1:]])
    return TopResults([column[0] for column in columns], [_cells(columns, line) for line in lines[1:]])


def _cells(columns: list[re.Match[str]], line: str) -> list[str]:
    """Split a row; only the last cell may have spaces.

    A cell begins or ends where its header does, or further to the right behind a wide one. The second word of a
    cell with spaces stands to the left of the next header.
    """
    words = list(re.finditer(r"\S+", line))
    aligned = all(
        word.start() >= column.start() or word.end() >= column.end()
        for word, column in zip(words, columns, strict=False)
    )
    if len(words) < len(columns) or not aligned:
        names = " ".join(column[0] for column in columns)
        raise ValueError(f"the row {line!r} cannot be split into the columns {names!r}")
    last = words[len(columns) - 1].start()
    return [*line[:last].split(), line[last:].rstrip()]


class Exit(msgspec.Struct, frozen=True):
    """The end of a process.

    :ivar pid: its pid on the host.
    :ivar status: as a shell gives it: the exit status, 128 + N for signal N; None where it cannot be known.
    :ivar timestamp: when it ended, aware, in UTC.
    :ivar oom_killed: of a container: whether the kernel has killed any of its processes for want of memory, which need
        not have ended the container; None where this system does not count it, and of other processes.
    :ivar signal: the number of the signal that ended it; None if it exited, or where that is not known.
    """

    pid: int
    status: int | None
    timestamp: datetime
    oom_killed: bool | None = None
    signal: int | None = None


class CompletedProcess(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """A process that ran to its end, from `Container.run`.

    :ivar args: the program and its arguments.
    :ivar status: as a shell gives it: the exit status, 128 + N for signal N.
    :ivar stdout: what it printed there, up to the limit.
    :ivar stderr: what it printed there, up to the limit.
    :ivar timed_out: whether it was killed because its time was over.
    :ivar stdout_dropped: bytes beyond the limit, which were dropped.
    :ivar stderr_dropped: the same for stderr.
    """

    args: list[str]
    status: int
    stdout: bytes
    stderr: bytes
    timed_out: bool = False
    stdout_dropped: int = 0
    stderr_dropped: int = 0
