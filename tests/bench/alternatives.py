"""Measures what you would otherwise run a program with: podman, Docker's API, bwrap, go-runc, a plain subprocess.

`make bench` does so; and python -m tests.bench.alternatives FILE ROUNDS, which writes what it found as JSON.

Every contender runs the same program, a shell that writes one line, in the same root file system. A round has one
turn for each, in another order each time.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio
import anyio.to_thread

from runc_async import PipeIO, Runc, SealedExecutor

from .contenders import GO, GORUNC, PROJECT, Contender
from .figures import Figure
from .pages import Table
from .place import place, runtime_path

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from .cases import Field, Report, Size

SID = PROJECT / "tests/matrix/sid"
RESULT = PROJECT / ".cache/bench/alternatives.json"
PROGRAM = ("sh", "-c", "echo done")
IMAGE = "localhost/runc-async-bench"
HELD = 8
"""How many containers are alive while their memory is measured."""
HELPERS = frozenset({"bwrap", "conmon", "containerd-shim"})
"""Programs that stay as long as a container does."""
AT_ONCE = 16
# The default of podman 4.3 is more than a process in an unprivileged place may have.
LIMITS = ("--network=none", "--ulimit=nofile=1024:1024", "--ulimit=nproc=1024:1024")


class Timed(NamedTuple):
    """One turn of a contender: seconds."""

    first: list[float]
    """Until the first byte of output, of each program."""
    result: list[float]
    """Until its status and all its output are known, of each program."""
    elapsed: float
    """Of all programs of the turn."""


class Way:
    """One thing to run programs with."""

    def __init__(self, name: str, here: Mapping[str, str]) -> None:
        self.name = name
        self.here = here
        self.lost = 0
        """How many programs had no output, although they ended well."""
        self._numbers = itertools.count()

    async def run(self) -> tuple[float, float]:
        """Run the program once: when its first byte arrived, and when its result was there."""
        raise NotImplementedError

    def hold(self) -> AbstractAsyncContextManager[object]:
        """Have one container that sleeps."""
        raise NotImplementedError

    async def turn(self, times: int, at_once: int) -> Timed:
        """Run the program so many times, `at_once` of them at a time."""
        first: list[float] = []
        result: list[float] = []
        numbers = iter(range(times))

        async def work() -> None:
            for _ in numbers:
                began = time.perf_counter()
                one, two = await self.run()
                first.append(one - began)
                result.append(two - began)

        began = time.perf_counter()
        async with anyio.create_task_group() as group:
            for _ in range(at_once):
                group.start_soon(work)
        return Timed(first, result, time.perf_counter() - began)

    def new_id(self) -> str:
        return f"{self.here['id']}-{re.sub(r'[^a-z]+', '-', self.name)}-{next(self._numbers)}"


class Command(Way):
    """A program that runs the program: bwrap, podman, or none."""

    def __init__(self, name: str, here: Mapping[str, str], *before: str) -> None:
        super().__init__(name, here)
        self._before = before

    async def run(self) -> tuple[float, float]:
        process = await asyncio.create_subprocess_exec(*self._before, *PROGRAM, stdin=DEVNULL, stdout=PIPE, stderr=PIPE)
        assert process.stdout is not None
        data = await process.stdout.read(1)
        first = time.perf_counter()
        output, errors = await process.communicate()
        if (data + output, process.returncode) == (b"", 0):
            self.lost += 1
        else:
            assert (data + output, process.returncode) == (b"done\n", 0), (self.name, data + output, errors)
        return first, time.perf_counter()


class Bubblewrap(Command):
    """A sandbox of namespaces, without limits."""

    def __init__(self, here: Mapping[str, str]) -> None:
        words = "bwrap --unshare-all --die-with-parent --proc /proc --dev /dev --tmpfs /tmp --ro-bind"
        super().__init__("bwrap", here, *words.split(), here["rootfs"], "/")

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncGenerator[object]:
        process = await asyncio.create_subprocess_exec(*self._before, "sh", "-c", "echo; exec sleep 3600", stdout=PIPE)
        assert process.stdout is not None
        await process.stdout.read(1)
        try:
            yield process
        finally:
            process.kill()
            await process.wait()


class Podman(Command):
    """Podman's command line."""

    def __init__(self, here: Mapping[str, str]) -> None:
        super().__init__("podman run", here, "podman", "run", "--rm", *LIMITS, IMAGE)

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncGenerator[object]:
        started = await anyio.run_process(["podman", "run", "-d", *LIMITS, IMAGE, "sleep", "3600"])
        id = started.stdout.decode().strip()
        try:
            yield id
        finally:
            await anyio.run_process(["podman", "rm", "--force", "--time=0", id])


