"""A contender in Python: makes the calls that it is asked for, and says how long they took.

python -m tests.bench.worker KIND PLACE: a request a line on stdin, an answer a line on stdout, both JSON.
KIND is an event loop, for this project on it, or one of the two ways that Python itself has: ``plain`` or ``bare``.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import gc
import itertools
import json
import mmap
import os
import resource
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

import anyio

from runc_async import Container, FdExecutor, PathExecutor, Runc, SealedExecutor

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

EXECUTORS: dict[str, Callable[[str], Any]] = {
    "path": PathExecutor,
    "fd": FdExecutor.open,
    "sealed": SealedExecutor.open,
}
LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
    "plain": ("asyncio", {}),
    "bare": ("asyncio", {}),
}
BEAT = 0.001
"""Seconds between two beats of the event loop."""
CREATED_AT_ONCE = 4


class Bare:
    """``posix_spawn`` and ``waitpid``: the floor. The runtime's output goes nowhere."""

    def __init__(self, place: dict[str, str]) -> None:
        self._place = place
        self._null = os.open(os.devnull, os.O_RDWR)
        self._actions = [(os.POSIX_SPAWN_DUP2, self._null, target) for target in range(3)]
        self._held = {name: make(place["runtime"]) for name, make in EXECUTORS.items()}

    def call(self, op: str, executor: str) -> Callable[[int], Awaitable[object]]:
        arguments = {"version": ["--version"], "state": ["--root", self._place["root"], "state", self._place["id"]]}[op]
        actions, path = self._actions, self._place["runtime"]
        if executor != "path":
            fd = self._held[executor].fileno()
            actions, path = [*actions, (os.POSIX_SPAWN_DUP2, fd, fd)], f"/proc/self/fd/{fd}"

        async def spawn(number: int) -> None:
            pid = os.posix_spawn(path, ["runc", *arguments], os.environ, file_actions=actions)
            assert os.waitpid(pid, 0)[1] == 0

        return spawn


class Plain:
    """`asyncio.create_subprocess_exec` as everybody writes it: pipes, ``communicate``, and the JSON decoded."""

    def __init__(self, place: dict[str, str]) -> None:
        self._place = place

    def call(self, op: str, executor: str) -> Callable[[int], Awaitable[object]]:
        runtime, root, id = self._place["runtime"], self._place["root"], self._place["id"]

        async def communicate(*arguments: str) -> bytes:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec(
                runtime, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
            )
            output, errors = await process.communicate()
            assert process.returncode == 0, errors
            return output

        async def version(number: int) -> None:
            await communicate("--version")

        async def state(number: int) -> None:
            json.loads(await communicate("--root", root, "state", id))

        return {"version": version, "state": state}[op]


