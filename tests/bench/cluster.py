"""What Dask costs: the same jobs by a plain loop in one process, and on clusters of 1, 2 and 4 workers.

    python -m tests.bench.cluster                      as `make bench-dask` does: the page docs/measured-dask.md
    python -m tests.bench.cluster --most 100 --print   a look, in a minute

Always eight containers at once, of a program that ends at once. CPU time is that of all processes on both sides, the
runtime's and the containers' among them; other work on the machine does not disturb it as it does the rate.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import platform
import shutil
import subprocess
import tempfile
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import dask
import distributed
import psutil
from distributed import Client, LocalCluster

from runc_async import PipeIO, Runc, SealedExecutor, Subreaper, busybox_rootfs, default_spec, temporary_bundle
from runc_async._usage import UsageReader
from runc_async.contrib.dask import ContainerPlugin, Containers, Job, Result

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AT_ONCE = 8
IDLE_FOR = 5.0
RUNTIME = shutil.which("runc") or "runc"
PAGE = Path(__file__).parents[2] / "docs/measured-dask.md"
SPEC = default_spec(["true"], memory="32M")
HEAD = """# Containers over Dask: what was measured

After this page you know what it costs to run containers as Dask jobs instead of in a plain loop. `make bench-dask`
(`tests/bench/cluster.py`) wrote it on {when}: {cpus} CPUs, Linux {kernel}, Python {python}, {runc}, distributed
{distributed}. The load of the machine was {load:.0f} before it began; a load above 1 lowers the rates, but hardly
changes the CPU times.

Each job is a whole container (`true`, 32 MB), and eight run at a time in total. The plain loop is a task group in
one process that does what a worker does. Scheduler, client and workers share the machine, so more workers are
faster only until its CPUs are busy. CPU time is that of all processes, including the runtime's and the containers'.

| what | jobs | jobs per second | CPU per job, ms | more than the plain loop, ms |
| --- | --- | --- | --- | --- |
"""
IDLE = """
The last column includes what an idle cluster uses for heartbeats and statistics, in milliseconds of CPU per second:
{idle}. The more slowly jobs come, the more of that falls on each.
"""


def cpu() -> float:
    """Seconds of CPU time that this process has used, and all that it has started."""
    used = 0.0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            used += sum(process.cpu_times()[:4])
        except psutil.NoSuchProcess:  # its parent counts it
            continue
    return used


async def plain(count: int, rootfs: Path) -> tuple[float, float]:
    """The loop; seconds, and seconds of CPU."""
    room = anyio.Semaphore(AT_ONCE)

    async def one(runc: Runc) -> None:
        async with (
            room,
            temporary_bundle(SPEC, rootfs=rootfs) as bundle,
            PipeIO(stdin=False) as io,
            runc.container(f"plain-{uuid.uuid4().hex}", bundle, io=io) as container,
        ):
            usage = UsageReader.open(container.pid)
            await container.start()
            assert (await container.wait()).status == 0
            usage.read()
            usage.close()
            for stream in (io.stdout, io.stderr):
                with contextlib.suppress(anyio.EndOfStream):
                    await stream.receive()

    with contextlib.ExitStack() as stack:
        root = stack.enter_context(tempfile.TemporaryDirectory())
        executor = stack.enter_context(SealedExecutor.open(RUNTIME))
        async with Subreaper() as monitor, anyio.create_task_group() as group:
            runc = Runc(executor, root=root, monitor=monitor)
            began, before = time.perf_counter(), cpu()
            for _ in range(count):
                group.start_soon(one, runc)
        return time.perf_counter() - began, cpu() - before


async def clustered(
    workers: int, counts: list[int], rootfs: Path, state: str
) -> AsyncIterator[tuple[int, float, float, float]]:
    """The same on a cluster; how many, seconds, seconds of CPU, and those of an idle cluster in a second."""
    async with (
        LocalCluster(
            n_workers=workers,
            threads_per_worker=AT_ONCE // workers,
            processes=True,
            asynchronous=True,
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        Client(cluster, asynchronous=True) as client,
    ):
        containers = Containers(client)
        await containers.prepare(ContainerPlugin(Path(RUNTIME).read_bytes(), state=state, memory=1 << 40))
        before = cpu()
        await anyio.sleep(IDLE_FOR)
        idle = (cpu() - before) / IDLE_FOR
        for count in counts:
            began, before = time.perf_counter(), cpu()
            ended = 0
            async with containers.results(Job(SPEC, rootfs) for _ in range(count)) as results:
                async for _, result in results:
                    assert isinstance(result, Result), result
                    assert result.status == 0
                    ended += 1
            assert ended == count
            taken = time.perf_counter() - began
            yield count, taken, cpu() - before, idle


async def main(most: int, few: int, on_page: bool) -> None:
    """Measure all, and write it."""
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as folder, dask.config.set({"temporary-directory": folder}):
        rootfs = await busybox_rootfs(f"{folder}/rootfs")
        rows = []
        taken, used = await plain(few, rootfs)
        base = used / few
        rows.append(("plain loop", few, taken, used, 0.0))
        print(rows[-1], flush=True)
        for workers in (1, 2, 4):
            counts = [few] if workers < 4 else sorted({min(count, most) for count in (100, few, 1000, most)})
            async for count, taken, used, idle in clustered(workers, counts, rootfs, f"{folder}/state"):
                rows.append((f"{workers} worker{'s' * (workers > 1)}", count, taken, used, idle))
                print(rows[-1], flush=True)
    said = subprocess.run([RUNTIME, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    text = HEAD.format(
        when=time.strftime("%-d %B %Y"),
        cpus=os.cpu_count(),
        kernel=".".join(platform.release().split(".")[:2]),
        python=platform.python_version(),
        runc=said.replace(" version", ""),
        distributed=distributed.__version__,
        load=load,
    )
    for name, count, taken, used, _ in rows:
        more = "" if name == "plain loop" else f"{(used / count - base) * 1000:.1f}"
        text += f"| {name} | {count} | {count / taken:.1f} | {used / count * 1000:.1f} | {more} |\n"
    idles = {name: f"{idle * 1000:.0f} with {name}" for name, _, _, _, idle in rows if idle}
    text += IDLE.format(idle=", ".join(idles.values()))
    print(text)
    if on_page:
        PAGE.write_text(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--most", type=int, default=5000, help="jobs of the longest run (default: %(default)s)")
    parser.add_argument("--few", type=int, default=300, help="jobs of the others (default: %(default)s)")
    parser.add_argument("--print", action="store_true", help="leave the page alone")
    options = parser.parse_args()
    anyio.run(main, options.most, min(options.few, options.most), not options.print)
