"""`Runc`: what is asked about and done to a running container, and the settings of every call."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import anyio
import pytest

from runc_async import (
    CommandError,
    ContainerNotFoundError,
    ContainerNotRunningError,
    DecodeError,
    ExecutorError,
    PipeIO,
    Runc,
    UnsupportedError,
)
from runc_async import _options as options
from runc_async._commands import COMMANDS
from runc_async._models import Stats

from ._leaks import CGROUPS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def runc(runtime_path: Path, state_root: Path) -> Runc:
    return Runc(runtime_path, root=state_root)


@pytest.fixture
def only_runc(runtime_name: str) -> None:
    if runtime_name != "runc":
        pytest.skip("only runc has events")
    if not memory_cgroup():
        pytest.skip("runc's events need the memory controller")


@pytest.fixture
async def running(runc: Runc, make_bundle: Callable[..., Path], container_id: str) -> AsyncIterator[str]:
    """The id of a running container with a limit of memory."""

    def limited(spec: dict[str, Any]) -> None:
        spec["annotations"] = {"org.example.key": "value"}
        if memory_cgroup():
            spec["linux"]["resources"] = {"memory": {"limit": 32 << 20}}

    await runc.run(container_id, make_bundle("sh", "-c", "sleep 100 & sleep 100; true", spec=limited), detach=True)
    yield container_id
    await runc.delete(container_id, force=True)


def memory_cgroup() -> bool:
    controllers = CGROUPS / "cgroup.controllers"
    return "memory" in controllers.read_text() if controllers.exists() else (CGROUPS / "memory").is_dir()


def cgroup_file(container: str, v1: str, v2: str) -> str:
    """The content of a file in a container's cgroup, by its names in both versions."""
    name = v2 if (CGROUPS / "cgroup.controllers").exists() else v1
    folders = [Path(at) for at, _, files in os.walk(CGROUPS) if os.path.basename(at) == container and name in files]
    found = [folder / name for folder in folders]
    assert found, f"no {name} of {container}"
    return found[0].read_text().strip()


@pytest.fixture
def fake(tmp_path: Path) -> Callable[[str], Runc]:
    """A client of a shell script in the runtime's place."""

    def make(script: str, **settings: Any) -> Runc:
        path = Path(tempfile.mkdtemp(dir=tmp_path)) / "fakerunc"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return Runc(path, **settings)

    return make


STATE = 'case "$*" in *" state "*) echo \'{"id": "x", "pid": 0, "status": "running"}\'; exit;; esac\n'

# -- keywords ----------------------------------------------------------------------------------------------

BY_METHOD = {
    "create": (options.StartOptions, {"bundle", "preserve_fds"}),
    "run": (options.RunOptions, {"bundle", "preserve_fds", "detach"}),
    "exec": (options.ExecOptions, {"preserve_fds", "detach", "process"}),
    "update": (options.UpdateOptions, {"resources"}),
    "checkpoint": (options.CheckpointOptions, {"image_path", "status_fd"}),
    "restore": (options.RestoreOptions, {"bundle", "image_path", "detach"}),
}
NO_OPTIONS = {
    "delete": {"force"},
    "kill": {"all"},
    "spec": {"bundle", "rootless"},
    "events": {"interval", "stats"},
    "list": {"format"},
    "ps": {"format"},
}
LEFT_TO_EXTRA_ARGS = {"delete": {"regex"}, "kill": {"regex"}, "list": {"quiet"}, "spec": {"file"}}


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_the_typed_keywords_are_those_of_the_tables(command: str) -> None:
    shape, handled = BY_METHOD.get(command, (None, NO_OPTIONS.get(command, set())))
    typed = set(get_type_hints(shape)) if shape else set()
    assert not typed & handled
    assert typed | handled | LEFT_TO_EXTRA_ARGS.get(command, set()) == set(COMMANDS[command].flags)


# -- processes ---------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_ps_and_state_and_list_agree(runc: Runc, running: str) -> None:
    state = await runc.state(running)
    assert state.pid in await runc.ps(running)
    assert len(await runc.ps(running)) >= 2
    assert state.annotations == {"org.example.key": "value"}
    assert abs(state.created.timestamp() - time.time()) < 60
    assert state.created_ns // 1000 * 1000 == round(state.created.timestamp() * 1e6) * 1000
    assert state.raw["id"] == running
    (listed,) = await runc.list()
    assert (listed.id, listed.pid, listed.status) == (running, state.pid, "running")
    assert listed.owner == "root"


