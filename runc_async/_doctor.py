"""Whether containers can be run here, and if not, why: what ``python -m runc_async doctor`` shows."""

from __future__ import annotations

import contextlib
import os
import platform
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import anyio
import msgspec

from ._bundle.bundle import Bundle
from ._bundle.default_spec import default_spec
from ._client import Runc
from ._errors import CommandError, DecodeError, RuncError, UnsupportedError
from ._executor import FdExecutor, PathExecutor, SealedExecutor
from ._linux.mounts import read_mountinfo

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ._bundle.spec import Mount
    from ._executor import Executor

__all__ = ["Line", "examine", "runnable"]

State = Literal["good", "warning", "bad"]

OLDEST_RUNC = (1, 1)
OLDEST_CRUN = (1, 8)
FEW_DESCRIPTORS = 4096
FEW_PROCESSES = 1024
PATIENCE = 20.0
"""Seconds that one check may take."""
CONTAINER = "a container"
"""The check that decides."""


class Line(msgspec.Struct, frozen=True):
    """What was found out about one thing."""

    name: str
    state: State
    found: str
    advice: str = ""
    """What to do; empty where nothing has to be done."""


def runnable(lines: Sequence[Line]) -> bool:
    """Whether a container was run."""
    return any(line.name == CONTAINER and line.state == "good" for line in lines)


async def examine(runtime: str | None) -> list[Line]:
    """Look at everything.

    :param runtime: the runtime's path or name on ``PATH``; None is runc, or else crun.
    """
    lines: list[Line] = []
    path, line = _runtime(runtime)
    lines.append(line)
    if path is not None:
        with tempfile.TemporaryDirectory(prefix="runc-async-doctor-") as root:  # crun makes its own even for --version
            runc = Runc(path, root=root)
            lines += [await _version(runc), await _features(runc)]
            for name, how in EXECUTORS.items():
                lines.append(await _executed(name, how, path, root))
    lines += [_kernel(), _proc(), *_cgroups(), await _rootless(), await _criu(), _launcher(), *_limits()]
    if path is None:
        lines.append(Line(CONTAINER, "bad", "there is no runtime to run it", "see the first line"))
    else:
        lines.append(await _container(path))
    return lines


def _runtime(wanted: str | None) -> tuple[str | None, Line]:
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


async def _version(runc: Runc) -> Line:
    name = "version"
    try:
        with anyio.fail_after(PATIENCE):
            version = await runc.version()
    except (RuncError, OSError) as exc:
        return Line(name, "bad", _said(exc), "install a working runc or crun for this machine")
    found = f"{version.runtime} {version.version}, specification {version.spec or 'unknown'}"
    oldest = {"runc": OLDEST_RUNC, "crun": OLDEST_CRUN}.get(version.runtime)
    if oldest is None:
        return Line(name, "warning", found, "only runc and crun are tested")
    if version.release < oldest:
        return Line(name, "warning", found, f"{version.runtime} {'.'.join(map(str, oldest))} is the oldest one tested")
    return Line(name, "good", found)


async def _features(runc: Runc) -> Line:
    name = "features"
    try:
        with anyio.fail_after(PATIENCE):
            linux = (await runc.features()).linux
    except UnsupportedError:
        return Line(name, "warning", "the runtime does not tell", "runc 1.1 and crun 1.8.6 are the first to")
    except (RuncError, OSError) as exc:
        return Line(name, "warning", _said(exc), "")
    if linux is None:
        return Line(name, "warning", "nothing is said about Linux")
    cgroup, seccomp = linux.cgroup, linux.seccomp
    parts = [
        f"cgroup {' and '.join(v for v in ('v1', 'v2') if cgroup and getattr(cgroup, v))}",
        f"{len(linux.namespaces or ())} kinds of namespaces",
    ]
    if seccomp is None or not seccomp.enabled:
        advice = "default_spec(..., seccomp=False), or a runtime that was built with libseccomp"
        return Line(name, "warning", ", ".join([*parts, "no seccomp"]), advice)
    return Line(name, "good", ", ".join([*parts, "seccomp"]))


EXECUTORS: dict[str, type[PathExecutor | FdExecutor]] = {
    "by its path": PathExecutor,
    "by a descriptor": FdExecutor,
    "sealed in memory": SealedExecutor,
}


async def _executed(name: str, how: type[PathExecutor | FdExecutor], path: str, root: str) -> Line:
    advice = {
        "by its path": "look at the file: is it a program for this machine, and its file system not mounted noexec?",
        "by a descriptor": "mount /proc; or use PathExecutor",
        "sealed in memory": "sysctl vm.memfd_noexec must not be 2, and the file be readable; or use FdExecutor",
    }[name]
    try:
        executor: Executor = how(path) if issubclass(how, PathExecutor) else how.open(path)
        with executor, anyio.fail_after(PATIENCE):
            began = time.perf_counter()
            await Runc(executor, root=root).version()
            took = time.perf_counter() - began
    except (RuncError, OSError) as exc:
        return Line(name, "bad" if how is PathExecutor else "warning", _said(exc), advice)
    return Line(name, "good", f"{how.__name__}: executed in {took * 1000:.1f} ms")


