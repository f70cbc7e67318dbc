"""A job runner on asyncio: jobs from a file, each in a container, N at a time.

    python examples/jobs.py jobs.toml --state /var/lib/jobs -n 4

jobs.toml:

    [[job]]
    name = "hello"                          # letters, digits, dashes
    args = ["sh", "-c", "echo hello"]
    memory = "64M"                          # these are the defaults
    cpus = 1.0
    pids = 64
    timeout = 60.0                          # seconds, of each attempt
    retries = 0                             # further attempts after a failure, with a back-off that doubles
    env = {}

Output goes to STATE/logs/NAME.log; what is done is remembered in STATE/done.json, and not done again. SIGTERM or
Ctrl-C stops gracefully: nothing new is started, what runs is asked to end, then killed, and no container is left.
Where the runner itself is killed its containers run on, and the next one with the same STATE takes them over.

Exit status: 0 all jobs have succeeded, 1 some have not, 3 it was stopped.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from runc_async import Bundle, FileIO, Runc, RuncError, SealedExecutor, Subreaper, busybox_rootfs, default_spec

if TYPE_CHECKING:
    from runc_async import Container, Exit


AT_WORK = ("runs", "taken over", "is asked to end")
STYLES = {"succeeded": "green", "succeeded earlier": "green"}


@dataclass
class Job:
    """One job, and how it goes."""

    name: str
    args: list[str]
    memory: str = "64M"
    cpus: float = 1.0
    pids: int = 64
    timeout: float = 60.0
    retries: int = 0
    env: dict[str, str] = field(default_factory=dict)
    state: str = "waits"
    done: bool = False
    attempts: int = 0
    began: float = 0.0


class Runner:
    """Runs jobs until all are done, or it is stopped."""

    def __init__(self, jobs: list[Job], runc: Runc, options: argparse.Namespace) -> None:
        self.jobs = jobs
        self.runc = runc
        self.folder: Path = options.state
        self.prefix: str = options.prefix or f"jobs-{hashlib.sha256(bytes(self.folder)).hexdigest()[:8]}"
        self.rootfs = self.folder / "rootfs"
        self.grace: float = options.grace
        self.backoff: float = options.backoff
        self.slots = asyncio.Semaphore(options.number)
        self.stopping = asyncio.Event()
        self.done: dict[str, str] = {}
        self.left: set[str] = set()
        self.display = Display(jobs)

    async def run(self) -> int:
        """Run everything; the exit status."""
        if not self.rootfs.exists():
            await busybox_rootfs(self.rootfs)
        with contextlib.suppress(FileNotFoundError):
            self.done = json.loads((self.folder / "done.json").read_text())
        self.left = {state.id for state in await self.runc.list()}
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, self.stopping.set)
        with self.display:
            async with asyncio.TaskGroup() as group:
                ticking = group.create_task(self.display.tick())
                async with asyncio.TaskGroup() as work:
                    for job in self.jobs:
                        work.create_task(self.supervise(job))
                ticking.cancel()
        if all(self.done.get(job.name) == "succeeded" for job in self.jobs):
            return 0
        return 3 if self.stopping.is_set() else 1

    async def supervise(self, job: Job) -> None:
        """Run a job until it succeeds or its attempts are used up."""
        if job.name in self.done:
            job.done = True
            self.display.say(job, f"{self.done[job.name]} earlier")
            return
        pause = self.backoff
        while True:
            async with self.slots:
                if self.stopping.is_set():
                    self.display.say(job, "not run")
                    return
                job.attempts += 1
                outcome = await self.attempt(job)
            if outcome == "stopped":
                self.display.say(job, "stopped")
                return
            if outcome == "succeeded" or job.attempts > job.retries:
                self.remember(job, outcome)
                return
            self.display.say(job, f"{outcome}; again in {pause:g} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), pause)
            pause *= 2

    async def attempt(self, job: Job) -> str:
        """One container, from its creation or from where an earlier runner left it, to its end; what came of it."""
        id = f"{self.prefix}-{job.name}"
        job.began = time.monotonic()
        try:
            if id in self.left:
                self.left.discard(id)
                async with self.runc.attach(id, delete=True) as container:
                    status = (await container.state()).status
                    if status == "created":
                        await container.start()
                    if status != "stopped":  # else nobody knows how it ended: it is run again
                        self.display.say(job, "taken over")
                        return await self.watch(job, container)
            async with self.runc.container(id, self.bundle(job), io=self.log(job)) as container:
                await container.start()
                self.display.say(job, "runs")
                return await self.watch(job, container)
        except (RuncError, OSError, TypeError, ValueError) as error:
            return f"could not be run: {error}"

    async def watch(self, job: Job, container: Container) -> str:
        """Wait for its end, for its time to be over, or for the runner to be stopped."""
        ended = asyncio.create_task(container.wait())
        stopping = asyncio.create_task(self.stopping.wait())
        try:
            await asyncio.wait({ended, stopping}, timeout=job.timeout, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                return self.outcome(ended.result())
            reason = "stopped" if self.stopping.is_set() else f"timed out after {job.timeout:g} s"
            self.display.say(job, "is asked to end")
            await container.stop(timeout=self.grace)
            return reason
        finally:
            for task in (ended, stopping):
                task.cancel()
            await asyncio.gather(ended, stopping, return_exceptions=True)

    def outcome(self, exit: Exit) -> str:
        """In words."""
        if exit.status is None:  # of one that was taken over, on a kernel older than 6.15
            return "ended, nobody knows how"
        return "succeeded" if exit.status == 0 else f"failed with {exit.status}"

    def bundle(self, job: Job) -> Bundle:
        """It outlives this process, as the container may."""
        folder = self.folder / "bundles" / job.name
        shutil.rmtree(folder, ignore_errors=True)
        spec = default_spec(job.args, memory=job.memory, cpus=job.cpus, pids=job.pids, env=job.env, hostname=job.name)
        return Bundle.create(folder, spec, rootfs=self.rootfs)

    def log(self, job: Job) -> FileIO:
        """A file, which the container keeps when this process has gone."""
        path = self.folder / "logs" / f"{job.name}.log"
        path.parent.mkdir(exist_ok=True)
        return FileIO(stdout=path, stderr=path, append=True)

    def remember(self, job: Job, outcome: str) -> None:
        """Write down what is done, atomically."""
        self.done[job.name] = outcome
        job.done = True
        fresh = self.folder / "done.json.new"
        fresh.write_text(json.dumps(self.done, indent=2))
        fresh.replace(self.folder / "done.json")
        self.display.say(job, outcome)


class Display:
    """A live table on a terminal; elsewhere a line for every change."""

    def __init__(self, jobs: list[Job]) -> None:
        self.jobs = jobs
        self.console = Console()
        self.live = Live(console=self.console, auto_refresh=False) if self.console.is_terminal else None

    def __enter__(self) -> None:
        if self.live:
            self.live.start()

    def __exit__(self, *exc_info: object) -> None:
        if self.live:
            self.draw(self.live)
            self.live.stop()

    def say(self, job: Job, state: str) -> None:
        """A job has got on."""
        job.state = state
        if self.live:
            self.draw(self.live)
        else:
            print(f"{job.name}: {state}", flush=True)

    async def tick(self) -> None:
        """Let the times go on."""
        while True:
            if self.live:
                self.draw(self.live)
            await asyncio.sleep(0.5)

    def draw(self, live: Live) -> None:
        """The table."""
        at_work = sum(job.state in AT_WORK for job in self.jobs)
        done = sum(job.done for job in self.jobs)
        table = Table(
            "job", "state", "attempt", "seconds", caption=f"{done} of {len(self.jobs)} done, {at_work} at work"
        )
        for job in self.jobs:
            seconds = f"{time.monotonic() - job.began:.0f}" if job.state in AT_WORK else ""
            style = "cyan" if job.state in AT_WORK else STYLES.get(job.state, "red") if job.done else "dim"
            table.add_row(job.name, Text(job.state, style), f"{job.attempts} of {job.retries + 1}", seconds)
        live.update(table, refresh=True)


def read(path: Path) -> list[Job]:
    """The jobs of a file; the program ends with a word on what is wrong with it."""
    try:
        with open(path, "rb") as file:
            jobs = [Job(**entry) for entry in tomllib.load(file)["job"]]
    except (OSError, tomllib.TOMLDecodeError, TypeError, KeyError) as exc:
        sys.exit(f"jobs: {path}: {exc}")
    names = [job.name for job in jobs]
    if len(set(names)) != len(names) or not all(name.replace("-", "").isalnum() for name in names):
        sys.exit(f"jobs: {path}: names must be different, and of letters, digits and dashes")
    return jobs


async def run(options: argparse.Namespace) -> int:
    """The whole program."""
    options.state = options.state.absolute()
    options.state.mkdir(parents=True, exist_ok=True)
    with SealedExecutor.open(options.runtime) as executor:  # an upgrade meanwhile changes nothing
        async with Subreaper() as monitor:
            runc = Runc(executor, root=options.state / "containers", monitor=monitor)
            return await Runner(read(options.jobs), runc, options).run()


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description="Run jobs in containers.")
    parser.add_argument("jobs", type=Path, help="a TOML file")
    parser.add_argument("--state", type=Path, required=True, help="directory of containers, logs and what is done")
    parser.add_argument("-n", "--number", type=int, default=os.cpu_count(), help="how many at a time")
    parser.add_argument("--runtime", default="runc", help="path or name (default: %(default)s)")
    parser.add_argument("--grace", type=float, default=5.0, help="seconds to end in when asked (default: %(default)s)")
    parser.add_argument("--backoff", type=float, default=1.0, help="seconds before the second attempt")
    parser.add_argument("--prefix", help="of the containers' ids (default: from the state directory)")
    return asyncio.run(run(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
