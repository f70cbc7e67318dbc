"""A supervisor in structured concurrency, on trio: shell commands from stdin, each in a container, output as it comes.

    printf 'echo one\\nsleep 1; echo two\\n' | python examples/streams_trio.py -n 4

Workers take commands from a channel; each container's two streams are read by tasks beside it, line by line. A command
that fails is tried again after a pause. Ctrl-C and SIGTERM cancel everything at once: no container is left, since
leaving the ``async with`` of a container removes it.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
from typing import TYPE_CHECKING, Any

import anyio
from anyio.streams.text import TextReceiveStream

from runc_async import PipeIO, Runc, Subreaper, busybox_rootfs, default_spec, temporary_bundle

if TYPE_CHECKING:
    from pathlib import Path

    from anyio import CancelScope
    from anyio.abc import ByteReceiveStream
    from anyio.streams.memory import MemoryObjectReceiveStream

ATTEMPTS = 2
TIMEOUT = 30.0  # seconds
LIMITS: Any = {} if os.geteuid() else {"memory": "64M", "cpus": 1.0, "pids": 64}  # without root they need cgroups


async def show(name: str, stream: ByteReceiveStream) -> None:
    """Print what comes, in whole lines, each with the name of whom it is from."""
    rest = ""
    async for text in TextReceiveStream(stream, errors="replace"):
        *lines, rest = (rest + text).split("\n")
        for line in lines:
            print(f"{name} | {line}", flush=True)
    if rest:
        print(f"{name} | {rest}", flush=True)


async def attempt(runc: Runc, name: str, command: str, rootfs: Path) -> int | None:
    """Run a command to its end; its status, None when its time was over."""
    status = None
    spec = default_spec(["sh", "-c", command], **LIMITS)
    async with (
        temporary_bundle(spec, rootfs=rootfs) as bundle,
        PipeIO(stdin=False) as io,
        runc.container(name, bundle, io=io) as container,
        anyio.create_task_group() as group,
    ):
        group.start_soon(show, f"{name}", io.stdout)
        group.start_soon(show, f"{name} (stderr)", io.stderr)
        with anyio.move_on_after(TIMEOUT) as scope:
            await container.start()
            status = (await container.wait()).status
        if scope.cancelled_caught:
            await container.stop(timeout=1)
    return status


async def work(
    runc: Runc, rootfs: Path, prefix: str, commands: MemoryObjectReceiveStream[tuple[int, str]], failed: list[int]
) -> None:
    """Take commands until there are no more."""
    async with commands:
        async for number, command in commands:
            for again in range(ATTEMPTS):
                await anyio.sleep(again * 0.2)
                status = await attempt(runc, f"{prefix}-{number}", command, rootfs)
                print(f"{prefix}-{number} ended with {status}", flush=True)
                if status == 0:
                    break
            else:
                failed.append(number)


async def stop_on_signal(scope: CancelScope) -> None:
    """Cancel everything when the program is asked to end."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for number in signals:
            print(f"stopped by {number.name}", flush=True)
            scope.cancel()
            return


async def main(options: argparse.Namespace) -> int:
    """Workers around a channel."""
    failed: list[int] = []
    with tempfile.TemporaryDirectory(prefix="streams-") as folder:
        rootfs = await busybox_rootfs(f"{folder}/rootfs")
        async with Subreaper() as monitor, anyio.create_task_group() as everything:
            everything.start_soon(stop_on_signal, everything.cancel_scope)
            runc = Runc(options.runtime, root=f"{folder}/state", monitor=monitor)
            send, receive = anyio.create_memory_object_stream[tuple[int, str]]()
            async with send, anyio.create_task_group() as workers:
                for _ in range(options.number):
                    workers.start_soon(work, runc, rootfs, options.prefix, receive.clone(), failed)
                receive.close()
                number = 0
                while line := await anyio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True):
                    await send.send((number, line.strip()))
                    number += 1
                await send.aclose()
            everything.cancel_scope.cancel()
            return 1 if failed else 0
    return 3


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Run shell commands from stdin in containers.")
    parser.add_argument("-n", "--number", type=int, default=2, help="how many at a time (default: %(default)s)")
    parser.add_argument("--runtime", default="runc", help="path or name (default: %(default)s)")
    parser.add_argument("--prefix", default=f"streams-{os.getpid()}", help="of the containers' ids")
    sys.exit(anyio.run(main, parser.parse_args(), backend="trio"))
