"""Every runtime process is told of once, whatever ended it; no value of an environment is."""

from __future__ import annotations

import logging
import os
import signal
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import Call, CommandError, ContainerNotFoundError, Runc
from runc_async._process.trace import without_values

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

anyio_only = pytest.mark.anyio
SECRET = "hunter2-hunter2"

span: ContextVar[str] = ContextVar("span", default="none")


@anyio_only
async def test_real_calls_with_their_status_and_the_callers_context(
    runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], container_id: str
) -> None:
    seen: list[tuple[str, Call]] = []
    runc = Runc(runtime_path, root=state_root, trace=lambda call: seen.append((span.get(), call)))
    span.set("mine")
    before = time.time_ns()
    assert await runc.run(container_id, make_bundle("sh", "-c", "exit 7")) == 7
    with pytest.raises(ContainerNotFoundError):
        await runc.state(container_id)
    after = time.time_ns()
    [run, *_, state] = [call for _, call in seen if "--version" not in call.argv]
    assert {context for context, _ in seen} == {"mine"}
    assert (run.argv[0], run.status) == (runtime_path.name, 7)
    assert "run" in run.argv
    assert (state.argv[-2:], state.status) == (("state", container_id), 1)
    assert len({call.pid for _, call in seen}) == len(seen)
    for _, call in seen:
        assert before <= call.started <= after
        assert 0 < call.duration < (after - before) / 1e9


@anyio_only
async def test_a_killed_one_is_told_of_once(fake_runtime: Callable[[str], Path]) -> None:
    seen: list[Call] = []
    runc = Runc(fake_runtime("exec sleep 60"), trace=seen.append)
    with anyio.move_on_after(0.05):
        await runc.list()
    assert [call.status for call in seen] == [-signal.SIGKILL]


@anyio_only
async def test_environments_are_in_neither_log_nor_trace(
    runtime_path: Path,
    state_root: Path,
    make_bundle: Callable[..., Path],
    container_id: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[Call] = []
    monkeypatch.setenv("INHERITED", SECRET)
    runc = Runc(runtime_path, root=state_root, env={"OWN": SECRET}, trace=seen.append)
    with caplog.at_level(logging.DEBUG, "runc_async"), runc.extra_env(EXTRA=SECRET):
        async with runc.container(
            container_id, make_bundle("sleep", "60", env=["PATH=/bin", f"SPEC={SECRET}"])
        ) as container:
            await container.start()
            shown = await container.run(["/bin/sh", "-c", "echo $TOKEN"], env={"TOKEN": SECRET})
            assert shown.stdout.decode().strip() == SECRET
            with pytest.raises(ValueError, match="'--env' must be given as env="):
                await runc.exec(container_id, ["/bin/true"], extra_args=["--env", f"TOKEN={SECRET}"])
            with pytest.raises(CommandError) as failed:
                await runc.exec(container_id, ["/missing"], env={"TOKEN": SECRET})
            assert SECRET not in str(failed.value)
    text = caplog.text
    assert SECRET not in text
    assert SECRET not in repr(seen)
    assert "TOKEN" not in text  # it is in no command line
    lines = [record for record in caplog.records if " exec " in record.getMessage() and record.name == "runc_async"]
    assert all(record.levelno == logging.DEBUG for record in lines)
    assert all("ended with 0 after" in record.getMessage() for record in lines[:1])
    assert f"pid {seen[0].pid} " in caplog.records[0].getMessage()


@anyio_only
async def test_what_a_hook_raises_is_logged_and_the_call_succeeds(
    fake_runtime: Callable[[str], Path], caplog: pytest.LogCaptureFixture
) -> None:
    def hook(call: Call) -> None:
        raise RuntimeError(f"broken {call.status}")

    assert await Runc(fake_runtime("echo '[]'"), trace=hook).list() == []
    assert "broken 0" in caplog.text


def test_a_hook_is_something_to_call() -> None:
    with pytest.raises(TypeError, match="trace must be callable"):
        Runc(os.devnull, trace="print")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argv", "shown"),
    [
        ("exec --env=A=1 --env=B= c true", "exec --env=A=… --env=B=… c true"),
        ("exec --env A=1=2 -e B=2 c", "exec --env A=… -e B=… c"),
        ("exec c sh --environment=1", "exec c sh --environment=1"),
    ],
)
def test_values_of_variables_are_left_out(argv: str, shown: str) -> None:
    assert " ".join(without_values(argv.split())) == shown
