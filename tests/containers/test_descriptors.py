"""Descriptors on their way into containers, under concurrency."""

from __future__ import annotations

import fcntl
import os
import random
from functools import partial
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import PipeIO, Runc, SealedExecutor

from .._streams import read_all

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio

COUNT = 100

# What is at 3, 4, …, and which numbers are open at all, as the container sees it.
SCRIPT = """
n=3; while [ $n -lt $((3 + $1)) ]; do eval "cat <&$n"; n=$((n+1)); done
open=; n=0; while [ $n -lt 40 ]; do [ -e /proc/$$/fd/$n ] && open="$open $n"; n=$((n+1)); done; echo ":$open"
"""


def pipe_with(text: str) -> int:
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    return reader


async def test_a_hundred_containers_each_get_exactly_their_own(
    sealed: SealedExecutor, state_root: Path, make_bundle: Callable[..., Path], new_id: Callable[[], str]
) -> None:
    """Files are closed, and their numbers reused by other tasks, as soon as the runtime's pid is known."""
    runc = Runc(sealed, root=state_root)
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    bundles = [make_bundle("sh", "-c", SCRIPT, "sh", str(count)) for count in range(9)]
    wrong: list[tuple[str, str]] = []

    async def one(index: int, count: int) -> None:
        async with PipeIO(stdin=False) as io, anyio.create_task_group() as group:
            texts = [f"<{index}.{number}>" for number in range(count)]
            fds = [pipe_with(text) for text in texts]
            await group.start(partial(runc.run, new_id(), bundles[count], io=io, preserve_fds=fds))
            for fd in fds:
                os.close(fd)
            reused = [pipe_with("stolen") for _ in range(3)]
            output = (await read_all(io.stdout)).decode().strip()
            expected = "".join(texts) + ": " + " ".join(map(str, range(3 + count)))
            if output != expected:
                wrong.append((output, expected))
            for fd in reused:
                os.close(fd)

    async with anyio.create_task_group() as group:
        for index in range(COUNT):
            group.start_soon(one, index, chance.randrange(9))
    assert wrong == [], f"seed {seed}"


async def test_exec_gets_them_too(runc: Runc, make_bundle: Callable[..., Path], container_id: str) -> None:
    async with runc.container(container_id, make_bundle("sleep", "1000")) as container:
        await container.start()
        fds = [pipe_with("one"), pipe_with("two")]
        async with PipeIO(stdin=False) as io:
            status = await runc.exec(container_id, ["sh", "-c", SCRIPT, "sh", "2"], io=io, preserve_fds=fds)
            assert (status, await read_all(io.stdout)) == (0, b"onetwo: 0 1 2 3 4\n")
        for fd in fds:
            os.close(fd)


async def test_the_parents_own_inheritable_descriptors_stay_out(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str]
) -> None:
    stray = [os.dup(0) for _ in range(5)]
    for fd in stray:
        os.set_inheritable(fd, True)
    for preserve in (0, 1):
        async with PipeIO(stdin=False) as io:
            bundle = make_bundle("sh", "-c", SCRIPT, "sh", "0")
            assert await runc.run(new_id(), bundle, io=io, preserve_fds=[0] * preserve) == 0
            assert (await read_all(io.stdout)).strip() == (b": 0 1 2 3" if preserve else b": 0 1 2")
    for fd in stray:
        assert fcntl.fcntl(fd, fcntl.F_GETFD) == 0
        os.close(fd)
