"""A worker's own directory, and what those that were killed have left."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import Bundle, ContainerNotFoundError, Runc, default_spec
from runc_async._linux.cgroup_paths import container_cgroups
from runc_async.contrib.dask._state import State, clear_dead

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    return folder


@pytest.fixture
def client(runtime_path: Path) -> Callable[[Path], Runc]:
    return lambda root: Runc(runtime_path, root=root)


def killed(base: Path) -> State:
    """The directory of a worker that was killed: nobody has locked it any more."""
    dead = State(base / "worker-dead", -1)
    for folder in (dead.path, dead.containers, dead.bundles):
        folder.mkdir()
    return dead


async def test_containers_of_the_dead_are_removed(
    base: Path, client: Callable[[Path], Runc], rootfs: Path, new_id: Callable[[], str]
) -> None:
    dead = killed(base)
    running, created, paused = new_id(), new_id(), new_id()
    runc = client(dead.containers)
    for id in (running, created, paused):
        await runc.create(id, Bundle.create(dead.bundles / id, default_spec(["sleep", "60"]), rootfs=rootfs))
    for id in (running, paused):
        await runc.start(id)
    await runc.pause(paused)
    (dead.bundles / new_id()).mkdir()  # one that was not made any more
    assert await clear_dead(base, client, timeout=1) == 4
    assert list(base.iterdir()) == []
    with pytest.raises(ContainerNotFoundError):
        await runc.state(running)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes cgroups everywhere: run the suite as root")
async def test_cgroups_of_a_container_without_any_state_are_removed(
    base: Path, client: Callable[[Path], Runc], new_id: Callable[[], str], runtime_name: str
) -> None:
    dead, id = killed(base), new_id()
    (dead.bundles / id).mkdir()
    places = container_cgroups(id, None, runtime_name)[:1]
    assert places
    for place in places:
        os.makedirs(place)
    assert await clear_dead(base, client, timeout=1) == 1
    assert not any(map(os.path.exists, places))


async def test_a_runtime_that_the_dead_had_started_is_waited_for(
    base: Path, client: Callable[[Path], Runc], rootfs: Path, new_id: Callable[[], str]
) -> None:
    dead, id = killed(base), new_id()
    bundle = Bundle.create(dead.bundles / id, default_spec(["sleep", "60"]), rootfs=rootfs)
    async with anyio.create_task_group() as group:
        group.start_soon(client(dead.containers).create, id, bundle)
        await anyio.sleep(0.005)  # it is under way
        assert await clear_dead(base, client, timeout=5) == 1
    assert list(base.iterdir()) == []


async def test_the_living_are_left_alone(base: Path, client: Callable[[Path], Runc]) -> None:
    with State.made(base) as state:
        assert await clear_dead(base, client, timeout=1) == 0
        assert state.path.is_dir()
        assert State.locked(state.path) is None
    assert list(base.iterdir()) == []


def test_one_that_has_containers_is_left_to_the_next(base: Path) -> None:
    with State.made(base) as state:
        (state.containers / "stuck").mkdir()
    assert state.ids() == {"stuck"}