def _kernel() -> Line:
    release = platform.release()
    found = f"Linux {release}, {platform.machine()}"
    try:
        os.close(os.pidfd_open(os.getpid()))
    except OSError as exc:
        return Line("kernel", "bad", f"{found}: pidfd_open: {exc.strerror}", "Linux 5.4 or newer is needed")
    return Line("kernel", "good", found)


def _proc() -> Line:
    if not os.path.exists("/proc/self/fd"):
        return Line("/proc", "bad", "not mounted", "mount -t proc proc /proc")
    if not os.path.exists(f"/proc/self/task/{os.getpid()}/children"):
        advice = "cancelled calls take longer: the kernel lacks CONFIG_PROC_CHILDREN"
        return Line("/proc", "warning", "mounted, without lists of children", advice)
    return Line("/proc", "good", "mounted")


def _cgroups() -> Iterator[Line]:
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


async def _rootless() -> Line:
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


async def _criu() -> Line:
    criu = shutil.which("criu")
    if criu is None:
        return Line("CRIU", "warning", "not found: no checkpoint, no restore", "where you need them: install criu")
    _, version = await _output_of([criu, "--version"])
    found = f"{criu}: {version.replace('Version: ', '')}"
    if os.geteuid() != 0:
        return Line("CRIU", "warning", f"{found}; needs root", "where you need it: run this as root to have it checked")
    status, output = await _output_of([criu, "check"])
    if status:
        return Line("CRIU", "warning", f"{found}: {output}", "a newer CRIU for this kernel; `criu check` says more")
    return Line("CRIU", "good", found)


def _launcher() -> Line:
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return Line("setpriv", "warning", "not found: no pdeathsig=", "where you need it: install util-linux")
    return Line("setpriv", "good", setpriv)


def _limits() -> Iterator[Line]:
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


async def _container(path: str) -> Line:
    """Run the host's own ``true`` in a container, as `default_spec` makes it."""
    true = shutil.which("true") or "/bin/true"
    advice = "the lines above may say why; else run it by hand with --debug"
    with tempfile.TemporaryDirectory(prefix="runc-async-doctor-") as folder:
        rootfs = Path(folder, "rootfs")
        mounts = list(_of_the_host(rootfs))
        spec = default_spec([true], pids=None, mounts=mounts)
        bundle = Bundle.create(Path(folder, "bundle"), spec, rootfs=rootfs)
        runc = Runc(path, root=Path(folder, "state"))
        began = time.perf_counter()
        try:
            with anyio.fail_after(PATIENCE):
                status = await runc.run(f"doctor-{os.getpid()}", bundle)
        except (RuncError, OSError) as exc:
            return Line(CONTAINER, "bad", _said(exc), advice)
        took = time.perf_counter() - began
    if status:
        return Line(CONTAINER, "bad", f"{true} ended with {status} in it", advice)
    return Line(CONTAINER, "good", f"ran {true} in {took * 1000:.0f} ms")


def _of_the_host(rootfs: Path) -> Iterator[Mount]:
    """Put the host's programs and libraries into a root file system: links as links, directories as mounts."""
    for name in ("dev", "proc", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    for place in sorted(Path("/").iterdir()):
        if not place.name.startswith(("bin", "lib", "usr", "nix", "gnu")):
            continue
        inside = rootfs / place.name
        if place.is_symlink():
            inside.symlink_to(os.readlink(place))
        elif place.is_dir():
            inside.mkdir()
            yield {"destination": str(place), "type": "none", "source": str(place), "options": ["rbind"]}


async def _output_of(command: Sequence[str]) -> tuple[int, str]:
    """The status of a program, and the last line that it prints."""
    try:
        with anyio.fail_after(PATIENCE):
            done = await anyio.run_process(command, check=False, stderr=subprocess.STDOUT)
    except OSError as exc:  # TimeoutError among them
        return 1, str(exc) or "it did not end"
    lines = [line for line in done.stdout.decode(errors="replace").splitlines() if line.strip()]
    return done.returncode, lines[-1].strip() if lines else ""


def _said(exc: Exception) -> str:
    """An error in a line."""
    if isinstance(exc, CommandError):
        return " ".join(exc.message.split())
    if isinstance(exc, DecodeError):
        return exc.reason
    return str(exc) or "it did not end in time"
