"""A runtime that is killed at any moment, hangs, or will not end: the right error in time, and nothing left."""

from __future__ import annotations

import functools
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
import pytest

from runc_async import CommandError, ContainerNotFoundError, Runc

from .._slowness import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

MOMENTS = int(os.environ.get("RUNC_ASYNC_KILLS", "8"))
"""How many moments, spread over a call, at which its runtime is killed."""


def runtimes() -> list[int]:
    """The runtime processes that this process has started."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return [int(pid) for pid in file.read().split()]


async def killed_at(delay: float, call: Callable[[], Awaitable[object]]) -> BaseException | None:
    """Call, and kill its runtime process after so many seconds; the error."""
    before = set(runtimes())
    failure: list[BaseException | None] = []

    async def run() -> None:
        try:
            await call()
        except CommandError as exc:
            failure.append(exc)
        else:
            failure.append(None)
        group.cancel_scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(run)
        await anyio.sleep(delay)
        started: set[int] = set()
        while not (failure or started):
            await anyio.lowlevel.checkpoint()
            started = set(runtimes()) - before
        for pid in started:
            os.kill(pid, signal.SIGKILL)
        await anyio.sleep(20)
    return failure[0]


async def over_its_duration(
    call: Callable[[str], Awaitable[object]], undo: Callable[[str], Awaitable[object]], new_id: Callable[[], str]
) -> list[BaseException | None]:
    """Kill the runtime of `MOMENTS` calls, each a little later; their errors."""
    id, begun = new_id(), time.monotonic()
    await call(id)
    duration = time.monotonic() - begun
    await undo(id)
    errors: list[BaseException | None] = []
    for moment in range(MOMENTS):
        id = new_id()
        begun = time.monotonic()
        error = await killed_at(duration * (moment + random.random()) / MOMENTS, lambda id=id: call(id))  # type: ignore[misc]
        assert time.monotonic() - begun < 5 * SLOWNESS
        errors.append(error)
        if error is None:
            await undo(id)
    return errors


def assert_it_was_said(errors: list[BaseException | None]) -> None:
    """Calls that were killed say so, and there were some."""
    killed = [error for error in errors if isinstance(error, CommandError) and error.status == -9]
    assert killed
    assert all("SIGKILL" in str(error) or "signal 9" in str(error) for error in killed), killed


async def test_create(runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str]) -> None:
    bundle = make_bundle("sleep", "60")

    async def undo(id: str) -> None:
        await runc.delete(id, force=True)

    assert_it_was_said(await over_its_duration(lambda id: runc.create(id, bundle), undo, new_id))
    assert await runc.list() == []


async def test_run(runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str]) -> None:
    bundle = make_bundle("sleep", "0.05")

    async def undo(_id: str) -> None:
        pass

    assert_it_was_said(await over_its_duration(lambda id: runc.run(id, bundle), undo, new_id))
    assert await runc.list() == []


async def test_exec_and_delete_leave_the_container_to_be_deleted(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str]
) -> None:
    bundle = make_bundle("sleep", "60")

    async def undo(_id: str) -> None:
        pass

    async with runc.container(new_id(), bundle) as container:
        await container.start()
        assert_it_was_said(
            await over_its_duration(lambda _id: runc.exec(container.id, ["sleep", "0.05"]), undo, new_id)
        )
        assert (await container.state()).status == "running"

    async def created_and_deleted(id: str) -> None:
        await runc.delete(id, force=True)

    for moment in range(3):
        id = new_id()
        await runc.create(id, bundle)
        await killed_at(0.01 * moment, lambda id=id: created_and_deleted(id))  # type: ignore[misc]
        await runc.delete(id, force=True)
        with pytest.raises(ContainerNotFoundError):
            await runc.state(id)


async def test_another_container_is_untouched(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str]
) -> None:
    bundle = make_bundle("sleep", "60")
    async with runc.container(new_id(), bundle) as other:
        await other.start()
        for delay in (0.02, 0.01, 0.005, 0.002, 0.001, 0):  # a fast machine may have created it by then
            id = new_id()
            error = await killed_at(delay, functools.partial(runc.create, id, bundle))
            if error is not None:
                break
            await runc.delete(id, force=True)
        assert error is not None
        assert (await other.state()).status == "running"


HANGING = {
    "sleeps": "exec sleep 600",
    "ignores every signal it can": "trap '' TERM INT HUP; exec sleep 600",
    "is stopped": "kill -STOP $$",
}


@pytest.mark.parametrize("how", HANGING)
@pytest.mark.parametrize("command", ["version", "delete", "create", "run", "exec"])
async def test_a_runtime_that_hangs_is_killed_in_time(
    fake_runtime: Callable[[str], Path], make_bundle: Callable[..., Path], container_id: str, command: str, how: str
) -> None:
    runc = Runc(fake_runtime(HANGING[how]), cleanup_timeout=0.2)
    calls: dict[str, Callable[[], Awaitable[Any]]] = {
        "version": runc.version,
        "delete": lambda: runc.delete(container_id),
        "create": lambda: runc.create(container_id, make_bundle("true")),
        "run": lambda: runc.run(container_id, make_bundle("true")),
        "exec": lambda: runc.exec(container_id, ["true"]),
    }
    begun = time.monotonic()
    with anyio.move_on_after(0.05) as scope:
        await calls[command]()
    assert scope.cancelled_caught
    assert time.monotonic() - begun < 2 * SLOWNESS
