"""Turns: how many short runtime processes of one event loop run at a time.

Two for each core keep the cores busy. More only share them: each takes longer, and so does the start of the next one,
which stops the event loop until the child has executed. With 64 calls at once a turn of the loop took 200 ms.
"""

from __future__ import annotations

import os

import anyio
from anyio.lowlevel import RunVar

__all__ = ["LONGEST_TURN", "turns"]

AT_ONCE = 2 * len(os.sched_getaffinity(0))
LONGEST_TURN = 0.1
"""Seconds after which the last turn to be had goes to the next in the queue, though its process runs on."""


_turns: RunVar[anyio.Semaphore] = RunVar("runc_async_turns")


def turns() -> anyio.Semaphore:
    """Those of this event loop, in the order of asking: ``async with turns() as turn:``; ``turn.value`` are left."""
    try:
        return _turns.get()
    except LookupError:
        new = anyio.Semaphore(AT_ONCE, fast_acquire=True)
        _turns.set(new)
        return new
