"""On a worker: what prepares it, and what runs a job there."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import msgspec
from distributed import Reschedule, get_worker
from distributed.diagnostics.plugin import WorkerPlugin

from ..._client import Runc
from ..._executor import Executor, PathExecutor, SealedExecutor
from ..._jobs.running import launch
from ..._linux.ownership import check_private
from ..._monitor import Subreaper
from ._job import PLUGIN, JobLostError, Result, Seen
from ._state import State, clear_dead, default_base

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anyio.abc import ByteReceiveStream
    from distributed import Worker

    from ..._cli.options import StrPath
    from ..._jobs.job import Job
    from ..._jobs.running import RunningJob

__all__ = ["ContainerPlugin", "run_job"]


class _Running:
    """A job that this worker runs."""

    def __init__(self, job: Job, scope: anyio.CancelScope) -> None:
        self.scope = scope
        self.attempt = 0
        self.running: RunningJob | None = None
        self._tail = job.tail
        self._change = asyncio.Event()

    async def follow(self, stream: ByteReceiveStream) -> None:
        """Tell those who wait whenever there is more."""
        async for _ in stream:
            self.changed()

    def changed(self) -> None:
        """Tell those who wait."""
        self._change.set()
        self._change = asyncio.Event()

    async def change(self) -> None:
        """Wait for more."""
        await self._change.wait()

    def news(self, seen: Seen) -> dict[str, Any] | None:
        """What somebody who has seen so much has not."""
        if self.running is None:
            return None
        offsets = seen.offsets if seen.attempt == self.attempt else (0, 0)
        found: dict[str, Any] = {}
        for name, collector, offset in zip(("stdout", "stderr"), self.running.collectors, offsets, strict=True):
            gone = collector.dropped if self._tail else 0
            data = bytes(collector.data[max(0, offset - gone) :])
            found[name] = {"dropped": max(0, gone - offset), "data": data}
        if not any(stream["data"] for stream in found.values()):
            return None
        return {"attempt": self.attempt, **found}


class ContainerPlugin(WorkerPlugin):
    """Prepares every worker, present and future, to run containers. See `Containers.prepare`.

    It makes the runtime ready and tries it, makes a directory of container states, removes what workers that were
    killed on this host have left, makes the worker's process a `Subreaper`, and declares its resources: ``containers``,
    ``cpus`` and ``memory``. Only then do jobs come. When the worker closes, its containers are removed.

    :param runtime: the runtime: a path or name on the workers' hosts; or its bytes, which travel to each worker once
        and are sealed there (`SealedExecutor`), for hosts that have none.
    :param sha256: the digest that it must have. Of bytes it is taken here, if not given, and checked there.
    :param state: the directory, on the workers' hosts, where each worker makes its own; None is ``runc-async-dask`` in
        ``/run``, or in ``XDG_RUNTIME_DIR``. It must not be shared between hosts.
    :param containers: how many containers a worker runs at once; None is its number of threads, which is also the most.
    :param cpus: the CPUs that jobs may need together; None is all that the worker may use.
    :param memory: the bytes that jobs may need together; None is the worker's own limit.
    :param settings: further parameters of `Runc`, such as ``systemd_cgroup``.
    """

    name = PLUGIN

    def __init__(
        self,
        runtime: StrPath | bytes = "runc",
        *,
        sha256: str | None = None,
        state: StrPath | None = None,
        containers: int | None = None,
        cpus: float | None = None,
        memory: float | None = None,
        **settings: Any,
    ) -> None:
        if isinstance(runtime, bytes) and sha256 is None:
            sha256 = hashlib.sha256(runtime).hexdigest()
        self._runtime: StrPath | bytes = runtime
        self._sha256 = sha256
        self._base = None if state is None else Path(state)
        self._resources = {"containers": containers, "cpus": cpus, "memory": memory}
        self._settings = settings

    def _executor(self) -> Executor:
        if isinstance(self._runtime, bytes):
            return SealedExecutor.from_bytes(self._runtime, sha256=self._sha256)
        if self._sha256 is not None:
            return SealedExecutor.open(self._runtime, sha256=self._sha256)
        return PathExecutor(self._runtime)

    async def setup(self, worker: Worker) -> None:
        """See `WorkerPlugin`."""
        self._worker: Any = worker
        self._running: dict[str, _Running] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self._ready: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        try:
            await self._prepare(worker)
        except Exception as exc:
            self._ready.set_exception(exc)  # for jobs that come on what an earlier plugin has declared
            self._ready.exception()  # if none comes, nobody has failed to look at it
            raise
        self._ready.set_result(None)
        await worker.set_resources(**self._free(worker))
        await self._worker.scheduler.runc_async_prepared(worker=worker.contact_address)

    async def _prepare(self, worker: Worker) -> None:
        base = self._base or default_base()
        base.mkdir(mode=0o700, parents=True, exist_ok=True)
        check_private(str(base))
        async with contextlib.AsyncExitStack() as stack:
            executor = stack.enter_context(await anyio.to_thread.run_sync(self._executor))
            if isinstance(self._runtime, bytes):
                self._runtime = b""  # sealed: they need not be there twice
            monitor = await stack.enter_async_context(Subreaper())

            def runc(root: Path) -> Runc:
                return Runc(executor, root=root, monitor=monitor, **self._settings)

            await clear_dead(base, runc, timeout=5.0)
            self._state = stack.enter_context(State.made(base))
            self._runc = runc(self._state.containers)
            await self._runc.version()
            self._stack = stack.pop_all()
        self._worker.handlers["runc_async_output"] = self._output

    def _free(self, worker: Worker) -> dict[str, float]:
        found = {
            "containers": worker.state.nthreads,
            "cpus": len(os.sched_getaffinity(0)),
            "memory": worker.memory_manager.memory_limit or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        }
        return {name: float(found[name] if given is None else given) for name, given in self._resources.items()}

    async def teardown(self, worker: Worker) -> None:
        """See `WorkerPlugin`."""
        if not hasattr(self, "_stack"):
            return
        for running in self._running.values():
            running.scope.cancel()
        await self._idle.wait()
        await self._stack.aclose()

    def transition(self, key: Any, start: str, finish: str, **keywords: Any) -> None:
        """See `WorkerPlugin`. Dask lets a task that is not wanted any more run on; its container ends here."""
        if start in ("executing", "long-running") and finish == "released":
            running = getattr(self, "_running", {}).get(key)
            if running is not None:
                running.scope.cancel()

    async def _output(self, key: str, attempt: int, offsets: Sequence[int]) -> dict[str, Any] | None:
        """For those who follow a job: what is new, when there is something; None when it is not running here."""
        first, second = offsets
        while (running := self._running.get(key)) is not None:
            news = running.news(Seen(attempt=attempt, offsets=(first, second)))
            if news is not None:
                return news
            await running.change()
        return None

    async def run(self, job: Job, key: str, reruns: int) -> None:
        """Run a job as the task of this key, and report its result to the scheduler.

        :raises Reschedule: it is not to be run here, or was interrupted; Dask knows what becomes of it.
        :raises JobLostError: it has begun too often.
        """
        await asyncio.shield(self._ready)
        with anyio.CancelScope() as scope:
            running = self._running[key] = _Running(job, scope)
            self._idle.clear()
            try:
                attempt = await self._asked("begin", key=key, worker=self._worker.contact_address)
                if attempt == "ended":
                    return
                if attempt == "lost":
                    raise JobLostError(f"job {key}: every worker that ran it was lost, {reruns + 1} of them")
                if attempt == "elsewhere":
                    raise Reschedule
                running.attempt = attempt
                result = await self._contained(job, f"{key}-{attempt}", running)
                report = msgspec.msgpack.encode(result)
                if await self._asked("end", key=key, attempt=attempt, report=report):
                    return
            finally:
                del self._running[key]
                running.changed()
                if not self._running:
                    self._idle.set()
        raise Reschedule

    async def _asked(self, question: str, **words: Any) -> Any:
        """Ask the scheduler's plugin; where it cannot be reached, this worker takes no job."""
        try:
            return await getattr(self._worker.scheduler, f"runc_async_{question}")(**words)
        except OSError as exc:
            raise Reschedule from exc

    async def _contained(self, job: Job, id: str, running: _Running) -> Result:
        folder = self._state.bundles / id
        try:
            async with launch(self._runc._runner, job, id=id, folder=folder) as launched:
                running.running = launched
                async with anyio.create_task_group() as group:
                    for stream in (launched.stdout, launched.stderr):
                        group.start_soon(running.follow, stream)  # to its end
                result = await launched.result()
                known = {name: getattr(result, name) for name in result.__struct_fields__}
                return Result(**known, worker=self._worker.contact_address, attempt=running.attempt)
        finally:
            if folder.exists() and id not in os.listdir(self._state.containers):
                shutil.rmtree(folder, ignore_errors=True)


async def run_job(job: Job, key: str, reruns: int) -> None:
    """The task that a job is: Dask runs it on the worker's event loop."""
    plugin = get_worker().plugins.get(PLUGIN)
    if not isinstance(plugin, ContainerPlugin):  # it is being replaced
        raise Reschedule
    await plugin.run(job, key, reruns)
