"""A process by its pidfd: signals, waiting, and never another process of the same number."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import Pidfd

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


async def test_a_signal_and_the_end_and_the_status_stays_its_parents(child: subprocess.Popen[bytes]) -> None:
    with Pidfd.open(child.pid) as process:
        assert process.pid == child.pid
        assert repr(process) == f"<Pidfd pid={child.pid}>"
        process.send_signal(signal.SIGSTOP)
        process.send_signal(signal.SIGCONT)
        async with anyio.create_task_group() as group:
            for _ in range(3):
                group.start_soon(process.wait)
            with anyio.move_on_after(0.01) as scope:
                await process.wait()
            assert scope.cancelled_caught
            process.send_signal(15)
        await process.wait()
        assert child.wait() == -15
        await process.wait()
        with pytest.raises(ProcessLookupError):
            process.send_signal(15)


async def test_its_end_is_seen_also_when_it_is_closed_meanwhile(child: subprocess.Popen[bytes]) -> None:
    process = Pidfd.open(child.pid)
    async with anyio.create_task_group() as group:
        group.start_soon(process.wait)
        await anyio.wait_all_tasks_blocked()
        process.close()
        process.close()
        child.kill()
    assert repr(process) == f"<Pidfd pid={child.pid} closed>"
    for use in (process.fileno, lambda: process.send_signal(9)):
        with pytest.raises(ValueError, match="closed"):
            use()
    with pytest.raises(ValueError, match="closed"):
        await process.wait()


def test_of_a_descriptor(child: subprocess.Popen[bytes]) -> None:
    with Pidfd(os.pidfd_open(child.pid)) as process:
        assert process.pid == child.pid
    fd = os.pidfd_open(child.pid)
    child.kill()
    child.wait()
    with pytest.raises(ProcessLookupError):
        Pidfd(fd)
    os.close(fd)
    with open(os.devnull) as file, pytest.raises(ValueError, match="is not a pidfd"):
        Pidfd(file.fileno())


def test_of_a_number_that_nobody_has(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait()
    with pytest.raises(ProcessLookupError):
        Pidfd.open(child.pid)