@pytest.mark.anyio
async def test_top_gives_a_table_or_a_clear_error_for_any_options_of_ps(
    runc: Runc, running: str, runtime_name: str
) -> None:
    if shutil.which("ps") is None:
        pytest.skip("no ps here")
    pid = str((await runc.state(running)).pid)
    plain = await runc.top(running)
    assert pid in [row[plain.headers.index("PID")] for row in plain.processes]
    if runtime_name == "crun":
        with pytest.raises(UnsupportedError, match=r"crun \d.* takes no options of ps"):
            await runc.top(running, "-o", "pid")
        return
    assert "sh -c sleep 100 & sleep 100; true" in [row[-1] for row in plain.processes]
    for given in (["-o", "pid,comm,args"], ["-efL"], ["-T"], ["aux"], ["-l"], ["-eo", "pid"], ["-eo", "pid,tty,args"]):
        table = await runc.top(running, *given)
        rows = [row for row in table.processes if row[table.headers.index("PID")] == pid]
        assert rows, given
        assert all(len(row) == len(table.headers) for row in table.processes)
    with pytest.raises(DecodeError, match="cannot be split into the columns"):
        await runc.top(running, "-eo", "pid,lstart,args")
    for given in (["-o", "comm"], ["-o", "pid="], ["-em"], ["--nosuch"]):
        with pytest.raises(CommandError) as caught:
            await runc.top(running, *given)
        assert "\n" not in str(caught.value)


# -- statistics and events ---------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_stats(runc: Runc, running: str, only_runc: None) -> None:
    stats = await runc.stats(running)
    assert stats.raw
    if memory_cgroup():
        assert stats.cpu.usage.total > 0
        assert stats.memory.usage.limit == 32 << 20
        assert 0 < stats.memory.usage.usage < 32 << 20
        assert stats.memory.raw_counters["pgfault"] > 0
        assert stats.pids.current >= 2


@pytest.mark.anyio
async def test_stats_and_events_of_a_runtime_without_them(runc: Runc, running: str, runtime_name: str) -> None:
    if runtime_name != "crun":
        pytest.skip("runc has them")
    with pytest.raises(UnsupportedError, match=r"crun \d\S* has no command events"):
        await runc.stats(running)
    async with runc.events(running) as events:
        with pytest.raises(UnsupportedError, match=r"crun \d\S* has no command events"):
            await anext(events)


@pytest.mark.anyio
async def test_events_come_at_their_interval_and_end_with_the_container(
    runc: Runc, running: str, only_runc: None
) -> None:
    arrived = []
    with anyio.fail_after(10):
        async with runc.events(running, interval=0.1) as events:
            async for event in events:
                assert event.id == running
                assert isinstance(event.data, Stats)
                arrived.append(time.monotonic())
                if len(arrived) == 6:
                    await runc.kill(running, signal.SIGKILL, all=True)
                    killed = time.monotonic()
    assert time.monotonic() - killed < 3
    assert (arrived[5] - arrived[0]) / 5 < 0.3


@pytest.mark.anyio
async def test_a_container_that_runs_out_of_memory_is_an_event(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, only_runc: None
) -> None:
    if not memory_cgroup():
        pytest.skip("no memory controller here")

    def limited(spec: dict[str, Any]) -> None:
        spec["linux"]["resources"] = {"memory": {"limit": 8 << 20, "swap": 8 << 20}}

    bundle = make_bundle("sh", "-c", "x=aaaaaaaaaaaaaaaa; while :; do x=$x$x; done", spec=limited)
    types = []
    await runc.create(container_id, bundle)
    try:
        with anyio.fail_after(15):
            async with runc.events(container_id, interval=0.2) as events:
                async for event in events:
                    if not types:  # the runtime listens now
                        await runc.start(container_id)
                    types.append(event.type)
    finally:
        await runc.delete(container_id, force=True)
    assert "oom" in types


@pytest.mark.anyio
async def test_leaving_and_cancelling_events_end_the_runtime_process(runc: Runc, running: str, only_runc: None) -> None:
    async with runc.events(running, interval=0.1) as events:
        await anext(events)
    with anyio.move_on_after(0.5) as scope:
        async with runc.events(running, interval=60) as events:
            async for _ in events:
                pass
    assert scope.cancelled_caught  # that no process is left is the census's to see


