"""On the scheduler: how often a job has begun and where, and its one result."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from distributed.diagnostics.plugin import SchedulerPlugin

from ._job import PLUGIN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from distributed.scheduler import Scheduler

__all__ = ["JobsPlugin"]

ENDED = ("memory", "erred", "forgotten")
ARRIVES_WITHIN = 5.0
"""Seconds that a job may take to get here after its client has sent it: that goes another way than questions do."""


@dataclass(slots=True)
class _Entry:
    """What is known of a job that has begun."""

    attempt: int = 0
    worker: str = ""
    report: bytes | None = None


class JobsPlugin(SchedulerPlugin):
    """Keeps a job to one result, and to as many attempts as it may have.

    A worker asks here before it starts a container, and reports here when it has ended: one that was taken for lost
    and comes back is turned away. Results are kept here until their client has them, not on the worker, so they are
    not lost with it. The handlers are called by workers and clients, by their names with ``runc_async_`` before them.
    """

    name = PLUGIN
    idempotent = True

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._changes: dict[str, asyncio.Event] = {}

    async def start(self, scheduler: Scheduler) -> None:
        """See `SchedulerPlugin`."""
        self._scheduler: Any = scheduler  # Dask's own annotations are not whole
        for handler in (self.prepared, self.begin, self.end, self.result, self.output):
            self._scheduler.handlers[f"runc_async_{handler.__name__}"] = handler

    def transition(self, key: Any, start: str, finish: str, *args: Any, stimulus_id: str, **keywords: Any) -> None:
        """See `SchedulerPlugin`."""
        task = self._scheduler.tasks.get(key)
        if task is None or PLUGIN not in (task.annotations or {}):
            return
        if finish == "processing":
            # Dask gives up a task that was assigned to, not run by, so many lost workers; here it is begin who counts.
            task.suspicious = -1
        if finish == "forgotten":
            self._entries.pop(key, None)
        self._changed(key)

    def _changed(self, key: str) -> None:
        change = self._changes.pop(key, None)
        if change is not None:
            change.set()

    def prepared(self, worker: str) -> None:
        """A worker has declared its resources: jobs that found no worker before may go there."""
        state = self._scheduler.workers.get(worker)
        if state is not None:
            runnable = self._scheduler.bulk_schedule_unrunnable_after_adding_worker(state)
            self._scheduler.transitions(runnable, stimulus_id=f"runc-async-prepared-{worker}")

    def begin(self, key: str, worker: str) -> int | str:
        """May this worker start the job's container? The number of the attempt; or why not."""
        task = self._scheduler.tasks.get(key)
        if task is None or task.processing_on is None or task.processing_on.address != worker:
            return "elsewhere"
        entry = self._entries.setdefault(key, _Entry())
        if entry.report is not None:
            return "ended"
        if entry.attempt > (task.annotations or {})[PLUGIN]:
            return "lost"
        entry.attempt += 1
        entry.worker = worker
        self._changed(key)
        return entry.attempt

    def end(self, key: str, attempt: int, report: bytes) -> bool:
        """The container has ended. Whether its result counts."""
        entry = self._entries.get(key)
        if entry is None or entry.report is not None or entry.attempt != attempt:
            return False
        entry.report = report
        return True

    def result(self, key: str) -> bytes | None:
        """A job's result, if there is one."""
        entry = self._entries.get(key)
        return None if entry is None else entry.report

    async def output(self, key: str, attempt: int, offsets: Sequence[int]) -> dict[str, Any] | None:
        """What a job has written since; waits until there is something. None when the job is over."""
        if key not in self._scheduler.tasks:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changes.setdefault(key, asyncio.Event()).wait(), ARRIVES_WITHIN)
            self._changed(key)
        while (task := self._scheduler.tasks.get(key)) is not None and task.state not in ENDED:
            change = self._changes.setdefault(key, asyncio.Event())
            entry = self._entries.get(key)
            if entry is not None and entry.report is None:
                try:
                    worker = self._scheduler.rpc(entry.worker)
                    seen = {"attempt": attempt, "offsets": offsets}
                    news: dict[str, Any] | None = await worker.runc_async_output(key=key, **seen)
                except OSError:  # it is lost; the job begins again
                    news = None
                if news is not None:
                    return news
            await change.wait()
        return None
