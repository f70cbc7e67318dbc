"""`Runc`: the commands of a container's life, by every executor, on every event loop."""

from __future__ import annotations

import math
import os
import shutil
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import (
    CommandError,
    DecodeError,
    Executable,
    Executor,
    ExecutorError,
    FdExecutor,
    PathExecutor,
    PipeIO,
    Runc,
    SealedExecutor,
)

from ._streams import read_all

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("hold", [FdExecutor.open, SealedExecutor.open])
async def test_every_command_runs_the_original_after_its_path_was_removed_and_replaced(
    hold: Callable[[Path], FdExecutor],
    runtime_path: Path,
    runtime_name: str,
    tmp_path: Path,
    state_root: Path,
    make_bundle: Callable[..., Path],
    container_id: str,
) -> None:
    copy = Path(shutil.copy(runtime_path, tmp_path / "runc"))
    with hold(copy) as executor:
        runc = Runc(executor, root=state_root)
        copy.unlink()
        assert (await runc.version()).runtime == runtime_name
        copy.write_text("#!/bin/sh\necho replaced >&2\nexit 1\n")
        copy.chmod(0o755)
        bundle = make_bundle("sleep", "1000")
        await runc.create(container_id, bundle)
        assert [state.id for state in await runc.list()] == [container_id]
        assert (await runc.state(container_id)).status == "created"
        await runc.start(container_id)
        assert (await runc.state(container_id)).status == "running"
        assert await runc.exec(container_id, ["sh", "-c", "exit 5"]) == 5
        await runc.kill(container_id, "KILL")
        await runc.delete(container_id, force=True)
        assert await runc.list() == []
        assert await runc.run(container_id, make_bundle("sh", "-c", "exit 7")) == 7


@pytest.mark.parametrize(
    "make_executor", [PathExecutor, FdExecutor.open, SealedExecutor.open], ids=["path", "fd", "sealed"]
)
@pytest.mark.parametrize("preserve", [0, 2])
async def test_argv0_is_the_runtimes_own_name(
    make_executor: Callable[[Path], Executor],
    preserve: int,
    runtime_path: Path,
    state_root: Path,
    make_bundle: Callable[..., Path],
    container_id: str,
) -> None:
    with make_executor(runtime_path) as executor:
        runc = Runc(executor, root=state_root)
        async with PipeIO() as io, anyio.create_task_group() as group:
            pid = await group.start(
                partial(runc.run, container_id, make_bundle("cat"), io=io, preserve_fds=[0] * preserve)
            )
            await io.stdin.send(b"up?")
            assert await io.stdout.receive() == b"up?"
            argv0 = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()
            await io.stdin.aclose()
    assert argv0 == runtime_path.name


async def test_run_gives_the_containers_status_and_raises_the_runtimes_own_failure(
    runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str], rootfs: Path
) -> None:
    assert await runc.run(new_id(), make_bundle("true")) == 0
    assert await runc.run(new_id(), make_bundle("false")) == 1
    assert await runc.run(new_id(), make_bundle("sh", "-c", "sh -c 'kill -9 $$'; exit $?")) == 137
    with pytest.raises(CommandError, match="no-such-program") as caught:
        await runc.run(new_id(), make_bundle("no-such-program"))
    assert caught.value.status == 1
    # The same where both streams are the container's and one pipe.
    reader, writer = os.pipe()
    from runc_async import FileIO

    for words, fails in ((("false",), False), (("no-such-program",), True)):
        call = runc.run(new_id(), make_bundle(*words), io=FileIO(stdout=writer, stderr=writer))
        if fails:
            with pytest.raises(CommandError, match="no-such-program"):
                await call
        else:
            assert await call == 1
    os.close(reader)
    os.close(writer)


