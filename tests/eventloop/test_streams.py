"""Descriptors as anyio byte streams, on pipes, on every event loop."""

from __future__ import annotations

import gc
import os
import threading
import time
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async._eventloop.streams import FdReceiveStream, FdSendStream

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    Pipe = tuple[FdReceiveStream, FdSendStream]

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pipe() -> AsyncIterator[Pipe]:
    """Both ends of one."""
    reader, writer = os.pipe()
    async with FdReceiveStream(reader) as receiving, FdSendStream(writer) as sending:
        yield receiving, sending


async def test_what_is_sent_is_received_as_soon_as_it_is_there(pipe: Pipe) -> None:
    receiving, sending = pipe
    await sending.send(b"one")
    await sending.send(bytearray(b"two"))
    assert await receiving.receive() == b"onetwo"
    await sending.send(memoryview(b"three").toreadonly()[1:])
    assert await receiving.receive(2) == b"hr"
    assert await receiving.receive() == b"ee"
    await sending.send(b"")
    await sending.aclose()
    with pytest.raises(anyio.EndOfStream):
        await receiving.receive()
    with pytest.raises(anyio.EndOfStream):
        await receiving.receive()


@pytest.mark.parametrize("size", [0, -1])
async def test_a_size_that_is_none(pipe: Pipe, size: int) -> None:
    with pytest.raises(ValueError, match="positive"):
        await pipe[0].receive(size)


async def test_a_sender_waits_for_a_slow_receiver_and_all_arrives(pipe: Pipe) -> None:
    receiving, sending = pipe
    data = os.urandom(1 << 20)
    sent = anyio.Event()

    async def send() -> None:
        await sending.send(data)
        sent.set()
        await sending.aclose()

    async with anyio.create_task_group() as group:
        group.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        assert not sent.is_set()
        found = b"".join([chunk async for chunk in receiving])
    assert found == data


async def test_a_receiver_that_goes_away(pipe: Pipe) -> None:
    receiving, sending = pipe
    await receiving.aclose()
    with pytest.raises(anyio.BrokenResourceError):
        await sending.send(b"x")


@pytest.mark.parametrize("end", [0, 1])
async def test_closing_wakes_who_waits_and_is_idempotent(pipe: Pipe, end: int) -> None:
    stream = pipe[end]

    async def use() -> None:
        with pytest.raises(anyio.ClosedResourceError):
            await (pipe[0].receive() if end == 0 else pipe[1].send(bytes(1 << 20)))

    async with anyio.create_task_group() as group:
        group.start_soon(use)
        await anyio.wait_all_tasks_blocked()
        await stream.aclose()
    await stream.aclose()
    stream.close()
    await use()
    with pytest.raises(anyio.ClosedResourceError):
        stream.fileno()


async def test_two_at_once_are_refused_rather_than_mixed(pipe: Pipe) -> None:
    receiving, sending = pipe
    async with anyio.create_task_group() as group:
        group.start_soon(receiving.receive)
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await receiving.receive()
        group.cancel_scope.cancel()
    async with anyio.create_task_group() as group:
        group.start_soon(sending.send, bytes(1 << 20))
        await anyio.wait_all_tasks_blocked()
        with pytest.raises(anyio.BusyResourceError):
            await sending.send(b"x")
        group.cancel_scope.cancel()


async def test_a_cancelled_receive_loses_nothing(pipe: Pipe) -> None:
    receiving, sending = pipe
    with anyio.move_on_after(0.01):
        await receiving.receive()
    await sending.send(b"kept")
    with anyio.CancelScope() as scope:
        scope.cancel()
        await receiving.receive()
    assert scope.cancelled_caught
    assert await receiving.receive() == b"kept"


async def test_the_loop_goes_on_while_a_stream_waits(pipe: Pipe) -> None:
    receiving, sending = pipe
    thread = threading.Thread(target=lambda: (time.sleep(0.1), os.write(sending.fileno(), b"x")))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await anyio.sleep(0.005)

    async with anyio.create_task_group() as group:
        group.start_soon(count)
        thread.start()
        assert await receiving.receive() == b"x"
        group.cancel_scope.cancel()
    thread.join()
    assert turns > 3


async def test_one_that_is_forgotten_is_closed() -> None:
    reader, writer = os.pipe()
    stream = FdReceiveStream(reader)
    del stream
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(reader)
    os.close(writer)


def test_one_can_be_closed_without_an_event_loop() -> None:
    reader, writer = os.pipe()
    FdReceiveStream(reader).close()
    FdSendStream(writer).close()
    for fd in (reader, writer):
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
