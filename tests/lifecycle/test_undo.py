"""Taking down what a call started, and containers."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import ContainerNotFoundError, Runc
from runc_async._lifecycle import undo
from runc_async._lifecycle.remnants import identify

from .._leaks import CGROUPS

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


def in_cgroups(name: str) -> list[Path]:
    """The cgroups of this name, in every hierarchy."""
    return [Path(folder) for folder, _, _ in os.walk(CGROUPS) if os.path.basename(folder) == name]


@pytest.mark.parametrize("state", ["created", "running", "paused", "stopped"])
async def test_a_container_is_removed_in_every_state(
    runc: Runc, make_bundle: Callable[..., Path], state_root: Path, container_id: str, state: str
) -> None:
    async with runc.container(container_id, make_bundle("sleep", "60")) as container:
        if state in ("running", "paused", "stopped"):
            await container.start()
        if state == "paused":
            await container.pause()
        if state == "stopped":
            await container.kill("KILL")
            await container.wait()
    assert await runc.list() == []
    assert not (state_root / container_id).exists()
    assert in_cgroups(container_id) == []


async def test_a_container_that_was_deleted_meanwhile_and_its_id_taken_is_left_to_the_new_one(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    bundle = make_bundle("sleep", "60")
    async with runc.container(container_id, bundle) as first:
        await first.start()
        await runc.delete(container_id, force=True)
        await runc.create(container_id, bundle)
        with pytest.raises(ContainerNotFoundError, match="was deleted"):
            await first.kill("KILL")
    assert (await runc.state(container_id)).status == "created"
    await runc.delete(container_id, force=True)


@pytest.mark.parametrize("content", ["", '{"id": "x", "init_process_pid'])
async def test_state_that_the_runtime_cannot_read_is_removed(
    runc: Runc, make_bundle: Callable[..., Path], state_root: Path, container_id: str, content: str
) -> None:
    async with runc.container(container_id, make_bundle("sleep", "60")) as container:
        await container.start()
        for name in ("state.json", "status"):
            if (file := state_root / container_id / name).exists():
                file.write_text(content)
    assert not (state_root / container_id).exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount: run the suite as root")
@pytest.mark.parametrize("by_the_context", [True, False])
async def test_state_in_which_a_killed_exec_has_left_a_mount_is_removed(
    runc: Runc,
    make_bundle: Callable[..., Path],
    state_root: Path,
    container_id: str,
    runtime_path: Path,
    *,
    by_the_context: bool,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        bundle = make_bundle("sleep", "60")
        if by_the_context:
            await stack.enter_async_context(runc.container(container_id, bundle))
        else:
            await runc.create(container_id, bundle)
        point = state_root / container_id / "runc.a1B2c3"  # as runc init of runc 1.1 names it
        point.touch()
        subprocess.run(["mount", "--bind", runtime_path, point], check=True)
        if not by_the_context:
            await runc.delete(container_id, force=True)
    assert not (state_root / container_id).exists()
    assert runtime_path.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount: run the suite as root")
async def test_a_root_file_system_that_a_killed_restore_has_mounted_is_not_emptied(
    runc: Runc, make_bundle: Callable[..., Path], state_root: Path, container_id: str, tmp_path: Path
) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").write_text("kept")
    await runc.create(container_id, make_bundle("sleep", "60"))
    place = state_root / container_id / "criu-root"
    place.mkdir()
    subprocess.run(["mount", "--bind", tmp_path / "precious", place], check=True)
    await runc.delete(container_id, force=True)
    assert not (state_root / container_id).exists()
    assert (tmp_path / "precious/file").read_text() == "kept"


async def test_delete_force_removes_half_written_state(runc: Runc, state_root: Path, container_id: str) -> None:
    (state_root / container_id).mkdir()
    (state_root / container_id / "state.json").write_text("")
    await runc.delete(container_id, force=True)
    assert not (state_root / container_id).exists()


async def test_what_took_the_place_of_a_state_directory_is_not_it(tmp_path: Path) -> None:
    folder = tmp_path / "one"
    folder.mkdir()
    found = identify(str(folder))
    assert found is not None
    assert found.is_there()
    folder.rmdir()
    folder.mkdir()  # with the same inode number, on many file systems
    assert not found.is_there()


async def test_a_clean_up_that_fails_is_logged_and_the_cancellation_goes_on(
    fake_runtime: Callable[[str], Path],
    make_bundle: Callable[..., Path],
    container_id: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fail(*_: object) -> None:
        raise OSError("cannot look")

    monkeypatch.setattr(undo, "clear", fail)
    runc = Runc(fake_runtime("exec sleep 60"), cleanup_timeout=0.2, dialect="runc")
    with caplog.at_level(logging.ERROR, logger="runc_async"), anyio.move_on_after(0.05) as scope:
        await runc.create(container_id, make_bundle("true"))
    assert scope.cancelled_caught
    assert f"create {container_id} was cancelled, and could not be cleaned up" in caplog.text
    assert "cannot look" in caplog.text


async def test_removing_does_not_poll(
    runc: Runc,
    make_bundle: Callable[..., Path],
    state_root: Path,
    new_id: Callable[[], str],
    record_property: Any,
    runtime_name: str,
) -> None:
    """``delete --force`` looks every 100 ms whether a container has ended. Printed, for a quiet day."""
    if runtime_name != "runc":
        pytest.skip("crun's delete --force does not poll: run with runc")
    bundle = make_bundle("sleep", "60")

    async def seconds(call: Callable[[str], Any]) -> float:
        id = new_id()
        await runc.run(id, bundle, detach=True)
        begun = time.monotonic()
        await call(id)
        return time.monotonic() - begun

    async def remove(id: str) -> None:
        async with runc.attach(id, delete=True):
            pass

    ours = sorted([await seconds(remove) for _ in range(3)])[1]
    forced = sorted([await seconds(lambda id: runc.delete(id, force=True)) for _ in range(3)])[1]
    record_property("teardown_ms", {"attach, delete": ours * 1000, "delete --force": forced * 1000})
    print(f"median teardown: {ours * 1000:.1f} ms; delete --force: {forced * 1000:.1f} ms")
    assert ours < 2 * forced
