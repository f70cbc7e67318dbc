"""`default_spec`: a container that is safe unless told otherwise, in one line."""

from __future__ import annotations

import copy
import math
import os
import re
from typing import TYPE_CHECKING, Literal, cast

from .._cli.validation import INT64, MOST_ID, byte_size, named
from .._process.environment import checked
from .seccomp import seccomp_profile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .._cli.options import StrPath
    from .spec import Capabilities, LinuxResources, LinuxSeccomp, Mount, Namespace, Spec, User

__all__ = ["default_spec"]

OCI_VERSION = "1.0.2"  # what the oldest supported runtime follows; newer ones take it
CPU_PERIOD = 100_000  # microseconds
MOST_CPUS = 8192  # a kernel's
MOST_PIDS = 1 << 22  # PID_MAX_LIMIT
LEAST_MEMORY = 4 << 20  # runc's init, which is in the cgroup before the program is, does not fit into 2M
LEAST_TMP = 1 << 12  # a page
DEFAULT_PIDS = 256

# "ro" alone leaves what is mounted below the source writable.
ACCESS = {"": ["rw"], "rw": ["rw"], "ro": ["ro", "rro"]}

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
    network: Literal["none", "host"] = "none",
    terminal: bool = False,
    rootless: bool | None = None,
    capabilities: Sequence[str] | None = None,
    seccomp: Literal["default", "strict", "unconfined"] | bool | LinuxSeccomp = "default",
    tmp: str | int = "64M",
    annotations: Mapping[str, str] | None = None,
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
    :param pids: the most processes and threads; None is no limit. ``"auto"`` is 256, and no limit if `rootless`.
    :param mounts: further mounts: OCI mount objects, or ``"/host/path:/path"``, ``"/host/path:/path:ro"``; with ``ro``
        what is mounted below that path on the host is read-only, too (Linux 5.12). Where there is nothing at the path
        in the container to mount on, the runtime makes it, in the root file system.
    :param hostname: the container's; None is ``container``.
    :param readonly: whether the root file system is read-only.
    :param network: ``"none"`` is a network namespace with nothing but a loopback device; ``"host"`` the host's.
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
    :param annotations: names and values for whoever reads the state.
    :returns: a plain dictionary, to be changed at will.
    :raises TypeError: a parameter of the wrong type.
    :raises ValueError: a value that cannot be right, with the reason.
    """
    if isinstance(args, str | bytes):
        raise TypeError("args must be a sequence of a program and its arguments, not one string")
    words = [_word(word, "args") for word in args]
    if not words or not words[0]:
        raise ValueError(f"args must begin with a program, not be {words!r}")
    folder = _word(os.fspath(cwd), "cwd")
    if not folder.startswith("/"):
        raise ValueError(f"cwd must be absolute, not {folder!r}")
    if network not in ("none", "host"):
        raise ValueError(f"network must be 'none' or 'host', not {network!r}")
    rootless = os.geteuid() != 0 if rootless is None else rootless
    uid, gid = _user(user)
    if rootless and (uid, gid) != (0, 0):
        raise ValueError(f"user {uid}:{gid}: a rootless container has one user and one group, 0:0, which is the caller")
    variables = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", **checked(env or {})}
    if terminal:
        variables.setdefault("TERM", "xterm")
    if capabilities is None:
        capabilities = CAPABILITIES if uid == 0 else ()
    sets: Capabilities = {"bounding": [], "effective": [], "permitted": []}
    if uid != 0:  # only ambient ones outlive the start of a program by another user than root (capabilities(7))
        sets |= {"inheritable": [], "ambient": []}
    for names in cast("dict[str, list[str]]", sets).values():
        names.extend(sorted({_capability(name) for name in capabilities}))
    namespaces: list[Namespace] = [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]
    namespaces.append({"type": "cgroup"})
    if network == "none":
        namespaces.append({"type": "network"})
    if rootless:
        namespaces.append({"type": "user"})
    groups = [_id(gid, "additional_gids") for gid in additional_gids]
    if rootless and groups:
        raise ValueError(f"additional_gids {groups}: a rootless container has one group, 0, which is the caller's")
    if pids == "auto":
        pids = None if rootless else DEFAULT_PIDS
    who: User = {"uid": uid, "gid": gid}
    if groups:
        who["additionalGids"] = groups
    size = _bytes(tmp, "tmp", LEAST_TMP)
    spec: Spec = {
        "ociVersion": OCI_VERSION,
        "process": {
            "terminal": terminal,
            "user": who,
            "args": words,
            "env": [f"{name}={value}" for name, value in variables.items()],
            "cwd": folder,
            "capabilities": sets,
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 1024 if rootless else 4096},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            ],
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs", "readonly": readonly},
        "hostname": _hostname("container" if hostname is None else hostname),
        "mounts": [*_mounts(rootless, network, size), *(_mount(mount) for mount in mounts)],
        "linux": {
            "namespaces": namespaces,
            "resources": _resources(memory, swap, cpus, pids),
            "maskedPaths": list(MASKED),
            "readonlyPaths": list(READONLY),
        },
    }
    linux = spec["linux"]
    profile = seccomp_profile(seccomp, capabilities=capabilities, only_loopback=network == "none")
    if profile is not None:
        linux["seccomp"] = profile
    if rootless:
        linux["uidMappings"] = [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]
        linux["gidMappings"] = [{"containerID": 0, "hostID": os.getegid(), "size": 1}]
    if annotations:
        spec["annotations"] = {
            _word(name, "annotations"): _word(value, "annotations") for name, value in annotations.items()
        }
    return spec


def _word(value: object, what: str) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{what} must be str, not {type(value).__name__}")
    if "\0" in value:
        raise ValueError(f"{what}: has a NUL character: {value!r}")
    return value


def _user(user: str | int | None) -> tuple[int, int]:
    if user is None:
        return 0, 0
    found = re.fullmatch(r"(\d+)(?::(\d+))?", str(user))
    if found is None or isinstance(user, bool):
        raise ValueError(f"user must be uid or uid:gid, in numbers, not {user!r}: names are the container's own")
    uid = _id(int(found[1]), "user")
    return uid, _id(int(found[2]), "user") if found[2] else uid


def _id(value: int, what: str) -> int:
    if isinstance(value, bool) or not isinstance(cast("object", value), int):
        raise TypeError(f"{what} must be numbers, not {type(value).__name__}")
    if not 0 <= value <= MOST_ID:
        raise ValueError(f"{what}: {value} is no possible id")
    return value


def _capability(name: str) -> str:
    if name.removeprefix("CAP_") not in KNOWN_CAPABILITIES.split() or not name.startswith("CAP_"):
        raise ValueError(f"capabilities must be names such as CAP_NET_ADMIN, as in capabilities(7), not {name!r}")
    return name


def _hostname(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", _word(name, "hostname")):
        raise ValueError(f"hostname must be 1 to 64 letters, digits, dots, dashes or underscores, not {name!r}")
    return name


def _bytes(value: str | int, what: str, least: int = LEAST_MEMORY) -> int:
    with named(what):
        number = byte_size(value)
    if not least <= number <= INT64:
        raise ValueError(f"{what} must be from {least} to {INT64} bytes, not {value!r}")
    return number


def _resources(
    memory: str | int | None, swap: str | int | None, cpus: float | None, pids: int | None
) -> LinuxResources:
    resources: LinuxResources = {"devices": [{"allow": False, "access": "rwm"}]}
    if memory is not None:
        resources["memory"] = {"limit": _bytes(memory, "memory")}
    if swap is not None:
        total = _bytes(swap, "swap")
        if memory is None or total < _bytes(memory, "memory"):
            raise ValueError(f"swap is memory and swap together, so it needs memory, and at least as much: {swap!r}")
        resources["memory"] = {"limit": _bytes(memory, "memory"), "swap": total}
    if cpus is not None:
        if isinstance(cpus, bool) or not isinstance(cast("object", cpus), int | float):
            raise TypeError(f"cpus must be a number, not {type(cpus).__name__}")
        if not math.isfinite(cpus) or not 0.01 <= cpus <= MOST_CPUS:  # a quota of 1 ms is the kernel's least
            raise ValueError(f"cpus must be from 0.01 to {MOST_CPUS}, not {cpus}")
        resources["cpu"] = {"quota": round(cpus * CPU_PERIOD), "period": CPU_PERIOD}
    if pids is not None:
        if isinstance(pids, bool) or not isinstance(cast("object", pids), int):
            raise TypeError(f"pids must be a number, 'auto' or None, not {type(pids).__name__}")
        if not 1 <= pids <= MOST_PIDS:
            raise ValueError(f"pids must be from 1 to {MOST_PIDS}, not {pids}; None is no limit")
        resources["pids"] = {"limit": pids}
    return resources


def _mounts(rootless: bool, network: str, tmp: int) -> list[Mount]:
    # Without a network namespace of its own a user namespace may not mount sysfs: it gets the host's, read-only.
    sys: Mount = {
        "destination": "/sys",
        "type": "sysfs",
        "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"],
    }
    if rootless and network == "host":
        sys = {"destination": "/sys", "type": "none", "source": "/sys",
               "options": ["rbind", "nosuid", "noexec", "nodev", "ro"]}  # fmt: skip
    # The group of terminals, 5, does not exist in a user namespace of one id.
    terminals = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", *([] if rootless else ["gid=5"])]
    return [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=64k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": terminals},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=64m"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue",
         "options": ["nosuid", "noexec", "nodev"]},
        sys,
        {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "nodev", "mode=1777", f"size={tmp}"]},
    ]  # fmt: skip


def _mount(mount: Mount | str) -> Mount:
    if isinstance(mount, str):
        source, _, rest = _word(mount, "mounts").partition(":")
        destination, _, access = rest.partition(":")
        if access not in ACCESS:
            raise ValueError(f"mounts: {mount!r}: {access!r} is neither ro nor rw")
        if not os.path.isabs(source) or not os.path.exists(source):
            raise ValueError(f"mounts: {source!r} is no absolute path of something that exists")
        options = ["rbind", "nosuid", "nodev", *ACCESS[access]]
        mount = {"destination": destination, "type": "none", "source": source, "options": options}
    elif not isinstance(cast("object", mount), dict):
        raise TypeError(f"mounts must be OCI mount objects or str, not {type(mount).__name__}")
    destination = _word(mount.get("destination", ""), "mounts")
    parts = [part for part in destination.split("/") if part not in ("", ".")]
    if not destination.startswith("/") or not parts or ".." in parts:
        raise ValueError(f"mounts: the destination must be an absolute path below /, without .., not {destination!r}")
    return copy.deepcopy(mount)