@pytest.mark.anyio
async def test_events_of_what_does_not_run_are_errors(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, only_runc: None
) -> None:
    with pytest.raises(ContainerNotFoundError):
        async with runc.events(container_id) as events:
            await anext(events)
    with pytest.raises(ValueError, match="interval"):
        runc.events(container_id, interval=-1)
    await runc.run(container_id, make_bundle("true"), keep=True)
    try:
        with pytest.raises(ContainerNotRunningError):
            async with runc.events(container_id) as events:
                await anext(events)
        with pytest.raises(ContainerNotRunningError):
            await runc.stats(container_id)
    finally:
        await runc.delete(container_id)


@pytest.mark.anyio
@pytest.mark.parametrize("line", ["garbage", '{"type": 1}', '{"id": "x"', "[]"])
async def test_a_broken_line_is_a_decode_error(line: str, fake: Callable[[str], Runc]) -> None:
    good = '{"type": "oom", "id": "x"}'
    runc = fake(f"{STATE}echo '{good}'; echo '{line}'; exec sleep 60")
    with anyio.fail_after(5):
        async with runc.events("x") as events:
            assert (await anext(events)).type == "oom"
            with pytest.raises(DecodeError):
                await anext(events)


# -- changes -----------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_update_by_resources_and_by_single_values(runc: Runc, running: str) -> None:
    if not memory_cgroup():
        pytest.skip("no controllers here")
    await runc.update(running, {"memory": {"limit": 48 << 20}, "pids": {"limit": 30}})
    assert cgroup_file(running, "memory.limit_in_bytes", "memory.max") == str(48 << 20)
    assert cgroup_file(running, "pids.max", "pids.max") == "30"
    for value, name, written in (
        ({"memory": 40 << 20}, "memory.limit_in_bytes", str(40 << 20)),
        ({"memory_reservation": 16 << 20}, "memory.soft_limit_in_bytes", str(16 << 20)),
        ({"pids_limit": 17}, "pids.max", "17"),
        ({"cpu_share": 512}, "cpu.shares", "512"),
        ({"cpu_period": 50000, "cpu_quota": 25000}, "cpu.cfs_quota_us", "25000"),
        ({"cpuset_cpus": "0"}, "cpuset.cpus", "0"),
        ({"cpuset_mems": "0"}, "cpuset.mems", "0"),
    ):
        await runc.update(running, **value)  # type: ignore[arg-type]
        if not (CGROUPS / "cgroup.controllers").exists():
            assert cgroup_file(running, name, name) == written
    with pytest.raises(ValueError, match="nothing to change"):
        await runc.update(running)
    with pytest.raises(ValueError, match="memory"):
        await runc.update(running, {}, memory=1 << 20)


@pytest.mark.anyio
async def test_pause_resume_kill_all_delete(runc: Runc, running: str, container_id: str) -> None:
    await runc.pause(running)
    assert (await runc.state(running)).status == "paused"
    with pytest.raises(CommandError):
        await runc.exec(running, ["true"])
    await runc.resume(running)
    assert (await runc.state(running)).status == "running"
    await runc.kill(running, "KILL", all=True)
    with anyio.fail_after(5):
        while (await runc.state(running)).status != "stopped":
            await anyio.sleep(0.02)
    await runc.delete(running)
    with pytest.raises(ContainerNotFoundError):
        await runc.delete(running)
    await runc.delete(running, force=True)
    assert await runc.list() == []


