"""`Runc`: what is asked about and done to a running container, and the settings of every call."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import (
    CommandError,
    ContainerNotFoundError,
    DecodeError,
    ExecutorError,
    Pidfd,
    PipeIO,
    Runc,
    UnsupportedError,
)
from runc_async._cli.commands import COMMANDS
from runc_async._cli.options import UpdateOptions
from runc_async._linux.procfs import children

from ._cgroups import VERSION_2, cgroup_file, has_controller
from ._leaks import CGROUPS
from ._ordinary import USER, run_as_ordinary_user
from ._slowness import within
from .cli.test_commands import sample, tables
from .cli.test_options import LEFT_TO_EXTRA_ARGS
from .process.test_environment import told

if TYPE_CHECKING:
    from collections.abc import Callable

PROJECT = Path(__file__).parent.parent


@pytest.fixture
def runc(runtime_path: Path, state_root: Path) -> Runc:
    return Runc(runtime_path, root=state_root)


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
async def test_stats(runc: Runc, running: str, runtime_name: str) -> None:
    if runtime_name != "runc":
        pytest.skip("only runc has them")
    stats = await runc.stats(running)
    assert stats.cpu.usage.total > 0
    assert stats.pids.current >= 2
    assert stats.raw["pids"]["current"] == stats.pids.current
    if has_controller("memory"):
        assert stats.memory.usage.limit == 32 << 20
        assert 0 < stats.memory.usage.usage < 32 << 20
        assert stats.memory.raw_counters["pgfault"] > 0


@pytest.mark.anyio
@pytest.mark.parametrize("said", ["", '{"type":"oom","id":"x"}', '{"type":"stats","id":"x","data":5}'])
async def test_what_are_no_statistics_is_a_decode_error(said: str, fake: Callable[..., Runc]) -> None:
    with pytest.raises(DecodeError):
        await fake(f"echo '{said}'").stats("x")


# -- changes -----------------------------------------------------------------------------------------------


# Keyword, value, its flag, and where the kernel shows it (version 1 of cgroups).
UPDATES: list[tuple[str, Any, str, str]] = [
    ("blkio_weight", 200, "--blkio-weight=200", "blkio.bfq.weight"),
    ("cpu_period", 50000, "--cpu-period=50000", "cpu.cfs_period_us"),
    ("cpu_quota", 25000, "--cpu-quota=25000", "cpu.cfs_quota_us"),
    ("cpu_burst", 1000, "--cpu-burst=1000", "cpu.cfs_burst_us"),
    ("cpu_share", 512, "--cpu-share=512", "cpu.shares"),
    ("cpu_rt_period", 500000, "--cpu-rt-period=500000", "cpu.rt_period_us"),
    ("cpu_rt_runtime", 1000, "--cpu-rt-runtime=1000", "cpu.rt_runtime_us"),
    ("cpuset_cpus", "0", "--cpuset-cpus=0", "cpuset.cpus"),
    ("cpuset_mems", "0", "--cpuset-mems=0", "cpuset.mems"),
    ("memory", 40 << 20, "--memory=41943040", "memory.limit_in_bytes"),
    ("memory_reservation", 16 << 20, "--memory-reservation=16777216", "memory.soft_limit_in_bytes"),
    ("memory_swap", 64 << 20, "--memory-swap=67108864", "memory.memsw.limit_in_bytes"),
    ("pids_limit", 17, "--pids-limit=17", "pids.max"),
    ("cpu_idle", 1, "--cpu-idle=1", "cpu.idle"),
    # runc and newer kernels take these two and ignore them.
    ("kernel_memory", 32 << 20, "--kernel-memory=33554432", ""),
    ("kernel_memory_tcp", 32 << 20, "--kernel-memory-tcp=33554432", ""),
    ("l3_cache_schema", "L3:0=f", "--l3-cache-schema=L3:0=f", ""),
    ("mem_bw_schema", "MB:0=20", "--mem-bw-schema=MB:0=20", ""),
]
RESCTRL = Path("/sys/fs/resctrl/schemata")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_every_value_of_update_is_its_flag(fake: Callable[..., Runc]) -> None:
    assert {keyword for keyword, *_ in UPDATES} == set(UpdateOptions.__annotations__)
    runc = fake('echo "$*" >&2; exit 1')
    for keyword, value, flag, _ in UPDATES:
        with pytest.raises(CommandError) as caught:
            await runc.update("x", **{keyword: value})  # type: ignore[misc]
        assert caught.value.message.split()[-3:] == ["update", flag, "x"]
    with pytest.raises(CommandError, match=r"update --resources=/proc/self/fd/\d+ --l3-cache-schema=L3:0=f x$"):
        await runc.update("x", {"pids": {"limit": 5}}, l3_cache_schema="L3:0=f")


@pytest.mark.anyio
async def test_every_value_of_update_reaches_the_kernel(
    runc: Runc, running: str, runtime_path: Path, runtime_name: str
) -> None:
    if not has_controller("memory") or VERSION_2:
        pytest.skip("no controllers of version 1 here")
    known = subprocess.run([runtime_path, "update", "--help"], capture_output=True, text=True, check=True).stdout
    reached = 0
    for keyword, value, flag, file in UPDATES:
        name = flag.partition("=")[0]
        call = runc.update(running, **{keyword: value})  # type: ignore[misc]
        if name not in known and name not in ("--kernel-memory", "--kernel-memory-tcp"):  # hidden in runc
            with pytest.raises(UnsupportedError, match=f"{runtime_name} .* update has no flag {name}"):
                await call
        elif keyword in ("l3_cache_schema", "mem_bw_schema") and not RESCTRL.exists():
            if runtime_name == "crun":
                await call
                continue
            with pytest.raises(CommandError, match=r"Intel RDT/.* is not enabled"):
                await call
        elif keyword == "cpu_rt_runtime" and (CGROUPS / "cpu/cpu.rt_runtime_us").read_text().strip() == "0":
            with pytest.raises(CommandError, match=r"cpu\.rt_runtime_us"):  # there is none to be had here
                await call
        elif keyword == "blkio_weight" and (await runc.version()).release < (1, 9) and runtime_name == "crun":
            with pytest.raises(CommandError, match=r"blkio\.weight"):  # it knows no scheduler BFQ
                await call
        else:
            await call
            if file:
                assert cgroup_file(running, file, file) == str(value)
                reached += 1
    assert reached >= 10


@pytest.mark.anyio
async def test_update_by_a_resources_object(runc: Runc, running: str) -> None:
    if has_controller("memory"):
        await runc.update(running, {"memory": {"limit": 48 << 20}, "pids": {"limit": 30}})
        assert cgroup_file(running, "memory.limit_in_bytes", "memory.max") == str(48 << 20)
        assert cgroup_file(running, "pids.max", "pids.max") == "30"
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
    with within(5):
        while (await runc.state(running)).status != "stopped":
            await anyio.sleep(0.02)
    await runc.delete(running)
    with pytest.raises(ContainerNotFoundError):
        await runc.delete(running)
    await runc.delete(running, force=True)
    assert await runc.list() == []


@pytest.mark.anyio
async def test_where_nothing_has_run_yet_there_are_no_containers(
    runtime_path: Path, tmp_path: Path, fake: Callable[..., Runc]
) -> None:
    assert await Runc(runtime_path, root=tmp_path / "nothing/yet").list() == []
    newer = 'echo "open %s: no such file or directory" >&2; exit 1'
    assert await fake(newer % (tmp_path / "nowhere")).list() == []
    with pytest.raises(CommandError, match="no such file"):  # it is there: something else is wrong
        await fake(newer % tmp_path).list()


@pytest.mark.anyio
async def test_a_relative_image_is_not_looked_for_in_the_bundle(
    fake: Callable[..., Runc], make_bundle: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for work_dir in (None, make_bundle("true")):
        with pytest.raises(CommandError) as caught:
            await fake("exit 1", work_dir=work_dir).restore("x", make_bundle("true"), image_path="i", work_path="w")
        base = work_dir or tmp_path
        assert {f"--image-path={base}/i", f"--work-path={base}/w"} < set(caught.value.argv)


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


TAKEN_UNSAID = {
    ("update", "kernel_memory"): "runc: hidden, ignored",
    ("update", "kernel_memory_tcp"): "runc: hidden, ignored",
    ("kill", "all"): "runc 1.2 and newer: hidden, ignored",
}


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_every_flag_and_command_that_this_runtime_lacks_is_named_with_its_version(
    runc: Runc, runtime_path: Path, make_bundle: Callable[..., Path], container_id: str, tmp_path: Path
) -> None:
    help = {name: {flag.name for flag in flags} for name, _, flags in tables(str(runtime_path))}
    bundle, image = make_bundle("true"), {"image_path": tmp_path}
    calls: dict[str, Callable[..., Any]] = {
        "checkpoint": lambda **given: runc.checkpoint(container_id, **{**image, **given}),
        "create": lambda **given: runc.create(container_id, bundle, **given),
        "delete": lambda **given: runc.delete(container_id, **given),
        "events": lambda **given: runc.stats(container_id, **given),
        "exec": lambda **given: runc.exec(container_id, ["true"], **given),
        "features": runc.features,
        "kill": lambda **given: runc.kill(container_id, **given),
        "restore": lambda **given: runc.restore(container_id, bundle, **{**image, **given}),
        "run": lambda **given: runc.run(container_id, bundle, **given),
        "spec": runc.spec,
        "update": lambda **given: runc.update(container_id, **given),
    }
    found = await runc.version()
    lacking = []
    for name, call in calls.items():
        if name not in help:
            lacking.append(f"{name} alone")
            with pytest.raises(UnsupportedError) as caught:
                await call()
            assert caught.value.message == f"{found.runtime} {found.version} has no command {name}"
            continue
        for keyword, flag in COMMANDS[name].flags.items():
            if flag.name in help[name] or keyword in LEFT_TO_EXTRA_ARGS.get(name, ()):
                continue
            if (name, keyword) in TAKEN_UNSAID and found.runtime == "runc":
                continue
            lacking.append(f"{name} {flag.name}")
            with pytest.raises(UnsupportedError) as caught:
                await call(**{keyword: 1 if keyword == "status_fd" else sample(COMMANDS[name], keyword)})
            assert caught.value.message == f"{found.runtime} {found.version} {name} has no flag {flag.name}"
    assert lacking
    assert await runc.list() == []


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


@pytest.mark.anyio
async def test_the_global_settings_are_on_the_command_line(fake: Callable[..., Runc]) -> None:
    runc = fake(
        'echo "$*" >&2; exit 1', root="/r", debug=True, systemd_cgroup=True, rootless=True, extra_args=["--new"]
    )
    words = (await told(runc)).split()
    assert words[-2:] == ["start", "x"]
    assert {"--root=/r", "--debug", "--systemd-cgroup", "--rootless=true", "--new"} <= set(words)


@pytest.mark.anyio
async def test_debug_root_and_systemd_cgroup_on_the_real_runtime(
    runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], container_id: str, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    loud = Runc(runtime_path, root=state_root, debug=True, log=log)
    bundle = make_bundle("true")
    await loud.create(container_id, bundle)
    assert [folder.name for folder in state_root.iterdir()] == [container_id]
    await loud.delete(container_id, force=True)
    if (await loud.version()).release >= (1, 10) or runtime_path.name == "runc":  # crun 1.8 has nothing to say then
        assert "debug" in log.read_text()
    if Path("/run/systemd/system").exists():
        return  # then it works, or the bundle's cgroup path is of the wrong form
    with pytest.raises(CommandError, match="systemd") as caught:
        await Runc(runtime_path, root=state_root, systemd_cgroup=True).run(container_id, bundle)
    assert "\n" not in str(caught.value)


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


def test_the_real_runtime_dies_with_its_supervisor_and_the_container_lives_on(
    runtime_path: Path, state_root: Path, make_bundle: Callable[..., Path], container_id: str, tmp_path: Path
) -> None:
    # A supervisor that is killed cannot remove the directory of its private pid file.
    environment = {**os.environ, "TMPDIR": str(tmp_path), "XDG_RUNTIME_DIR": ""}
    bundle = make_bundle("sleep", "60")
    client = f"runc_async.Runc({str(runtime_path)!r}, root={str(state_root)!r}, pdeathsig=9)"
    program = f"import anyio, runc_async; anyio.run({client}.run, {container_id!r}, {str(bundle)!r})"

    async def ends(supervisor: subprocess.Popen[bytes]) -> str:
        runc = Runc(runtime_path, root=state_root)
        with within(20):
            while [state.status for state in await runc.list()] != ["running"]:
                await anyio.sleep(0.01)
            (pid,) = children(supervisor.pid)
            with Pidfd.open(pid) as runtime:
                supervisor.kill()
                await runtime.wait()
        status = (await runc.state(container_id)).status
        await runc.delete(container_id, force=True)
        return status

    with subprocess.Popen([sys.executable, "-c", program], cwd=PROJECT, env=environment) as supervisor:
        assert anyio.run(ends, supervisor) == "running"


def test_an_ordinary_user_runs_a_rootless_bundle(runtime_path: Path, rootfs: Path) -> None:
    """With ``runc spec --rootless`` and a root of its own."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # where others may go, too
        home = Path(name)
        shutil.copytree(rootfs, home / "bundle/rootfs", symlinks=True)
        (home / "closed").mkdir(mode=0o700)
        for path in [home, home / "bundle", *(home / "bundle").rglob("*")]:
            os.chown(path, USER, USER, follow_symlinks=False)
        done = run_as_ordinary_user(ROOTLESS, runtime_path, home, env={"XDG_RUNTIME_DIR": name, "HOME": name})
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


