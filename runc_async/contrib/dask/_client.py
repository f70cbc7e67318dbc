"""A client's side: jobs in, results out."""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, Literal, Self

import anyio
import msgspec
from dask import annotate  # type: ignore[attr-defined]

from ._job import PLUGIN, JobCancelledError, Output, Result, Seen, find_needs
from ._scheduler import JobsPlugin
from ._worker import run_job

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping

    from anyio.abc import ObjectSendStream
    from distributed import Client

    from ..._jobs.job import Job
    from ._worker import ContainerPlugin

__all__ = ["Containers", "Submitted"]

STREAMS: tuple[Literal["stdout", "stderr"], ...] = ("stdout", "stderr")


class Containers:
    """Runs jobs on the workers of a Dask cluster.

    :param client: an asynchronous client: ``Client(address, asynchronous=True)``. It stays the caller's.
    :raises ValueError: it is not asynchronous.
    """

    def __init__(self, client: Client) -> None:
        if not client.asynchronous:
            raise ValueError("the client must be asynchronous: Client(address, asynchronous=True)")
        self._client: Any = client  # Dask's own annotations are not whole

    async def prepare(self, plugin: ContainerPlugin) -> None:
        """Prepare the scheduler and all workers, present and future; once for a cluster.

        Done again, it replaces what was there: jobs that run are begun anew.

        :param plugin: how.
        :raises ExecutorError: a worker has no such runtime, or it cannot be executed there; other errors likewise.
            Workers without it get no jobs.
        """
        await self._client.register_plugin(JobsPlugin())
        await self._client.register_plugin(plugin)

    def submit(self, job: Job, *, reruns: int = 2, resources: Mapping[str, float] | None = None) -> Submitted:
        """Hand a job to the scheduler.

        :param job: the job. Its paths are those of the workers' hosts. The limits of memory and CPU in its
            specification are also what it needs.
        :param reruns: how often it may run again when the worker that runs it is lost.
        :param resources: what it needs besides, by the names that the workers declare (``--resources``); or in place
            of what its specification says: ``containers`` (1), ``memory`` (bytes), ``cpus``.
        :returns: it, `Submitted`. When that is forgotten, so is the job.
        :raises ValueError: `reruns` is negative.
        """
        if reruns < 0:
            raise ValueError(f"reruns must not be negative: {reruns}")
        key = f"{job.name}-{uuid.uuid4().hex}"
        needs = find_needs(job, resources)
        with annotate(**{PLUGIN: reruns}):
            future: Any = self._client.submit(run_job, job, key, reruns, key=key, resources=needs, pure=False)
        return Submitted(self._client, job, future)

    async def run(self, job: Job, *, reruns: int = 2, resources: Mapping[str, float] | None = None) -> Result:
        """Run a job and wait for its result. Cancelled, it cancels the job.

        :param job: as for `submit`; so are `reruns` and `resources`.
        :raises: as `Submitted.result`.
        """
        with self.submit(job, reruns=reruns, resources=resources) as submitted:
            return await submitted.result()

    @contextlib.asynccontextmanager
    async def results(
        self,
        jobs: Iterable[Job] | AsyncIterable[Job],
        *,
        ahead: int = 256,
        reruns: int = 2,
        resources: Mapping[str, float] | None = None,
    ) -> AsyncGenerator[AsyncIterator[tuple[Job, Result | Exception]]]:
        """Run many jobs: ``async with containers.results(jobs) as results: async for job, result in results:``.

        :param jobs: they are taken as there is room.
        :param ahead: how many may be with the scheduler at once, and how many results may wait for the caller.
        :param reruns: of each, as for `submit`; so are `resources`.
        :returns: each job with its `Result`, or with the exception that says why it has none, in the order in which
            they end. Leaving the context cancels those that have not ended.
        """
        send, receive = anyio.create_memory_object_stream[tuple["Job", "Result | Exception"]](ahead)
        async with receive, anyio.create_task_group() as group:
            run = functools.partial(self.run, reruns=reruns, resources=resources)
            group.start_soon(_run_all, run, jobs, anyio.Semaphore(ahead), send)
            yield receive
            group.cancel_scope.cancel()


