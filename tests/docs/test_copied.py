"""What people copy into a service survives no output, much, slow output, two at once, and a client that leaves."""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import pytest
from aiohttp.test_utils import TestClient, TestServer

import runc_async

from .._cgroups import needs_controllers
from .._slowness import within
from .test_blocks import LIMITS, ROOT, blocks

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    from aiohttp import web

    Ask = Callable[[str], Awaitable[bytes]]
    """Runs a shell command by what was copied; gives what the command has written."""

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """What aiohttp runs on."""
    return "asyncio"


class Here(NamedTuple):
    """Where the copied program runs."""

    runc: runc_async.Runc
    rootfs: Path
    new_id: Callable[[], str]


@pytest.fixture
def here(
    runtime_path: Path,
    rootfs: Path,
    state_root: Path,
    new_id: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> Here:
    needs_controllers(*LIMITS)
    monkeypatch.chdir(tmp_path)
    return Here(runc_async.Runc(runtime_path, root=state_root), rootfs, new_id)


def block_with(page: str, words: str) -> str:
    """The one block of a page that has some words in it."""
    [code] = [block.code for block in blocks(ROOT / page) if words in block.code]
    return code


def namespace(here: Here) -> dict[str, Any]:
    names: dict[str, Any] = {name: getattr(runc_async, name) for name in runc_async.__all__}
    # The runtime and the directory of states of this test, also where a block makes a client of its own.
    return {**names, "__name__": "copied", "anyio": anyio, "runc": here.runc}


async def execute(code: str, names: dict[str, Any]) -> None:
    """Run a block, which may await."""
    compiled = compile(code, "copied", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    result = eval(compiled, names)
    if inspect.isawaitable(result):
        await result


@asynccontextmanager
async def tutorial(here: Here) -> AsyncIterator[Ask]:
    """The tutorial's first program, with another command in it."""
    code = block_with("docs/tutorial.md", "hello from $(hostname)")
    code = re.sub(r"^(assert|runc =|print) ?.*\n", "", code, flags=re.MULTILINE)
    code = code.replace('"rootfs"', repr(str(here.rootfs)))
    code = code.replace('"echo hello from $(hostname); exit 3"', "COMMAND").replace("timeout=10", "timeout=60")

    async def ask(command: str) -> bytes:
        names = {**namespace(here), "COMMAND": command}
        await execute(code, names)
        return bytes(names["result"].stdout)

    yield ask


@asynccontextmanager
async def aiohttp(here: Here) -> AsyncIterator[Ask]:
    """The application of the page on aiohttp, asked over HTTP."""
    names = namespace(here)
    code = block_with("docs/howto/aiohttp.md", "async def evaluate").replace("/srv/rootfs", str(here.rootfs))
    names["RUNC_HERE"] = here.runc
    await execute(code.replace("= Runc(executor)", "= RUNC_HERE").replace("timeout=10", "timeout=60"), names)
    app: web.Application = names["app"]
    server = TestServer(app, handler_cancellation=True)
    async with TestClient(server) as client:

        async def ask(command: str) -> bytes:
            async with client.post("/", data=command) as answer:
                assert answer.status == 200, await answer.text()
                return await answer.read()

        yield ask


@pytest.fixture(params=[tutorial, aiohttp], ids=lambda copied: copied.__name__)
def copied(request: pytest.FixtureRequest) -> Callable[[Here], AbstractAsyncContextManager[Ask]]:
    return request.param


@pytest.mark.parametrize(
    ("command", "output"),
    [
        ("true", b""),
        ("seq 100000", "".join(f"{number}\n" for number in range(1, 100001)).encode()),
        ("for word in some words slowly; do echo $word; sleep 0.2; done", b"some\nwords\nslowly\n"),
    ],
    ids=["no output", "much output", "slow output"],
)
async def test_all_that_the_program_writes_comes_back(here: Here, copied: Any, command: str, output: bytes) -> None:
    with within(60):
        async with copied(here) as ask:
            assert await ask(command) == output


async def test_two_at_once(here: Here, copied: Any) -> None:
    with within(60):
        async with copied(here) as ask:
            answers = await asyncio.gather(ask("sleep 0.5; echo one"), ask("sleep 0.5; echo two"))
            assert answers == [b"one\n", b"two\n"]


async def test_nothing_is_left_of_a_client_that_leaves(here: Here, copied: Any) -> None:
    with within(60):
        async with copied(here) as ask:
            asking = asyncio.create_task(ask("echo begun; sleep 600"))
            while not any(state.status == "running" for state in await here.runc.list()):
                await anyio.sleep(0.02)
            asking.cancel()
            await asyncio.wait([asking])
            while await here.runc.list():  # over HTTP, the server learns of it a moment later
                await anyio.sleep(0.02)
            assert await ask("echo still here") == b"still here\n"
