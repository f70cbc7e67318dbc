"""The OCI runtime specification's ``config.json`` as types, complete for Linux in version 1.2 and newer.

Plain dictionaries, camelCase as on the wire, for editors and type checkers: what they do not name (fields of a later
specification, a vendor's own) stays where it is. The names follow the specification's chapters (``config.md``,
``config-linux.md``).
"""

from __future__ import annotations

from typing import Any, Literal, Required, TypedDict

__all__ = [
    "Hook",
    "Hooks",
    "IDMapping",
    "Linux",
    "LinuxDevice",
    "LinuxResources",
    "LinuxSeccomp",
    "Mount",
    "Namespace",
    "Process",
    "Root",
    "Spec",
    "User",
]


class Box(TypedDict):
    """A terminal's size, in characters."""

    height: int
    width: int


class User(TypedDict, total=False):
    """Who a process runs as."""

    uid: Required[int]
    gid: Required[int]
    umask: int
    additionalGids: list[int]
    username: str


class Capabilities(TypedDict, total=False):
    """The five sets of capabilities, by name (``CAP_NET_BIND_SERVICE``)."""

    bounding: list[str]
    effective: list[str]
    inheritable: list[str]
    permitted: list[str]
    ambient: list[str]


class Rlimit(TypedDict):
    """One resource limit (``RLIMIT_NOFILE``)."""

    type: str
    soft: int
    hard: int


class Scheduler(TypedDict, total=False):
    """How a process is scheduled (``sched_setattr(2)``)."""

    policy: Required[str]
    nice: int
    priority: int
    flags: list[str]
    runtime: int
    deadline: int
    period: int


# "class" cannot be the name of a class attribute.
IOPriority = TypedDict("IOPriority", {"class": str, "priority": int})
"""The I/O scheduling class and priority of a process."""


class CPUAffinity(TypedDict, total=False):
    """On which CPUs a process starts and goes on."""

    initial: str
    final: str


class AnyProcess(TypedDict, total=False):
    """What `Process` and `MainProcess` have in common."""

    terminal: bool
    consoleSize: Box
    commandLine: str
    cwd: Required[str]
    noNewPrivileges: bool
    apparmorProfile: str
    oomScoreAdj: int
    scheduler: Scheduler
    selinuxLabel: str
    ioPriority: IOPriority
    execCPUAffinity: CPUAffinity


class Process(AnyProcess, total=False):
    """A process in a container, as for `Runc.exec`: what is missing is as the runtime wants it."""

    user: User
    args: list[str]
    env: list[str]
    capabilities: Capabilities
    rlimits: list[Rlimit]


class MainProcess(AnyProcess):
    """The process that a container is started for. `default_spec` names all of it, so that it can be edited."""

    user: User
    args: list[str]
    env: list[str]
    capabilities: Capabilities
    rlimits: list[Rlimit]


class Root(TypedDict, total=False):
    """The root file system."""

    path: Required[str]
    readonly: bool


class IDMapping(TypedDict):
    """A range of ids in the container, and what they are on the host."""

    containerID: int
    hostID: int
    size: int


class Mount(TypedDict, total=False):
    """One mount."""

    destination: Required[str]
    type: str
    source: str
    options: list[str]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]


class Hook(TypedDict, total=False):
    """A program that the runtime runs at one moment of a container's life."""

    path: Required[str]
    args: list[str]
    env: list[str]
    timeout: int


class Hooks(TypedDict, total=False):
    """The hooks, by moment."""

    prestart: list[Hook]
    createRuntime: list[Hook]
    createContainer: list[Hook]
    startContainer: list[Hook]
    poststart: list[Hook]
    poststop: list[Hook]


NamespaceType = Literal["pid", "network", "mount", "ipc", "uts", "user", "cgroup", "time"]


class Namespace(TypedDict, total=False):
    """A namespace: a new one, or, with a path, an existing one."""

    type: Required[NamespaceType]
    path: str


class TimeOffset(TypedDict, total=False):
    """The offset of a clock in a time namespace."""

    secs: int
    nanosecs: int


class LinuxDevice(TypedDict, total=False):
    """A device node."""

    type: Required[str]
    path: Required[str]
    major: int
    minor: int
    fileMode: int
    uid: int
    gid: int


class LinuxNetDevice(TypedDict, total=False):
    """A network device of the host that moves into the container."""

    name: str


class DeviceCgroup(TypedDict, total=False):
    """One rule of the device cgroup."""

    allow: Required[bool]
    type: str
    major: int
    minor: int
    access: str


