"""Many containers that stream at once, each to its own pipe: no line is lost, mixed or cut, and the loop goes on.

``make soak`` runs 200; the suite runs a few.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import PipeIO

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from runc_async import Runc

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1800)]

STREAMS = int(os.environ.get("RUNC_ASYNC_STREAMS", "16"))
LINES = 500
AT_ONCE = 16
"""How many are being created at one time; all of them stream at once."""
# Both outputs, lines of many lengths, longer than a pipe holds in all.
PROGRAM = 'l=; while read n; do l="$l$n"; [ ${#l} -lt 300 ] || l=; echo "$1 $n $l"; echo "$1 $n" >&2; done'


def expected(id: str) -> tuple[bytes, bytes]:
    """What such a program prints."""
    line, output, errors = "", "", ""
    for number in range(LINES):
        line += str(number)
        line = line if len(line) < 300 else ""
        output += f"{id} {number} {line}\n"
        errors += f"{id} {number}\n"
    return output.encode(), errors.encode()


async def test_many_stream_at_once(
    runc: Runc,
    make_bundle: Callable[..., Path],
    new_id: Callable[[], str],
    capsys: pytest.CaptureFixture[str],
    record_property: Callable[[str, object], None],
) -> None:
    found: dict[str, tuple[bytes, bytes]] = {}
    stalls: list[float] = []
    limiter = anyio.CapacityLimiter(AT_ONCE)
    running = 0
    all_running = anyio.Event()

    async def read(stream: Any, into: bytearray) -> None:
        async for data in stream:
            into += data

    async def one(id: str) -> None:
        nonlocal running
        output, errors = bytearray(), bytearray()
        async with PipeIO() as io:
            async with limiter:
                context = runc.container(id, make_bundle("sh", "-c", PROGRAM, "sh", id), io=io)
                container = await context.__aenter__()
            try:
                await container.start()
                running += 1
                if running == STREAMS:
                    all_running.set()
                await all_running.wait()
                async with anyio.create_task_group() as group:
                    group.start_soon(read, io.stdout, output)
                    group.start_soon(read, io.stderr, errors)
                    for number in range(LINES):
                        await io.stdin.send(b"%d\n" % number)
                    await io.stdin.aclose()
                await container.wait()
            finally:
                async with limiter:
                    await context.__aexit__(None, None, None)
        found[id] = bytes(output), bytes(errors)

    async def measure() -> None:
        await all_running.wait()
        while True:
            before = anyio.current_time()
            await anyio.sleep(0.005)
            stalls.append(anyio.current_time() - before - 0.005)

    ids = [new_id() for _ in range(STREAMS)]
    async with anyio.create_task_group() as measuring:
        measuring.start_soon(measure)
        async with anyio.create_task_group() as group:
            for id in ids:
                group.start_soon(one, id)
        measuring.cancel_scope.cancel()
    assert found == {id: expected(id) for id in ids}
    stalls.sort()
    figures = {"median": stalls[len(stalls) // 2] * 1000, "longest": stalls[-1] * 1000}
    record_property("stalls_ms", figures)
    with capsys.disabled():
        print(f"\n{STREAMS} streams: the loop came late by {figures['median']:.1f} ms (median), ", end="")
        print(f"{figures['longest']:.1f} ms at most")
