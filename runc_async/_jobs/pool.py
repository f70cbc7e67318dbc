"""`Pool`: containers that are ready in advance, each for one job."""

from __future__ import annotations

import contextlib
import logging
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import anyio

from .._eventloop.detect import clock
from .._eventloop.groups import unwrap
from .._eventloop.shield import at_checkpoints_only, shielded
from .job import Verdict
from .prepare import prepare
from .running import run_prepared, with_statuses

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    from .._cli.options import StrPath
    from .._lifecycle.runner import Runner
    from .job import Job, Result
    from .prepare import Prepared
    from .running import RunningJob

__all__ = ["Pool"]

logger = logging.getLogger("runc_async")

AT_ONCE = 2
"""How many containers are created in the background at a time."""
QUIET = 0.05
"""Seconds after a hit in which none is begun: callers drain the pool, and what they have started needs the CPUs."""
FIRST_PAUSE = 0.1
LAST_PAUSE = 30.0
"""Seconds between two attempts to create a container: after the first failure, and at most."""


class Client(Protocol):
    """What a pool needs of a `Runc`."""

    _runner: Runner


class Slot:
    """A container of a pool, from its creation to its removal."""

    def __init__(self, prepared: Prepared, context: AbstractAsyncContextManager[Prepared], made: float) -> None:
        self.prepared = prepared
        self.made = made
        self.running: RunningJob | None = None
        self._context: AbstractAsyncContextManager[Prepared] | None = context

    async def remove(self) -> None:
        """Remove the container; once."""
        context, self._context = self._context, None
        if context is not None:
            await context.__aexit__(None, None, None)