class Ours(Way):
    """This project."""

    def __init__(self, name: str, here: Mapping[str, str], runc: Runc) -> None:
        super().__init__(name, here)
        self._runc = runc

    async def run(self) -> tuple[float, float]:
        output = bytearray()
        first: list[float] = []

        async def collect(io: PipeIO) -> None:
            async for chunk in io.stdout:
                first.append(time.perf_counter())
                output.extend(chunk)

        async with PipeIO(stdin=False, stderr=False) as io, anyio.create_task_group() as group:
            group.start_soon(collect, io)
            status = await self._runc.run(self.new_id(), self.here["job"], io=io)
        assert (output, status) == (b"done\n", 0)
        return first[0], time.perf_counter()

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncGenerator[object]:
        async with self._runc.container(self.new_id(), self.here["bundle"]) as container:
            await container.start()
            yield container


class Go(Way):
    """go-runc, in a process of its own."""

    def __init__(self, here: Mapping[str, str], contender: Contender) -> None:
        super().__init__(GO, here)
        self._contender = contender

    async def turn(self, times: int, at_once: int) -> Timed:
        ask = functools.partial(self._contender.ask, "job", times=times, at_once=at_once)
        answer = await anyio.to_thread.run_sync(ask)
        return Timed(answer["first"], answer["seconds"], answer["elapsed"])


class PodmanPy(Way):
    """podman-py, in threads, on Podman's service."""

    def __init__(self, here: Mapping[str, str], socket: str) -> None:
        super().__init__("podman-py", here)
        import podman

        self._client = podman.PodmanClient(base_url=f"unix://{socket}")

    async def run(self) -> tuple[float, float]:
        return await anyio.to_thread.run_sync(self._run)

    def _run(self) -> tuple[float, float]:
        limits = [{"Name": name, "Soft": 1024, "Hard": 1024} for name in ("nofile", "nproc")]
        container = self._client.containers.create(IMAGE, list(PROGRAM), network_mode="none", ulimits=limits)
        try:
            container.start()
            status = container.wait()
            output = b"".join(container.logs(stdout=True))
            now = time.perf_counter()
        finally:
            container.remove(force=True)
        assert (output, status) == (b"done\n", 0)
        return now, time.perf_counter()


class Aiodocker(Way):
    """aiodocker, on a service that speaks Docker's API."""

    def __init__(self, name: str, here: Mapping[str, str], client: Any) -> None:
        super().__init__(name, here)
        self._client = client

    async def run(self) -> tuple[float, float]:
        limits = [{"Name": name, "Soft": 1024, "Hard": 1024} for name in ("nofile", "nproc")]
        config = {
            "Image": IMAGE,
            "Cmd": list(PROGRAM),
            "HostConfig": {"NetworkMode": "none", "Ulimits": limits},
        }
        container = await self._client.containers.create(config)
        try:
            await container.start()
            status = (await container.wait())["StatusCode"]
            output = "".join(await container.log(stdout=True))
            now = time.perf_counter()
        finally:
            await container.delete(force=True)
        assert (output, status) == ("done\n", 0)
        return now, time.perf_counter()


