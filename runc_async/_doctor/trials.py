"""What is tried on real containers: each kind of executor, the limits, CRIU."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio

from .._bundle.bundle import Bundle
from .._bundle.default_spec import default_spec
from .._client import Runc
from .._errors import RuncError
from .._executor import FdExecutor, PathExecutor, SealedExecutor
from .._linux import cgroups
from .._usage import UsageReader
from .line import PATIENCE, Line, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from .._bundle.spec import Mount
    from .._executor import Executor

__all__ = ["CONTAINER", "Trials"]

CONTAINER = "a container"
"""The check that decides."""


class Way(NamedTuple):
    """A kind of executor.

    :ivar open: makes one from the runtime's path.
    :ivar advice: what to do if it does not work.
    """

    name: str
    open: Callable[[str], PathExecutor | FdExecutor | SealedExecutor]
    advice: str


WAYS = (
    Way(
        "by its path",
        PathExecutor,
        "look at the file: is it a program for this machine, and its file system not mounted noexec?",
    ),
    Way("by a descriptor", FdExecutor.open, "mount /proc; or use PathExecutor"),
    Way(
        "sealed in memory",
        SealedExecutor.open,
        "sysctl vm.memfd_noexec must not be 2, and the file be readable; or use FdExecutor",
    ),
)


class Limit(NamedTuple):
    """A limit that is tried.

    :ivar given: what `default_spec` gets.
    :ivar files: the files of a cgroup that may hold it, and what is then in them.
    """

    name: str
    given: Mapping[str, Any]
    files: Mapping[str, str]


LIMITS = (
    Limit("limit of memory", {"memory": 64 << 20}, {"memory.limit_in_bytes": "67108864", "memory.max": "67108864"}),
    Limit("limit of processes", {"pids": 64}, {"pids.max": "64"}),
    Limit("limit of CPU time", {"cpus": 0.5}, {"cpu.cfs_quota_us": "50000", "cpu.max": "50000 100000"}),
)


class Trials:
    """Containers of the host's own programs, in a temporary directory.

    :param folder: the directory.
    :param path: the runtime's path.
    :param flags: global flags of the runtime.
    """

    def __init__(self, folder: Path, path: str, flags: Sequence[str]) -> None:
        self._folder = folder
        self._path = path
        self._flags = flags
        self._rootfs = folder / "rootfs"
        self._mounts = list(_share_host(self._rootfs))
        self._numbers = 0
        self._always: dict[str, Any] = {}
        """What `default_spec` has to be given for a container to run at all."""

    async def run_all(self) -> list[Line]:
        """Try everything. The line of `CONTAINER` is the last one."""
        container = await self._try_container()
        lines = [await self._try_executor(way, works=container.state != "bad") for way in WAYS]
        if container.state != "bad":
            lines += [await self._try_limit(limit) for limit in LIMITS]
            lines += [await self._try_usage(), await self._try_criu()]
        return [*lines, container]

    def _client(self, executor: Executor) -> Runc:
        return Runc(executor, root=self._folder / "state", extra_args=self._flags)

    def _bundle(self, *args: str, **settings: Any) -> tuple[str, Bundle]:
        """Make a new id and a bundle of a program of the host."""
        self._numbers += 1
        program = shutil.which(args[0]) or f"/bin/{args[0]}"
        spec = default_spec([program, *args[1:]], mounts=self._mounts, **{**self._always, **settings})
        bundle = Bundle.create(self._folder / f"bundle-{self._numbers}", spec, rootfs=self._rootfs)
        return f"doctor-{os.getpid()}-{self._numbers}", bundle

    async def _run(self, executor: Executor) -> float:
        """Run ``true`` in a container as `default_spec` makes it.

        :returns: the seconds that it took.
        :raises RuncError: the runtime failed.
        :raises OSError: it did not end in time, or ``true`` failed.
        """
        id, bundle = self._bundle("true")
        began = time.perf_counter()
        with anyio.fail_after(PATIENCE):
            status = await self._client(executor).run(id, bundle)
        if status:
            raise OSError(f"`true` ended with {status} in it")
        return time.perf_counter() - began

    async def _try_container(self) -> Line:
        advice = "the lines above may say why; else run it by hand with --debug"
        refusal = ""
        for always in ({}, {"pids": None}):
            self._always = always
            try:
                took = await self._run(PathExecutor(self._path))
            except (RuncError, OSError) as exc:
                refusal = refusal or describe(exc)
                continue
            found = f"ran `true` in {took * 1000:.0f} ms"
            if not always:
                return Line(CONTAINER, "good", found)
            advice = "default_spec(..., pids=None), or see the line about the limit of processes"
            return Line(CONTAINER, "warning", f"{found}, but only without a limit of processes: {refusal}", advice)
        return Line(CONTAINER, "bad", refusal, advice)

    async def _try_executor(self, way: Way, *, works: bool) -> Line:
        """Run a container by one kind of executor, or only the runtime itself where no container runs at all."""
        try:
            with way.open(self._path) as executor, anyio.fail_after(PATIENCE):
                if works:
                    took, what = await self._run(executor), "a container ran"
                else:
                    began, what = time.perf_counter(), "it can be executed"
                    await self._client(executor).version()
                    took = time.perf_counter() - began
        except (RuncError, OSError) as exc:
            return Line(way.name, "bad" if way.open is PathExecutor else "warning", describe(exc), way.advice)
        return Line(way.name, "good", f"{type(executor).__name__}: {what} in {took * 1000:.0f} ms")

    async def _try_limit(self, limit: Limit) -> Line:
        """Create a container with one limit, and look whether the kernel keeps it."""
        try:
            id, bundle = self._bundle("true", **{"pids": None, **limit.given})
            with anyio.fail_after(PATIENCE):
                async with self._client(PathExecutor(self._path)).container(id, bundle) as container:
                    kept = _find_values(container.pid, limit.files)
        except (RuncError, OSError) as exc:
            advice = "have this controller enabled, or delegated to this user; or use no such limit"
            return Line(limit.name, "warning", f"refused: {describe(exc)}", advice)
        if kept:
            return Line(limit.name, "good", f"kept: {kept}")
        reason = "the runtime accepts it, but the kernel does not have it: the container is not limited"
        advice = "other global flags of the runtime, cgroups delegated to this user, or another runtime"
        return Line(limit.name, "bad", reason, advice)

    async def _try_usage(self) -> Line:
        """Look what the system counts of a container."""
        name = "usage"
        try:
            id, bundle = self._bundle("true")
            with anyio.fail_after(PATIENCE):
                async with self._client(PathExecutor(self._path)).container(id, bundle) as container:
                    with UsageReader.open(container.pid) as reader:
                        reasons = reader.reasons()
        except (RuncError, OSError) as exc:
            return Line(name, "warning", describe(exc), "a Job has no cpu_time here, and Result.usage is empty")
        if not reasons:
            return Line(name, "good", "everything is counted")
        found = "; ".join(f"{field} is None: {reason}" for field, reason in reasons.items())
        return Line(name, "warning", found, "where you need it: enable these controllers, or a newer kernel")

    async def _try_criu(self) -> Line:
        """Checkpoint a container. It is not restored: crun moves this process to another cgroup meanwhile."""
        name = "CRIU"
        if os.geteuid() != 0:
            return Line(name, "warning", "not tried: it needs root", "where you need it: run this as root")
        runc = self._client(PathExecutor(self._path))
        id, bundle = self._bundle("sleep", "1000")
        crun_own = runc.extra_env(XDG_RUNTIME_DIR=os.fspath(self._folder))  # its checkpoint makes a directory there
        try:
            with crun_own, anyio.fail_after(PATIENCE):
                async with runc.container(id, bundle) as container:
                    await container.start()
                    await runc.checkpoint(id, image_path=self._folder / "image", work_path=self._folder)
        except (RuncError, OSError) as exc:
            advice = "where you need checkpoints: a runtime built with CRIU, and a CRIU for this kernel (criu check)"
            return Line(name, "warning", describe(exc), advice)
        return Line(name, "good", "a container was checkpointed")


def _find_values(pid: int, files: Mapping[str, str]) -> str:
    """Find the first file of a process's own cgroups that has the expected content; empty if there is none."""
    found = ""
    for directory in cgroups.open_cgroups(pid).values():
        for name, expected in files.items():
            if cgroups.read(directory, name).decode().strip() == expected:
                found = f"{name} is {expected}"
        os.close(directory)
    return found


def _share_host(rootfs: Path) -> Iterator[Mount]:
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
