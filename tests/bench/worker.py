"""A contender in Python: makes the calls that it is asked for, and says how long they took.

python -m tests.bench.worker KIND PLACE: a request a line on stdin, an answer a line on stdout, both JSON.
KIND is an event loop, for this project on it, or one of the two ways that Python itself has: ``plain`` or ``bare``; or
``direct``, this project on asyncio as it would be if `asyncio.create_subprocess_exec` had no part in it.
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
from typing import TYPE_CHECKING, Any, Self

import anyio

from runc_async import Container, FdExecutor, PathExecutor, Runc, SealedExecutor, Subreaper
from runc_async._process import child_fds

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

EXECUTORS: dict[str, Callable[[str], Any]] = {
    "path": PathExecutor,
    "fd": FdExecutor.open,
    "sealed": SealedExecutor.open,
}
DIRECT = "direct"
NO_PIPES = "none"
"""In an executor's place: plain `create_subprocess_exec` without what takes the output."""
LOOPS: dict[str, tuple[str, dict[str, Any]]] = {
    "asyncio": ("asyncio", {}),
    "uvloop": ("asyncio", {"use_uvloop": True}),
    "trio": ("trio", {}),
    DIRECT: ("asyncio", {}),
    "plain": ("asyncio", {}),
    "bare": ("asyncio", {}),
}
OWN_ENVIRONMENT: Any = None if sys.version_info >= (3, 13) else os.environ
"""What `os.posix_spawn` takes for it."""
BEAT = 0.001
"""Seconds between two beats of the event loop."""
CREATED_AT_ONCE = 4

kept: list[object] = []
"""What makes this process a large one."""


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
            pid = os.posix_spawn(path, ["runc", *arguments], OWN_ENVIRONMENT, file_actions=actions)
            assert os.waitpid(pid, 0)[1] == 0

        return spawn


class Plain:
    """`asyncio.create_subprocess_exec` as everybody writes it: pipes, ``communicate``, and the JSON decoded."""

    def __init__(self, place: dict[str, str]) -> None:
        self._place = place

    def call(self, op: str, executor: str) -> Callable[[int], Awaitable[object]]:
        runtime, root, id = self._place["runtime"], self._place["root"], self._place["id"]

        async def communicate(*arguments: str) -> bytes:
            pipe = asyncio.subprocess.PIPE if executor != NO_PIPES else asyncio.subprocess.DEVNULL
            process = await asyncio.create_subprocess_exec(
                runtime, *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
            )
            output, errors = await process.communicate()
            assert process.returncode == 0, errors
            return output

        async def version(number: int) -> None:
            await communicate("--version")

        async def state(number: int) -> None:
            output = await communicate("--root", root, "state", id)
            if executor != NO_PIPES:
                json.loads(output)

        return {"version": version, "state": state}[op]


class Ours:
    """This project."""

    def __init__(self, kind: str, place: dict[str, str]) -> None:
        if kind == DIRECT:
            child_fds.keeps_numbers = lambda: False
        self._place = place
        self._runcs = {name: Runc(make(place["runtime"]), root=place["root"]) for name, make in EXECUTORS.items()}
        self._attached: dict[str, Container] = {}
        self._stack = contextlib.AsyncExitStack()
        self._group = anyio.create_task_group()
        self._live = 0
        self._watched: Runc | None = None
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        for name, runc in self._runcs.items():
            self._attached[name] = await self._stack.enter_async_context(runc.attach(self._place["id"]))
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._watched is not None:
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

    async def supervisor(self) -> Runc:
        """A client that knows every exit status at once: whose monitor reaps, as a supervisor's does."""
        if self._watched is None:
            monitor = await self._stack.enter_async_context(Subreaper())
            settings = {"root": self._place["root"], "cleanup_timeout": 300}
            self._watched = Runc(self._place["runtime"], monitor=monitor, **settings)
            await self._stack.enter_async_context(self._group)
        return self._watched

    async def live(self, count: int) -> None:
        """Have so many containers that run, and a task waiting for each."""
        runc = await self.supervisor()
        begin = anyio.CapacityLimiter(CREATED_AT_ONCE)

        async def hold(*, task_status: anyio.abc.TaskStatus[None]) -> None:
            async with contextlib.AsyncExitStack() as stack:
                container = runc.container(self._new_id(), self._place["bundle"])
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
        runc = await self.supervisor()
        found: list[float] = []
        for _ in range(times):
            async with runc.container(self._new_id(), self._place["bundle"]) as container:
                await container.start()
                ended: list[float] = []
                async with anyio.create_task_group() as group:
                    group.start_soon(_wait, container, ended)
                    await anyio.sleep(0.01)
                    began = time.perf_counter()
                    os.kill(container.pid, signal.SIGKILL)
                found.append(ended[0] - began)
        return found

    async def memory(self) -> int:
        """Bytes of memory that are this process's alone."""
        gc.collect()
        with open("/proc/self/status") as file:
            return next(int(line.split()[1]) << 10 for line in file if line.startswith("RssAnon:"))


async def _wait(container: Container, ended: list[float]) -> None:
    await container.wait()
    ended.append(time.perf_counter())


def ballast(amount: int) -> None:
    """Be larger by so many bytes of memory."""
    kept.append(mmap.mmap(-1, amount, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE))


def descriptors(amount: int) -> None:
    """Have so many more descriptors open."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, amount + 1000), most))
    kept.extend(open(os.devnull) for _ in range(amount))  # noqa: SIM115


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

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
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
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    children = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"seconds": seconds, "elapsed": elapsed, "cpu": cpu, "late": late, "children": children}


async def answered(contender: Any, asked: dict[str, Any]) -> Any:
    """The answer to one request."""
    op = asked.pop("op")
    if op in ("ballast", "descriptors"):
        return {"ballast": ballast, "descriptors": descriptors}[op](**asked)
    if op in ("live", "waited", "memory"):
        return await getattr(contender, op)(**asked)
    call = contender.call(op, asked.get("executor", "path"))
    return await measured(call, asked["times"], asked.get("at_once", 1), asked.get("beats", False))


async def serve(kind: str, place: dict[str, str]) -> None:
    """Answer until nobody asks any more."""
    async with contextlib.AsyncExitStack() as stack:
        contender: Any
        if kind in ("plain", "bare"):
            contender = {"plain": Plain, "bare": Bare}[kind](place)
        else:
            contender = await stack.enter_async_context(Ours(kind, place))
        for line in sys.stdin:  # the event loop has nothing else to do meanwhile
            print(json.dumps(await answered(contender, json.loads(line))), flush=True)


def main() -> None:
    kind, place = sys.argv[1:]
    backend, options = LOOPS[kind]
    anyio.run(functools.partial(serve, kind, json.loads(place)), backend=backend, backend_options=options)


if __name__ == "__main__":
    main()