@contextlib.asynccontextmanager
async def contenders(here: Mapping[str, str], notes: list[str]) -> AsyncGenerator[list[Way]]:
    """Every way that this machine has; what is missing becomes a note."""
    runtime = os.path.basename(here["runtime"])
    async with contextlib.AsyncExitStack() as stack:
        executor = stack.enter_context(SealedExecutor.open(here["runtime"]))
        ways: list[Way] = [
            Command("subprocess, no container", here, "busybox"),
            Ours(f"runc_async, {runtime}", here, Runc(executor, root=here["root"])),
        ]
        if GORUNC.exists():
            ways.append(Go(here, stack.enter_context(Contender(GO, here))))
        else:
            notes.append("go-runc: tests/bench/build did not build it")
        if shutil.which("bwrap"):
            ways.append(Bubblewrap(here))
        else:
            notes.append("bwrap: apt-get install bubblewrap")
        if shutil.which("podman"):
            await podman_ways(here, ways, notes, stack)
        else:
            notes.append("podman: apt-get install podman")
        yield ways


async def podman_ways(
    here: Mapping[str, str], ways: list[Way], notes: list[str], stack: contextlib.AsyncExitStack
) -> None:
    """Podman's command line, and two clients of its service."""
    for command in (
        f"tar -C {here['rootfs']} -cf {here['root']}.tar .",
        f"podman import -q {here['root']}.tar {IMAGE}",
    ):
        await anyio.run_process(command.split())
    stack.push_async_callback(anyio.run_process, ["podman", "rmi", "-f", IMAGE], check=False)
    ways.append(Podman(here))
    socket = str(Path(stack.enter_context(tempfile.TemporaryDirectory()), "podman.sock"))
    service = await anyio.open_process(["podman", "system", "service", "--time=0", f"unix://{socket}"])
    stack.push_async_callback(service.wait)
    stack.callback(service.terminate)
    while not os.path.exists(socket):
        await anyio.sleep(0.1)
    try:
        import aiodocker
        import podman  # noqa: F401
    except ImportError as error:
        notes.append(f"podman-py and aiodocker: {error}")
        return
    ways.append(PodmanPy(here, socket))
    client = await stack.enter_async_context(aiodocker.Docker(url=f"unix://{socket}"))
    ways.append(Aiodocker("aiodocker on podman's service", here, client))
    if os.path.exists("/var/run/docker.sock"):
        docker = await stack.enter_async_context(aiodocker.Docker())
        await anyio.run_process(["docker", "import", f"{here['root']}.tar", IMAGE])
        ways.append(Aiodocker("aiodocker on dockerd", here, docker))
    else:
        notes.append("aiodocker on dockerd: apt-get install docker.io, and start it")


async def measure(here: Mapping[str, str], rounds: int, seconds: float) -> dict[str, Any]:
    """Let every contender run programs, one at a time and 16 at once, and hold containers.

    :param rounds: turns of each.
    :param seconds: fewer rounds if they take longer, but two at least.
    """
    notes: list[str] = []
    async with contenders(here, notes) as ways:
        single: dict[str, list[Timed]] = {way.name: [] for way in ways}
        many: dict[str, list[Timed]] = {way.name: [] for way in ways}
        memory: dict[str, float] = {}
        for way in ways:  # first: later there is memory that is free to be used again
            with contextlib.suppress(NotImplementedError):
                memory[way.name] = await held(way)
        began = time.monotonic()
        for number in range(rounds + 1):
            if number > 2 and time.monotonic() - began > seconds:
                break
            for way in random.Random(number).sample(ways, len(ways)):
                turns = (single, await way.turn(3, 1)), (many, await way.turn(AT_ONCE, AT_ONCE))
                for found, timed in turns if number else ():
                    found[way.name].append(timed)
        notes += [f"the output of {way.lost} programs of {way.name}, which lost it" for way in ways if way.lost]
    return {"single": single, "many": many, "memory": memory, "notes": notes}


async def held(way: Way) -> float:
    """KiB of memory beside the program's own, of each of some containers that are alive."""
    async with way.hold():  # what only the first one costs
        before = overhead()
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(HELD):
                await stack.enter_async_context(way.hold())
            return (overhead() - before) / HELD


