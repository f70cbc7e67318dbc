"""What `default_spec` limits: memory, CPU time, processes, resource limits, and the devices that can be opened."""

from __future__ import annotations

import math
import os
import resource
import stat
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple, cast

from .._cli.validation import INT64, UINT64, byte_size, check_type, naming, parse_integer
from .mounts import parse_destination

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .spec import DeviceCgroup, LinuxDevice, LinuxResources, Mount, Rlimit

__all__ = ["Device", "all_resources", "parse_device", "parse_rlimits", "parse_size"]

CPU_PERIOD = 100_000  # microseconds
MOST_CPUS = 8192  # a kernel's
MOST_PIDS = 1 << 22  # PID_MAX_LIMIT
LEAST_MEMORY = 4 << 20  # runc's init, which is in the cgroup before the program is, does not fit into 2M

RLIMITS = tuple(name for name in dir(resource) if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE")
"""``setrlimit(2)``; RLIMIT_OFILE is another name of RLIMIT_NOFILE."""


class Device(NamedTuple):
    """A device of the host that a container may use."""

    node: LinuxDevice
    rule: DeviceCgroup
    mount: Mount
    """What takes the place of the node in a user namespace, where none can be made."""


def parse_size(value: str | int, what: str, least: int = LEAST_MEMORY) -> int:
    """Read a number of bytes.

    :param what: the parameter's name.
    :param least: the smallest that is allowed.
    :raises TypeError: it is neither int nor str.
    :raises ValueError: it is not a number of bytes, or out of the limits.
    """
    with naming(what):
        number = byte_size(value)
    if not least <= number <= INT64:
        raise ValueError(f"{what} must be from {least} to {INT64} bytes, not {value!r}")
    return number


def all_resources(
    memory: str | int | None,
    swap: str | int | None,
    cpus: float | None,
    pids: int | None,
    devices: Sequence[Device],
) -> LinuxResources:
    """``linux.resources`` of the parameters of `default_spec`."""
    rules: list[DeviceCgroup] = [{"allow": False, "access": "rwm"}, *(device.rule for device in devices)]
    resources: LinuxResources = {"devices": rules}
    if memory is not None:
        resources["memory"] = {"limit": parse_size(memory, "memory")}
    if swap is not None:
        total = parse_size(swap, "swap")
        if memory is None or total < parse_size(memory, "memory"):
            raise ValueError(f"swap is memory and swap together, so it needs memory, and at least as much: {swap!r}")
        resources["memory"] = {"limit": parse_size(memory, "memory"), "swap": total}
    if cpus is not None:
        check_type("cpus", cpus, int, float, wanted="a number")
        if not math.isfinite(cpus) or not 0.01 <= cpus <= MOST_CPUS:  # a quota of 1 ms is the kernel's least
            raise ValueError(f"cpus must be from 0.01 to {MOST_CPUS}, not {cpus}")
        resources["cpu"] = {"quota": round(cpus * CPU_PERIOD), "period": CPU_PERIOD}
    if pids is not None:
        check_type("pids", pids, int, wanted="a number, 'auto' or None")
        if not 1 <= pids <= MOST_PIDS:
            raise ValueError(f"pids must be from 1 to {MOST_PIDS}, not {pids}; None means no limit")
        resources["pids"] = {"limit": pids}
    return resources


def parse_rlimits(rlimits: Mapping[str, int | tuple[int, int]] | None, rootless: bool) -> list[Rlimit]:
    """``process.rlimits``: no core dumps, few open files, and what the caller wants instead or besides.

    :param rlimits: names as ``setrlimit(2)`` has them, and a limit, or a soft and a hard one.
        `resource.RLIM_INFINITY` is none.
    :param rootless: whether the caller may be unable to raise the hard limits.
    :raises TypeError: it is not such a mapping.
    :raises ValueError: a name that the kernel does not have, or a limit that cannot be.
    """
    limits: dict[str, tuple[int, int]] = {
        "RLIMIT_NOFILE": (1024, 1024 if rootless else 4096),
        "RLIMIT_CORE": (0, 0),
    }
    if rlimits is not None:
        check_type("rlimits", rlimits, Mapping, wanted="a mapping of names to limits")
    for name, value in (rlimits or {}).items():
        if name not in RLIMITS:
            raise ValueError(f"rlimits must have names such as RLIMIT_NOFILE, as in setrlimit(2), not {name!r}")
        pair = value if isinstance(value, tuple) else (value, value)
        if len(cast("tuple[int, ...]", pair)) != 2:
            raise ValueError(f"rlimits: {name} must be a limit, or a soft and a hard one, not {value!r}")
        with naming(f"rlimits: {name}"):
            soft, hard = (UINT64 if limit == resource.RLIM_INFINITY else parse_integer(limit, 0) for limit in pair)
        if soft > hard or hard > UINT64:
            raise ValueError(f"rlimits: {name}: the soft limit is greater than the hard one: {value!r}")
        limits[name] = (soft, hard)
    return [{"type": name, "soft": soft, "hard": hard} for name, (soft, hard) in limits.items()]


def parse_device(device: str) -> Device:
    """Read a device: ``"/dev/HOST"``, ``"/dev/HOST:/dev/CONTAINER"``, ``"/dev/HOST:/dev/CONTAINER:r"``.

    :raises TypeError: it is not str.
    :raises ValueError: nothing of that path is a device, or the rest cannot be.
    """
    check_type("devices", device, str)
    source, _, rest = device.partition(":")
    path, _, access = rest.partition(":")
    path, access = path or source, access or "rw"
    if not set(access) <= set("rwm") or len(set(access)) != len(access):
        raise ValueError(f"devices: {device!r}: the access must be of r, w and m, not {access!r}")
    parse_destination(path)
    if not os.path.isabs(source) or "\0" in source:
        raise ValueError(f"devices: {source!r} is not an absolute path")
    try:
        status = os.stat(source)
    except OSError as error:
        raise ValueError(f"devices: {source!r}: {error.strerror}") from None
    kind = "c" if stat.S_ISCHR(status.st_mode) else "b" if stat.S_ISBLK(status.st_mode) else ""
    if not kind:
        raise ValueError(f"devices: {source!r} is not a device")
    major, minor = os.major(status.st_rdev), os.minor(status.st_rdev)
    return Device(
        node={
            "path": path, "type": kind, "major": major, "minor": minor,
            "fileMode": stat.S_IMODE(status.st_mode), "uid": status.st_uid, "gid": status.st_gid,
        },
        rule={"allow": True, "type": kind, "major": major, "minor": minor, "access": access},
        mount={
            "destination": path, "type": "none", "source": source,
            "options": ["bind", "rprivate", "nosuid", "noexec"],
        },
    )  # fmt: skip