@pytest.mark.anyio
async def test_spec(runc: Runc, tmp_path: Path, runtime_path: Path) -> None:
    await runc.spec(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["process"]["args"] == ["sh"]
    with pytest.raises(CommandError):
        await runc.spec(tmp_path)
    there = tmp_path / "there"
    there.mkdir()
    await Runc(runtime_path, work_dir=there).spec(rootless=True)
    namespaces = json.loads((there / "config.json").read_text())["linux"]["namespaces"]
    assert {"type": "user"} in namespaces


# -- what a runtime lacks ----------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("pipes", [False, True])
async def test_an_unknown_flag_is_named_with_the_runtimes_version(
    runc: Runc, running: str, new_id: Callable[[], str], make_bundle: Callable[..., Path], pipes: bool
) -> None:
    version = (await runc.version()).version
    new = new_id()
    calls: list[Callable[[Any], Any]] = [
        lambda io: runc.create(new, make_bundle("true"), io=io, extra_args=["--no-such-flag"]),
        lambda io: runc.run(new, make_bundle("true"), io=io, extra_args=["--no-such-flag"]),
        lambda io: runc.exec(running, ["true"], io=io, extra_args=["--no-such-flag"]),
    ]
    if not pipes:
        calls.append(lambda _: runc.state(running, extra_args=["--no-such-flag"]))
    for call in calls:
        io = PipeIO() if pipes else None
        with pytest.raises(UnsupportedError, match="--no-such-flag") as caught:
            await call(io)
        if io is not None:
            await io.aclose()
        assert version in str(caught.value)


@pytest.mark.anyio
async def test_a_flag_newer_than_the_runtime(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str, tmp_path: Path
) -> None:
    found = await runc.version()
    if found.runtime != "runc" or found.release >= (1, 2):
        pytest.skip("this runtime has --pidfd-socket, or is crun")
    with pytest.raises(UnsupportedError, match=f"runc {found.version[:3]}.*--pidfd-socket"):
        await runc.create(container_id, make_bundle("true"), pidfd_socket=tmp_path / "socket")


@pytest.mark.anyio
async def test_version_and_features(runc: Runc, runtime_name: str) -> None:
    version = await runc.version()
    assert (version.runtime, bool(version.release), bool(version.commit)) == (runtime_name, True, True)
    assert version.spec.startswith("1.")
    if runtime_name == "crun" and version.release < (1, 8, 6):
        with pytest.raises(UnsupportedError, match="features"):
            await runc.features()
        return
    features = await runc.features()
    assert features.linux is not None
    assert features.linux.cgroup is not None
    assert features.linux.cgroup.v2
    assert "pid" in (features.linux.namespaces or [])
    assert features.raw["ociVersionMin"] == features.oci_version_min


# -- settings ----------------------------------------------------------------------------------------------

SHOW_ENV = 'env | grep -E "^(A=|B=|NOTIFY_|LISTEN_)" | sort | tr "\\n" " " >&2; exit 1'


async def told(runc: Runc) -> str:
    """What the fake runtime of `SHOW_ENV` says."""
    with pytest.raises(CommandError) as caught:
        await runc.start("x")
    return caught.value.message.strip()


@pytest.mark.anyio
async def test_each_task_has_its_own_extra_environment(fake: Callable[..., Runc]) -> None:
    runc = fake(SHOW_ENV, env={"A": "client"})
    seen: dict[str, str] = {}

    async def child(name: str) -> None:
        seen[f"{name}'s child"] = await told(runc)

    async def task(name: str) -> None:
        with runc.extra_env(B=name):
            async with anyio.create_task_group() as inner:
                inner.start_soon(child, name)
                seen[name] = await told(runc)

    async with anyio.create_task_group() as group:
        for name in ("one", "two"):
            group.start_soon(task, name)
        seen["outside"] = await told(runc)
    want = {name: f"A=client B={name.split(chr(39))[0]}" for name in ("one", "two", "one's child", "two's child")}
    assert seen == {**want, "outside": "A=client"}


@pytest.mark.anyio
async def test_a_supervisors_sockets_are_passed_on_only_when_given(
    fake: Callable[..., Runc], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"):
        monkeypatch.setenv(name, "accident")
    runc = fake(SHOW_ENV)
    assert "=" not in await told(runc)
    with runc.extra_env(NOTIFY_SOCKET="/given"):
        assert await told(runc) == "NOTIFY_SOCKET=/given"
    assert await told(fake(SHOW_ENV, env={"LISTEN_FDS": "1"})) == "LISTEN_FDS=1"


@pytest.mark.anyio
async def test_the_global_settings_are_on_the_command_line(fake: Callable[..., Runc]) -> None:
    runc = fake(
        'echo "$*" >&2; exit 1', root="/r", debug=True, systemd_cgroup=True, rootless=True, extra_args=["--new"]
    )
    words = (await told(runc)).split()
    assert words[-2:] == ["start", "x"]
    assert {"--root=/r", "--debug", "--systemd-cgroup", "--rootless=true", "--new"} <= set(words)


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["text", "json"])
async def test_the_log_is_appended_to(runtime_path: Path, state_root: Path, tmp_path: Path, kind: str) -> None:
    log = tmp_path / "log"
    runc = Runc(runtime_path, root=state_root, log=log, log_format=kind)
    for name in ("first", "second"):
        with pytest.raises(ContainerNotFoundError):
            await runc.state(name)
    text = log.read_text()
    assert text.count("does not exist") + text.count("error opening file") >= 2
    assert ('"msg"' in text) == (kind == "json")


@pytest.mark.anyio
async def test_work_dir_also_with_preserved_descriptors(
    runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], container_id: str, tmp_path: Path
) -> None:
    bundle = make_bundle("sh", "-c", "cat <&3 >/dev/null; exit 7")
    relative = Runc(runtime_path, root=state_root, work_dir=bundle.parent)
    with open("/dev/null", "rb") as file:
        assert await relative.run(container_id, bundle.name, preserve_fds=[file]) == 7
        pid_file = bundle.parent / "pid"
        async with relative.container(container_id, bundle.name, pid_file=pid_file.name) as container:
            assert container.pid == int(pid_file.read_text())
        missing = Runc(runtime_path, root=state_root, work_dir=tmp_path / "missing")
        for fds in ([], [file]):
            with pytest.raises(OSError, match="work_dir") as caught:
                await missing.run(container_id, bundle, preserve_fds=fds)
            assert not isinstance(caught.value, ExecutorError)


