"""Turns: many short calls at once are started one after another, and one that hangs holds nobody up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import CommandError
from runc_async._process import capture
from runc_async._process.limiter import AT_ONCE, LONGEST_TURN, turns

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runc_async import Runc

pytestmark = pytest.mark.anyio


async def test_so_many_run_at_a_time_and_no_more(
    fake: Callable[..., Runc], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(capture, "LONGEST_TURN", 60)  # a busy machine may need more than a tenth of a second
    running = tmp_path / "running"
    running.mkdir()
    runc = fake(f": > {running}/$$; ls {running} | wc -l >&2; sleep 0.02; rm {running}/$$; exit 1")
    seen: list[int] = []

    async def call() -> None:
        try:
            await runc.start("x")
        except CommandError as exc:
            seen.append(int(exc.message))

    async with anyio.create_task_group() as group:
        for _ in range(4 * AT_ONCE):
            group.start_soon(call)
    assert len(seen) == 4 * AT_ONCE
    assert max(seen) <= AT_ONCE
    assert turns().value == AT_ONCE


async def test_those_that_hang_give_up_their_turn(fake: Callable[..., Runc]) -> None:
    hanging, quick = fake("exec sleep 60"), fake("exit 0")
    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE + 2):
            group.start_soon(hanging.start, "x")
        await anyio.sleep(0.01)
        began = time.monotonic()
        for _ in range(3):
            await quick.start("x")
        assert time.monotonic() - began > LONGEST_TURN / 2
        group.cancel_scope.cancel()
    assert turns().value == AT_ONCE


async def test_one_that_is_cancelled_in_the_queue_was_never_started(fake: Callable[..., Runc], tmp_path: Path) -> None:
    hanging, marking = fake("exec sleep 60"), fake(f": > {tmp_path}/started")
    async with anyio.create_task_group() as group:
        for _ in range(AT_ONCE):
            group.start_soon(hanging.start, "x")
        await anyio.sleep(0.01)
        with anyio.move_on_after(LONGEST_TURN / 3) as scope:
            await marking.start("x")
        assert scope.cancelled_caught
        group.cancel_scope.cancel()
    assert not (tmp_path / "started").exists()
    assert turns().value == AT_ONCE
