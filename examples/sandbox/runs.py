"""Programs in fresh containers: their limits, their output, their statistics, their ends. Knows nothing of HTTP."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import logging
import os
import secrets
import tempfile
import time
from collections import deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import anyio
import msgspec
from msgspec import Meta

from runc_async import (
    Bundle,
    CommandError,
    ConsoleSocket,
    PipeIO,
    RuncError,
    Stats,
    UnsupportedError,
    default_spec,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Sequence
    from pathlib import Path

    from anyio.abc import ByteReceiveStream

    from runc_async import Console, Container, Runc

logger = logging.getLogger("sandbox")

BATCH = 0.02
"""Seconds between two reads of a stream: what a program prints byte by byte still comes in few chunks."""
SAMPLES = 300
"""The most samples that are kept of one run."""
NOBODY = 65534
"""Who programs run as, where the service is root."""
KILLED = 128 + 9


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one run may use: memory in MiB, CPUs, processes, seconds, KiB of output."""

    memory: Annotated[float, Meta(ge=8)] = 64
    cpus: Annotated[float, Meta(ge=0.01)] = 0.5
    pids: Annotated[int, Meta(ge=8)] = 32
    timeout: Annotated[float, Meta(gt=0)] = 10
    output: Annotated[int, Meta(ge=1)] = 256


class Chunk(NamedTuple):
    """A piece of output."""

    stream: str
    text: str


class Sample(NamedTuple):
    """What a container used at one moment: seconds since the epoch, CPUs, bytes, processes."""

    time: float
    cpu: float
    memory: int
    pids: int


class RefusedError(Exception):
    """What the service does not do; says why."""


class Run:
    """One program, from its request to its end, and what is known of it afterwards."""

    def __init__(self, program: str, limits: Limits) -> None:
        self.id = secrets.token_hex(4)
        self.program = program
        self.limits = limits
        self.state = "starting"
        self.status: int | None = None
        self.reason: str | None = None
        self.out_of_memory = False
        self.began = datetime.now(UTC)
        self.ended: datetime | None = None
        self.output: list[Chunk] = []
        self.size = 0
        self.samples: deque[Sample] = deque(maxlen=SAMPLES)
        self.sampled = 0
        self.container: Container | None = None
        self.task: asyncio.Task[None] | None = None
        self.stopping = asyncio.Event()
        self.changed = asyncio.Event()

    def stop(self, reason: str) -> None:
        """Have it killed; the first reason counts."""
        if self.state != "ended" and self.reason is None:
            self.reason = reason
        self.stopping.set()

    def notify(self) -> None:
        """Wake who follows it."""
        self.changed.set()
        self.changed = asyncio.Event()

    def described(self) -> dict[str, Any]:
        """What is told of it."""
        return {
            "id": self.id,
            "title": next((line.strip() for line in self.program.splitlines() if line.strip()), "")[:80],
            "state": self.state,
            "status": self.status,
            "reason": self.reason,
            "out_of_memory": self.out_of_memory,
            "began": self.began.isoformat(),
            "ended": self.ended and self.ended.isoformat(),
            "seconds": round(((self.ended or datetime.now(UTC)) - self.began).total_seconds(), 3),
            "limits": msgspec.to_builtins(self.limits),
            "output": self.size,
            "usage": self.samples[-1]._asdict() if self.samples else None,
        }

    async def chunks(self) -> AsyncGenerator[Chunk]:
        """Its output from the beginning, and as it comes until its end."""
        seen = 0
        while True:
            changed, ended = self.changed, self.state == "ended"
            for chunk in self.output[seen:]:
                yield chunk
                seen += 1
            if ended:
                return
            await changed.wait()

    def sampled_since(self, seen: int) -> list[Sample]:
        """The samples after the first `seen` ones, as far as they are kept."""
        new = min(self.sampled - seen, len(self.samples))
        return list(self.samples)[len(self.samples) - new :]

    async def statistics(self) -> AsyncGenerator[Sample]:
        """Its samples, and as they come until its end."""
        seen = 0
        while True:
            changed, ended = self.changed, self.state == "ended"
            new, seen = self.sampled_since(seen), self.sampled
            for sample in new:
                yield sample
            if ended:
                return
            await changed.wait()


