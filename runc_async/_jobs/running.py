"""`RunningJob`: a job from its start to its result."""

from __future__ import annotations

import contextlib
import errno
import os
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING

import anyio

from .._eventloop.groups import unwrap
from .._eventloop.shield import at_checkpoints_only
from .._io import feed
from .._monitor import PidfdMonitor, Subreaper
from .._usage import Usage
from .job import Result, Verdict
from .output import JobOutput
from .patterns import find_missing, make_matcher
from .prepare import Prepared, prepare

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import ByteReceiveStream

    from .._cli.options import StrPath
    from .._container import Container
    from .._io import OutputCollector, PipeIO
    from .._lifecycle.runner import Runner
    from .._models import Exit
    from .job import Job

__all__ = ["RunningJob", "launch", "run_prepared", "with_statuses"]

LEAST_PAUSE = 0.005
"""Seconds between two looks at the CPU time: the kernel counts it by ticks of about that length."""
PRECISION = 0.02
"""Part of a limit of CPU time by which a job may exceed it, on each CPU."""


class RunningJob:
    """A job that runs, from `Runc.launch` or `Pool.launch`."""

    def __init__(self, prepared: Prepared, job: Job) -> None:
        self._prepared = prepared
        self._job = job
        exceeded = partial(self.end_for, Verdict.OUTPUT_LIMIT)
        self._outputs = [JobOutput(job.output_limit, tail=job.tail, exceeded=exceeded) for _ in range(2)]
        self._before = Usage()
        self._begun = datetime.now(UTC)
        self._verdict: Verdict | None = None
        self._to_be_ended = anyio.Event()
        self._is_over = anyio.Event()
        self._result: Result | None = None
        self._error: Exception | None = None

    def __repr__(self) -> str:
        return f"<RunningJob {self._prepared.container.id!r}{' over' if self._is_over.is_set() else ''}>"

    @property
    def container(self) -> Container[PipeIO]:
        """Its container. Its streams are read already: see `stdout`."""
        return self._prepared.container

    @property
    def stdout(self) -> ByteReceiveStream:
        """What it writes to stdout, from the beginning. The result has it also if nobody reads it here."""
        return self._outputs[0]

    @property
    def stderr(self) -> ByteReceiveStream:
        """The same of stderr."""
        return self._outputs[1]

    async def usage(self) -> Usage:
        """What it has used since its start."""
        await anyio.lowlevel.checkpoint()
        return self._usage() if self._result is None else self._result.usage

    async def stop(self) -> Result:
        """Kill it, if it has not ended. Its verdict is then ``STOPPED``.

        :returns: its result, with what it had written until then.
        """
        self.end_for(Verdict.STOPPED)
        return await self.result()

    async def result(self) -> Result:
        """Wait for its end. Any number of tasks may, also afterwards.

        :raises RuncError: the runtime failed; `OSError` likewise.
        :raises RuntimeError: the context was left before its end.
        """
        await self._is_over.wait()
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise RuntimeError(f"{self!r} was stopped, since its context was left before its end")
        return self._result

    async def ended(self) -> None:
        """Wait for its end, however."""
        await self._is_over.wait()

    @property
    def collectors(self) -> tuple[OutputCollector, OutputCollector]:
        """What is kept of stdout and of stderr until now."""
        stdout, stderr = self._outputs
        return stdout.collector, stderr.collector

    # -- from start to end -------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Write its files, and start it."""
        usage = self.container._usage
        await self._prepared.write(self._job.files)
        if self._job.cpu_time is not None and usage.cpu() is None:
            reason = usage.reasons().get("cpu", "the container's CPU time cannot be read")
            raise OSError(errno.EOPNOTSUPP, f"cpu_time cannot be watched: {reason}")
        self._before = usage.read()
        usage.forget_peak()
        self._begun = datetime.now(UTC)
        await self._prepared.start()

    def end_for(self, verdict: Verdict) -> None:
        """Let it end, and say why. Does nothing if it has ended, or is to end for another reason."""
        if self._verdict is None and not self._is_over.is_set():
            self._verdict = verdict
            self._to_be_ended.set()

    def _usage(self) -> Usage:
        return self.container._usage.read().since(self._before)

    async def _supervise(self) -> None:
        """Run it to its end, and say how it ended."""
        try:
            self._result = await self._run()
        except Exception as exc:
            self._error = exc
        finally:
            self._is_over.set()
            for output in self._outputs:
                output.end()

    async def _run(self) -> Result:
        job, io = self._job, self._prepared.io
        streams = io.outputs
        exit: Exit | None = None
        try:
            async with anyio.create_task_group() as group:
                if job.input is not None:
                    group.start_soon(feed, io, job.input)
                elif self._prepared.has_stdin:
                    await io.stdin.aclose()
                for output, stream in zip(self._outputs, streams, strict=True):
                    group.start_soon(output.read, stream)
                group.start_soon(self._end_when_told)
                if job.timeout is not None:
                    group.start_soon(self._watch_time, job.timeout)
                if job.cpu_time is not None:
                    group.start_soon(self._watch_cpu, job.cpu_time)
                exit = await self.container.wait()
                group.cancel_scope.cancel()
        except BaseExceptionGroup as errors:
            raise unwrap(errors) from None
        assert exit is not None
        for output, stream in zip(self._outputs, streams, strict=True):
            output.finish(stream)
        return await self._judge(exit)

    async def _end_when_told(self) -> None:
        await self._to_be_ended.wait()
        await self.container._end()

    async def _watch_time(self, timeout: float) -> None:
        await anyio.sleep(timeout)
        self.end_for(Verdict.TIMED_OUT)

    async def _watch_cpu(self, limit: float) -> None:
        """End it when its CPU time is over. That cannot be before all CPUs together have used what is left."""
        cpus = os.cpu_count() or 1
        pause = max(LEAST_PAUSE, limit * PRECISION)
        while (left := limit - self._cpu()) > 0:  # noqa: ASYNC110 (nothing tells when it is over)
            await anyio.sleep(max(left / cpus, pause))
        self.end_for(Verdict.CPU_TIME)

    def _cpu(self) -> float:
        return (self.container._usage.cpu() or 0.0) - (self._before.cpu or 0.0)

    async def _judge(self, exit: Exit) -> Result:
        job, usage = self._job, self._usage()
        stdout, stderr = self.collectors
        verdict = self._verdict or self._find_verdict(exit, usage)
        files: dict[str, bytes] = {}
        refused: dict[str, str] = {}
        if job.collect:
            files, refused = await self._prepared.open_files().collect(make_matcher(job.collect))
            for name in find_missing(job.collect, [*files, *refused]):
                refused[name] = "is not there"
        return Result(
            verdict=verdict,
            status=exit.status,
            reason=_explain(verdict, exit, job),
            stdout=bytes(stdout.data),
            stderr=bytes(stderr.data),
            stdout_dropped=stdout.dropped,
            stderr_dropped=stderr.dropped,
            started=self._begun,
            ended=exit.timestamp,
            wall=max(0.0, (exit.timestamp - self._begun).total_seconds()),
            usage=usage,
            files=files,
            refused=refused,
        )

    def _find_verdict(self, exit: Exit, usage: Usage) -> Verdict:
        """Say how it ended, when nobody has ended it. A limit that it exceeded just before its end counts, too."""
        job = self._job
        if job.cpu_time is not None and usage.cpu is not None and usage.cpu > job.cpu_time:
            return Verdict.CPU_TIME
        if not job.tail and any(collector.dropped for collector in self.collectors):
            return Verdict.OUTPUT_LIMIT
        if usage.oom_kills:
            return Verdict.OUT_OF_MEMORY
        return Verdict.EXITED if exit.signal is None else Verdict.SIGNALED


