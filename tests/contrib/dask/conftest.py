"""Clusters: one in this process for what is quick, one of processes on machines of their own for the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import dask
import pytest
from distributed import Client, LocalCluster

from runc_async import default_spec
from runc_async.contrib.dask import ContainerPlugin, Containers, Job

from ..._leaks import SESSION
from ..._slowness import within

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Dask runs on asyncio alone."""
    return "asyncio", {}


@pytest.fixture
def no_task_left() -> None:
    """Dask has tasks of its own, which end with the cluster: it looks there."""


@pytest.fixture
async def cluster(scratch: Path, tmp_path: Path) -> AsyncIterator[LocalCluster]:
    """A scheduler and two workers with two threads each, in this process."""

    def running() -> set[int]:
        return {task.id for task in anyio.get_running_tasks() if "_call_in_runner_task" not in repr(task.coro)}

    before = running()
    (tmp_path / "dask").mkdir()
    with dask.config.set({"temporary-directory": str(tmp_path / "dask")}):
        async with LocalCluster(
            n_workers=2, threads_per_worker=2, processes=False, asynchronous=True, dashboard_address="127.0.0.1:0"
        ) as cluster:
            yield cluster
    with within(5):
        while running() - before:
            await anyio.sleep(0.01)


@pytest.fixture
async def client(cluster: LocalCluster) -> AsyncIterator[Client]:
    """A client of that cluster."""
    async with Client(cluster, asynchronous=True) as client:
        yield client


@pytest.fixture
def plugin(runtime_path: Path, tmp_path: Path) -> ContainerPlugin:
    """What prepares a worker here, with states in a directory of the test."""
    return ContainerPlugin(runtime_path, state=tmp_path / "workers")


@pytest.fixture
async def containers(client: Client, plugin: ContainerPlugin) -> Containers:
    """The prepared cluster."""
    containers = Containers(client)
    await containers.prepare(plugin)
    return containers


@pytest.fixture
def job(rootfs: Path) -> Callable[..., Job]:
    """Makes a job of a shell script; keywords are those of `Job`, ``limits`` those of `default_spec`."""

    def make(script: str, limits: dict[str, Any] | None = None, **keywords: Any) -> Job:
        spec = default_spec(["sh", "-c", script], **(limits or {}))
        return Job(spec, rootfs, **{"name": SESSION, **keywords})

    return make
