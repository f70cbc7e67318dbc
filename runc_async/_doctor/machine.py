"""What this machine has: the runtime, the kernel, ``/proc``, cgroups, rootless, resource limits."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
import subprocess
from typing import TYPE_CHECKING

import anyio

from .._linux.mounts import read_mountinfo
from .line import PATIENCE, Line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "check_cgroups",
    "check_kernel",
    "check_launcher",
    "check_proc",
    "check_resources",
    "check_rootless",
    "find_runtime",
]

FEW_DESCRIPTORS = 4096
FEW_PROCESSES = 1024


def find_runtime(wanted: str | None) -> tuple[str | None, Line]:
    """Find the runtime; its path, or None.

    :param wanted: a path, or a name on ``PATH``; None is runc, or else crun.
    """
    name = "runtime"
    for candidate in (wanted,) if wanted else ("runc", "crun"):
        found = shutil.which(candidate)
        if found:
            return os.path.abspath(found), Line(name, "good", os.path.abspath(found))
        elsewhere = shutil.which(candidate, path="/usr/sbin:/sbin:/usr/local/sbin")
        if elsewhere:
            advice = f'your PATH lacks {os.path.dirname(elsewhere)}: use Runc("{elsewhere}")'
            return elsewhere, Line(name, "warning", f"{elsewhere}, which is not on PATH", advice)
    advice = "install one (Debian, Ubuntu: apt-get install runc), or name its path with --runtime"
    if wanted and os.path.exists(wanted):
        advice = "make it executable (chmod +x), or name another"
    return None, Line(name, "bad", f"{wanted or 'neither runc nor crun'}: no such program", advice)


def check_kernel() -> Line:
    """Whether the kernel has pidfds."""
    release = platform.release()
    found = f"Linux {release}, {platform.machine()}"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as exc:
        return Line("kernel", "bad", f"{found}: pidfd_open: {exc.strerror}", "Linux 5.4 or newer is needed")
    return Line("kernel", "good", found)


def check_proc() -> Line:
    """Whether ``/proc`` is mounted, and lists children."""
    if not os.path.exists("/proc/self/fd"):
        return Line("/proc", "bad", "not mounted", "mount -t proc proc /proc")
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        advice = "cancelled calls take longer: the kernel lacks CONFIG_PROC_CHILDREN"
        return Line("/proc", "warning", "mounted, without lists of children", advice)
    return Line("/proc", "good", "mounted")


def check_cgroups() -> Iterator[Line]:
    """Which cgroups are mounted, and whether this process may make some."""
    mounts: dict[str, str] = {}
    with contextlib.suppress(OSError):
        mounts = {mount.point: mount.kind for mount in read_mountinfo() if mount.kind in ("cgroup", "cgroup2")}
    kinds = set(mounts.values())
    if not kinds:
        advice = "mount -t cgroup2 none /sys/fs/cgroup; in a container, let it have the host's"
        yield Line("cgroup layout", "bad", "no cgroup file system is mounted", advice)
        return
    if kinds == {"cgroup2"}:
        top = next(iter(mounts))
        with open(os.path.join(top, "cgroup.controllers")) as file:
            controllers = file.read().split()
        layout, wanted = "v2 (unified)", {"cpu", "memory", "pids"}
    else:
        controllers = sorted({os.path.basename(place) for place, kind in mounts.items() if kind == "cgroup"})
        controllers = [name for joined in controllers for name in joined.split(",")]
        layout, wanted = ("v1" if kinds == {"cgroup"} else "hybrid (v1, and v2 beside it)"), {"cpu", "memory", "pids"}
    systemd = "with systemd" if os.path.isdir("/run/systemd/system") else "no systemd, so no systemd_cgroup=True"
    found = f"{layout}; {systemd}; {' '.join(controllers)}"
    missing = sorted(wanted - set(controllers))
    if missing:
        advice = f"no limits of {' and '.join(missing)}: enable these controllers for this part of the tree"
        yield Line("cgroup layout", "warning", found, advice)
    elif layout.startswith("hybrid"):
        yield Line("cgroup layout", "warning", found, "runc runs; crun may refuse a hybrid layout (boot with v2 alone)")
    else:
        yield Line("cgroup layout", "good", found)
    if any(os.access(place, os.W_OK) for place in mounts):
        yield Line("cgroup access", "good", "writable")
    elif os.geteuid() == 0:
        advice = "remount it writable (in a container: a privileged one, or cgroupns with delegation)"
        yield Line("cgroup access", "bad", "read-only", advice)
    else:
        advice = "no limits: have systemd delegate cgroups (Delegate=yes), or default_spec without limits"
        yield Line("cgroup access", "warning", "not delegated to this user", advice)


SYSCTLS = {
    "/proc/sys/user/max_user_namespaces": ("0", "sysctl user.max_user_namespaces=15000"),
    "/proc/sys/kernel/unprivileged_userns_clone": ("0", "sysctl kernel.unprivileged_userns_clone=1"),
    "/proc/sys/kernel/apparmor_restrict_unprivileged_userns": (
        "1",
        "an AppArmor profile for the runtime, or sysctl kernel.apparmor_restrict_unprivileged_userns=0",
    ),
}
"""What forbids ordinary users their namespaces: the value that does, and what to do."""


async def check_rootless() -> Line:
    """Whether ordinary users can have namespaces."""
    name = "rootless"
    for path, (forbidding, advice) in SYSCTLS.items():
        with contextlib.suppress(OSError), open(path) as file:
            if file.read().strip() == forbidding:
                return Line(name, "warning", f"not possible: {path} is {forbidding}", advice)
    unshare = shutil.which("unshare")
    if unshare is None:
        return Line(name, "warning", "not tried: no program unshare", "install util-linux")
    status, output = await _output_of([unshare, "--user", "--map-root-user", "true"])
    if status:
        advice = "in a container: its seccomp profile must allow user namespaces"
        return Line(name, "warning", f"not possible: {output}", advice)
    return Line(name, "good", "possible" if os.geteuid() else "user namespaces work (asked as root)")


def check_launcher() -> Line:
    """Whether ``pdeathsig=`` can be used."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return Line("setpriv", "warning", "not found: no pdeathsig=", "where you need it: install util-linux")
    return Line("setpriv", "good", setpriv)


def check_resources() -> Iterator[Line]:
    """How many descriptors and processes this user may have."""
    for name, number, few, flag in (
        ("open files", resource.RLIMIT_NOFILE, FEW_DESCRIPTORS, "n"),
        ("processes", resource.RLIMIT_NPROC, FEW_PROCESSES, "u"),
    ):
        soft, hard = resource.getrlimit(number)
        shown = ["no limit" if limit == resource.RLIM_INFINITY else str(limit) for limit in (soft, hard)]
        found = f"{shown[0]} (at most {shown[1]})" if shown[0] != shown[1] else shown[0]
        if soft == resource.RLIM_INFINITY or soft >= few:
            yield Line(name, "good", found)
        else:
            advice = f"enough for few containers at once: ulimit -{flag} {few}, or LimitNOFILE=, LimitNPROC= in a unit"
            yield Line(name, "warning", found, advice)


async def _output_of(command: Sequence[str]) -> tuple[int, str]:
    """The status of a program, and the last line that it prints."""
    try:
        with anyio.fail_after(PATIENCE):
            done = await anyio.run_process(command, check=False, stderr=subprocess.STDOUT)
    except OSError as exc:  # TimeoutError among them
        return 1, str(exc) or "it did not end"
    lines = [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
    return done.returncode, lines[-1].strip() if lines else ""