class Ours:
    """This project."""

    def __init__(self, place: dict[str, str]) -> None:
        self._place = place
        self._runcs = {
            name: Runc(make(place["runtime"]), root=place["root"], cleanup_timeout=60)
            for name, make in EXECUTORS.items()
        }
        self._attached: dict[str, Container] = {}
        self._stack = contextlib.AsyncExitStack()
        self._group = anyio.create_task_group()
        self._live = 0
        self._kept: list[object] = []
        self._numbers = itertools.count()

    async def __aenter__(self) -> Ours:
        await self._stack.enter_async_context(self._group)
        for name, runc in self._runcs.items():
            self._attached[name] = await self._stack.enter_async_context(runc.attach(self._place["id"]))
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._group.cancel_scope.cancel()
        await self._stack.__aexit__(*exc)

    def call(self, op: str, executor: str) -> Callable[[int], Awaitable[object]]:
        runc, live, id = self._runcs[executor], self._attached[executor], self._place["id"]

        async def version(number: int) -> object:
            return await runc.version()

        async def state(number: int) -> object:
            return await runc.state(id)

        async def kill(number: int) -> object:
            return await live.kill(0)

        async def run(number: int) -> object:
            return await live.run(["true"])

        async def life(number: int) -> object:
            async with runc.container(self._new_id(), self._place["bundle"]) as container:
                await container.start()
            return None

        return {"version": version, "state": state, "kill": kill, "run": run, "life": life}[op]

    def _new_id(self) -> str:
        return f"{self._place['id']}-{os.getpid()}-{next(self._numbers)}"

    # -- what is asked for besides calls -------------------------------------------------------------------

    async def live(self, count: int) -> None:
        """Have so many containers that run, and a task waiting for each."""
        begin = anyio.CapacityLimiter(CREATED_AT_ONCE)

        async def hold(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            async with contextlib.AsyncExitStack() as stack:
                container = self._runcs["path"].container(self._new_id(), self._place["bundle"])
                async with begin:
                    held = await stack.enter_async_context(container)
                    await held.start()
                task_status.started()
                await held.wait()

        async with anyio.create_task_group() as starting:
            for _ in range(count - self._live):
                starting.start_soon(self._group.start, hold)
        self._live = count

    async def waited(self, times: int) -> list[float]:
        """Seconds from the kill of a container until the task that waits for it goes on."""
        found: list[float] = []
        for _ in range(times):
            async with self._runcs["path"].container(self._new_id(), self._place["bundle"]) as container:
                await container.start()
                began = 0.0
                async with anyio.create_task_group() as group:

                    async def wait(container: Container = container) -> None:
                        await container.wait()
                        found.append(time.perf_counter() - began)

                    group.start_soon(wait)
                    await anyio.sleep(0.01)
                    began = time.perf_counter()
                    os.kill(container.pid, signal.SIGKILL)
        return found

    def memory(self) -> int:
        """Bytes of memory that are this process's alone."""
        gc.collect()
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon:"))

    def ballast(self, size: int) -> None:
        """Be as large a process."""
        self._kept.append(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE))

    def descriptors(self, count: int) -> None:
        """Have as many descriptors open."""
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, count + 1000), most))
        self._kept += [open(os.devnull) for _ in range(count)]  # noqa: SIM115


async def measured(call: Callable[[int], Awaitable[object]], times: int, at_once: int, beats: bool) -> dict[str, Any]:
    """Make calls, so many at once; see `tests.bench.figures.Sample`."""
    seconds: list[float] = []
    late: list[float] = []
    numbers = iter(range(times))

    async def work() -> None:
        for number in numbers:
            began = time.perf_counter()
            await call(number)
            seconds.append(time.perf_counter() - began)

    async def beat() -> None:
        while True:
            due = time.perf_counter() + BEAT
            await anyio.sleep(BEAT)
            late.append(time.perf_counter() - due)

    cpu, began = time.process_time(), time.perf_counter()
    if at_once == 1 and not beats:
        await work()
    else:
        async with anyio.create_task_group() as everything:
            if beats:
                everything.start_soon(beat)
            async with anyio.create_task_group() as workers:
                for _ in range(at_once):
                    workers.start_soon(work)
            everything.cancel_scope.cancel()
    elapsed, cpu = time.perf_counter() - began, time.process_time() - cpu
    return {"seconds": seconds, "elapsed": elapsed, "cpu": cpu, "late": late}


async def answered(contender: Any, asked: dict[str, Any]) -> Any:
    """The answer to one request."""
    op = asked.pop("op")
    if op in ("live", "waited", "memory", "ballast", "descriptors"):
        found = getattr(contender, op)(**asked)
        return await found if asyncio.iscoroutine(found) else found
    call = contender.call(op, asked.get("executor", "path"))
    return await measured(call, asked["times"], asked.get("at_once", 1), asked.get("beats", False))


async def serve(kind: str, place: dict[str, str]) -> None:
    """Answer until nobody asks any more."""
    async with contextlib.AsyncExitStack() as stack:
        contender: Any = {"plain": Plain, "bare": Bare}.get(kind, Ours)(place)
        if isinstance(contender, Ours):
            await stack.enter_async_context(contender)
        for line in sys.stdin:  # the event loop has nothing else to do meanwhile
            print(json.dumps(await answered(contender, json.loads(line))), flush=True)


def main() -> None:
    kind, place = sys.argv[1:]
    backend, options = LOOPS[kind]
    anyio.run(functools.partial(serve, kind, json.loads(place)), backend=backend, backend_options=options)


if __name__ == "__main__":
    main()
