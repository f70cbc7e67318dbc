"""`JobsPlugin`: one result for each job, and no more attempts than it may have."""

from __future__ import annotations

import glob
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async.contrib.dask import Containers, JobLostError
from runc_async.contrib.dask._job import PLUGIN

from ..._slowness import within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from distributed import Client, LocalCluster

    from runc_async.contrib.dask import Job, Submitted

pytestmark = pytest.mark.anyio


async def place(cluster: LocalCluster, submitted: Submitted, but: str = "") -> Any:
    """Wait until a job has begun on some other worker, and give that worker."""
    entries = cluster.scheduler.plugins[PLUGIN]._entries
    with within(10):
        while submitted.key not in entries or entries[submitted.key].worker in ("", but):
            await anyio.sleep(0.01)
    return next(w for w in cluster.workers.values() if w.address == entries[submitted.key].worker)


async def test_a_lost_workers_job_runs_again_elsewhere(
    containers: Containers, cluster: LocalCluster, job: Callable[..., Job], tmp_path: Path
) -> None:
    with containers.submit(job("echo first; until [ -e /tmp/never ]; do sleep 1; done")) as submitted:
        outputs = submitted.output()
        assert (await anext(outputs)).attempt == 1
        first = await place(cluster, submitted)
        await cluster.scheduler.remove_worker(first.address, stimulus_id="test", close=False)
        again = await anext(outputs)
        assert (again.attempt, again.data) == (2, b"first\n")
        assert (await place(cluster, submitted, but=first.address)).address != first.address
        await outputs.aclose()
        await first.finished()  # the scheduler knows it no more: it closes, and its container is gone
    with within(10):
        while glob.glob(f"{tmp_path}/workers/*/containers/*"):
            await anyio.sleep(0.01)


async def test_no_more_often_than_it_may(
    containers: Containers, cluster: LocalCluster, job: Callable[..., Job]
) -> None:
    with containers.submit(job("sleep 60"), reruns=1) as submitted:
        first = await place(cluster, submitted)
        await cluster.scheduler.remove_worker(first.address, stimulus_id="test")
        second = await place(cluster, submitted, but=first.address)
        cluster.scale(3)
        await cluster.scheduler.remove_worker(second.address, stimulus_id="test")
        with pytest.raises(JobLostError, match="2 of them"), within(20):
            await submitted.result()


async def test_a_worker_that_was_taken_for_lost_is_turned_away(
    containers: Containers, cluster: LocalCluster, job: Callable[..., Job], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    script = "until [ -e /gate/open ]; do sleep 0.05; done; echo done"
    plugin = cluster.scheduler.plugins[PLUGIN]
    with containers.submit(job(script, {"mounts": [f"{gate}:/gate:ro"]})) as submitted:
        first = await place(cluster, submitted)
        await cluster.scheduler.remove_worker(first.address, stimulus_id="test", close=False)
        await place(cluster, submitted, but=first.address)
        assert plugin.begin(submitted.key, first.address) == "elsewhere"
        assert plugin.end(submitted.key, 1, b"stale") is False
        (gate / "open").touch()
        result = await submitted.result()
        assert (result.attempt, result.stdout) == (2, b"done\n")
        assert plugin.end(submitted.key, 2, b"twice") is False


async def test_a_result_is_not_lost_with_its_worker(
    containers: Containers, cluster: LocalCluster, job: Callable[..., Job], tmp_path: Path
) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    script = "echo >> /runs/count; echo once"
    with containers.submit(job(script, {"mounts": [f"{runs}:/runs"]})) as submitted:
        await submitted._future._state.wait()
        first = await place(cluster, submitted)
        await cluster.scheduler.remove_worker(first.address, stimulus_id="test")
        assert (await submitted.result()).stdout == b"once\n"
        await anyio.sleep(0.5)  # Dask computes a lost task again
        assert (runs / "count").read_text() == "\n"


async def test_a_result_is_there_also_when_its_task_is_lost_at_that_moment(
    containers: Containers, cluster: LocalCluster, job: Callable[..., Job]
) -> None:
    with containers.submit(job("echo once")) as submitted:
        state = submitted._future._state
        await state.wait()
        state.status = "lost"  # as when the news of its worker come before the waiter goes on
        assert (await submitted.result()).stdout == b"once\n"


async def test_jobs_wait_for_a_worker_that_can_run_them(
    client: Client, containers: Containers, cluster: LocalCluster, job: Callable[..., Job]
) -> None:
    for worker in list(cluster.workers.values()):
        await cluster.scheduler.remove_worker(worker.address, stimulus_id="test")
    with containers.submit(job("exit 3")) as submitted:
        await anyio.sleep(0.1)
        cluster.scale(3)
        with within(20):
            assert (await submitted.result()).status == 3


async def test_nothing_is_kept_of_a_job_that_is_over(
    containers: Containers, cluster: LocalCluster, job: Callable[..., Job]
) -> None:
    plugin = cluster.scheduler.plugins[PLUGIN]
    async with containers.results([job("true") for _ in range(5)] + [job("sleep 60", timeout=0.2)]) as results:
        assert len([result async for result in results]) == 6
    with within(5):
        while plugin._entries or plugin._changes:
            await anyio.sleep(0.01)
