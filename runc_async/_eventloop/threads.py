"""Work in a worker thread that ends when its caller is cancelled."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING, TypeVar

import anyio.to_thread

from .shield import shielded

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["StoppedError", "check_stopped", "run_in_thread"]

T = TypeVar("T")


class StoppedError(Exception):
    """The caller of a worker thread was cancelled."""


_stop: ContextVar[threading.Event | None] = ContextVar("_stop", default=None)


def check_stopped() -> None:
    """End the work of a thread whose caller was cancelled."""
    stop = _stop.get()
    if stop is not None and stop.is_set():
        raise StoppedError


async def run_in_thread(work: Callable[[], T]) -> T:
    """Work in a worker thread; when cancelled, tell it to stop, and wait until it has.

    So nothing is read or written any more when this returns, whichever way it was cancelled.
    """
    stop, started, ended = threading.Event(), threading.Event(), threading.Event()

    def run() -> T:
        started.set()
        try:
            check_stopped()
            return work()
        finally:
            ended.set()

    token = _stop.set(stop)  # a worker thread gets a copy of the context
    try:
        return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)
    except BaseException:
        stop.set()
        if started.is_set():  # else it will do nothing
            await shielded(anyio.to_thread.run_sync, ended.wait)
        raise
    finally:
        _stop.reset(token)