@pytest.mark.anyio
@pytest.mark.parametrize("own", [False, True])
async def test_setpgid_gives_the_runtime_its_own_process_group(fake: Callable[..., Runc], own: bool) -> None:
    said = await told(fake("echo $$ $(cut -d' ' -f5 /proc/$$/stat) >&2; exit 1", setpgid=own))
    pid, group = map(int, said.split())
    assert group == (pid if own else os.getpgrp())


def test_the_runtime_dies_with_its_supervisor(tmp_path: Path) -> None:
    script = tmp_path / "fakerunc"
    script.write_text(f"#!/bin/sh\necho $$ > {tmp_path}/tmp && mv {tmp_path}/tmp {tmp_path}/pid\nexec sleep 60\n")
    script.chmod(0o755)
    program = f"import anyio, runc_async; anyio.run(runc_async.Runc({str(script)!r}, pdeathsig='KILL').state, 'x')"
    with subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT) as supervisor:
        deadline = time.monotonic() + 10
        while not (tmp_path / "pid").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        pidfd = os.pidfd_open(int((tmp_path / "pid").read_text()))
        supervisor.kill()
    try:
        assert select.select([pidfd], [], [], 5)[0]
    finally:
        os.close(pidfd)


def test_an_ordinary_user_runs_a_rootless_bundle(runtime_path: Path, rootfs: Path) -> None:
    """With ``runc spec --rootless`` and a root of its own."""
    user = 54321
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # where others may go, too
        home = Path(name)
        shutil.copytree(rootfs, home / "bundle/rootfs", symlinks=True)
        (home / "program.py").write_text(ROOTLESS)
        (home / "closed").mkdir(mode=0o700)
        for path in [home, *home.glob("[bp]*"), *(home / "bundle").rglob("*")]:
            os.chown(path, user, user, follow_symlinks=False)
        done = subprocess.run(
            [sys.executable, home / "program.py", runtime_path, home], user=user, group=user, extra_groups=[],
            cwd=PROJECT, env={**os.environ, "PYTHONPATH": str(PROJECT), "XDG_RUNTIME_DIR": name, "HOME": name},
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
    assert done.stdout.splitlines() == ["9", "CommandError True", "CommandError True"], done.stderr


ROOTLESS = """
import json, sys
from pathlib import Path
import anyio, runc_async

async def main(runtime, home):
    runc = runc_async.Runc(runtime, root=Path(home, "state"), rootless=True)
    bundle = Path(home, "bundle")
    await runc.spec(bundle, rootless=True)
    config = json.loads((bundle / "config.json").read_text())
    config["process"].update(terminal=False, args=["sh", "-c", "exit 9"])
    (bundle / "config.json").write_text(json.dumps(config))
    print(await runc.run("rootless", bundle))
    closed = Path(home, "closed")
    for call in (runc_async.Runc(runtime, root=closed / "state").run("x", bundle), runc.run("y", closed)):
        try:
            await call
        except runc_async.CommandError as error:
            print(type(error).__name__, "\\n" not in str(error) and "denied" in str(error) or str(error))

anyio.run(main, *sys.argv[1:])
"""
