"""A worker's own directory on its host, and what the ones before it left."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import anyio

from ..._cli.quirks import NOT_CONTAINERS
from ..._errors import CommandError, RuncError
from ..._lifecycle.remnants import clear_cgroups
from ..._linux import cgroups, procfs
from ..._linux.cgroup_paths import container_cgroups
from ..._linux.pidfd import Pidfd

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from ..._client import Runc

__all__ = ["State", "clear_dead", "default_base"]

logger = logging.getLogger("runc_async")

REMOVED_WITHIN = 10.0
"""Seconds after which a dead worker's container is left to the next one that starts."""


def default_base() -> Path:
    """Where workers have their directories if they are not told: where it is gone after a reboot, as containers are."""
    runtime = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
    return Path(runtime, "runc-async-dask")


class State:
    """One worker's directory, locked (``flock(2)``) as long as its process lives: what is not locked is a dead one's.

    :ivar containers: the runtime's ``--root``.
    :ivar bundles: a bundle for each container, of the same name.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd = fd
        self.containers = path / "containers"
        self.bundles = path / "bundles"

    @classmethod
    def locked(cls, path: Path) -> State | None:
        """Lock a directory; None if it is another's, or gone."""
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(path)):
                return cls(path, fd)
        except OSError:
            pass
        os.close(fd)
        return None

    @classmethod
    @contextlib.contextmanager
    def made(cls, base: Path) -> Generator[State]:
        """A new one, gone afterwards, if it is empty of containers."""
        state = None
        while state is None:  # a worker that starts at the same time may take it for a dead one's, and remove it
            state = cls.locked(Path(tempfile.mkdtemp(prefix="worker-", dir=base)))
        try:
            state.containers.mkdir()
            state.bundles.mkdir()
            yield state
        finally:
            state.close()

    def ids(self) -> set[str]:
        """The ids of the containers that were begun here, and not removed."""
        folders = [folder for folder in (self.bundles, self.containers) if folder.is_dir()]
        return {name for folder in folders for name in os.listdir(folder)} - NOT_CONTAINERS

    def close(self) -> None:
        """Remove it, unless there are containers, and give up the lock: then the next worker clears it."""
        if not self.ids():
            shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._fd)


async def clear_dead(base: Path, runc: Callable[[Path], Runc], timeout: float) -> int:
    """Remove the containers of workers that were killed on this host, and their directories.

    :param base: where the directories are.
    :param runc: makes a client of the runtime with this ``--root``.
    :param timeout: seconds that a runtime process of a dead worker may take to end by itself.
    :returns: how many containers there were.
    """
    cleared = 0
    for path in sorted(base.glob("worker-*")):
        state = State.locked(path)
        if state is None:
            continue
        try:
            await _runtimes_ended(state.containers, timeout)
            for id in state.ids():
                try:
                    with anyio.fail_after(REMOVED_WITHIN):
                        await _remove(runc(state.containers), id)
                except (RuncError, OSError):
                    logger.exception("container %s of a dead worker could not be removed", id)
                    continue
                shutil.rmtree(state.bundles / id, ignore_errors=True)
                cleared += 1
        finally:
            state.close()
    if cleared:
        logger.warning("removed %d containers of workers that were killed", cleared)
    return cleared


async def _remove(runc: Runc, id: str) -> None:
    try:
        async with runc.attach(id, delete=True):
            pass
    except CommandError:  # there is no state, or half of one
        await runc.delete(id, force=True)
    # A `create` that was killed with its worker leaves cgroups that no state tells of. The id is a random one of that
    # worker's, so they are the container's; one with a process in it stays.
    runtime = (await runc.version()).runtime
    found = {path: cgroups.identity(path) for path in container_cgroups(id, None, runtime)}
    await clear_cgroups({path: it for path, it in found.items() if it is not None}, REMOVED_WITHIN / 2)


async def _runtimes_ended(root: Path, timeout: float) -> None:
    """Wait for the runtime processes that a dead worker had started: a ``create`` under way still makes a container."""
    for pid in procfs.processes():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
            if b"--root=" + os.fsencode(root) not in file.read().split(b"\0"):
                continue
            with Pidfd.open(pid) as process:
                with anyio.move_on_after(timeout):
                    await process.wait()
                    continue
                process.send_signal(signal.SIGKILL)
                await process.wait()