def _explain(verdict: Verdict, exit: Exit, job: Job) -> str:
    if verdict is Verdict.EXITED:
        return (
            "The program exited with an unknown status."
            if exit.status is None
            else f"The program exited with {exit.status}."
        )
    reasons = {
        Verdict.SIGNALED: f"Signal {exit.signal} ended the program.",
        Verdict.TIMED_OUT: f"The program was killed after {job.timeout} s.",
        Verdict.CPU_TIME: f"The program used more than {job.cpu_time} s of CPU time.",
        Verdict.OUT_OF_MEMORY: "The kernel killed a process for want of memory.",
        Verdict.OUTPUT_LIMIT: f"The program wrote more than {job.output_limit} bytes to a stream.",
        Verdict.STOPPED: "The program was stopped.",
    }
    return reasons[verdict]


@contextlib.asynccontextmanager
async def with_statuses(runner: Runner) -> AsyncGenerator[Runner]:
    """Give a runner whose monitor knows the exit statuses of containers: the client's, or a private one."""
    if type(runner.monitor) is not PidfdMonitor:
        yield runner
        return
    async with Subreaper() as monitor:
        yield runner.with_monitor(monitor)


@contextlib.asynccontextmanager
@at_checkpoints_only
async def launch(
    runner: Runner, job: Job, *, id: str | None = None, folder: StrPath | None = None
) -> AsyncGenerator[RunningJob]:
    """Run a job in a new container, which is gone when the context is left. See `Runc.launch`.

    :param id: as for `prepare`; so is `folder`.
    """
    async with (
        with_statuses(runner) as known,
        prepare(known, job, with_stdin=job.input is not None, id=id, folder=folder) as prepared,
        run_prepared(prepared, job) as running,
    ):
        yield running


@contextlib.asynccontextmanager
@at_checkpoints_only
async def run_prepared(prepared: Prepared, job: Job) -> AsyncGenerator[RunningJob]:
    """Run a job in a container that is ready. If the context is left early, the container stays; `prepare` removes it.

    :param job: as that which the container was prepared for, but for `Job.input` and `Job.files`.
    """
    running = RunningJob(prepared, job)
    failure: Exception | None = None
    await running._start()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(running._supervise)
            try:
                yield running
            except Exception as exc:
                failure = exc
            group.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        raise unwrap(errors) from None
    if failure is not None:
        raise failure
