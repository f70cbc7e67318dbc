"""The sandbox as its user starts it, and a client for it."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest

from .._cgroups import needs_controllers
from .._leaks import SESSION
from .._slowness import SLOWNESS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

SANDBOX = Path(__file__).resolve().parents[2] / "examples/sandbox"
_prefixes = (f"{SESSION}-sandbox{number}" for number in itertools.count(1))


class Sandbox:
    """A running service: its process, its address, its token."""

    def __init__(self, process: subprocess.Popen[str], state: Path) -> None:
        self.process = process
        self.state = state
        assert process.stdout is not None
        self.before = ""
        """What it said before its address."""
        while not (found := re.fullmatch(r"sandbox: (http://\S+?)/#token=(\S+)\n", line := process.stdout.readline())):
            assert line, f"it has ended: {self.before}"
            self.before += line
        self.url, self.token = found.groups()

    def ended(self) -> str:
        """Wait for its end; what it has said since its start."""
        assert self.process.stdout is not None
        with self.process.stdout:
            output = self.process.stdout.read()
        self.process.wait(timeout=20 * SLOWNESS)
        return output


def run_sandbox(
    state: Path, runtime: Path, *options: object, folder: Path = SANDBOX, **variables: str
) -> subprocess.Popen[str]:
    """Start it; it writes to one pipe."""
    given = ["--port", 0, "--runtime", runtime, "--state", state, "--prefix", next(_prefixes), *options]
    return subprocess.Popen(
        [sys.executable, str(folder), *map(str, given)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(SANDBOX.parents[1]), **variables},
    )


@contextlib.contextmanager
def started(state: Path, runtime: Path, *options: object, folder: Path = SANDBOX) -> Iterator[Sandbox]:
    """A service until the end of the block."""
    process = run_sandbox(state, runtime, *options, folder=folder)
    try:
        yield (sandbox := Sandbox(process, state))
        if process.poll() is None:
            process.terminate()
            sandbox.ended()
            assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory, runtime_path: Path) -> Iterator[Sandbox]:
    """A service for all tests of a module; each leaves it with nothing running."""
    if os.geteuid() != 0:
        pytest.skip("the sandbox limits its containers: run this as root, or give this user cgroups (see the doctor)")
    needs_controllers("memory", "cpu", "pids")
    folder = tmp_path_factory.mktemp("sandbox")
    options = ("--interval", 0.2, "--running", 4, "--timeout", 30, "--output", 64)
    with started(folder / "state", runtime_path, *options) as sandbox:
        yield sandbox


@pytest.fixture
def new_sandbox(tmp_path: Path, runtime_path: Path, sandbox: Sandbox) -> Callable[..., Any]:
    """Starts one for this test alone: ``with new_sandbox("--running", 2) as sandbox:``."""
    return lambda *options, **keywords: started(tmp_path / "own", runtime_path, *options, **keywords)


class Client:
    """What a program does with the service."""

    def __init__(self, sandbox: Sandbox, session: aiohttp.ClientSession) -> None:
        self.sandbox = sandbox
        self.session = session

    def request(self, method: str, path: str, **keywords: Any) -> Any:
        headers = {"Authorization": f"Bearer {self.sandbox.token}", **keywords.pop("headers", {})}
        return self.session.request(method, self.sandbox.url + path, headers=headers, **keywords)

    def socket(self, path: str, **keywords: Any) -> Any:
        protocols = ("sandbox", f"bearer.{self.sandbox.token}")
        return self.session.ws_connect(self.sandbox.url + path, protocols=protocols, **keywords)

    async def get(self, path: str) -> Any:
        async with self.request("GET", path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def run(self, program: str, **limits: float) -> list[Any]:
        """Run to the end: the lines of the answer."""
        async with self.request("POST", "/runs", json={"program": program, "limits": limits}) as answer:
            assert answer.status == 201, await answer.text()
            return [json.loads(line) async for line in answer.content]

    async def start(self, program: str, **limits: float) -> str:
        """Start one that runs on; its id."""
        body = {"program": program, "limits": limits, "detach": True}
        async with self.request("POST", "/runs", json=body) as answer:
            assert answer.status == 201, await answer.text()
            return str((await answer.json())["id"])

    async def kill(self, id: str) -> Any:
        async with self.request("POST", f"/runs/{id}/kill") as answer:
            return await answer.json()

    async def until(self, id: str, done: Callable[[Any], bool]) -> Any:
        """The run, as soon as it is so."""
        while not done(run := await self.get(f"/runs/{id}")):
            pass
        return run


@pytest.fixture
async def client(sandbox: Sandbox) -> AsyncIterator[Client]:
    """A client of the module's service."""
    async with aiohttp.ClientSession() as session:
        yield Client(sandbox, session)


def text(lines: list[Any], stream: str = "stdout") -> str:
    """What a run printed."""
    return "".join(line["text"] for line in lines if line.get("stream") == stream)
