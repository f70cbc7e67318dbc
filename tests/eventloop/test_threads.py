"""Work in a worker thread: it has ended when its caller goes on, whichever way that was cancelled."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import anyio
import anyio.to_thread
import pytest

from runc_async._eventloop.threads import check_stopped, run_in_thread

pytestmark = pytest.mark.anyio


class Work:
    """Goes on until it is stopped."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended = False

    def __call__(self) -> None:
        self.began.set()
        try:
            while True:
                check_stopped()
                time.sleep(0.001)
        finally:
            time.sleep(0.02)
            self.ended = True

    async def begun(self) -> None:
        while not self.began.is_set():
            await anyio.sleep(0.001)


async def test_results_and_errors_come_back() -> None:
    caller = threading.get_ident()
    assert await run_in_thread(threading.get_ident) != caller

    def fail() -> None:
        raise OSError(28, "full")

    with pytest.raises(OSError, match="full"):
        await run_in_thread(fail)


async def test_when_cancelled_it_stops_and_is_waited_for() -> None:
    work = Work()
    async with anyio.create_task_group() as group:
        group.start_soon(run_in_thread, work)
        await work.begun()
        group.cancel_scope.cancel()
    assert work.ended


async def test_when_cancelled_natively_too(anyio_backend: Any) -> None:
    if anyio_backend[0] == "trio":
        with anyio.move_on_after(0):  # has no other way
            await run_in_thread(Work())
        return
    work = Work()
    task = asyncio.ensure_future(run_in_thread(work))
    await work.begun()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert work.ended


async def test_when_cancelled_before_a_thread_was_free_it_never_runs() -> None:
    work = Work()
    limiter = anyio.to_thread.current_default_thread_limiter()
    tokens, limiter.total_tokens = limiter.total_tokens, 1
    try:
        async with anyio.create_task_group() as group:
            busy = Work()
            group.start_soon(run_in_thread, busy)
            await busy.begun()
            with anyio.move_on_after(0.02) as scope:
                await run_in_thread(work)
            assert scope.cancelled_caught
            limiter.total_tokens = 2  # one to wait for the other
            group.cancel_scope.cancel()
    finally:
        limiter.total_tokens = tokens
    await anyio.sleep(0.02)
    assert not work.began.is_set()
    assert not work.ended


def test_outside_of_such_a_thread_nothing_is_stopped() -> None:
    check_stopped()
