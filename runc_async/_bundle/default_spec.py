"""`default_spec`: a container that is safe unless told otherwise, in one line."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

from .._cli.validation import MOST_ID, check_type, naming, parse_text
from .._process.environment import check_variables
from .limits import all_resources, parse_device, parse_rlimits, parse_size
from .mounts import INIT, all_mounts, find_init, masked_in_sys, parse_inodes
from .namespaces import map_ids, network_namespace, new_namespaces, parse_sysctl
from .seccomp import seccomp_profile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._cli.options import StrPath
    from .spec import Capabilities, Linux, LinuxSeccomp, Mount, Spec, User

__all__ = ["default_spec"]

OCI_VERSION = "1.0.2"  # what the oldest supported runtime follows; newer ones take it
LEAST_TMP = 1 << 12  # a page
DEFAULT_PIDS = 256

# What even a program that runs as root in its container rarely misses; the others are asked for.
CAPABILITIES = ("CAP_KILL", "CAP_NET_BIND_SERVICE")

# capabilities(7). A runtime leaves out the names that it does not know, and says nothing.
KNOWN_CAPABILITIES = """
    AUDIT_CONTROL AUDIT_READ AUDIT_WRITE BLOCK_SUSPEND BPF CHECKPOINT_RESTORE CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER
    FSETID IPC_LOCK IPC_OWNER KILL LEASE LINUX_IMMUTABLE MAC_ADMIN MAC_OVERRIDE MKNOD NET_ADMIN NET_BIND_SERVICE
    NET_BROADCAST NET_RAW PERFMON SETFCAP SETGID SETPCAP SETUID SYSLOG SYS_ADMIN SYS_BOOT SYS_CHROOT SYS_MODULE SYS_NICE
    SYS_PACCT SYS_PTRACE SYS_RAWIO SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG WAKE_ALARM
