"""Every promise of `default_spec`, proved on a running container: what it forbids fails, what it limits is limited."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import ConsoleSocket, PipeIO, Runc, default_spec, temporary_bundle
from runc_async._bundle.default_spec import MASKED, READONLY

from .._cgroups import VERSION_2, cgroup_file, needs_controllers
from .._ordinary import USER, run_as_ordinary_user
from .._slowness import within
from .._streams import read_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from runc_async import Container

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: what is proved here is the specification."""
    return "asyncio"


@pytest.fixture
def shell(runc: Runc, rootfs: Path, new_id: Callable[[], str]) -> Callable[..., Any]:
    """Runs a script in a container of `default_spec`'s making; its status, and what it wrote to both streams."""

    async def run(script: str, *, root: Path = rootfs, **keywords: Any) -> tuple[int, str]:
        spec = default_spec(["sh", "-c", f"exec 2>&1; {script}"], rootless=False, **keywords)
        output = bytearray()
        async with (
            temporary_bundle(spec, rootfs=root) as bundle,
            PipeIO(stdin=False, stderr=False) as io,
            anyio.create_task_group() as group,
        ):
            group.start_soon(read_all, io.stdout, output)
            status = await runc.run(new_id(), bundle, io=io)
        return status, output.decode()

    return run


@pytest.fixture
def said(shell: Callable[..., Any]) -> Callable[..., Any]:
    """What a script wrote that ended with 0."""

    async def run(script: str, **keywords: Any) -> str:
        status, output = await shell(script, **keywords)
        assert status == 0, output
        return str(output).strip()

    return run


def capabilities(*numbers: int) -> str:
    """A set of capabilities as ``/proc/PID/status`` shows it."""
    return f"{sum(1 << number for number in numbers):016x}"


# -- safe by default ------------------------------------------------------------------------------------------


async def test_no_new_privileges_few_capabilities_and_a_filter(said: Callable[..., Any]) -> None:
    status = dict(line.split(":\t") for line in (await said("cat /proc/self/status")).splitlines())
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    kill, bind = 5, 10
    for kind in ("CapPrm", "CapEff", "CapBnd"):
        assert status[kind] == capabilities(kill, bind), kind
    assert status["CapInh"] == status["CapAmb"] == capabilities()