class Runs:
    """All runs of the service: so many at once, so many remembered.

    :param bundles: a directory for their bundles, which are gone when they end; None is the one for temporary files.
    :param most: the most that one run may ask for.
    :param running: the most runs at once.
    :param kept: the most runs that are remembered after their end.
    :param interval: seconds between two samples.
    :param prefix: what the ids of its containers begin with.
    """

    def __init__(
        self,
        runc: Runc,
        rootfs: Path,
        *,
        bundles: Path | None = None,
        interpreter: Sequence[str] = ("sh", "-c"),
        shell: Sequence[str] = ("sh",),
        most: Limits | None = None,
        running: int = 8,
        kept: int = 50,
        interval: float = 1.0,
        prefix: str = "sandbox",
    ) -> None:
        self.runc = runc
        self.rootfs = rootfs
        self.bundles = bundles
        self.interpreter = interpreter
        self.shell = shell
        self.most = most or Limits(memory=256, cpus=1, pids=128, timeout=600, output=1024)
        self.running = running
        self.kept = kept
        self.interval = interval
        self.prefix = prefix
        self.has_statistics = True
        self.all: dict[str, Run] = {}
        self.changed = asyncio.Event()
        self.closed = False

    async def check(self) -> None:
        """Run a container with all limits, so that a host that cannot enforce them is refused at once.

        :raises RuncError: it cannot.
        """
        run = Run("true", self.within(Limits()))
        await self.live(run)
        if run.status != 0:
            raise RuncError(f"a container with limits cannot be run here: {run.reason or f'status {run.status}'}")
        try:
            await self.runc.stats(self.container_id(run))
        except UnsupportedError:
            self.has_statistics = False
        except CommandError:  # there is no such container any more
            pass

    def within(self, limits: Limits) -> Limits:
        """The defaults, where the service allows less."""
        names = Limits.__struct_fields__
        return Limits(**{name: min(getattr(limits, name), getattr(self.most, name)) for name in names})

    def active(self) -> list[Run]:
        """Those that have not ended."""
        return [run for run in self.all.values() if run.state != "ended"]

    def start(self, program: str, limits: Limits | None = None) -> Run:
        """Start a run.

        :raises ValueError: it asks for more than is allowed.
        :raises RefusedError: as many as may be are running.
        """
        if limits is None:
            limits = self.within(Limits())
        for name in Limits.__struct_fields__:
            if getattr(limits, name) > getattr(self.most, name):
                raise ValueError(f"limits.{name}: at most {getattr(self.most, name):g}, not {getattr(limits, name):g}")
        if "\0" in program:
            raise ValueError("program: has a NUL character")
        if self.closed:
            raise RefusedError("the service is stopping")
        if len(self.active()) >= self.running:
            raise RefusedError(f"{self.running} runs at once are the most")
        run = Run(program, limits)
        self.all[run.id] = run
        run.task = asyncio.create_task(self.live(run))
        self.notify()
        return run

    def notify(self) -> None:
        """Wake who watches the list."""
        self.changed.set()
        self.changed = asyncio.Event()

    async def aclose(self) -> None:
        """End all runs; on return no container is left."""
        self.closed = True
        active = self.active()
        for run in active:
            run.stop("the service stopped")
            assert run.task is not None
            run.task.cancel()  # leaving the container's context kills and deletes it, wherever the run is
        await asyncio.gather(*(run.task for run in active if run.task), return_exceptions=True)
        for run in active:  # one that was cancelled before its first step has not said so itself
            self.end(run)

    async def live(self, run: Run) -> None:
        """One run from beginning to end; whatever goes wrong is its reason."""
        try:
            await self.contained(run)
        except* Exception as errors:
            error: BaseException = errors
            while isinstance(error, BaseExceptionGroup):
                error = error.exceptions[0]
            run.reason = run.reason or f"could not be run: {error}"
            logger.warning("run %s: %s", run.id, error)
        finally:
            self.end(run)

    def end(self, run: Run) -> None:
        """Nothing more comes of it."""
        run.container = None
        if run.state != "ended":
            run.state = "ended"
            run.ended = datetime.now(UTC)
        for old in [run for run in self.all.values() if run.state == "ended"][: -self.kept or None]:
            del self.all[old.id]
        run.notify()
        self.notify()

    async def contained(self, run: Run) -> None:
        """Its bundle, and its container."""
        user = NOBODY if os.geteuid() == 0 else None
        spec = default_spec(
            [*self.interpreter, run.program],
            memory=int(run.limits.memory * (1 << 20)),
            cpus=run.limits.cpus,
            pids=run.limits.pids,
            user=user,
            cwd="/tmp",
            hostname="sandbox",
            env={"HOME": "/tmp"},
        )
        with tempfile.TemporaryDirectory(prefix=f"{run.id}-", dir=self.bundles) as folder:
            bundle = Bundle.create(folder, spec, rootfs=self.rootfs)
            await self.watched(run, bundle, PipeIO(stdin=False, uid=user, gid=user))

    async def watched(self, run: Run, bundle: Bundle, io: PipeIO) -> None:
        """Its container, with all that looks after it."""
        async with (
            self.runc.container(self.container_id(run), bundle, io=io) as container,
            asyncio.TaskGroup() as group,
        ):
            group.create_task(self.read(run, "stdout", io.stdout))
            group.create_task(self.read(run, "stderr", io.stderr))
            stopper = group.create_task(self.stop_in_time(run, container))
            await container.start()
            run.container = container
            run.state = "running"
            run.notify()
            self.notify()
            watcher = group.create_task(self.watch(run, container))
            exit = await container.wait()
            run.status = exit.status
            stopper.cancel()
            if run.status != KILLED or run.reason:  # else it may still be told that memory was the reason
                watcher.cancel()

    def container_id(self, run: Run) -> str:
        """Its container's."""
        return f"{self.prefix}-{run.id}"

    async def stop_in_time(self, run: Run, container: Container) -> None:
        """Kill it when its time is over, or earlier if somebody asks for it."""
        try:
            async with asyncio.timeout(run.limits.timeout):
                await run.stopping.wait()
        except TimeoutError:
            run.stop(f"timed out after {run.limits.timeout:g} s")
        await container.stop("KILL", timeout=0)

    async def read(self, run: Run, name: str, stream: ByteReceiveStream) -> None:
        """Keep what it prints, up to its limit."""
        decode = codecs.getincrementaldecoder("utf-8")(errors="replace").decode
        most = run.limits.output << 10
        data = b"-"
        while data:
            try:
                data = await stream.receive()
            except anyio.EndOfStream:
                data = b""
            room = most - run.size
            run.size += min(len(data), room)
            text = decode(data[:room], final=not data)
            if text:
                run.output.append(Chunk(name, text))
                run.notify()
            if len(data) > room:
                run.stop(f"more than {run.limits.output} KiB of output")
            elif data:
                await asyncio.sleep(BATCH)

    async def watch(self, run: Run, container: Container) -> None:
        """Take samples, and note when the kernel finds that it wants more memory than it may have."""
        if not self.has_statistics:
            return
        before = time.monotonic(), 0
        with contextlib.suppress(CommandError):  # it has ended already
            async with self.runc.events(container.id, interval=self.interval) as events:
                async for event in events:
                    if event.type == "oom":
                        run.out_of_memory = True
                    elif isinstance(stats := event.data, Stats):
                        now = time.monotonic(), stats.cpu.usage.total
                        cpu = (now[1] - before[1]) / 1e9 / (now[0] - before[0])
                        before = now
                        run.samples.append(
                            Sample(time.time(), round(cpu, 4), stats.memory.usage.usage, stats.pids.current)
                        )
                        run.sampled += 1
                        run.notify()
                        self.notify()

    @contextlib.asynccontextmanager
    async def terminal(self, run: Run) -> AsyncGenerator[Console]:
        """A shell in its container, on a terminal; leaving kills it.

        :raises RefusedError: it is not running.
        """
        if run.container is None:
            raise RefusedError("it is not running")
        async with (
            ConsoleSocket() as socket,
            run.container.exec(
                list(self.shell), tty=True, console_socket=socket, env={"TERM": "xterm-256color"}
            ) as process,
            await socket.receive() as console,
        ):
            logger.debug("run %s: a terminal, pid %d", run.id, process.pid)
            yield console
