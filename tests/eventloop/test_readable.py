"""A watched descriptor calls back once, and never after it is closed, on every event loop."""

from __future__ import annotations

import os

import anyio
import pytest

from runc_async._eventloop.readable import Watch

pytestmark = pytest.mark.anyio


async def turns() -> None:
    """Let the event loop look at its descriptors."""
    await anyio.sleep(0.02)


async def test_calls_back_once_when_readable_and_closes_its_own_descriptor() -> None:
    calls = []
    reader, writer = os.pipe()
    watch = Watch(reader, lambda _: calls.append(1))
    await turns()
    assert calls == []
    os.write(writer, b"xx")
    await turns()
    assert calls == [1]
    watch.close()
    assert os.read(reader, 2) == b"xx"
    os.close(reader)
    os.close(writer)


@pytest.mark.parametrize("after", ["at once", "a turn"])
async def test_one_that_is_closed_never_calls_back(after: str) -> None:
    calls = []
    reader, writer = os.pipe()
    watch = Watch(reader, lambda _: calls.append(1))
    if after == "a turn":
        await turns()
    os.write(writer, b"x")
    watch.close()
    watch.close()
    await turns()
    assert calls == []
    os.close(reader)
    os.close(writer)


async def test_two_watch_the_same_descriptor_and_the_caller_may_close_it() -> None:
    calls = []
    reader, writer = os.pipe()
    watches = [Watch(reader, lambda _: calls.append(1)), Watch(reader, lambda _: calls.append(2))]
    os.close(reader)
    os.close(writer)
    await turns()
    assert sorted(calls) == [1, 2]
    for watch in watches:
        watch.close()
