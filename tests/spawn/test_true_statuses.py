"""The status of a child is its own, or an error: also where somebody else reaps children, or nobody may."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import RuncError, _spawn
from runc_async._linux import exit_status
from runc_async._linux.exit_status import kernel_keeps_statuses
from runc_async._process.child_fds import ChildFds

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.anyio

STATUSES = [0, 3, 255, -9]


@pytest.fixture(params=["this kernel", "an older kernel"])
def keeps(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether the kernel tells the status of a process that was reaped: this kernel, and one before Linux 6.15."""
    if request.param == "this kernel":
        return kernel_keeps_statuses()
    monkeypatch.setattr(exit_status, "_kept_status", lambda pidfd: None)
    monkeypatch.setattr(exit_status, "kernel_keeps_statuses", lambda: False)
    return False


@contextlib.contextmanager
def waiting_for_every_child() -> Iterator[None]:
    """A thread that calls ``waitpid(-1)`` all the time, as some libraries do."""
    stop = threading.Event()

    def wait() -> None:
        while not stop.is_set():
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                time.sleep(0.0001)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


async def start(status: int, fds: ChildFds, seconds: float = 0.02) -> _spawn.Child:
    null = fds.adopt(os.open(os.devnull, os.O_RDWR))
    fds.stdio(null, null, null)
    end = f"kill {status} $$" if status < 0 else f"exit {status}"
    argv = ["sh", "-c", f"sleep {seconds}; {end}"] if seconds < 1 else ["sleep", str(seconds)]
    return await _spawn.start(_spawn.Request(f"/bin/{argv[0]}", argv, None, fds.child_map()))


@pytest.mark.parametrize("preserved", [0, 1])
@pytest.mark.parametrize("status", STATUSES)
async def test_when_another_thread_reaps_it(status: int, preserved: int, keeps: bool) -> None:
    with waiting_for_every_child(), ChildFds([0][:preserved]) as fds:
        child = await start(status, fds)
        for _ in range(2):
            # On an older kernel it is known if this process was faster.
            assert await child.wait() in ([status] if keeps else [status, None])


@pytest.mark.parametrize("preserved", [0, 1])
@pytest.mark.parametrize("status", STATUSES)
async def test_when_somebody_else_has_surely_reaped_it(status: int, preserved: int, keeps: bool) -> None:
    with ChildFds([0][:preserved]) as fds:
        child = await start(status, fds)
        os.waitpid(child.pid, 0)  # the event loop cannot come between
        assert await child.wait() == (status if keeps else None)


@pytest.mark.parametrize("preserved", [0, 1])
async def test_nothing_is_started_while_sigchld_is_ignored(preserved: int) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        expected = pytest.raises(RuncError, match="the runtime was not started: SIGCHLD is ignored in this process")
        with ChildFds([0][:preserved]) as fds, expected:
            await start(0, fds, seconds=60)
    finally:
        signal.signal(signal.SIGCHLD, before)
    with pytest.raises(ChildProcessError):  # there is none
        os.waitpid(-1, os.WNOHANG)


@pytest.mark.parametrize("preserved", [0, 1])
@pytest.mark.parametrize("status", STATUSES)
async def test_when_sigchld_is_ignored_after_its_start(status: int, preserved: int, keeps: bool) -> None:
    with ChildFds([0][:preserved]) as fds:
        child = await start(status, fds)
        before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            assert await child.wait() == (status if keeps else None)
        finally:
            signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize("status", STATUSES)
async def test_asyncios_answer_255_is_believed_only_where_it_is_the_childs_status(
    status: int, keeps: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy event loop may reap a child in the turn after its start; and of one that it lost asyncio says 255, too."""
    import asyncio

    original = asyncio.create_subprocess_exec

    async def busy(*args: Any, **keywords: Any) -> Any:
        def wait() -> None:  # another task's step, in the turn before asyncio can find that the child has ended
            pid = keywords["extra"]["subprocess"].pid
            pidfd = os.pidfd_open(pid)
            select.select([pidfd], [], [])
            os.close(pidfd)

        asyncio.get_running_loop().call_soon(wait)
        return await original(*args, **keywords)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", busy)
    with ChildFds(()) as fds:
        child = await start(status, fds)
        assert await child.wait() == status


@pytest.mark.parametrize("preserved", [0, 1])
async def test_many_at_once_beside_a_busy_event_loop(preserved: int, keeps: bool) -> None:
    statuses: dict[int, int | None] = {}

    async def one(number: int) -> None:
        with ChildFds([0][:preserved]) as fds:
            child = await start(255 if number % 2 else number, fds, seconds=0.001)
            statuses[number] = await child.wait()

    async def block() -> None:
        while len(statuses) < 40:
            time.sleep(0.005)  # noqa: ASYNC251
            await anyio.lowlevel.checkpoint()

    async with anyio.create_task_group() as group:
        for number in range(40):
            group.start_soon(one, number)
        group.start_soon(block)
    assert statuses == {number: 255 if number % 2 else number for number in range(40)}


@pytest.mark.parametrize("preserved", [0, 1])
async def test_a_kill_takes_no_status_away(preserved: int) -> None:
    with ChildFds([0][:preserved]) as fds:
        child = await start(0, fds, seconds=60)
        child.send_signal(signal.SIGKILL)
        time.sleep(0.05)  # noqa: ASYNC251
        child.send_signal(signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="from Python 3.12 on asyncio itself waits by pidfd")
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_no_thread_waits_for_a_child_on_python_3_11() -> None:
    before = threading.enumerate()
    with ChildFds(()) as fds:
        child = await start(3, fds)
        during = threading.enumerate()
        assert await child.wait() == 3
    assert during == before