async def test_a_set_user_id_program_gives_nothing(said: Callable[..., Any], rootfs: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(rootfs, own, symlinks=True)
    (own / "bin/busybox").chmod(0o4755)
    assert await said("id -u; grep CapEff /proc/self/status", root=own, user=1000) == f"1000\nCapEff:\t{capabilities()}"


async def test_the_root_is_read_only_and_tmp_is_small(said: Callable[..., Any]) -> None:
    assert await said("touch /x /etc/x /bin/x; true") == "\n".join(
        f"touch: {path}: Read-only file system" for path in ("/x", "/etc/x", "/bin/x")
    )
    kilobytes, options = (await said("df -k /tmp | awk 'END {print $2}'; grep ' /tmp ' /proc/self/mounts")).split("\n")
    assert int(kilobytes) == 64 << 10
    assert {"rw", "nosuid", "nodev"} <= set(options.split()[3].split(","))
    filled = await said("dd if=/dev/zero of=/tmp/x bs=1M count=100; ls -l /tmp/x | awk '{print $5}'; true")
    assert "No space left on device" in filled
    assert int(filled.split()[-1]) <= 64 << 20


async def test_what_is_masked_shows_nothing(said: Callable[..., Any]) -> None:
    script = (
        f"for path in {' '.join(MASKED)}; do"
        " if [ -d $path ]; then echo $path $(ls -A $path | wc -l);"
        " elif [ -e $path ]; then echo $path $(head -c 9 $path | wc -c); fi; done"
    )
    found = dict(line.split() for line in (await said(script)).splitlines())
    assert set(found.values()) == {"0"}
    assert set(found) == {path for path in MASKED if os.path.exists(path)}
    assert {"/proc/keys", "/sys/firmware"} <= set(found)


async def test_the_kernels_knobs_cannot_be_turned(said: Callable[..., Any]) -> None:
    mounts = [line.split() for line in (await said("cat /proc/self/mounts")).splitlines()]
    options = {fields[1]: fields[3].split(",") for fields in mounts}
    for path in (*(path for path in READONLY if os.path.exists(path)), "/sys"):
        assert "ro" in options[path], path
    refused = await said("for f in hostname core_pattern; do echo x >/proc/sys/kernel/$f; done; true")
    assert refused.count("Read-only file system") == 2
    assert [point for point in options if point.startswith("/sys/fs/cgroup")] == []


async def test_namespaces_of_its_own_and_no_network(said: Callable[..., Any]) -> None:
    lines = (await said("for n in pid mnt ipc uts cgroup net; do readlink /proc/self/ns/$n; done")).splitlines()
    for line in lines:
        name = line.partition(":")[0]
        assert os.readlink(f"/proc/self/ns/{name}") != line
    assert len(lines) == 6
    assert await said("echo $$; hostname") == "1\ncontainer"
    assert re.findall(r"^ *(\w+):", await said("cat /proc/net/dev"), re.MULTILINE) == ["lo"]
    assert "unreachable" in await said("nc -w 1 192.0.2.1 80; true")


async def test_no_devices_but_the_harmless_ones(said: Callable[..., Any]) -> None:
    devices = (await said("cd /dev; for f in *; do [ ! -L $f ] && [ -c $f -o -b $f ] && echo $f; done; true")).split()
    assert set(devices) <= {"console", "full", "null", "ptmx", "random", "tty", "urandom", "zero"}
    assert await said("head -c 3 /dev/zero | wc -c; head -c 3 /dev/urandom | wc -c; echo x >/dev/null") == "3\n3"
    mknod = "mknod /dev/mine b 1 0; mknod /dev/mem c 1 1; ls /dev/mine /dev/mem"
    assert (await said(f"{mknod}; true")).count("Operation not permitted") == 2
    # One who may make them may not open them: the device cgroup forbids it.
    refused = await said(f"{mknod}; head -c 1 /dev/mine /dev/mem; true", capabilities=["CAP_MKNOD"])
    assert re.findall(r"/dev/(\w+): Operation not permitted", refused) == ["mine", "mem"], refused


async def test_no_user_namespaces_unless_asked_for(shell: Callable[..., Any]) -> None:
    status, output = await shell("unshare -U true")
    assert status != 0
    assert "Operation not permitted" in output
    if Path("/proc/sys/user/max_user_namespaces").read_text().strip() != "0":
        assert await shell("unshare -U true", seccomp=False) == (0, "")


async def test_no_core_dumps_and_few_open_files(said: Callable[..., Any]) -> None:
    assert await said("ulimit -c; ulimit -n; ulimit -Hn") == "0\n1024\n4096"


# -- limits ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", ["16M", 16 << 20])
async def test_too_much_memory_kills(shell: Callable[..., Any], size: Any) -> None:
    needs_controllers("memory")
    grow = "x=0123456789abcdef; while [ ${#x} -lt %d ]; do x=$x$x; done; echo ${#x}"
    assert await shell(grow % (1 << 28), memory=size, swap=size) == (137, "")  # SIGKILL
    assert await shell(grow % (1 << 20), memory=size, swap=size) == (0, f"{1 << 20}\n")


async def test_tmp_counts_as_memory(shell: Callable[..., Any]) -> None:
    needs_controllers("memory")
    status, output = await shell("dd if=/dev/zero of=/tmp/x bs=1M count=60", memory="16M", swap="16M")
    assert status == 137, output


async def test_too_many_processes_cannot_be_made(shell: Callable[..., Any], said: Callable[..., Any]) -> None:
    needs_controllers("pids")
    status, output = await shell("for n in $(seq 20); do sleep 60 & done", pids=8)
    assert status != 0
    assert "can't fork" in output
    assert await said("for n in $(seq 20); do sleep 60 & done; echo made", pids=32) == "made"


@pytest.fixture
def started(runc: Runc, rootfs: Path) -> Callable[..., AbstractAsyncContextManager[Container]]:
    """A container of these keywords that runs until the block ends."""

    @contextlib.asynccontextmanager
    async def start(id: str, args: Sequence[str] = ("sleep", "60"), **keywords: Any) -> AsyncIterator[Container]:
        spec = default_spec(args, rootless=False, **keywords)
        async with temporary_bundle(spec, rootfs=rootfs) as bundle, runc.container(id, bundle) as container:
            await container.start()
            yield container

    return start


async def test_the_kernel_has_the_limits(started: Callable[..., Any], container_id: str) -> None:
    needs_controllers("memory", "cpu", "pids")
    async with started(container_id, memory="48M", swap="64M", cpus=0.25, pids="auto"):
        assert cgroup_file(container_id, "memory.limit_in_bytes", "memory.max") == str(48 << 20)
        assert cgroup_file(container_id, "pids.max", "pids.max") == "256"
        if VERSION_2:
            assert cgroup_file(container_id, "", "cpu.max") == "25000 100000"
            assert cgroup_file(container_id, "", "memory.swap.max") == str(16 << 20)
        else:
            assert cgroup_file(container_id, "cpu.cfs_quota_us", "") == "25000"
            assert cgroup_file(container_id, "cpu.cfs_period_us", "") == "100000"
            assert cgroup_file(container_id, "memory.memsw.limit_in_bytes", "") == str(64 << 20)


async def test_no_more_cpu_time_than_its_share(started: Callable[..., Any], container_id: str) -> None:
    needs_controllers("cpu")
    async with started(container_id, ["sh", "-c", "while :; do :; done"], cpus=0.1):
        with within(60):
            while "nr_throttled 0" in cgroup_file(container_id, "cpu.stat", "cpu.stat"):
                await anyio.sleep(0.1)


async def test_without_a_limit_there_is_none(started: Callable[..., Any], container_id: str) -> None:
    needs_controllers("pids")
    async with started(container_id, pids=None):
        assert cgroup_file(container_id, "pids.max", "pids.max") == "max"


# -- what people want -----------------------------------------------------------------------------------------


async def test_environment_directory_user_groups_and_hostname(said: Callable[..., Any]) -> None:
    script = 'echo "$A|$EMPTY|$PATH"; pwd; id -u; id -g; id -G; hostname'
    keywords: Any = {"env": {"A": "x y=z", "EMPTY": "", "PATH": "/bin"}, "cwd": "/tmp", "hostname": "box-1"}
    assert await said(script, user="1000:100", additional_gids=[5, 20], **keywords) == (
        "x y=z||/bin\n/tmp\n1000\n100\n100 5 20\nbox-1"
    )


async def test_capabilities_asked_for_reach_also_another_user(said: Callable[..., Any]) -> None:
    script = "grep -E 'Cap(Prm|Eff|Bnd)' /proc/self/status | cut -f2 | uniq"
    chown, raw = 0, 13
    asked = {"capabilities": ["CAP_CHOWN", "CAP_NET_RAW"]}
    for user in (None, 1000):
        assert await said(script, user=user, **asked) == capabilities(chown, raw)
    assert await said(script, user=1000) == capabilities()


async def test_mounts_read_only_all_the_way_down_and_writable(said: Callable[..., Any], tmp_path: Path) -> None:
    for name in ("ro/below", "rw"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "ro/file").write_text("from the host")
    tmpfs: Any = {"destination": "/tmp/own", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m", "mode=700"]}
    keywords = {"mounts": [f"{tmp_path}/ro:/tmp/ro:ro", f"{tmp_path}/rw:/tmp/rw", tmpfs]}
    subprocess.run(["mount", "-t", "tmpfs", "below", tmp_path / "ro/below"], check=True)
    try:
        script = "cat /tmp/ro/file; echo; touch /tmp/ro/x /tmp/ro/below/x; echo mine >/tmp/rw/x; df -k /tmp/own"
        content, *refused, _, own = (await said(script, **keywords)).splitlines()
    finally:
        subprocess.run(["umount", tmp_path / "ro/below"], check=True)
    assert content == "from the host"
    assert [line.rpartition(": ")[2] for line in refused] == ["Read-only file system"] * 2
    assert own.split()[1] == "1024"
    assert (tmp_path / "rw/x").read_text() == "mine\n"
    assert sorted(os.listdir(tmp_path / "ro")) == ["below", "file"]


async def test_a_writable_root(said: Callable[..., Any], rootfs: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(rootfs, own, symlinks=True)
    assert await said("echo mine >/etc/x; cat /etc/x", readonly=False, root=own) == "mine"
    assert (own / "etc/x").read_text() == "mine\n"


async def test_the_hosts_network(said: Callable[..., Any]) -> None:
    seen = await said("readlink /proc/self/ns/net; cat /proc/net/dev", network="host")
    assert seen.splitlines()[0] == os.readlink("/proc/self/ns/net")
    host = Path("/proc/net/dev").read_text()
    names = r"^ *([^: ]+):"
    assert re.findall(names, seen.partition("\n")[2], re.MULTILINE) == re.findall(names, host, re.MULTILINE)


async def test_the_size_of_tmp(said: Callable[..., Any]) -> None:
    assert await said("df -k /tmp | awk 'END {print $2}'", tmp="2M") == "2048"


async def test_annotations_are_in_the_state(started: Callable[..., Any], container_id: str) -> None:
    async with started(container_id, annotations={"org.example.job": "7"}) as container:
        assert (await container.state()).annotations["org.example.job"] == "7"


async def test_a_terminal(runc: Runc, rootfs: Path, container_id: str) -> None:
    spec = default_spec(["sh", "-c", "tty; stty size; echo $TERM"], terminal=True, rootless=False)
    async with (
        temporary_bundle(spec, rootfs=rootfs) as bundle,
        ConsoleSocket() as socket,
        runc.container(container_id, bundle, console_socket=socket) as container,
        await socket.receive() as console,
    ):
        console.resize(24, 80)
        await container.start()
        assert await read_all(console) == b"/dev/pts/0\r\n24 80\r\nxterm\r\n"


# -- rootless -------------------------------------------------------------------------------------------------

ROOTLESS = """
import json, os, sys
from pathlib import Path
import anyio
from runc_async import *

async def main(runtime, home, rootfs, backend):
    runc = Runc(runtime, root=Path(home, "state"))
    script = (
        "id -u; cat /proc/self/uid_map; echo mine >/tmp/rw/x; touch /x; "
        "cat /proc/net/dev; grep NoNew /proc/self/status"
    )
    spec = default_spec(["sh", "-c", f"exec 2>&1; {script}"], mounts=[f"{home}/rw:/tmp/rw"], env={"A": "1"})
    async with temporary_bundle(spec, rootfs=rootfs) as bundle, PipeIO(stdin=False, stderr=False) as io:
        status = await runc.run("rootless", bundle, io=io)
        print((await io.stdout.receive()).decode())
    print("status", status)
    try:
        async with temporary_bundle(default_spec(["true"], memory="64M"), rootfs=rootfs) as bundle:
            print(await runc.run("limited", bundle))
    except CommandError as error:
        print("cgroup" in str(error) and "\\n" not in str(error))

anyio.run(main, *sys.argv[1:], backend=sys.argv[4])
"""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_ordinary_user_is_root_in_a_namespace_of_its_own(
    runtime_path: Path, runtime_name: str, rootfs: Path, backend: str
) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:  # where others may go, too
        home = Path(name)
        (home / "rw").mkdir()
        shutil.copytree(rootfs, home / "rootfs", symlinks=True)
        for path in (home, home / "rw"):
            os.chown(path, USER, USER)
        environment = {"XDG_RUNTIME_DIR": name, "TMPDIR": name, "HOME": name}
        done = run_as_ordinary_user(ROOTLESS, runtime_path, home, home / "rootfs", backend, env=environment)
        assert done.returncode == 0, done.stderr
        assert (home / "rw/x").stat().st_uid == USER
    lines = done.stdout.splitlines()
    assert lines[:2] == ["0", f"         0      {USER}          1"]
    assert "touch: /x: Read-only file system" in lines
    assert "NoNewPrivs:\t1" in lines
    assert [line.split(":")[0].strip() for line in lines if line.count(":") == 1 and "lo" in line] == ["lo"]
    # Cgroups are not delegated here. runc refuses what it cannot limit; crun runs it without.
    assert lines[-2:] == ["status 0", "True" if runtime_name == "runc" else "0"]


async def test_root_may_be_rootless_too(runc: Runc, rootfs: Path, container_id: str) -> None:
    spec = default_spec(["sh", "-c", "readlink /proc/self/ns/user; cat /proc/self/uid_map"], rootless=True)
    async with temporary_bundle(spec, rootfs=rootfs) as bundle, PipeIO(stdin=False) as io:
        assert await runc.run(container_id, bundle, io=io) == 0
        namespace, mapped = (await io.stdout.receive()).decode().splitlines()
    assert namespace != os.readlink("/proc/self/ns/user")
    assert mapped.split() == ["0", "0", "1"]