async def test_exec_gives_the_processs_status_and_raises_the_runtimes_own_failure(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with runc.container(container_id, make_bundle("sleep", "1000")) as container:
        await container.start()
        assert await runc.exec(container_id, ["true"]) == 0
        assert await runc.exec(container_id, ["sh", "-c", "exit 255"]) == 255
        with pytest.raises(CommandError, match="no-such-program"):
            await runc.exec(container_id, ["no-such-program"])
        process = {"args": ["sh", "-c", "exit $CODE"], "env": ["PATH=/bin", "CODE=9"], "cwd": "/tmp"}
        assert await runc.exec(container_id, process) == 9
        assert await runc.exec(container_id, ["sleep", "1000"], detach=True) == 0
        assert len(await runc.ps(container_id)) == 2


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda runc: runc.state(""), ValueError, "id is empty"),
        (lambda runc: runc.state("-x"), ValueError, "dash"),
        (lambda runc: runc.create("x", ""), ValueError, "bundle"),
        (lambda runc: runc.create("x", "b", no_such_flag=True), TypeError, "no_such_flag"),
        (lambda runc: runc.create("x", "b", preserve_fds=[9999]), OSError, r"preserve_fds\[0\]"),
        (lambda runc: runc.exec("x", "sh -c true"), TypeError, "not one string"),
        (lambda runc: runc.exec("x", []), ValueError, "what shall be executed"),
        (lambda runc: runc.exec("x", {"cwd": "/"}, cwd="/tmp"), ValueError, "ignores"),
        (lambda runc: runc.kill("x", "NO SIGNAL"), ValueError, "signal"),
        (lambda runc: runc.exec("x", None), TypeError, "a sequence of arguments or an OCI process object"),
        (lambda runc: runc.exec("x", {"args": [b"sh"]}), TypeError, "JSON has nothing such as b'sh'"),
        (lambda runc: runc.exec("x", ["sh"], user=1 << 32), ValueError, "user must be from 0"),
        (lambda runc: runc.exec("x", ["sh"], detach=1), TypeError, "detach must be bool"),
        (lambda runc: runc.run("x", "b", detach=0), TypeError, "detach must be bool"),
        (lambda runc: runc.run("x", "b", io=5), TypeError, "io must be an IO, not int"),
        (lambda runc: runc.run("x", "b", preserve_fds=5), TypeError, "preserve_fds must be a sequence"),
        (lambda runc: runc.run("x", "b", preserve_fds=[1 << 40]), OSError, r"preserve_fds\[0\] is not open"),
        (lambda runc: runc.update("x"), ValueError, "nothing to change"),
        (lambda runc: runc.update("x", []), TypeError, "an OCI linux.resources object, not list"),
        (lambda runc: runc.update("x", {"cpu": {"quota": math.nan}}), ValueError, "JSON"),
        (lambda runc: runc.update("x", {"cpu": {"cpus": b"0"}}), TypeError, "JSON"),
        (lambda runc: runc.checkpoint("x", image_path=""), ValueError, "image_path is empty"),
        (lambda runc: runc.checkpoint("x", image_path="i", status_fd=-1), OSError, "status_fd is not open"),
        (lambda runc: runc.top("x", 5), TypeError, "must be str"),
        (lambda runc: runc.state("x", extra_args=5), TypeError, "extra_args must be a sequence"),
        (lambda runc: runc.events("x", interval=-1).__aenter__(), ValueError, "interval"),
    ],
)
async def test_wrong_arguments_are_refused_before_anything_is_started(
    call: Callable[[Runc], Any],
    error: type[Exception],
    match: str,
    fake_runtime: Callable[[str], Path],
    tmp_path: Path,
) -> None:
    runc = Runc(fake_runtime(f"touch {tmp_path}/started"))
    with pytest.raises(error, match=match):
        await call(runc)
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize(
    ("settings", "error", "match"),
    [
        ({"executor": 5}, TypeError, "PathLike"),
        ({"executor": ""}, ValueError, "a path or a name"),
        ({"root": ""}, ValueError, "root is empty"),
        ({"root": b"/x"}, TypeError, "root must be str or os.PathLike"),
        ({"debug": 1}, TypeError, "debug must be bool"),
        ({"log": ""}, ValueError, "log is empty"),
        ({"log": "a\0"}, ValueError, "log has a NUL"),
        ({"log_format": ""}, ValueError, "log_format is empty"),
        ({"log_format": "xml"}, ValueError, "log_format must be one of text, json"),
        ({"systemd_cgroup": "yes"}, TypeError, "systemd_cgroup must be bool"),
        ({"rootless": "maybe"}, ValueError, "rootless must be one of"),
        ({"work_dir": ""}, ValueError, "work_dir is empty"),
        ({"work_dir": 5}, TypeError, "work_dir must be str or os.PathLike"),
        ({"setpgid": 1}, TypeError, "setpgid must be bool"),
        ({"pdeathsig": True}, TypeError, "a signal must be"),
        ({"pdeathsig": 9.0}, TypeError, "a signal must be"),
        ({"pdeathsig": 0}, ValueError, "no such signal: 0"),
        ({"pdeathsig": "NOSUCH"}, ValueError, "no such signal"),
        ({"env": ["A=1"]}, TypeError, "env must be a mapping"),
        ({"extra_args": "--x"}, TypeError, "extra_args must be a sequence"),
        ({"monitor": 5}, TypeError, "monitor must be a Monitor"),
        ({"cleanup_timeout": 0}, ValueError, "cleanup_timeout must be a positive number"),
        ({"cleanup_timeout": math.nan}, ValueError, "cleanup_timeout must be"),
        ({"cleanup_timeout": "5"}, ValueError, "cleanup_timeout must be"),
        ({"trace": 5}, TypeError, "trace must be callable"),
    ],
)
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_wrong_settings_are_refused_when_the_client_is_made(
    settings: dict[str, Any], error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        Runc(**settings)


async def test_calls_during_and_after_close_of_the_executor(
    runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], container_id: str
) -> None:
    executor = FdExecutor.open(runtime_path)
    runc = Runc(executor, root=state_root)
    status = -1

    async def run() -> None:
        nonlocal status
        status = await runc.run(container_id, make_bundle("sh", "-c", "cat; exit 6"), io=io)

    async with PipeIO() as io, anyio.create_task_group() as group:
        group.start_soon(run)
        await anyio.lowlevel.checkpoint()
        await anyio.sleep(0.005)
        executor.close()
        await io.stdin.send(b"still there")
        await io.stdin.aclose()
        assert await read_all(io.stdout) == b"still there"
    assert status == 6
    with pytest.raises(ExecutorError, match="closed"):
        await runc.version()


