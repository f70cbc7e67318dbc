"""`ContainerPlugin`: what prepares a worker, and what becomes of its containers."""

from __future__ import annotations

import glob
import itertools
import os
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import ExecutorError
from runc_async.contrib.dask import ContainerPlugin, Containers, Result
from runc_async.contrib.dask._job import PLUGIN

from ..._cgroups import needs_controllers
from ..._slowness import within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from distributed import Client, LocalCluster

    from runc_async.contrib.dask import Job

pytestmark = pytest.mark.anyio


async def test_the_runtimes_bytes_are_sealed_on_each_worker(
    client: Client, cluster: LocalCluster, runtime_path: Path, tmp_path: Path, job: Callable[..., Job]
) -> None:
    containers = Containers(client)
    await containers.prepare(ContainerPlugin(runtime_path.read_bytes(), state=tmp_path / "workers"))
    for worker in cluster.workers.values():
        plugin = worker.plugins[PLUGIN]
        assert "memfd" in os.readlink(f"/proc/self/fd/{plugin._runc.executor.fileno()}")
        assert plugin._runtime == b""  # not there twice
    assert (await containers.run(job("exit 6"))).status == 6


@pytest.mark.parametrize("kind", ["path", "bytes"])
async def test_another_digest_than_expected_is_refused(
    client: Client, runtime_path: Path, tmp_path: Path, job: Callable[..., Job], kind: str
) -> None:
    runtime = runtime_path if kind == "path" else runtime_path.read_bytes()
    containers = Containers(client)
    with pytest.raises(ExecutorError, match="not the expected 0000"):
        await containers.prepare(ContainerPlugin(runtime, sha256="0" * 64, state=tmp_path / "workers"))
    with anyio.move_on_after(0.5) as waited:
        await containers.run(job("true"))
    assert waited.cancelled_caught  # a worker that is not prepared gets no jobs


async def test_no_runtime_there(client: Client, tmp_path: Path) -> None:
    with pytest.raises(ExecutorError, match="no-such-runtime"):
        await Containers(client).prepare(ContainerPlugin("no-such-runtime", state=tmp_path / "workers"))


async def test_resources_place_jobs(
    client: Client, runtime_path: Path, tmp_path: Path, job: Callable[..., Job]
) -> None:
    """Each of the two workers has two threads, and half a CPU to give."""
    needs_controllers("cpu")
    containers = Containers(client)
    await containers.prepare(ContainerPlugin(runtime_path, state=tmp_path / "workers", cpus=0.5, memory=1 << 30))
    jobs = [job("sleep 0.2", {"cpus": 0.3}) for _ in range(6)]
    async with containers.results(jobs) as results:
        ran = [result async for _, result in results]
    spans: dict[str, list[Result]] = {}
    for result in ran:
        assert isinstance(result, Result)
        spans.setdefault(result.worker, []).append(result)
    assert len(spans) == 2
    for on_one in spans.values():
        on_one.sort(key=lambda result: result.started)
        assert all(before.ended <= after.started for before, after in itertools.pairwise(on_one))


async def test_a_new_worker_is_prepared(containers: Containers, cluster: LocalCluster, tmp_path: Path) -> None:
    cluster.scale(3)
    await cluster
    with within(10):
        while len(glob.glob(f"{tmp_path}/workers/worker-*")) < 3:
            await anyio.sleep(0.01)


async def test_preparing_again_begins_what_ran_anew(
    containers: Containers, plugin: ContainerPlugin, job: Callable[..., Job], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    script = "echo begun; until [ -e /gate/open ]; do sleep 0.05; done"
    with containers.submit(job(script, {"mounts": [f"{gate}:/gate:ro"]})) as submitted:
        outputs = submitted.output()
        await anext(outputs)
        await containers.prepare(plugin)
        (gate / "open").touch()
        assert (await submitted.result()).attempt == 2
        await outputs.aclose()


async def test_a_worker_that_closes_removes_its_containers(
    containers: Containers, cluster: LocalCluster, job: Callable[..., Job], tmp_path: Path
) -> None:
    with containers.submit(job("sleep 60"), reruns=0):
        with within(10):
            while not glob.glob(f"{tmp_path}/workers/*/containers/*"):
                await anyio.sleep(0.01)
        for worker in list(cluster.workers.values()):
            await worker.close()
        assert list((tmp_path / "workers").iterdir()) == []