def overhead() -> float:
    """KiB of memory of this process and of the helpers that containers have: what only they use, and their share."""
    total = 0
    for entry in os.scandir("/proc"):
        with contextlib.suppress(OSError):
            if entry.name == str(os.getpid()) or (
                entry.name.isdecimal() and Path(entry.path, "comm").read_text().strip() in HELPERS
            ):
                lines = Path(entry.path, "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def rows(found: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A line for each contender, the fastest first."""

    def text(values: Sequence[float], scale: float = 1000, digits: int = 1) -> str:
        return f"{statistics.median(values) * scale:.{digits}f}"

    lines: list[tuple[float, tuple[str, ...]]] = []
    for name in found["single"]:
        single, many = ([Timed(*turn) for turn in found[kind][name]] for kind in ("single", "many"))
        result = [value for turn in single for value in turn.result]
        lines.append((
            statistics.median(result),
            (
                name,
                text([value for turn in single for value in turn.first]),
                text(result),
                text([value for turn in many for value in turn.result]),
                text([len(turn.result) / turn.elapsed for turn in many], 1, 0),
                f"{found['memory'][name]:.0f}" if name in found["memory"] else "-",
            ),
        ))  # fmt: skip
    return [line for _, line in sorted(lines)]


COLUMNS = (
    "",
    "to the first byte, ms",
    "to the result, ms",
    f"to the result, {AT_ONCE} at once, ms",
    f"programs per second, {AT_ONCE} at once",
    "memory for each, KiB",
)


def alternatives(field: Field, report: Report, size: Size) -> None:
    """This project and what you would otherwise choose; on the machine, and on runc and crun in the sid root."""
    found = run(size.alternatives, size.seconds * 5)
    add(report, f"What you would otherwise choose, on {runtime_version()}", found)
    report.alternatives = drawn(found)
    for runtime in ("runc", "crun"):
        RESULT.unlink(missing_ok=True)
        program = [".cache/venv-sid/bin/python", "-m", "tests.bench.alternatives"]
        inside = ["env", f"RUNC_ASYNC_RUNTIME={runtime}", *program, RESULT.relative_to(PROJECT), str(size.alternatives)]
        try:
            subprocess.run(
                [SID, "run", "v1", *inside], check=True, cwd=PROJECT, stdin=DEVNULL, timeout=size.seconds * 10
            )
        except (OSError, subprocess.SubprocessError) as error:
            report.notes.append(f"{runtime} of Debian sid beside the others: {error}")
            continue
        within = json.loads(RESULT.read_text())
        add(report, f"The same in the Debian sid root, on {within['runtime']}", within)


def add(report: Report, title: str, found: Mapping[str, Any]) -> None:
    """Add a table; what is missing in it is said above it."""
    missing = "".join(f" Missing: {note}." for note in found["notes"])
    said = (
        "A shell that writes one line, in a container of its own, from nothing to its result. Memory is what this "
        f"process and the helpers of a container need beside the program.{missing}"
    )
    report.alternative_tables.append(Table(title, COLUMNS, list(rows(found)), said))


def drawn(found: Mapping[str, Any]) -> dict[str, dict[str, Figure]]:
    """The same as bars."""

    def figures(kind: str, of: Callable[[Timed], Sequence[float]], scale: float = 1000) -> dict[str, Figure]:
        return {
            name: Figure.of(value * scale for turn in turns for value in of(Timed(*turn)))
            for name, turns in found[kind].items()
        }

    return {
        "from nothing to the first byte: ms": figures("single", lambda turn: turn.first),
        "from nothing to the result: ms": figures("single", lambda turn: turn.result),
        f"to the result, {AT_ONCE} at once: ms": figures("many", lambda turn: turn.result),
        f"programs per second, {AT_ONCE} at once": figures("many", lambda t: [len(t.result) / t.elapsed], 1),
    }


def run(rounds: int, seconds: float = 300) -> dict[str, Any]:
    """Measure it all in a place of its own."""
    with place() as here:
        return anyio.run(measure, here, rounds, seconds)


def runtime_version() -> str:
    """The runtime's name and version."""
    said = subprocess.run([runtime_path(), "--version"], capture_output=True, text=True, check=True).stdout
    return said.splitlines()[0].replace(" version", "")


def main() -> None:
    file, rounds = sys.argv[1:]
    Path(file).write_text(json.dumps({**run(int(rounds)), "runtime": runtime_version()}))


if __name__ == "__main__":
    main()
