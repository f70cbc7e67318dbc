"""A cgroup of its own for the processes of one ``exec``, so that all of them can be found: daemons, too.

A daemon is not a descendant of the process that started it, and in a container with the host's pid namespace nothing
else tells it from others. So `Container.exec` and `Container.run` make a cgroup below the container's, and the runtime
starts the process there (``--cgroup``). On cgroup v1 one hierarchy is enough for runc; crun needs it in each.

There is none where this user may not make cgroups, where the container has no cgroup of its own, and for a runtime
without ``--cgroup``. Then the descendants of the process are killed, as far as they can be found.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import anyio

from .._cli.quirks import HAVE_EXEC_CGROUP
from .._linux import cgroups, procfs
from .._linux.pidfd import reap_ended

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from .._linux.pidfd import Pidfd

__all__ = ["ExecCgroup"]

AGAIN = 0.005
"""Seconds until the next look at a cgroup that has processes left."""
PREFERRED = ("pids", "freezer", "cpu", "memory")
"""A controller of cgroup v1 whose hierarchy is used, the first that there is."""


class ExecCgroup:
    """A cgroup below a container's, made for one ``exec``.

    :ivar argument: what ``--cgroup`` is given.
    """

    def __init__(self, argument: str, paths: Mapping[str, tuple[int, int]]) -> None:
        self.argument = argument
        self._paths = dict(paths)

    @classmethod
    def make(cls, init: Pidfd, runtime: str) -> Self | None:
        """Make one; None if there can be none.

        :param init: the container's init, which has not ended.
        :param runtime: the name of the runtime.
        """
        if runtime not in HAVE_EXEC_CGROUP:
            return None
        name = f"exec-{os.urandom(8).hex()}"
        made: dict[str, tuple[int, int]] = {}
        try:
            above = _choose(init, runtime)
            for controllers, path in above.items():
                os.mkdir(f"{path}/{name}")
                made[f"{path}/{name}"] = cgroups.identity(f"{path}/{name}") or (0, 0)
                if "cpuset" in controllers:
                    _copy_cpuset(path, f"{path}/{name}")
        except OSError:
            for path in made:
                with contextlib.suppress(OSError):
                    os.rmdir(path)
            return None
        if not made:
            return None
        names = next(iter(above)) if runtime == "runc" else ()
        prefix = f"{names[0].removeprefix('name=')}:" if names else ""
        return cls(f"{prefix}/{name}" if prefix else name, made)

    async def kill(self, timeout: float) -> None:
        """Kill every process in it, and remove it.

        :param timeout: seconds that the processes get to end.
        """
        with anyio.move_on_after(timeout):
            for cgroup in self._open():
                while cgroups.is_populated(cgroup):
                    for process in cgroups.kill(cgroup):
                        with process:
                            await process.wait()
                            reap_ended(process.fileno())
                    await anyio.sleep(AGAIN if cgroups.is_populated(cgroup) else 0)
        self.release()

    def release(self) -> None:
        """Leave the processes that are still in it to the container's own cgroup, and remove it, once."""
        while self._paths:
            path, identity = self._paths.popitem()
            if cgroups.identity(path) != identity:
                continue
            try:
                os.rmdir(path)
            except OSError:  # busy
                with contextlib.suppress(OSError):
                    _move_up(path)
                with contextlib.suppress(OSError):  # still busy: it goes with the container's own
                    cgroups.remove_cgroup(path, identity)

    def _open(self) -> Iterator[int]:
        for path in self._paths:
            try:
                cgroup = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except OSError:
                continue
            try:
                yield cgroup
            finally:
                os.close(cgroup)


def _choose(init: Pidfd, runtime: str) -> dict[tuple[str, ...], str]:
    """The container's cgroups below which one is made, by the controllers of their hierarchies."""
    own = cgroups.cgroups_of()
    found = {
        controllers: path
        for controllers, path in cgroups.cgroups_of(init.pid).items()
        if not f"{own.get(controllers, '')}/".startswith(f"{path}/")
    }
    init.send_signal(0)  # else its number may have been another process's when its cgroups were read
    if runtime == "crun" or not any(found):
        return found
    for name in PREFERRED:
        for controllers, path in found.items():
            if name in controllers:
                return {controllers: path}
    return dict([next(iter(found.items()))]) if found else {}


def _copy_cpuset(above: str, path: str) -> None:
    """Give a new cgroup of v1 the processors of the one above it: without any, no process can enter it."""
    for name in ("cpuset.cpus", "cpuset.mems"):
        if value := procfs.read_file(f"{above}/{name}").strip():
            with open(f"{path}/{name}", "wb") as target:
                target.write(value)


def _move_up(path: str) -> None:
    """Move the processes of a cgroup to the one above it."""
    for pid in procfs.read_file(f"{path}/cgroup.procs").split():
        with contextlib.suppress(ProcessLookupError), open(f"{os.path.dirname(path)}/cgroup.procs", "wb") as file:
            file.write(pid)
