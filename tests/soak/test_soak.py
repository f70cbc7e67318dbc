"""Many containers, one after the other and at once: nothing grows, every status is right, waiting costs nothing.

``make soak`` runs 10,000 and 500; the suite runs a few of each.
"""

from __future__ import annotations

import gc
import os
import random
import resource
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import FdExecutor, Runc, Subreaper

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(7200)]

ROUNDS = int(os.environ.get("RUNC_ASYNC_SOAK", "96"))
ALIVE = int(os.environ.get("RUNC_ASYNC_ALIVE", "24"))
TASKS = 16


def resident() -> int:
    """This process's memory in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def descriptors() -> int:
    """How many are open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
async def reaping(runtime_path: Path, state_root: Path) -> AsyncIterator[Runc]:
    """A client that knows exit statuses, by a held descriptor."""
    with FdExecutor.open(runtime_path) as executor:
        async with Subreaper() as monitor:
            yield Runc(executor, root=state_root, monitor=monitor)


async def test_short_containers_one_after_the_other_over_many_tasks(
    reaping: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    bundles = {status: make_bundle("sh", "-c", f"exit {status}") for status in range(8)}
    todo = iter(range(ROUNDS))
    done = 0
    figures: dict[int, tuple[int, int]] = {}
    begun = time.monotonic()

    async def work() -> None:
        nonlocal done
        for number in todo:
            status = number % 8
            if number % 2:
                assert await reaping.run(new_id(), bundles[status]) == status
            else:
                async with reaping.container(new_id(), bundles[status]) as container:
                    await container.start()
                    assert (await container.wait()).status == status
            done += 1
            if done in (ROUNDS // 10, ROUNDS):
                gc.collect()
                figures[done] = resident(), descriptors()

    async with anyio.create_task_group() as group:
        for _ in range(TASKS):
            group.start_soon(work)
    assert done == ROUNDS
    early, late = figures[ROUNDS // 10], figures[ROUNDS]
    with capsys.disabled():
        for number, (memory, open_ones) in figures.items():
            print(f"\n{number} containers: {memory / 2**20:.1f} MiB resident, {open_ones} descriptors")
        print(f"{ROUNDS / (time.monotonic() - begun):.1f} containers per second")
    assert late[0] - early[0] < (8 << 20)
    assert late[1] <= early[1] + 10 * TASKS  # those of the calls under way


async def test_many_alive_at_once_wake_only_whom_it_concerns_and_cost_nothing(
    reaping: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = make_bundle("sleep", "7200")
    woken: list[str] = []
    alive = 0
    all_alive, one_woken, end = anyio.Event(), anyio.Event(), anyio.Event()
    limiter = anyio.CapacityLimiter(TASKS)
    ids = [new_id() for _ in range(ALIVE)]
    before = resident()

    async def live(id: str) -> None:
        nonlocal alive
        async with limiter:
            container = await contexts[id].__aenter__()
            await container.start()
        try:
            alive += 1
            if alive == ALIVE:
                all_alive.set()
            async with anyio.create_task_group() as group:

                async def wait() -> None:
                    assert (await container.wait()).status == 137
                    woken.append(id)
                    one_woken.set()

                group.start_soon(wait)
                await end.wait()
                group.cancel_scope.cancel()
        finally:
            async with limiter:
                await contexts[id].__aexit__(None, None, None)

    contexts = {id: reaping.container(id, bundle) for id in ids}
    async with anyio.create_task_group() as group:
        for id in ids:
            group.start_soon(live, id)
        await all_alive.wait()
        await anyio.sleep(0.2)
        gc.collect()
        memory = resident() - before
        cpu = time.process_time()
        await anyio.sleep(1)
        cpu = time.process_time() - cpu
        victim = random.choice(ids)
        await reaping.kill(victim, "KILL")
        await one_woken.wait()
        await anyio.sleep(0.1)
        assert woken == [victim]
        end.set()
    with capsys.disabled():
        print(f"\n{ALIVE} alive: {cpu * 1000:.1f} ms of CPU in 1 s of waiting, {memory / ALIVE / 1024:.1f} KiB each")
    assert cpu < 0.05
    assert await reaping.list() == []