"""

# The kernel's own knobs and tables, which no namespace hides (as runc's and containerd's defaults have them).
MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]


def default_spec(
    args: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    cwd: StrPath = "/",
    user: str | int | None = None,
    additional_gids: Sequence[int] = (),
    memory: str | int | None = None,
    swap: str | int | None = None,
    cpus: float | None = None,
    pids: int | Literal["auto"] | None = "auto",
    mounts: Sequence[Mount | str] = (),
    hostname: str | None = None,
    readonly: bool = True,
    network: StrPath = "none",
    terminal: bool = False,
    rootless: bool | None = None,
    capabilities: Sequence[str] | None = None,
    seccomp: Literal["default", "strict", "unconfined"] | bool | LinuxSeccomp = "default",
    tmp: str | int = "64M",
    annotations: Mapping[str, str] | None = None,
    init: bool | StrPath = False,
    rlimits: Mapping[str, int | tuple[int, int]] | None = None,
    devices: Sequence[str] = (),
    sysctl: Mapping[str, str | int] | None = None,
    resolv_conf: StrPath | None = None,
    hosts: StrPath | None = None,
    user_namespace: range | None = None,
    apparmor: str | None = None,
    nr_inodes: int | None = None,
) -> Spec:
    """Make a ``config.json`` that is safe by default (OCI runtime specification).

    No new privileges, two capabilities, a read-only root file system with a small ``/tmp``, masked and read-only
    paths below ``/proc`` and ``/sys``, namespaces of its own, no network, a limit of processes, and only the system
    calls that programs need.

    :param args: the program and its arguments.
    :param env: its environment; ``PATH`` is set if it is not in it.
    :param cwd: its working directory, absolute. Where there is none, the runtime makes it, in the root file system.
    :param user: who it runs as: ``uid`` or ``uid:gid``, in numbers; None is root in the container. Without a gid it
        is the same number.
    :param additional_gids: the further groups that it is in, in numbers.
    :param memory: the most memory, in bytes, or with a unit: ``"256M"``, ``"1.5G"`` (powers of 1024). Less than 4M
        is refused: the runtime's own init has to start within it.
    :param swap: the most memory and swap together, likewise; the same as `memory` forbids swap. The host must
        account for swap.
    :param cpus: the most CPU time, in CPUs: ``0.5`` is half of one.
    :param pids: the most processes and threads; None means no limit. ``"auto"`` is 256, no limit if `rootless`.
    :param mounts: further mounts: OCI mount objects, or ``"/host/path:/path"``, ``"/host/path:/path:ro"``; with ``ro``
        what is mounted below that path on the host is read-only, too (Linux 5.12). Where there is nothing at the path
        in the container to mount on, the runtime makes it, in the root file system.
    :param hostname: the container's; None is ``container``.
    :param readonly: whether the root file system is read-only.
    :param network: ``"none"`` is a network namespace with nothing but a loopback device; ``"host"`` the host's; or the
        path of a network namespace that exists (``"/run/netns/NAME"``, see ``ip-netns(8)``).
    :param terminal: whether the program has a terminal; then the call needs a `ConsoleSocket`.
    :param rootless: run by an ordinary user: in a user namespace whose root is the caller. None is whether the caller
        is not root. Limits then need cgroups that are delegated to the caller; without, runc refuses them, and crun
        runs the container without them, and says nothing.
    :param capabilities: those that the program has, by name. None is ``CAP_KILL`` and ``CAP_NET_BIND_SERVICE`` for
        root in the container, and none for another user.
    :param seccomp: which system calls pass. ``"default"`` (or True): what programs need and `capabilities` allow;
        no new namespaces, keyrings or io_uring, and sockets only of the families Unix, Internet and netlink.
        ``"strict"``, for graders: besides, no ptrace, whatever the capabilities, and of sockets only Unix ones and,
        with network ``"none"``, TCP and UDP, which reach nothing but loopback there. ``"unconfined"`` (or False): all.
        Or a profile, an OCI ``linux.seccomp`` object. Calls that are refused fail with EPERM, unknown ones with ENOSYS.
    :param tmp: the size of ``/tmp``, as for `memory`.
    :param annotations: names and values, which are in the container's state.
    :param init: a program that is PID 1 and runs `args` as its child, so that they end with their own statuses and
        signals, and orphans are reaped. True finds tini or catatonit on this machine; a path selects another static
        program that takes ``-- PROGRAM ARGUMENT...``. It is mounted read-only at ``/dev/init``.
    :param rlimits: resource limits by their names in ``setrlimit(2)``: ``{"RLIMIT_NOFILE": 1024}``, or a soft and a
        hard one: ``(1024, 4096)``. `resource.RLIM_INFINITY` means no limit. Unless they are here, ``RLIMIT_CORE`` is 0
        and ``RLIMIT_NOFILE`` is (1024, 4096), or 1024 if `rootless`.
    :param devices: devices of the host that the container may use: ``"/dev/fuse"``, ``"/dev/HOST:/dev/CONTAINER"`` or
        ``"/dev/HOST:/dev/CONTAINER:r"``, where the last part is which of r (read), w (write) and m (make the node) it
        may; ``rw`` if there is none. In a user namespace the host's own node is mounted.
    :param sysctl: kernel parameters by name: ``{"net.ipv4.ip_unprivileged_port_start": 0}``. Only those that belong
        to the container's own network or IPC namespace.
    :param resolv_conf: a file of the host that is mounted read-only at ``/etc/resolv.conf``.
    :param hosts: a file of the host that is mounted read-only at ``/etc/hosts``.
    :param user_namespace: the ids on the host that the container's users and groups have: ``range(100000, 165536)``.
        Id 0 in the container is the first of them, so that its root is nobody on the host; if `rootless`, 0 is the
        caller, 1 the first of them, and the caller must be allowed to use them (``subuid(5)``). Every directory on the
        way to the root file system must let other users pass.
    :param apparmor: the AppArmor profile of the program, which must be loaded. It is an error where the kernel has no
        AppArmor: crun would run the program without a profile.
    :param nr_inodes: the most files and directories on each tmpfs whose options do not say so. None is one for each
        4 KiB of its size, at least 1024, and 65536 without a size.
    :returns: a plain dictionary, to be changed at will.
    :raises FileNotFoundError: `init` is True and no init was found; the message names the Debian package.
    :raises TypeError: a parameter of the wrong type.
    :raises ValueError: a value that cannot be right, with the reason.
    """
    words = _arguments(args)
    rootless = os.geteuid() != 0 if rootless is None else rootless
    net = network_namespace(network)
    uid_mappings, gid_mappings = map_ids(rootless, user_namespace)
    who = _user(user, additional_gids, rootless, user_namespace)
    uid = who["uid"]
    init_path = find_init(init)
    check_type("devices", devices, list, tuple, wanted="a sequence of str")
    nodes = [parse_device(device) for device in devices]
    variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **check_variables(env or {})}
    if terminal:
        variables.setdefault("TERM", "xterm")
    if capabilities is None:
        capabilities = CAPABILITIES if uid == 0 else ()
    if pids == "auto":
        pids = None if rootless else DEFAULT_PIDS
    own_network = net is not None and "path" not in net
    every_mount = all_mounts(
        tmp=parse_size(tmp, "tmp", LEAST_TMP),
        nr_inodes=parse_inodes(nr_inodes),
        own_network=own_network,
        user_namespace=bool(uid_mappings),
        one_id=rootless and user_namespace is None,
        init=init_path,
        resolv_conf=resolv_conf,
        hosts=hosts,
        mounts=[*(node.mount for node in nodes if uid_mappings), *mounts],
    )
    spec: Spec = {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": terminal,
            "user": who,
            "args": [INIT, "--", *words] if init_path else words,
            "env": [f"{name}={value}" for name, value in variables.items()],
            "cwd": _directory(cwd),
            "capabilities": _capability_sets(capabilities, uid),
            "rlimits": parse_rlimits(rlimits, rootless),
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": readonly},
        "hostname": _hostname("container" if hostname is None else hostname),
        "mounts": every_mount,
        "linux": {
            "namespaces": new_namespaces(net, bool(uid_mappings)),
            "resources": all_resources(memory, swap, cpus, pids, nodes),
            "rootfsPropagation": "rprivate",
            "maskedPaths": [*MASKED, *masked_in_sys(own_network, bool(uid_mappings))],
            "readonlyPaths": list(READONLY),
        },
    }
    optional = {
        "seccomp": seccomp_profile(seccomp, capabilities=capabilities, only_loopback=own_network),
        "uidMappings": uid_mappings,
        "gidMappings": gid_mappings,
        "devices": [] if uid_mappings else [node.node for node in nodes],
        "sysctl": parse_sysctl(sysctl, net),
    }
    spec["linux"].update(cast("Linux", {name: value for name, value in optional.items() if value}))
    if apparmor is not None:
        spec["process"]["apparmorProfile"] = _apparmor(apparmor)
    if annotations:
        spec["annotations"] = {
            _word(name, "annotations"): _word(value, "annotations") for name, value in annotations.items()
        }
    return spec


def _arguments(args: Sequence[str]) -> list[str]:
    if isinstance(args, str | bytes):
        raise TypeError("args must be a sequence of a program and its arguments, not one string")
    words = [_word(word, "args") for word in args]
    if not words or not words[0]:
        raise ValueError(f"args must begin with a program, not be {words!r}")
    return words


def _directory(cwd: StrPath) -> str:
    folder = _word(os.fspath(cwd), "cwd")
    if not folder.startswith("/"):
        raise ValueError(f"cwd must be absolute, not {folder!r}")
    return folder


def _capability_sets(capabilities: Sequence[str], uid: int) -> Capabilities:
    sets: Capabilities = {"bounding": [], "effective": [], "permitted": []}
    if uid != 0:  # only ambient ones outlive the start of a program by another user than root (capabilities(7))
        sets |= {"inheritable": [], "ambient": []}
    for names in cast("dict[str, list[str]]", sets).values():
        names.extend(sorted({_capability(name) for name in capabilities}))
    return sets


def _word(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be str, not {type(value).__name__}")
    if "\0" in value:
        raise ValueError(f"{what}: has a NUL character: {value!r}")
    return value


def _user(user: str | int | None, additional_gids: Sequence[int], rootless: bool, user_namespace: range | None) -> User:
    uid, gid = 0, 0
    if user is not None:
        found = re.fullmatch(r"(\d+)(?::(\d+))?", str(user))
        if found is None or isinstance(user, bool):
            raise ValueError(f"user must be uid or uid:gid, in numbers, not {user!r}: names are the container's own")
        uid = _id(int(found[1]), "user")
        gid = _id(int(found[2]), "user") if found[2] else uid
    groups = [_id(gid, "additional_gids") for gid in additional_gids]
    most = MOST_ID
    if user_namespace is not None:
        most = len(user_namespace) - 1 + rootless
    elif rootless:
        most = 0
    if rootless and not most and (uid, gid) != (0, 0):
        raise ValueError(f"user {uid}:{gid}: a rootless container has one user and one group, 0:0, which is the caller")
    if rootless and groups:
        raise ValueError(f"additional_gids {groups}: a rootless container has only the caller's groups")
    for id in (uid, gid, *groups):
        if id > most:
            raise ValueError(f"user_namespace has ids 0 to {most} in the container, not {id}")
    who: User = {"uid": uid, "gid": gid}
    if groups:
        who["additionalGids"] = groups
    return who


def _id(value: int, what: str) -> int:
    check_type(what, value, int, wanted="numbers")
    if not 0 <= value <= MOST_ID:
        raise ValueError(f"{what}: {value} is not a possible id")
    return value


def _apparmor(profile: str) -> str:
    with naming("apparmor"):
        parse_text(profile)
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    if not enabled.exists() or enabled.read_text().strip() != "Y":
        raise ValueError(f"apparmor: the kernel of this machine has no AppArmor, so no profile {profile!r}")
    return profile


def _capability(name: str) -> str:
    if name.removeprefix("CAP_") not in KNOWN_CAPABILITIES.split() or not name.startswith("CAP_"):
        raise ValueError(f"capabilities must be names such as CAP_NET_ADMIN, as in capabilities(7), not {name!r}")
    return name


def _hostname(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", _word(name, "hostname")):
        raise ValueError(f"hostname must be 1 to 64 letters, digits, dots, dashes or underscores, not {name!r}")
    return name
