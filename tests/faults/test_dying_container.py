"""``exec`` in a container that is just ending says so, whatever the runtime says."""

from __future__ import annotations

import os
import random
import signal
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import ContainerNotRunningError, Runc

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

CONTAINERS = 12
KILLED = 137


async def test_exec_while_init_is_dying_is_a_process_that_was_killed_or_a_container_that_is_not_running(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str]
) -> None:
    chance = random.Random(7)
    outcomes: list[str] = []

    async def execute(id: str, delay: float) -> None:
        await anyio.sleep(delay)
        try:
            status = await runc.exec(id, ["true"])
        except ContainerNotRunningError:
            outcomes.append("not running")
        else:
            assert status in (0, KILLED)
            outcomes.append("ran")

    for _ in range(CONTAINERS):
        id = new_id()
        await runc.run(id, make_bundle("sleep", "100"), detach=True)
        pid = (await runc.state(id)).pid
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(execute, id, chance.random() * 0.03)
            await anyio.sleep(chance.random() * 0.03)
            os.kill(pid, signal.SIGKILL)
        with pytest.raises(ContainerNotRunningError):
            await runc.exec(id, ["true"])
        await runc.delete(id)
    assert len(outcomes) == 3 * CONTAINERS
    assert "not running" in outcomes