async def _run_all(
    run: Callable[[Job], Awaitable[Result]],
    jobs: Iterable[Job] | AsyncIterable[Job],
    room: anyio.Semaphore,
    send: ObjectSendStream[tuple[Job, Result | Exception]],
) -> None:
    async def one(job: Job) -> None:
        try:
            outcome: Result | Exception = await run(job)
        except Exception as exc:
            outcome = exc
        await send.send((job, outcome))
        room.release()

    async with send, anyio.create_task_group() as group:
        async for job in _each(jobs):
            await room.acquire()
            group.start_soon(one, job)


async def _each(jobs: Iterable[Job] | AsyncIterable[Job]) -> AsyncGenerator[Job]:
    if isinstance(jobs, AsyncIterable):
        async for job in jobs:
            yield job
    else:
        for job in jobs:
            yield job


class Submitted:
    """A job that was handed to the scheduler. A context manager: leaving it cancels the job, if it has not ended.

    :ivar job: the job.
    :ivar key: its name with Dask, of which the containers' ids are made.
    """

    def __init__(self, client: Any, job: Job, future: Any) -> None:
        self.job = job
        self.key = str(future.key)
        self._client = client
        self._future = future
        self._result: Result | None = None

    def __repr__(self) -> str:
        return f"<Submitted {self.key} {self._future.status}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._future.release()

    async def result(self) -> Result:
        """Wait for its result. Cancelled, it leaves the job alone.

        :raises JobLostError: the workers that ran it were lost, more often than it may begin again.
        :raises JobCancelledError: it was cancelled.
        :raises RuncError: the container could not be run: the worker's own exception. `OSError`, `ValueError` and
            `TypeError` likewise, as for `Runc.container` and `Bundle.create`.
        """
        if self._result is None:
            self._result = await self._awaited()
        return self._result

    async def _awaited(self) -> Result:
        while True:
            await self._future._state.wait()  # unlike `await future` it fetches nothing from the worker
            status = self._future.status
            if status == "error":
                raise await self._future.exception()
            if status == "cancelled":
                raise JobCancelledError(f"job {self.key} was cancelled")
            # "lost", where the worker went away just now: the result is here none the less.
            report = await self._client.scheduler.runc_async_result(key=self.key)
            if report is not None:
                return msgspec.msgpack.decode(report, type=Result)
            if status == "finished" and self._future.status == "finished":
                raise JobCancelledError(f"job {self.key} was forgotten by the scheduler")

    async def cancel(self) -> None:
        """Cancel it. Its worker then kills its container and removes it."""
        await self._client.cancel([self._future])

    async def output(self) -> AsyncGenerator[Output]:
        """Follow its output: ``async for output in submitted.output():``, from the beginning to the job's end.

        Nothing is sent but what is asked for here, piece by piece; a reader that is slower than the job by more than
        `Job.output_limit` bytes misses some, and is told how many.

        :raises: as `result`.
        """
        seen = Seen()
        while not self._future.done():
            request = {"key": self.key, "attempt": seen.attempt, "offsets": list(seen.offsets)}
            news = await self._client.scheduler.runc_async_output(**request)
            if news is None:
                break
            pieces, seen = _pieces(seen, news)
            for piece in pieces:
                yield piece
        for piece in _pieces(seen, _rest(seen, await self.result(), tail=self.job.tail))[0]:
            yield piece


def _rest(seen: Seen, result: Result, *, tail: bool) -> dict[str, Any]:
    """What the result has that was not seen, as a worker would tell it."""
    rest: dict[str, Any] = {"attempt": result.attempt}
    for name, offset in zip(STREAMS, seen.offsets if seen.attempt == result.attempt else (0, 0), strict=True):
        data, dropped = getattr(result, name), getattr(result, f"{name}_dropped") if tail else 0
        rest[name] = {"dropped": max(0, dropped - offset), "data": data[max(0, offset - dropped) :]}
    return rest


def _pieces(seen: Seen, news: dict[str, Any]) -> tuple[list[Output], Seen]:
    pieces: list[Output] = []
    offsets = list(seen.offsets if seen.attempt == news["attempt"] else (0, 0))
    for number, name in enumerate(STREAMS):
        data, dropped = bytes(news[name]["data"]), news[name]["dropped"]
        if data or dropped:
            pieces.append(Output(stream=name, data=data, dropped=dropped, attempt=news["attempt"]))
        offsets[number] += dropped + len(data)
    return pieces, Seen(attempt=news["attempt"], offsets=(offsets[0], offsets[1]))
