"""A further process that is cancelled, timed out or left takes everything along that it has started."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async._linux import cgroups

from .._slowness import within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runc_async import Runc

pytestmark = pytest.mark.anyio

DAEMON = "setsid sh -c 'setsid sleep 4242 & setsid sleep 4242' & sleep 4242"
"""Daemons and one process in the foreground: all in sessions of their own, two without their parent."""


async def sleepers(runc: Runc, id: str) -> int:
    """How many of the `DAEMON`'s processes run."""
    found = 0
    for pid in await runc.ps(id):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                found += file.read().startswith(b"sleep\x004242")
        except OSError:
            continue
    return found


async def wait_for(runc: Runc, id: str, count: int) -> None:
    with within(20):
        while await sleepers(runc, id) != count:
            await anyio.sleep(0.01)


@pytest.mark.parametrize("how", ["cancelled run", "run that times out", "left exec", "cancelled exec"])
async def test_daemons_go_too_and_nothing_else(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, how: str
) -> None:
    async with runc.container(container_id, make_bundle("sh", "-c", "sleep 77 & sleep 77")) as container:
        await container.start()
        before = await runc.ps(container_id)
        if how == "cancelled run":
            async with anyio.create_task_group() as group:
                group.start_soon(container.run, ["sh", "-c", DAEMON])
                await wait_for(runc, container_id, 3)
                group.cancel_scope.cancel()
        elif how == "run that times out":
            done = await container.run(["sh", "-c", f"echo begun; {DAEMON}"], timeout=0.7)
            assert done.timed_out
            assert done.stdout == b"begun\n"
            assert done.status == 137
        else:
            with anyio.move_on_after(0 if how == "cancelled exec" else 60) as scope:
                scope.shield = True
                async with container.exec(["sh", "-c", DAEMON]):
                    scope.deadline = float("inf")
                    await wait_for(runc, container_id, 3)
                    if how == "cancelled exec":
                        scope.cancel()
        assert await sleepers(runc, container_id) == 0
        assert set(before) - {pid for pid in before if not os.path.exists(f"/proc/{pid}")} <= set(
            await runc.ps(container_id)
        )
        # No cgroup is left below the container's.
        for path in cgroups.cgroups_of(container.pid).values():
            assert [entry.name for entry in os.scandir(path) if entry.name.startswith("exec-")] == []


async def test_what_a_process_that_has_ended_left_in_the_background_runs_on(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with runc.container(container_id, make_bundle("sleep", "77")) as container:
        await container.start()
        done = await container.run(["sh", "-c", "sleep 4242 >/dev/null 2>&1 & echo said"])
        assert done.stdout == b"said\n"
        assert await sleepers(runc, container_id) == 1
