"""Descriptors in reserve: given up for clean-up alone, and had again afterwards."""

from __future__ import annotations

import errno
import os

import anyio
import pytest

from runc_async import CommandError
from runc_async._linux import fd_reserve

pytestmark = pytest.mark.anyio


def test_is_full_once_it_was_filled_and_no_child_gets_it() -> None:
    fd_reserve.fill()
    before = list(fd_reserve.held)
    fd_reserve.fill()
    assert fd_reserve.held == before
    assert len(before) == fd_reserve.SIZE
    assert not any(os.get_inheritable(fd) for fd in before)


def test_given_up_inside_and_had_again_afterwards() -> None:
    fd_reserve.fill()
    with fd_reserve.give_up():
        assert fd_reserve.held == []
    assert len(fd_reserve.held) == fd_reserve.SIZE


async def test_a_call_that_finds_none_is_begun_again_with_the_reserve() -> None:
    reserves = []

    async def call(word: str) -> str:
        reserves.append(len(fd_reserve.held))
        if len(reserves) < 4:
            raise OSError(errno.EMFILE, "none")
        return word

    assert await fd_reserve.with_room(call, "done") == "done"
    assert reserves == [fd_reserve.SIZE, 0, fd_reserve.SIZE, 0]


async def test_it_goes_on_until_its_caller_has_waited_long_enough() -> None:
    async def call() -> None:
        raise OSError(errno.ENFILE, "none")

    with pytest.raises(TimeoutError):
        with anyio.fail_after(0.12):
            await fd_reserve.with_room(call)
    assert len(fd_reserve.held) == fd_reserve.SIZE


@pytest.mark.parametrize(
    "error",
    [
        BlockingIOError(errno.EAGAIN, "no process"),
        CommandError(["runc"], 2, "runtime: failed to create new OS thread (have 2 already; errno=11)"),
        CommandError(["runc"], 1, "fork/exec /proc/self/exe: resource temporarily unavailable"),
    ],
)
async def test_where_no_process_can_be_started_it_is_tried_until_one_can(error: Exception) -> None:
    errors = [error] * 3

    async def call() -> str:
        if errors:
            raise errors.pop()
        return "done"

    assert await fd_reserve.with_room(call) == "done"


@pytest.mark.parametrize("error", [FileNotFoundError(errno.ENOENT, "gone"), CommandError(["runc"], 1, "busy")])
async def test_another_error_is_raised_at_once(error: Exception) -> None:
    async def call() -> None:
        raise error

    with pytest.raises(type(error)):
        await fd_reserve.with_room(call)
