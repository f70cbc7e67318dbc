"""Calls cancelled at random moments over the whole of their duration leave nothing.

``RUNC_ASYNC_STORM=1000`` is the number of calls of each kind on each event loop, ``RUNC_ASYNC_SEED`` repeats a run.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import PipeIO, Runc, Subreaper
from runc_async._eventloop.shield import shielded

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1800)]

CALLS = int(os.environ.get("RUNC_ASYNC_STORM", "12"))
SEED = int(os.environ.get("RUNC_ASYNC_SEED", str(random.SystemRandom().randrange(2**32))))
AT_ONCE = 4


@pytest.fixture(autouse=True)
def seed(record_property: Callable[[str, object], None]) -> random.Random:
    """The seed is printed with every failure."""
    print(f"RUNC_ASYNC_SEED={SEED} RUNC_ASYNC_STORM={CALLS}")
    record_property("seed", SEED)
    return random.Random(SEED)


async def by_a_scope(call: Callable[[], Awaitable[object]], delay: float, _again: float) -> None:
    with anyio.move_on_after(delay):
        await call()


async def by_a_failing_sibling(call: Callable[[], Awaitable[object]], delay: float, _again: float) -> None:
    class SiblingError(Exception):
        pass

    async def sibling() -> None:
        await anyio.sleep(delay)
        raise SiblingError

    with contextlib.suppress(BaseExceptionGroup):
        async with anyio.create_task_group() as group:
            group.start_soon(sibling)
            await call()
            group.cancel_scope.cancel()


async def by_task_cancel_and_once_more(call: Callable[[], Awaitable[object]], delay: float, again: float) -> None:
    task = asyncio.ensure_future(call())
    await asyncio.wait([task], timeout=delay)
    task.cancel()
    await asyncio.wait([task], timeout=again)
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled() and task.exception() is not None:
        raise task.exception()  # type: ignore[misc]


async def by_an_asyncio_timeout(call: Callable[[], Awaitable[object]], delay: float, _again: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(delay):
            await call()


@pytest.fixture
def ways(anyio_backend_name: str) -> list[Callable[..., Awaitable[None]]]:
    """Every way in which a call is cancelled on this event loop."""
    common: list[Callable[..., Awaitable[None]]] = [by_a_scope, by_a_failing_sibling]
    return common if anyio_backend_name == "trio" else [*common, by_task_cancel_and_once_more, by_an_asyncio_timeout]


@pytest.fixture
async def reaped(runc: Runc) -> AsyncIterator[Runc]:
    """A client with a `Subreaper`."""
    async with Subreaper() as monitor:
        yield Runc(runc.executor, root=runc_root(runc), monitor=monitor)


def runc_root(runc: Runc) -> str:
    """The ``--root`` of a client."""
    assert runc._runner.root is not None
    return runc._runner.root


async def storm(
    call: Callable[[str], Awaitable[object]],
    new_id: Callable[[], str],
    ways: list[Callable[..., Awaitable[None]]],
    seed: random.Random,
    undo: Callable[[str], Coroutine[Any, Any, object]] | None = None,
) -> int:
    """Cancel `CALLS` calls, and undo those that were faster; how many were cut short."""
    duration = 0.0
    for _ in range(3):
        id, begun = new_id(), time.monotonic()
        await call(id)
        duration += (time.monotonic() - begun) / 3
        if undo:
            await undo(id)
    cut = 0
    plans = [(seed.choice(ways), seed.random() * 1.1 * duration, seed.random() * duration) for _ in range(CALLS)]

    async def one() -> None:
        nonlocal cut
        while plans:
            way, delay, again = plans.pop()
            id = new_id()
            ended = False

            async def noted(id: str = id) -> None:
                nonlocal ended
                await call(id)
                ended = True
                if undo:
                    await shielded(undo, id)

            await way(noted, delay, again)
            cut += not ended

    async with anyio.create_task_group() as group:
        for _ in range(min(AT_ONCE, CALLS)):
            group.start_soon(one)
    return cut


def assert_most_were_cut(cut: int) -> None:
    assert cut >= CALLS // 4, f"only {cut} of {CALLS} calls were still under way when they were cancelled"


async def test_run(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str], ways: Any, seed: random.Random
) -> None:
    bundle = make_bundle("sh", "-c", "sleep 0.02 & sleep 0.02; wait")

    assert_most_were_cut(await storm(lambda id: runc.run(id, bundle), new_id, ways, seed))
    assert await runc.list() == []


async def test_create(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str], ways: Any, seed: random.Random
) -> None:
    bundle = make_bundle("sleep", "60")

    async def undo(id: str) -> None:
        await runc.delete(id, force=True)

    assert_most_were_cut(await storm(lambda id: runc.create(id, bundle), new_id, ways, seed, undo))
    assert await runc.list() == []


async def test_exec(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str], ways: Any, seed: random.Random
) -> None:
    async with runc.container(new_id(), make_bundle("sleep", "600")) as container:
        await container.start()

        async def call(_id: str) -> None:
            await runc.exec(container.id, ["sh", "-c", "sleep 0.02 & sleep 0.02; wait"])

        assert_most_were_cut(await storm(call, new_id, ways, seed))
        await anyio.sleep(0.1)  # what the killed shells left behind is ending
        assert await runc.ps(container.id) == [container.pid]
        assert (await container.state()).status == "running"


async def test_a_container_with_work_inside(
    reaped: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str], ways: Any, seed: random.Random
) -> None:
    bundle = make_bundle("cat")

    async def work(id: str) -> None:
        async with PipeIO() as io, reaped.container(id, bundle, io=io) as container:
            await container.start()
            await io.stdin.send(b"one line\n")
            assert await io.stdout.receive() == b"one line\n"
            assert (await container.run(["echo", "two"])).stdout == b"two\n"
            async with container.exec(["sleep", "60"]) as process:
                await process.kill(9)
                assert (await process.wait()).status == 137
            await container.kill(9)
            assert (await container.wait()).status == 137

    assert_most_were_cut(await storm(work, new_id, ways, seed))
    assert await reaped.list() == []


async def test_plain_commands(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str], ways: Any, seed: random.Random
) -> None:
    async with runc.container(new_id(), make_bundle("sleep", "600")) as container:
        await container.start()

        async def call(_id: str) -> None:
            await runc.version()
            await runc.list()
            await container.state()
            await container.kill("WINCH")
            async with runc.events(container.id, interval=0.1) as events:
                await anyio.sleep(0.01)
                assert events is not None

        assert_most_were_cut(await storm(call, new_id, ways, seed))
        assert (await container.state()).status == "running"


INTERRUPTED = """
    import asyncio, sys
    import anyio
    from runc_async import PipeIO, Runc, Subreaper

    async def main(runtime, root, bundle, short, id):
        async with Subreaper() as monitor:
            runc = Runc(runtime, root=root, monitor=monitor)
            while True:
                async with PipeIO() as io, runc.container(id, bundle, io=io) as container:
                    await container.start()
                    await container.run(["true"])
                    async with container.exec(["sleep", "60"]):
                        await runc.exec(id, ["true"])
                await runc.run(id, short)
                print("all is imported", flush=True)

    loop, *args = sys.argv[1:]
    if loop == "trio":
        import trio
        trio.run(main, *args)
    elif loop == "uvloop":
        anyio.run(main, *args, backend_options={"use_uvloop": True})
    else:
        asyncio.run(main(*args))
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "trio"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])  # of the test, not of the program
async def test_ctrl_c(
    runtime_path: Path,
    state_root: Path,
    make_bundle: Callable[..., Path],
    new_id: Callable[[], str],
    seed: random.Random,
    loop: str,
) -> None:
    """SIGINT ends ``asyncio.run``, ``anyio.run`` and ``trio.run`` at any moment, and nothing is left."""
    bundles = make_bundle("sleep", "60"), make_bundle("sleep", "0.02")
    program = [sys.executable, "-c", textwrap.dedent(INTERRUPTED), loop, runtime_path, state_root, *bundles]

    async def one() -> None:
        async with await anyio.open_process([*program, new_id()], cwd=Path(__file__).parents[2]) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            await process.stdout.receive()
            await anyio.sleep(seed.random() * 0.5)
            process.send_signal(signal.SIGINT)
            said = b"".join([data async for data in process.stderr])
        assert b"KeyboardInterrupt" in said.splitlines()[-1], said.decode()
        assert b"was never" not in said
        assert b"could not" not in said

    for _ in range(max(1, CALLS // 12)):
        async with anyio.create_task_group() as group:
            for _ in range(AT_ONCE):
                group.start_soon(one)
    assert list(state_root.iterdir()) == []
