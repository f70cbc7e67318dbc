"""`shielded`: no cancellation interrupts it, none is lost, none is doubled."""

from __future__ import annotations

import asyncio
import gc
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import anyio
import pytest

from runc_async._eventloop.shield import shielded

pytestmark = pytest.mark.anyio


async def steps(done: list[str], *, error: Exception | None = None) -> str:
    for _ in range(3):
        await anyio.sleep(0.01)
        await anyio.lowlevel.checkpoint()
    done.append("finished")
    if error:
        raise error
    return "result"


async def test_gives_the_result_and_the_error_of_the_call() -> None:
    assert await shielded(steps, []) == "result"
    with pytest.raises(ValueError, match="broken"):
        await shielded(steps, [], error=ValueError("broken"))


async def test_a_cancelled_scope_waits_for_the_end_and_then_cancels() -> None:
    done: list[str] = []
    with anyio.move_on_after(0.005) as scope:
        await shielded(steps, done)
        await anyio.lowlevel.checkpoint()
        done.append("not cancelled")
    assert scope.cancelled_caught
    assert done == ["finished"]


async def test_a_deadline_inside_still_holds() -> None:
    async def bounded() -> str:
        with anyio.move_on_after(0.01):
            await anyio.sleep(10)
        await anyio.sleep(0.01)
        return "bounded"

    with anyio.move_on_after(0.005) as scope:
        await shielded(bounded)
        await anyio.lowlevel.checkpoint()
    assert scope.cancelled_caught
    assert await shielded(bounded) == "bounded"


async def test_streams_and_task_groups_work_inside() -> None:
    async def inside() -> list[int]:
        found: list[int] = []

        async def put(n: int) -> None:
            await anyio.sleep(0.001 * n)
            found.append(n)

        async with anyio.create_task_group() as group:
            for n in range(3):
                group.start_soon(put, n)
        return found

    assert sorted(await shielded(inside)) == [0, 1, 2]


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
class TestNativeCancellation:
    async def test_waits_for_the_end_and_then_cancels(self) -> None:
        done: list[str] = []
        task = asyncio.create_task(shielded(steps, done))
        await asyncio.sleep(0.005)
        task.cancel("reason")
        await asyncio.sleep(0.005)
        task.cancel("again")
        with pytest.raises(asyncio.CancelledError):
            await task
        assert done == ["finished"]

    async def test_a_timeout_of_asyncio_is_a_timeout(self) -> None:
        done: list[str] = []
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.005):
                await shielded(steps, done)
        assert done == ["finished"]
        await asyncio.sleep(0)  # nothing of the cancellation is left

    async def test_an_error_is_the_context_of_the_cancellation(self) -> None:
        task = asyncio.create_task(shielded(steps, [], error=ValueError("broken")))
        await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    async def test_does_not_spin_while_it_waits(self) -> None:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0.001)

        counter = asyncio.create_task(count())
        task = asyncio.create_task(shielded(anyio.sleep, 0.1))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        counter.cancel()
        assert turns < 150
        gc.collect()


@pytest.mark.parametrize("anyio_backend", ["asyncio", "uvloop"], indirect=True)
class TestScopesInsideIt:
    """The clean-up of a call has time limits, which must hold after a native cancellation, too."""

    async def test_a_limit_ends_its_own_block_and_nothing_else(self) -> None:
        steps = []

        async def work() -> None:
            for _ in range(3):
                with anyio.move_on_after(0.01):
                    await anyio.sleep(10)
                steps.append(anyio.current_time())
            with pytest.raises(TimeoutError):
                with anyio.fail_after(0.01):
                    await anyio.sleep(10)

        task = asyncio.create_task(shielded(work))
        await asyncio.sleep(0)
        cancelled = 0
        for _ in range(30):
            cancelled += task.cancel()  # not any more when it has ended
            await asyncio.sleep(0.001)
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(steps) == 3
        assert task.cancelling() == cancelled

    async def test_a_limit_and_a_cancellation_in_the_same_turn(self) -> None:
        scopes: list[anyio.CancelScope] = []
        after = []

        async def work() -> None:
            with anyio.CancelScope() as scope:
                scopes.append(scope)
                await anyio.sleep(10)
            await anyio.sleep(0.01)
            after.append(1)

        for order in ("scope first", "task first"):
            task = asyncio.create_task(shielded(work))
            await asyncio.sleep(0.01)
            cancels = [lambda: scopes[-1].cancel(), task.cancel]
            for cancel in cancels if order == "scope first" else reversed(cancels):
                cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert after == [1, 1]

    async def test_a_timeout_of_asyncio_around_it_still_is_one(self) -> None:
        done = []

        async def work() -> None:
            with anyio.move_on_after(0.05):
                await anyio.sleep(10)
            done.append(1)

        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await shielded(work)
        assert done == [1]
        assert asyncio.current_task().cancelling() == 0  # type: ignore[union-attr]


PROGRAM = """
    import asyncio, signal, sys, os
    import anyio
    from runc_async._eventloop.shield import shielded

    async def work():
        os.kill(os.getpid(), signal.SIGINT) if sys.argv[2] == "ctrl-c" else None
        for _ in range(5):
            await anyio.sleep(0.02)
        print("finished", flush=True)

    async def main():
        if sys.argv[2] == "end-of-run":
            asyncio.create_task(shielded(work))
            await asyncio.sleep(0.01)
        else:
            await shielded(work)

    anyio.run(main, backend=sys.argv[1])
"""


@pytest.mark.parametrize(("backend", "how"), [("asyncio", "ctrl-c"), ("trio", "ctrl-c"), ("asyncio", "end-of-run")])
def test_the_end_of_the_program_waits_for_it(backend: str, how: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM), backend, how],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert ended.stdout == "finished\n"
    if how == "ctrl-c":
        assert ended.returncode in (1, -signal.SIGINT)
        assert "KeyboardInterrupt" in ended.stderr


CTRL_C = """
    import signal
    import trio
    from runc_async._eventloop.shield import at_checkpoints_only

    steps = []

    @at_checkpoints_only
    async def careful():
        signal.raise_signal(signal.SIGINT)
        steps.append("goes on")
        await trio.sleep(60)
        steps.append("never")

    async def main():
        try:
            await careful()
        except KeyboardInterrupt:
            steps.append("interrupted where it waits")
        try:
            signal.raise_signal(signal.SIGINT)
            steps.append("never")
        except KeyboardInterrupt:
            steps.append("others at once")

    trio.run(main)
    print(steps)
"""


def test_ctrl_c_on_trio_ends_a_careful_function_only_where_it_waits() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CTRL_C)],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert ended.stdout == "['goes on', 'interrupted where it waits', 'others at once']\n", ended.stderr