# -- commands without a method -----------------------------------------------------------------------------


@pytest.mark.anyio
async def test_any_command_can_be_called(runc: Runc, running: str) -> None:
    done = await runc.call("state", running)
    assert (done.status, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["id"] == running
    assert done.args[-2:] == ["state", running]
    assert (await runc.call("list", options={"quiet": True})).stdout.split() == [running.encode()]


@pytest.mark.anyio
async def test_a_command_that_fails_raises_the_usual_errors(runc: Runc) -> None:
    with pytest.raises(ContainerNotFoundError):
        await runc.call("state", "no-such-container")
    with pytest.raises(UnsupportedError, match="has no command frobnicate"):
        await runc.call("frobnicate", "x", options={"deep": True})
    with pytest.raises(UnsupportedError, match="has no flag --frob"):
        await runc.call("state", "x", extra_args=["--frob"])
    with pytest.raises(ValueError, match="run starts something: use the method run"):
        await runc.call("run", "x")


@pytest.mark.anyio
async def test_mounts_of_crun_are_added_and_removed(
    runc: Runc, runtime_name: str, running: str, tmp_path: Path
) -> None:
    if runtime_name != "crun":
        with pytest.raises(UnsupportedError, match="has no command mounts"):
            await runc.call("mounts", "add", running, "/x")
        return
    (tmp_path / "here").mkdir()
    (tmp_path / "here/file").write_text("seen")
    mounts = tmp_path / "mounts.json"
    mounts.write_text(json.dumps([
        {"destination": "/tmp/added", "type": "bind", "source": str(tmp_path / "here"), "options": ["bind"]},
    ]))  # fmt: skip
    await runc.call("mounts", "add", running, str(mounts))
    assert await runc.exec(running, ["grep", "-q", "seen", "/tmp/added/file"]) == 0
    await runc.call("mounts", "remove", running, str(mounts))
    assert await runc.exec(running, ["test", "-e", "/tmp/added/file"]) == 1