class Pool:
    """Containers for one job, created in advance, each used once: ``async with Pool(runc, job) as pool:``.

    What differs from run to run goes in by `input` and `files`, since the arguments of a created container are fixed.
    New containers are created in the background, a few at a time, and not while callers are starting others. When
    the context is left, jobs that run are stopped, and nothing is left behind.

    :param runc: the client, a `Runc`.
    :param job: what all runs share. Its ``input`` and ``files`` are those of runs that have none of their own; its
        ``files`` are written in advance.
    :param size: how many containers are ready at a time.
    :param started: start them in advance, too. Their program waits on stdin, which `input` feeds: an interpreter,
        past its imports. Then a hit runs no runtime process. Time, CPU time and usage count from the hit on.
    :param max_age: seconds after which a container that was not used is replaced; None is never.
    :raises ValueError: a number that cannot be right.
    """

    def __init__(
        self, runc: Client, job: Job, size: int = 8, started: bool = False, max_age: float | None = None
    ) -> None:
        if size < 0:
            raise ValueError(f"size must not be negative: {size}")
        if max_age is not None and not max_age > 0:
            raise ValueError(f"max_age must be a positive number of seconds, not {max_age!r}")
        self.job = job
        self.hits = 0
        """How many runs found a container ready."""
        self.misses = 0
        """How many had to create one."""
        self.failures = 0
        """How many containers could not be created in the background, or ended before they were used."""
        self._client = runc
        self._size = size
        self._started = started
        self._max_age = max_age
        self._ready: deque[Slot] = deque()
        self._held: set[Slot] = set()
        self._creating = 0
        self._missing = 0
        self._starting = 0
        self._removing = 0
        self._last_hit = float("-inf")
        self._pause = 0.0
        self._error: Exception | None = None
        self._is_open = False
        self._context: AbstractAsyncContextManager[None] | None = None

    def __repr__(self) -> str:
        return f"<Pool {self.job.name!r} ready={self.ready} size={self._size}>"

    @property
    def ready(self) -> int:
        """How many containers are ready."""
        return len(self._ready)

    async def __aenter__(self) -> Self:
        if self._context is not None:
            raise RuntimeError("a Pool is entered once; make a new one")
        self._context = self._serve()
        await self._context.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool | None:
        assert self._context is not None
        return await self._context.__aexit__(kind, exc, trace)

    async def execute(self, *, input: bytes | None = None, files: Mapping[str, bytes | StrPath] = {}) -> Result:
        """Run the job once, in a container that is ready, or else in a new one.

        :param input: what its program reads from stdin; None is that of the job.
        :param files: further ones, as in ``Job``, written before its start; with `started` while its program waits.
        :returns: its `Result`. Its container is removed in the background.
        :raises: as `Runc.execute`; besides, if no container is ready, the error of the last one that could not be
            created in the background.
        :raises RuntimeError: the pool is not entered, or was left.
        """
        async with self.launch(input=input, files=files) as running:
            return await running.result()

    @contextlib.asynccontextmanager
    @at_checkpoints_only
    async def launch(
        self, *, input: bytes | None = None, files: Mapping[str, bytes | StrPath] = {}
    ) -> AsyncGenerator[RunningJob]:
        """Run the job once, and look on: ``async with pool.launch(input=…) as running:``.

        Parameters, and what entering raises, are as for `execute`. Leaving the context kills it, if it still runs.
        """
        job = replace(self.job, input=self.job.input if input is None else input, files=files)
        slot = await self._take()
        try:
            async with self._run(slot, job) as running:
                yield running
        finally:
            await shielded(self._release, slot)

    async def resize(self, size: int) -> None:
        """Keep another number of containers ready; what is too many is removed.

        :param size: how many.
        """
        if size < 0:
            raise ValueError(f"size must not be negative: {size}")
        self._size = size
        surplus = [self._ready.popleft() for _ in range(len(self._ready) - size)]
        self._notify()
        for slot in surplus:
            await shielded(self._remove, slot)

    async def fill(self) -> None:
        """Wait until all containers are ready.

        :raises: the error of one that could not be created.
        """
        while self._is_open and len(self._ready) < self._size:
            self._raise_error()
            await self._changed.wait()

    # -- one run -----------------------------------------------------------------------------------------

    async def _take(self) -> Slot:
        """Give a container that is ready, or create one."""
        if not self._is_open:
            raise RuntimeError(f"{self!r} is not entered, or was left")
        while self._ready:
            slot = self._ready.popleft()
            self._notify()
            is_alive = slot.prepared.container.is_alive
            if is_alive and not self._is_old(slot):
                self.hits += 1
                self._last_hit = self._clock()
                self._starting += 1
                return slot
            self.failures += not is_alive
            self._discard(slot)
        self._raise_error()
        self.misses += 1
        self._missing += 1
        try:
            slot = await self._create()
            self._starting += 1
        finally:
            self._missing -= 1
            self._notify()
        return slot

    @contextlib.asynccontextmanager
    async def _run(self, slot: Slot, job: Job) -> AsyncGenerator[RunningJob]:
        async with contextlib.AsyncExitStack() as stack:
            try:
                running = await stack.enter_async_context(run_prepared(slot.prepared, job))
                slot.running = running
                if not self._is_open:
                    running.end_for(Verdict.STOPPED)
            finally:
                self._starting -= 1
                self._notify()
            yield running

    async def _release(self, slot: Slot) -> None:
        """Remove a container that was used: in the background, unless there is much to do already."""
        if self._is_open and self._removing < max(self._size, AT_ONCE):
            self._discard(slot)
        else:
            await self._remove(slot)

    def _discard(self, slot: Slot) -> None:
        self._removing += 1
        self._group.start_soon(self._remove_in_background, slot)

    async def _remove_in_background(self, slot: Slot) -> None:
        try:
            await shielded(self._remove, slot)
        finally:
            self._removing -= 1

    async def _remove(self, slot: Slot) -> None:
        try:
            await slot.remove()
        except Exception:
            logger.exception("container %s may be left", slot.prepared.container.id)
        finally:
            self._held.discard(slot)

    def _raise_error(self) -> None:
        """Raise what went wrong in the background, once."""
        error, self._error = self._error, None
        if error is not None:
            raise error

    # -- in the background -------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    @at_checkpoints_only
    async def _serve(self) -> AsyncGenerator[None]:
        failure: Exception | None = None
        self._changed = anyio.Event()
        self._clock = clock()
        async with with_statuses(self._client._runner) as self._runner:
            try:
                async with anyio.create_task_group() as self._group:
                    self._is_open = True
                    self._group.start_soon(self._maintain)
                    try:
                        yield
                    except Exception as exc:
                        failure = exc
                    self._group.cancel_scope.cancel()
            except BaseExceptionGroup as errors:
                raise unwrap(errors) from None
            finally:
                self._is_open = False
                await shielded(self._close)
        if failure is not None:
            raise failure

    async def _close(self) -> None:
        """Stop what runs, and remove everything."""
        self._notify()
        while self._missing or self._starting:
            await self._changed.wait()
        for slot in list(self._held):
            if slot.running is not None:
                slot.running.end_for(Verdict.STOPPED)
                await slot.running.ended()
        async with anyio.create_task_group() as group:
            for slot in list(self._held):
                group.start_soon(self._remove, slot)
        self._ready.clear()

    async def _maintain(self) -> None:
        """Keep containers ready, and replace those that are too old."""
        while True:
            while self._ready and self._is_old(self._ready[0]):
                self._discard(self._ready.popleft())
            wanted = self._size - len(self._ready) - self._creating
            may_refill = wanted > 0 and self._creating < AT_ONCE and not self._starting
            quiet_in = self._last_hit + QUIET - self._clock()
            if may_refill and quiet_in <= 0:
                self._creating += 1
                self._group.start_soon(self._refill)
                continue
            with anyio.move_on_after(self._next_expiry()), anyio.move_on_after(quiet_in if may_refill else None):
                await self._changed.wait()

    async def _refill(self) -> None:
        try:
            await self._refill_one()
        finally:
            self._creating -= 1
            self._notify()

    async def _refill_one(self) -> None:
        try:
            slot = await self._create()
        except Exception as exc:
            self.failures += 1
            self._error = exc
            self._pause = min(max(2 * self._pause, FIRST_PAUSE), LAST_PAUSE)
            self._notify()
            await anyio.sleep(self._pause)
            return
        self._pause = 0.0
        self._error = None
        self._ready.append(slot)

    async def _create(self) -> Slot:
        context = prepare(self._runner, self.job, with_stdin=True)
        prepared = await context.__aenter__()
        slot = Slot(prepared, context, self._clock())
        self._held.add(slot)
        try:
            await prepared.write(self.job.files)
            if self._started:
                await prepared.start()
        except BaseException:
            await shielded(self._remove, slot)
            raise
        return slot

    def _is_old(self, slot: Slot) -> bool:
        return self._max_age is not None and self._clock() - slot.made >= self._max_age

    def _next_expiry(self) -> float | None:
        """Seconds until the oldest container is too old; None if none ever is."""
        if self._max_age is None or not self._ready:
            return None
        return max(0.0, self._ready[0].made + self._max_age - self._clock())

    def _notify(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()
