"""Events: as they come, to their end, and none too many; real ones, and what a runtime must not print."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import (
    CommandError,
    ContainerNotFoundError,
    ContainerNotRunningError,
    DecodeError,
    Runc,
    UnsupportedError,
)
from runc_async._lifecycle.events import LINE_LIMIT
from runc_async._models import Stats

from .._cgroups import has_controller
from .._slowness import SLOWNESS, within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def only_runc(runtime_name: str) -> None:
    if runtime_name != "runc":
        pytest.skip("only runc has events")
    if not has_controller("memory"):
        pytest.skip("runc's events need the memory controller")


STATE = 'case "$*" in *" state "*) echo \'{"id": "x", "pid": 0, "status": "running"}\'; exit;; esac\n'


async def test_stats_and_events_of_a_runtime_without_them(runc: Runc, running: str, runtime_name: str) -> None:
    if runtime_name != "crun":
        pytest.skip("runc has them")
    with pytest.raises(UnsupportedError, match=r"crun \d\S* has no command events"):
        await runc.stats(running)
    async with runc.events(running) as events:
        with pytest.raises(UnsupportedError, match=r"crun \d\S* has no command events"):
            await anext(events)


async def test_events_come_at_their_interval_and_end_with_the_container(
    runc: Runc, running: str, only_runc: None
) -> None:
    arrived = []
    with within(10):
        async with runc.events(running, interval=0.1) as events:
            async for event in events:
                assert event.id == running
                assert isinstance(event.data, Stats)
                arrived.append(time.monotonic())
                if len(arrived) == 6:
                    await runc.kill(running, signal.SIGKILL, all=True)
                    killed = time.monotonic()
    assert time.monotonic() - killed < 3 * SLOWNESS
    assert (arrived[5] - arrived[0]) / 5 < 0.3


def test_they_end_with_the_container_in_a_loop_that_anyio_did_not_start(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, only_runc: None
) -> None:
    reports: list[dict[str, Any]] = []

    async def follow() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, report: reports.append(report))
        async with asyncio.timeout(10), runc.container(container_id, make_bundle("sleep", "60")) as container:
            await container.start()
            async with runc.events(container_id, interval=0.1) as events:
                await anext(events)
                await container.kill(signal.SIGKILL)
                async for _ in events:
                    pass

    asyncio.run(follow())
    assert reports == []


async def test_a_container_that_runs_out_of_memory_is_an_event(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, only_runc: None
) -> None:
    def limited(spec: dict[str, Any]) -> None:
        spec["linux"]["resources"] = {"memory": {"limit": 32 << 20, "swap": 32 << 20}}

    bundle = make_bundle("sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done", spec=limited)
    types: list[str] = []
    await runc.create(container_id, bundle)
    try:
        with within(15):
            async with runc.events(container_id, interval=0.2) as events:
                async for event in events:
                    if not types:  # the runtime listens now
                        await runc.start(container_id)
                    types.append(event.type)
    finally:
        await runc.delete(container_id, force=True)
    assert "oom" in types


async def test_leaving_and_cancelling_events_end_the_runtime_process(runc: Runc, running: str, only_runc: None) -> None:
    async with runc.events(running, interval=0.1) as events:
        await anext(events)
    with anyio.move_on_after(0.5) as scope:
        async with runc.events(running, interval=60) as events:
            async for _ in events:
                pass
    assert scope.cancelled_caught  # that no process is left is the census's to see


async def test_events_of_what_does_not_run_are_errors(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, only_runc: None
) -> None:
    with pytest.raises(ContainerNotFoundError):
        async with runc.events(container_id) as events:
            await anext(events)
    with pytest.raises(ValueError, match="interval"):
        runc.events(container_id, interval=-1)
    await runc.run(container_id, make_bundle("true"), keep=True)
    try:
        with pytest.raises(ContainerNotRunningError):
            async with runc.events(container_id) as events:
                await anext(events)
        with pytest.raises(ContainerNotRunningError):
            await runc.stats(container_id)
    finally:
        await runc.delete(container_id)


@pytest.mark.parametrize(
    "line", ["garbage", '{"type": 1}', '{"id": "x"', "[]", '{"type": "stats", "id": "x", "data": 5}']
)
async def test_a_broken_line_is_a_decode_error(line: str, fake: Callable[[str], Runc]) -> None:
    good = '{"type": "oom", "id": "x"}'
    runc = fake(f"{STATE}echo '{good}'; echo '{line}'; exec sleep 60")
    with within(5):
        async with runc.events("x") as events:
            assert (await anext(events)).type == "oom"
            with pytest.raises(DecodeError):
                await anext(events)


async def test_events_in_pieces_and_without_a_last_newline_are_whole(fake: Callable[..., Runc]) -> None:
    runc = fake(STATE + 'printf \'{"type": "oom",\'; sleep 0.05; printf \' "id": "x"}\\n\\n{"type":"b","id":"x"}\'')
    with within(5):
        async with runc.events("x") as events:
            assert [event.type async for event in events] == ["oom", "b"]


async def test_a_line_without_end_is_a_decode_error_of_bounded_size(fake: Callable[..., Runc]) -> None:
    runc = fake(f"{STATE}head -c {3 * LINE_LIMIT} /dev/zero; exec sleep 60")
    with within(5):
        async with runc.events("x") as events:
            with pytest.raises(DecodeError, match="more than 1048576 bytes") as caught:
                await anext(events)
    assert len(caught.value.output) == 4096


async def test_a_runtime_that_fails_after_some_events_is_an_error_after_them(fake: Callable[..., Runc]) -> None:
    runc = fake(STATE + 'echo \'{"type":"oom","id":"x"}\'; echo broke down >&2; exit 3')
    async with runc.events("x") as events:
        assert (await anext(events)).type == "oom"
        with pytest.raises(CommandError, match=r"^broke down \(status 3\): runc "):
            await anext(events)


async def test_a_step_that_is_cancelled_loses_nothing(runc: Runc, running: str, only_runc: None) -> None:
    async with runc.events(running, interval=0.2) as events:
        for _ in range(3):
            assert (await anext(events)).type == "stats"
            with anyio.move_on_after(0.02) as scope:
                await anext(events)
            assert scope.cancelled_caught
    with pytest.raises(StopAsyncIteration):  # after the end of the block there are none
        await anext(events)


async def test_a_slow_reader_loses_nothing(fake: Callable[..., Runc]) -> None:
    runc = fake(STATE + 'seq -f \'{"type":"n","id":"%.0f"}\' 5000')
    with within(10):
        async with runc.events("x") as events:
            assert (await anext(events)).id == "1"
            await anyio.sleep(0.1)
            assert [int(event.id) async for event in events] == list(range(2, 5001))