class Memory(TypedDict, total=False):
    """Limits of memory, in bytes; -1 is none."""

    limit: int
    reservation: int
    swap: int
    kernel: int
    kernelTCP: int
    swappiness: int
    disableOOMKiller: bool
    useHierarchy: bool
    checkBeforeUpdate: bool


class CPU(TypedDict, total=False):
    """Limits of CPU time, in microseconds."""

    shares: int
    quota: int
    burst: int
    period: int
    realtimeRuntime: int
    realtimePeriod: int
    cpus: str
    mems: str
    idle: int


class Pids(TypedDict, total=False):
    """The limit of processes; -1 is none."""

    limit: int


class WeightDevice(TypedDict, total=False):
    """The I/O weight of one block device."""

    major: Required[int]
    minor: Required[int]
    weight: int
    leafWeight: int


class ThrottleDevice(TypedDict):
    """The I/O rate of one block device."""

    major: int
    minor: int
    rate: int


class BlockIO(TypedDict, total=False):
    """Limits of block I/O."""

    weight: int
    leafWeight: int
    weightDevice: list[WeightDevice]
    throttleReadBpsDevice: list[ThrottleDevice]
    throttleWriteBpsDevice: list[ThrottleDevice]
    throttleReadIOPSDevice: list[ThrottleDevice]
    throttleWriteIOPSDevice: list[ThrottleDevice]


class HugepageLimit(TypedDict):
    """The limit of huge pages of one size."""

    pageSize: str
    limit: int


class InterfacePriority(TypedDict):
    """The priority of one network interface."""

    name: str
    priority: int


class Network(TypedDict, total=False):
    """The network cgroups."""

    classID: int
    priorities: list[InterfacePriority]


class Rdma(TypedDict, total=False):
    """Limits of one RDMA device."""

    hcaHandles: int
    hcaObjects: int


class LinuxResources(TypedDict, total=False):
    """A container's limits: ``linux.resources``, and what `Runc.update` takes."""

    unified: dict[str, str]
    devices: list[DeviceCgroup]
    memory: Memory
    cpu: CPU
    pids: Pids
    blockIO: BlockIO
    hugepageLimits: list[HugepageLimit]
    network: Network
    rdma: dict[str, Rdma]


class SeccompArg(TypedDict, total=False):
    """A condition on one argument of a system call."""

    index: Required[int]
    value: Required[int]
    valueTwo: int
    op: Required[str]


class Syscall(TypedDict, total=False):
    """What happens on some system calls."""

    names: Required[list[str]]
    action: Required[str]
    errnoRet: int
    args: list[SeccompArg]


class LinuxSeccomp(TypedDict, total=False):
    """The filter of system calls."""

    defaultAction: Required[str]
    defaultErrnoRet: int
    architectures: list[str]
    flags: list[str]
    listenerPath: str
    listenerMetadata: str
    syscalls: list[Syscall]


class IntelRdt(TypedDict, total=False):
    """Intel Resource Director Technology."""

    closID: str
    schemata: list[str]
    l3CacheSchema: str
    memBwSchema: str
    enableCMT: bool
    enableMBM: bool
    enableMonitoring: bool


class MemoryPolicy(TypedDict, total=False):
    """The NUMA memory policy (``set_mempolicy(2)``)."""

    mode: Required[str]
    nodes: str
    flags: list[str]


class Personality(TypedDict, total=False):
    """The execution domain (``personality(2)``)."""

    domain: Required[str]
    flags: list[str]


class Linux(TypedDict, total=False):
    """What is Linux's own."""

    namespaces: Required[list[Namespace]]
    uidMappings: list[IDMapping]
    gidMappings: list[IDMapping]
    timeOffsets: dict[str, TimeOffset]
    devices: list[LinuxDevice]
    netDevices: dict[str, LinuxNetDevice]
    cgroupsPath: str
    resources: Required[LinuxResources]
    intelRdt: IntelRdt
    memoryPolicy: MemoryPolicy
    sysctl: dict[str, str]
    seccomp: LinuxSeccomp
    rootfsPropagation: Literal[
        "shared", "slave", "private", "unbindable", "rshared", "rslave", "rprivate", "runbindable"
    ]
    maskedPaths: Required[list[str]]
    readonlyPaths: Required[list[str]]
    mountLabel: str
    personality: Personality


class Spec(TypedDict, total=False):
    """A container's configuration: the whole of ``config.json``.

    For type checkers, what `default_spec` always writes is always there, so that its result can be edited. A file
    that `Bundle.load` reads may have less.
    """

    ociVersion: Required[str]
    root: Required[Root]
    mounts: Required[list[Mount]]
    process: Required[MainProcess]
    hostname: str
    domainname: str
    hooks: Hooks
    annotations: dict[str, str]
    linux: Required[Linux]
    vm: dict[str, Any]
