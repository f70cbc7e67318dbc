"""How slow this machine is, so that a test's bound on time holds on every machine and beside every load."""

from __future__ import annotations

import os
import subprocess
import time
from typing import TYPE_CHECKING

import anyio

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

REFERENCE = 0.2
"""Seconds that `measure` takes where the bounds were chosen: on two idle processors."""
MARGIN = 3
"""How much slower than measured the machine may become while the suite runs."""


def measure() -> float:
    """How many times longer than there things may take here: `MARGIN` at least."""
    began = time.perf_counter()
    for _ in range(100):
        subprocess.run(["true"], check=True)
        sum(n * n for n in range(20_000))
    return MARGIN * max(1.0, (time.perf_counter() - began) / REFERENCE)


SLOWNESS = float(os.environ.get("RUNC_ASYNC_SLOWNESS") or measure())
"""Measured once: the workers of pytest-xdist inherit it."""
os.environ["RUNC_ASYNC_SLOWNESS"] = f"{SLOWNESS:.1f}"


def within(seconds: float) -> AbstractContextManager[anyio.CancelScope]:
    """``anyio.fail_after``, of so many seconds where what is waited for takes a moment, and more on a slow machine."""
    return anyio.fail_after(seconds * SLOWNESS)
