"""A cluster as it is used: several machines, one of which has no runtime; killed, cut off, healed."""

from __future__ import annotations

import os
from collections import Counter
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
import pytest
from distributed import Client

from runc_async.contrib.dask import ContainerPlugin, Containers, Job, Result

from ..._leaks import SESSION, session_cgroups
from ..._slowness import within
from ._machines import machines, require_ip

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from ._machines import Machine

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(600)]

BOX = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
"""A worker that leads a pid namespace takes all that it started with it, also when it is killed."""
JOBS = int(os.environ.get("RUNC_ASYNC_DASK_JOBS", "150"))


@pytest.fixture
def hosts(tmp_path: Path, runtime_path: Path) -> AsyncIterator[list[Machine]]:
    """Four machines; the last one's root has no runtime."""
    if os.geteuid() != 0:
        pytest.fail("namespaces and bridges need root")
    require_ip()
    with machines(4, tmp_path, runtime_path.resolve()) as made:
        yield made


@asynccontextmanager
async def connected(hosts: list[Machine]) -> AsyncIterator[Client]:
    async with Client(hosts[0].scheduler, asynchronous=True) as client:
        await client.wait_for_workers(len(hosts), timeout=60)
        yield client


def processes(id: str) -> list[str]:
    """What lives of a container."""
    found = []
    for folder in session_cgroups():
        if os.path.basename(folder) == id:
            with suppress(FileNotFoundError):
                found += Path(folder, "cgroup.procs").read_text().split()
    return found


async def there(hosts: list[Machine], *, long: str) -> None:
    """Wait until each of these machines runs one of the long jobs."""
    with within(60):
        while not all(any(long in id for id in host.containers()) for host in hosts):
            await anyio.sleep(0.02)


async def test_every_job_has_one_result_whatever_becomes_of_the_machines(
    hosts: list[Machine], runtime_path: Path, rootfs: Path, job: Callable[..., Job]
) -> None:
    killed, cut, boxed, bare = hosts
    for host in hosts:
        host.start(*(BOX if host is boxed else ()))
    async with connected(hosts) as client:
        containers = Containers(client)
        # Each machine has the states of its containers for itself.
        await containers.prepare(ContainerPlugin(runtime_path.read_bytes(), state="state"))

        long = f"{SESSION}-long"
        jobs = [job("sleep 7; echo long", name=long) for _ in range(8)]
        jobs += [job(f"echo {number}; exit {number % 7}") for number in range(JOBS)]

        async def disturb() -> None:
            await there([killed, cut, boxed], long=long)
            cut.cut()
            killed.kill()
            left = killed.containers()
            assert any(long in id for id in left)  # nobody was there to remove them
            assert any(processes(id) for id in left)
            boxed.kill()
            with within(10):
                while any(processes(id) for id in boxed.containers()):
                    await anyio.sleep(0.02)
            boxed.start(*BOX)
            killed.start()
            with within(60):
                while "containers of workers that were killed" not in killed.log:  # it says so when it has removed them
                    await anyio.sleep(0.05)
            assert not set(left) & set(killed.containers())
            with within(60):  # the scheduler gives up the other one, which goes on without it
                while any(cut.address in worker for worker in (await client.scheduler.identity())["workers"]):
                    await anyio.sleep(0.1)
            cut.heal()
            await anyio.to_thread.run_sync(cut.wait)
            assert cut.containers() == []
            cut.start()

        async with anyio.create_task_group() as group:
            group.start_soon(disturb)
            async with containers.results(jobs, reruns=5) as stream:
                results = [done async for done in stream]

        assert Counter(id(done) for done, _ in results) == {id(one): 1 for one in jobs}
        for done, result in results:
            assert isinstance(result, Result), result
            script = done.spec["process"]["args"][2]
            if done.name == long:
                assert (result.status, result.stdout) == (0, b"long\n")
            else:
                assert script == f"echo {int(result.stdout)}; exit {result.status}"
        ran = [result for _, result in results if isinstance(result, Result)]
        assert 2 <= max(result.attempt for result in ran) <= 6
        assert any(bare.address in result.worker for result in ran)
        assert not [host.containers() for host in hosts if host.containers()]
        assert not session_cgroups()
    for host in hosts:
        host.close()
        assert list(host.state.iterdir()) == []
