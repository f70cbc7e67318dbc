"""Runs real containers from a runtime binary that no longer has a path, and shows what happened.

    make demo

runc is copied and opened, the copy is unlinked, and the descriptor runs a container that reads two files that were
handed to it as descriptors 3 and 4 and lists its own descriptors. As root with cgroups; as anybody else rootless.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import anyio
from rich.console import Console
from rich.table import Table

from runc_async import FdExecutor, PipeIO, Runc, SealedExecutor

SCRIPT = """
echo "3: $(cat <&3)"
echo "4: $(cat <&4)"
for n in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do [ -e /proc/$$/fd/$n ] && open="$open $n"; done
echo "open:$open"
read until_it_was_looked_at
exit 0
"""
EXPECTED = "3: from the first pipe\n4: from the second pipe\nopen: 0 1 2 3 4"


class Shown(NamedTuple):
    """One line of the table."""

    executor: str
    event_loop: str
    output: str
    status: int
    seconds: float
    executed: str
    """What the descriptor of the executor leads to."""
    argv0: str


def need(program: str, package: str) -> str:
    """The path of a program, or the end with a word on how to get it."""
    found = shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin")
    if found is None:
        sys.exit(f"demo: {program} is missing: install the package {package} (apt-get install {package})")
    return found


async def make_bundle(runc: Runc, folder: Path, busybox: str) -> None:
    """A root file system of one static busybox, and a specification that the runtime itself writes."""
    rootfs = folder / "rootfs"
    for name in ("bin", "proc", "dev", "sys", "tmp"):
        (rootfs / name).mkdir(parents=True)
    shutil.copy(busybox, rootfs / "bin/busybox")
    for applet in ("sh", "cat"):
        (rootfs / "bin" / applet).symlink_to("busybox")
    await runc.spec(folder, rootless=os.geteuid() != 0)
    config = folder / "config.json"
    spec: dict[str, Any] = json.loads(config.read_text())
    spec["process"].update(terminal=False, args=["sh", "-c", SCRIPT], env=["PATH=/bin"])
    config.write_text(json.dumps(spec))


def pipe_with(text: str) -> int:
    """The reading end of a pipe that holds a text."""
    reader, writer = os.pipe()
    os.write(writer, text.encode())
    os.close(writer)
    return reader


async def show(runc: Runc, executor: FdExecutor, kind: str, event_loop: str, bundle: Path) -> Shown:
    """One container: two pipes in as descriptors 3 and 4, its output back."""
    readers = [pipe_with("from the first pipe"), pipe_with("from the second pipe")]
    output = bytearray()
    status, argv0 = -1, ""
    began = time.perf_counter()
    async with PipeIO() as io, anyio.create_task_group() as group:

        async def contain(*, task_status: anyio.abc.TaskStatus[int]) -> None:
            nonlocal status
            id = f"demo-{os.getpid()}-{time.monotonic_ns()}"
            status = await runc.run(id, bundle, io=io, preserve_fds=readers, task_status=task_status)

        pid = await group.start(contain)
        for reader in readers:
            os.close(reader)  # the runtime has its own by now
        output += await io.stdout.receive()
        argv0 = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
        await io.stdin.aclose()
        async for chunk in io.stdout:
            output += chunk
    seconds = time.perf_counter() - began
    executed = os.readlink(f"/proc/self/fd/{executor.fileno()}")
    return Shown(kind, event_loop, output.decode().strip(), status, seconds, executed, argv0)


def main() -> None:
    """The same container on asyncio, on trio, and from a sealed copy."""
    console = Console()
    original, busybox = need("runc", "runc"), need("busybox", "busybox-static")
    lines: list[Shown] = []
    with tempfile.TemporaryDirectory(prefix="runc-async-demo-") as name:
        bundle, copy = Path(name, "bundle"), Path(name, "runc")
        state = Path(name, "state")
        anyio.run(make_bundle, Runc(original, root=state), bundle, busybox)
        for kind, hold, event_loops in (
            ("held descriptor", FdExecutor.open, ("asyncio", "trio")),
            ("sealed copy", SealedExecutor.open, ("asyncio",)),
        ):
            shutil.copy(original, copy)
            with hold(copy) as executor:
                copy.unlink()
                runc = Runc(executor, root=state)
                for event_loop in event_loops:
                    call = functools.partial(show, runc, executor, kind, event_loop, bundle)
                    lines.append(anyio.run(call, backend=event_loop))
    console.print(f"\n{original} copied, the copy opened, and then removed. What was executed:")
    for kind, (executed, argv0) in {line.executor: line[-2:] for line in lines}.items():
        console.print(f"  {kind}: {executed}, argv[0] {argv0}", highlight=False, soft_wrap=True)
    table = Table(show_lines=True)
    for column in ("executor", "event loop", "the container's output", "status", "time"):
        table.add_column(column)
    for line in lines:
        table.add_row(*line[:3], str(line.status), f"{line.seconds * 1000:.0f} ms")
    console.print(table)
    how = "as root" if os.geteuid() == 0 else f"rootless, as user {os.geteuid()}"
    console.print(
        f"{len(lines)} containers, {how}. Each saw 0, 1, 2, the two descriptors handed over, and nothing else."
    )
    wrong = [line for line in lines if line.status != 0 or line.output != EXPECTED]
    if wrong:
        sys.exit(f"demo: not as expected: {wrong}")


if __name__ == "__main__":
    main()
