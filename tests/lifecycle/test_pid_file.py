"""The private pid file of a call, and the caller's copy of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import Runc
from runc_async._lifecycle import pid_file as pid_file_module
from runc_async._lifecycle.pid_file import PidFile

from .._slowness import within

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.anyio


async def test_the_callers_pid_file_is_there_while_the_container_runs(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, tmp_path: Path
) -> None:
    file = tmp_path / "pid"
    file.write_text("an old one")
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: runc.run(container_id, make_bundle("sleep", "60"), pid_file=file))
        with within(20):
            while not file.read_text().isdigit():
                await anyio.sleep(0.005)
        assert int(file.read_text()) == (await runc.state(container_id)).pid
        assert file.stat().st_mode & 0o777 == 0o644
        group.cancel_scope.cancel()
    assert [path.name for path in tmp_path.iterdir() if "pid" in path.name] == ["pid"]


@pytest.mark.parametrize("detach", [True, False])
async def test_the_callers_pid_file_is_written_at_the_latest_when_the_call_returns(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, tmp_path: Path, detach: bool
) -> None:
    await runc.run(container_id, make_bundle("sleep", "0.05"), pid_file=tmp_path / "pid", detach=detach)
    assert int((tmp_path / "pid").read_text()) > 1
    await runc.delete(container_id, force=True)


async def test_a_pid_file_that_cannot_be_written_is_named_before_anything_is_started(
    fake_runtime: Callable[[str], Path], make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    runc = Runc(fake_runtime(f"touch {tmp_path}/started"))
    with pytest.raises(OSError, match=r"the pid file cannot be written: No such file.*missing/pid"):
        await runc.create("x", make_bundle("true"), pid_file=tmp_path / "missing/pid")
    assert not (tmp_path / "started").exists()


async def test_a_failed_call_leaves_the_callers_pid_file_as_it_was(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, tmp_path: Path
) -> None:
    (tmp_path / "pid").write_text("before")
    with pytest.raises(Exception, match="nosuch"):
        await runc.run(container_id, make_bundle("/nosuch"), pid_file=tmp_path / "pid")
    assert (tmp_path / "pid").read_text() == "before"
    assert len([path for path in tmp_path.iterdir() if "pid" in path.name]) == 1


@pytest.mark.parametrize("exhausted", [False, True])
async def test_a_process_is_found_when_it_has_started_also_without_inotify(
    runc: Runc,
    make_bundle: Callable[..., Path],
    container_id: str,
    monkeypatch: pytest.MonkeyPatch,
    exhausted: bool,
) -> None:
    if exhausted:

        class Exhausted:
            def __init__(self, _: str) -> None:
                raise OSError(24, "no inotify instance is free")

        monkeypatch.setattr(pid_file_module, "DirectoryWatch", Exhausted)
    async with runc.container(container_id, make_bundle("sleep", "60")) as container:
        await container.start()
        async with container.exec(["sleep", "60"]) as process:
            assert process.pid in await runc.ps(container_id)


def test_half_a_number_is_not_read(tmp_path: Path) -> None:
    file = PidFile(str(tmp_path), None)
    assert file.read() is None
    (tmp_path / "pid").write_text("")
    assert file.read() is None
    (tmp_path / "pid").write_text("12")
    assert file.read() == 12
    os.unlink(tmp_path / "pid")
    assert file.read() == 12
