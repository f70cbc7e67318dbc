"""Many jobs through one pool (``RUNC_ASYNC_JOBS``): every verdict is right, memory and descriptors stay flat."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import Job, Pool, Runc, Verdict, default_spec

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

JOBS = int(os.environ.get("RUNC_ASYNC_JOBS", "0"))
SIZE = 16
CALLERS = 4
KINDS = (
    (b"exit 0", Verdict.EXITED, 0),
    (b"exit 3", Verdict.EXITED, 3),
    (b"head -c 100000 /dev/zero", Verdict.OUTPUT_LIMIT, None),
    (b"cat /proc/self/status >&2; exit 1", Verdict.EXITED, 1),
    (b"(exec setsid sleep 1000) & exit 5", Verdict.EXITED, 5),
    (b"echo x > /work/x; exit 0", Verdict.EXITED, 0),
)


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not JOBS, reason="takes long: set RUNC_ASYNC_JOBS=100000 (`make soak`)")
@pytest.mark.timeout(60 + JOBS)
@pytest.mark.parametrize("started", [False, True], ids=["created", "started"])
async def test_jobs_through_a_pool(started: bool, runc: Runc, rootfs: Path) -> None:
    (rootfs / "work").mkdir(exist_ok=True)
    job = Job(default_spec(["sh"]), rootfs, work="1M", collect=["x"], output_limit=50_000, name="soak")
    numbers: Iterator[int] = iter(range(JOBS))
    wrong: list[object] = []
    async with Pool(runc, job, size=SIZE, started=started) as pool:

        async def call() -> None:
            for number in numbers:
                script, verdict, status = KINDS[number % len(KINDS)]
                result = await pool.execute(input=script)
                if result.verdict is not verdict or (status is not None and result.status != status):
                    wrong.append((number, result))

        seen: list[tuple[int, int]] = []

        async def census() -> None:
            while True:
                await anyio.sleep(1)
                seen.append((resident(), len(os.listdir("/proc/self/fd"))))

        async with anyio.create_task_group() as group:
            group.start_soon(census)
            async with anyio.create_task_group() as callers:
                for _ in range(CALLERS):
                    callers.start_soon(call)
            group.cancel_scope.cancel()
        print(f"\n{JOBS} jobs, {pool.hits} hits, {pool.misses} misses, {pool.failures} failures")
        assert pool.hits + pool.misses == JOBS
        assert pool.failures == 0
    print("memory, descriptors:", seen[:: max(1, len(seen) // 8)])
    assert wrong == []
    settled = seen[len(seen) // 4 :]
    if len(settled) >= 20:
        first, last = settled[: len(settled) // 4], settled[-len(settled) // 4 :]
        assert max(memory for memory, _ in last) < max(memory for memory, _ in first) + (8 << 20)
        assert max(count for _, count in last) <= max(count for _, count in first) + 8 * SIZE