async def test_scripts_work_as_runtimes_by_descriptor(fake_runtime: Callable[[str], Path]) -> None:
    script = fake_runtime('echo "runc version 9.9.9"; echo "spec: 1.2.0"')
    for hold in (FdExecutor.open, SealedExecutor.open):
        with hold(script) as executor:
            version = await Runc(executor).version()
            assert (version.version, version.spec) == ("9.9.9", "1.2.0")


async def test_a_users_own_executor(runtime_path: Path, runtime_name: str, state_root: Path) -> None:
    class Niced(Executor):
        def executable(self) -> Executable:
            return Executable(("nice", "-n", "5", str(runtime_path)), path=shutil.which("nice"))

    assert (await Runc(Niced(), root=state_root).version()).runtime == runtime_name

    class Nothing(Executor):
        def executable(self) -> Executable:
            return Executable(("runc",))

    with pytest.raises(ExecutorError, match="neither a path nor a descriptor"):
        await Runc(Nothing()).version()


def test_one_executor_serves_several_event_loops_in_several_threads(
    sealed: SealedExecutor, runtime_name: str, state_root: Path
) -> None:
    names: list[str] = []

    async def ask() -> None:
        names.extend([(await Runc(sealed, root=state_root).version()).runtime for _ in range(5)])

    backends: list[tuple[str, dict[str, bool]]] = [("asyncio", {}), ("asyncio", {"use_uvloop": True}), ("trio", {})]
    threads = [
        threading.Thread(target=partial(anyio.run, ask, backend=backend, backend_options=options))
        for backend, options in backends
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names == [runtime_name] * 15


async def test_no_road_starts_a_thread(
    runc: Runc, runtime_path: Path, make_bundle: Callable[..., Path], new_id: Callable[[], str], state_root: Path
) -> None:
    await runc.version()
    before = set(os.listdir("/proc/self/task"))
    by_path = Runc(runtime_path, root=state_root)
    for client in (runc, by_path):
        await client.version()
        assert await client.run(new_id(), make_bundle("true")) == 0
        assert await client.run(new_id(), make_bundle("true"), preserve_fds=[0]) == 0
        async with client.container(new_id(), make_bundle("sleep", "9")) as container:
            await container.start()
            await container.run(["true"])
    assert set(os.listdir("/proc/self/task")) <= before


async def test_asyncio_starts_children_by_create_subprocess_exec_and_no_other_event_loop_forks(
    runtime_path: Path, state_root: Path, monkeypatch: pytest.MonkeyPatch, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    import asyncio

    calls: list[Any] = []
    forks: list[int] = []
    original = asyncio.create_subprocess_exec

    async def spy(*args: Any, **keywords: Any) -> Any:
        calls.append((args, keywords))
        return await original(*args, **keywords)

    monkeypatch.setattr(asyncio, "create_subprocess_exec", spy)
    os.register_at_fork(after_in_parent=lambda: forks.append(1))
    await Runc(runtime_path, root=state_root).version()
    with FdExecutor.open(runtime_path) as executor:
        await Runc(executor, root=state_root).version()
    assert len(calls) == (2 if anyio_backend == ("asyncio", {}) else 0)
    assert not any("preexec_fn" in keywords for _, keywords in calls)
    assert not forks


@pytest.mark.parametrize("make_executor", [PathExecutor, FdExecutor.open, SealedExecutor.open])
@pytest.mark.parametrize("preserve", [0, 1])
async def test_a_descriptor_that_this_process_has_made_inheritable_does_not_reach_the_runtime(
    make_executor: Callable[[Path], Executor],
    preserve: int,
    runtime_path: Path,
    state_root: Path,
    make_bundle: Callable[..., Path],
    container_id: str,
    tmp_path: Path,
) -> None:
    forgotten = tmp_path / "forgotten"
    with make_executor(runtime_path) as executor, open(forgotten, "w") as file:
        os.set_inheritable(file.fileno(), True)
        runc = Runc(executor, root=state_root)
        async with PipeIO() as io, anyio.create_task_group() as group:
            pid = await group.start(
                partial(runc.run, container_id, make_bundle("cat"), io=io, preserve_fds=[0] * preserve)
            )
            await io.stdin.send(b"up?")
            assert await io.stdout.receive() == b"up?"
            init = (await runc.state(container_id)).pid
            seen = [
                os.readlink(f"/proc/{process}/fd/{fd}")
                for process in (pid, init)
                for fd in os.listdir(f"/proc/{process}/fd")
            ]
            await io.stdin.aclose()
    assert len(seen) > 6
    assert str(forgotten) not in seen


def test_nothing_uses_preexec_fn() -> None:
    package = Path(sys.modules["runc_async"].__path__[0])
    uses = [path for path in package.rglob("*.py") if "preexec_fn=" in path.read_text()]
    assert uses == []


async def test_a_runtime_that_hangs_is_killed_and_reaped_when_the_call_is_cancelled(
    fake_runtime: Callable[[str], Path],
) -> None:
    runc = Runc(fake_runtime("trap '' TERM; exec sleep 1000"))
    with anyio.move_on_after(0.1) as scope:
        await runc.list()
    assert scope.cancelled_caught


async def test_garbage_without_end_costs_bounded_memory_and_is_a_decode_error(
    fake_runtime: Callable[[str], Path],
) -> None:
    runc = Runc(fake_runtime("head -c 1073741824 /dev/zero"))
    before = peak_memory()
    with pytest.raises(DecodeError, match="more than 16 MiB") as caught:
        await runc.list()
    assert len(caught.value.output) == 4096
    assert peak_memory() - before < 48 << 20


def peak_memory() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


@pytest.mark.parametrize("garbage", ["nonsense", '{"id": 5}', "[1, 2]", ""])
async def test_output_that_is_no_state_is_a_decode_error(garbage: str, fake_runtime: Callable[[str], Path]) -> None:
    with pytest.raises(DecodeError) as caught:
        await Runc(fake_runtime(f"printf '%s' '{garbage}'")).state("x")
    assert caught.value.output == garbage.encode()
    assert caught.value.argv[-2:] == ("state", "x")


async def test_a_runtime_killed_by_a_signal_is_an_error_that_says_so(fake_runtime: Callable[[str], Path]) -> None:
    with pytest.raises(CommandError, match="killed by signal 9") as caught:
        await Runc(fake_runtime("kill -9 $$")).list()
    assert caught.value.status == -signal.SIGKILL
