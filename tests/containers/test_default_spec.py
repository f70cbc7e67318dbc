"""Every promise of `default_spec`, proved on a running container: what it forbids fails, what it limits is limited."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import ConsoleSocket, PipeIO, Runc, default_spec, temporary_bundle
from runc_async._bundle.default_spec import MASKED, READONLY
from runc_async._bundle.mounts import INITS

from .._cgroups import VERSION_2, cgroup_file, needs_controllers
from .._ordinary import USER, run_as_ordinary_user
from .._slowness import within
from .._streams import read_all

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence
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


def needs_init() -> None:
    if not any(shutil.which(name) for name in INITS):
        pytest.skip("no init is installed: `apt-get install tini catatonit`")


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


# -- nothing of the host's later mounts ------------------------------------------------------------------------


@pytest.fixture
def shared_folder(tmp_path: Path) -> Iterator[Path]:
    """A mount that shares what is mounted below it, as ``/`` does on a host with systemd."""
    folder = tmp_path / "shared"
    (folder / "below").mkdir(parents=True)
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    subprocess.run(["mount", "--make-shared", folder], check=True)
    yield folder
    subprocess.run(["umount", "-R", "-l", folder], check=True)


@pytest.mark.parametrize("access", ["ro", "rw"])
async def test_what_is_mounted_on_the_host_later_does_not_appear(
    runc: Runc, rootfs: Path, container_id: str, shared_folder: Path, access: str
) -> None:
    spec = default_spec(["sleep", "60"], rootless=False, mounts=[f"{shared_folder}:/tmp/shared:{access}"])
    async with temporary_bundle(spec, rootfs=rootfs) as bundle, runc.container(container_id, bundle) as container:
        await container.start()
        subprocess.run(["mount", "-t", "tmpfs", "later", shared_folder / "below"], check=True)
        script = "grep -c later /proc/self/mounts; grep -E ' (shared|master):' /proc/self/mountinfo; true"
        assert (await container.run(["sh", "-c", script])).stdout == b"0\n"


# -- files ----------------------------------------------------------------------------------------------------


async def test_a_tmpfs_has_room_for_so_many_files_and_no_more(said: Callable[..., Any]) -> None:
    script = "n=0; while echo >/tmp/d/$n; do n=$((n+1)); done 2>/dev/null; echo $n"
    own: Any = {"destination": "/tmp/d", "type": "tmpfs", "source": "tmpfs"}
    assert 90 < int(await said(script, mounts=[own], nr_inodes=100)) < 100
    assert await said("df -i /tmp /dev /dev/shm | awk 'NR > 1 {print $2}'") == "16384\n1024\n16384"


# -- more keywords --------------------------------------------------------------------------------------------


async def test_an_init_gives_programs_their_own_statuses_and_signals(shell: Callable[..., Any]) -> None:
    """As PID 1 a program gets no signal without a handler."""
    root_of = "tr '\\0' ' ' </proc/1/cmdline; "
    needs_init()
    assert await shell(root_of + "exit 3", init=True) == (3, f"/dev/init -- sh -c exec 2>&1; {root_of}exit 3 ")
    for name, number in (("ABRT", 6), ("TERM", 15), ("ALRM", 14), ("PIPE", 13)):
        assert await shell(f"kill -{name} $$", init=True) == (128 + number, "")
    assert await shell("kill -TERM $$; echo alive", init=False) == (0, "alive\n")


@pytest.mark.parametrize(("init", "until"), [(True, "while"), (False, "until")])
async def test_an_init_reaps_orphans(started: Callable[..., Any], container_id: str, init: bool, until: str) -> None:
    """Without one, they stay: a program seldom expects children that it did not start."""
    needs_init()
    async with started(container_id, init=init) as container:
        await container.run(["sh", "-c", "(true & true & true &)"])
        seen = await container.run(
            ["sh", "-c", f"{until} grep -q State:.Z /proc/[0-9]*/status 2>/dev/null; do sleep 0.05; done"]
        )
        assert seen.status == 0


async def test_an_init_cannot_be_changed_and_is_no_part_of_the_root(said: Callable[..., Any], rootfs: Path) -> None:
    needs_init()
    before = sorted(os.listdir(rootfs / "dev"))
    refused = await said("rm -f /dev/init; echo x >/dev/init; true", init=True)
    assert "Read-only file system" in refused
    assert "busy" in refused
    assert sorted(os.listdir(rootfs / "dev")) == before


@pytest.mark.parametrize("name", ["tini-static", "catatonit"])
async def test_a_path_selects_an_init(shell: Callable[..., Any], name: str) -> None:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed: `apt-get install tini catatonit`")
    assert await shell("kill -ABRT $$", init=path) == (134, "")


async def test_resource_limits(said: Callable[..., Any]) -> None:
    unlimited = resource.RLIM_INFINITY
    limits: Any = {"RLIMIT_NOFILE": 100, "RLIMIT_MEMLOCK": (4096, 8192), "RLIMIT_CORE": (0, unlimited)}
    text = await said("ulimit -n; ulimit -Hn; ulimit -l; ulimit -Hl; ulimit -c; ulimit -Hc", rlimits=limits)
    assert text.splitlines() == ["100", "100", "4", "8", "0", "unlimited"]


async def test_devices_as_nodes_that_can_be_opened_for_what_was_asked(said: Callable[..., Any]) -> None:
    script = "ls -l /dev/kmsg /dev/mine | awk '{print $1, $5, $6}'; head -c 1 /dev/mine | wc -c; echo >/dev/mine"
    refused = await said("ls /dev/kmsg; head -c 1 /dev/kmsg; true")
    assert refused.count("No such file") == 2
    text = await said(f"({script}) 2>&1; true", devices=["/dev/kmsg", "/dev/urandom:/dev/mine:r"])
    nodes = text.splitlines()
    assert nodes[0].endswith("1, 11")
    assert nodes[1].endswith("1, 9")
    assert nodes[2] == "1"


async def test_a_device_may_be_only_read(said: Callable[..., Any]) -> None:
    """The device cgroup of a runtime always lets /dev/urandom be written, but not /dev/kmsg."""
    text = await said("dd if=/dev/null of=/dev/kmsg; true", devices=["/dev/kmsg:/dev/kmsg:r"])
    assert "Operation not permitted" in text
    assert "Operation not permitted" not in await said("dd if=/dev/null of=/dev/kmsg; true", devices=["/dev/kmsg"])


async def test_kernel_parameters_of_its_own(said: Callable[..., Any]) -> None:
    script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/msgmax /proc/sys/fs/mqueue/msg_max"
    own = {"net.ipv4.ip_unprivileged_port_start": 7, "kernel.msgmax": "4096", "fs.mqueue.msg_max": 20}
    before = Path("/proc/sys/kernel/msgmax").read_text()
    assert (await said(script, sysctl=own)).split() == ["7", "4096", "20"]
    assert Path("/proc/sys/kernel/msgmax").read_text() == before


async def test_a_network_namespace_that_exists(said: Callable[..., Any], tmp_path: Path) -> None:
    place = tmp_path / "net"
    place.touch()
    script = f"mount --bind /proc/self/ns/net {place}; ip link add name of-mine type dummy 2>/dev/null; "
    script += "ip link set lo up; readlink /proc/self/ns/net"
    inode = subprocess.run(["unshare", "-n", "sh", "-c", script], capture_output=True, text=True, check=True).stdout
    try:
        seen = await said("readlink /proc/self/ns/net; ip -o link show lo | grep -o LOOPBACK,UP", network=place)
    finally:
        subprocess.run(["umount", place], check=True)
    assert seen == f"{inode}LOOPBACK,UP"


async def test_names_of_the_callers_choice(said: Callable[..., Any], rootfs: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    shutil.copytree(rootfs, own, symlinks=True)
    for name in ("resolv.conf", "hosts"):
        (own / "etc" / name).write_text("of the image\n")
        (tmp_path / name).write_text(f"own {name}\n")
    keywords: Any = {"resolv_conf": tmp_path / "resolv.conf", "hosts": str(tmp_path / "hosts"), "root": own}
    text = await said("cat /etc/resolv.conf /etc/hosts; echo x >>/etc/hosts; true", readonly=False, **keywords)
    assert text.startswith("own resolv.conf\nown hosts\n")
    assert "Read-only file system" in text
    assert (own / "etc/hosts").read_text() == "of the image\n"


@pytest.fixture
def open_rootfs(rootfs: Path) -> Iterator[Path]:
    """A copy of the root file system where other users may go."""
    with tempfile.TemporaryDirectory(prefix="runc-async-test-", dir="/tmp") as name:
        os.chmod(name, 0o711)
        shutil.copytree(rootfs, Path(name, "rootfs"), symlinks=True)
        (Path(name) / "rootfs/etc/secret").write_text("of root")
        (Path(name) / "rootfs/etc/secret").chmod(0o600)
        yield Path(name, "rootfs")


@pytest.mark.parametrize("network", ["none", "host"])
async def test_root_in_a_user_namespace_is_nobody_on_the_host(
    said: Callable[..., Any], open_rootfs: Path, network: Any
) -> None:
    ids: Any = {"user_namespace": range(200_000, 265_536), "root": open_rootfs, "network": network}
    assert (await said("cat /proc/self/uid_map /proc/self/gid_map", **ids)).split() == ["0", "200000", "65536"] * 2
    assert "Permission denied" in await said("cat /etc/secret; true", capabilities=["CAP_DAC_OVERRIDE"], **ids)
    assert await said("id -u; id -g; id -G", user="1000:100", additional_gids=[5], **ids) == "1000\n100\n100 5"
    assert await said("touch /tmp/x; stat -c %u:%g /tmp/x; echo x >/dev/null; head -c 1 /dev/zero | wc -c", **ids) == (
        "0:0\n1"
    )
    refused = await said("mkdir /sys/fs/mine /sys/fs/cgroup/mine; true", **ids)
    assert refused.startswith("mkdir: can't create directory '/sys/fs/mine': Read-only file system")
    own = await said("ls /dev/kmsg", devices=["/dev/kmsg"], **ids)
    assert own == "/dev/kmsg"


@pytest.mark.parametrize("writable", [True, "8M"])
async def test_a_writable_root_in_a_user_namespace(
    runc: Runc, open_rootfs: Path, container_id: str, writable: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(open_rootfs.parent))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(open_rootfs.parent))
    script = "exec 2>&1; echo mine >/etc/x && cat /etc/x; rm -r /etc/x; ls /etc"
    spec = default_spec(
        ["sh", "-c", script], rootless=False, user_namespace=range(200_000, 265_536), capabilities=["CAP_DAC_OVERRIDE"]
    )
    for path in (open_rootfs / "etc", open_rootfs):
        os.chown(path, 200_000, 200_000)
    async with (
        temporary_bundle(spec, rootfs=open_rootfs, writable=writable) as bundle,
        PipeIO(stdin=False, stderr=False) as io,
    ):
        status = await runc.run(container_id, bundle, io=io)
        assert (await read_all(io.stdout), status) == (b"mine\nsecret\n", 0)


async def test_an_apparmor_profile(said: Callable[..., Any]) -> None:
    if not Path("/sys/module/apparmor/parameters/enabled").exists():
        pytest.skip("AppArmor is not in this kernel: boot one with it (lsm=apparmor)")
    assert await said("cat /proc/self/attr/current", apparmor="unconfined") == "unconfined"


def test_an_apparmor_profile_where_there_is_no_apparmor_is_refused() -> None:
    if Path("/sys/module/apparmor/parameters/enabled").exists():
        pytest.skip("AppArmor is in this kernel: boot one without it (apparmor=0)")
    with pytest.raises(ValueError, match="the kernel of this machine has no AppArmor, so no profile 'docker-default'"):
        default_spec(["true"], apparmor="docker-default")


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


ROOTLESS_KEYWORDS = """
import sys
from pathlib import Path
import anyio
from runc_async import *

async def main(runtime, home, rootfs, cgroup):
    runc = Runc(runtime, root=Path(home, "state"))

    async def run(name, script, **keywords):
        spec = default_spec(["sh", "-c", f"exec 2>&1; {script}"], **keywords)
        async with temporary_bundle(spec, rootfs=rootfs) as bundle, PipeIO(stdin=False, stderr=False) as io:
            status = await runc.run(name, bundle, io=io)
            try:
                print(name, status, (await io.stdout.receive()).decode())
            except anyio.EndOfStream:
                print(name, status, "")

    def write(name):
        Path(home, name).write_text(f"own {name}\\n")
        return Path(home, name)

    await run("init", "kill -ABRT $$", init=True)
    await run("rlimits", "ulimit -n; ulimit -Hn", rlimits={"RLIMIT_NOFILE": (99, 100)})
    await run("devices", "head -c 2 /dev/mine | wc -c", devices=["/dev/zero:/dev/mine"])
    await run("sysctl", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
              sysctl={"net.ipv4.ip_unprivileged_port_start": 7})
    await run("names", "cat /etc/resolv.conf /etc/hosts", resolv_conf=write("resolv.conf"), hosts=write("hosts"))
    await run("inodes", "df -i /tmp | awk 'NR > 1 {print $2}'", nr_inodes=100)
    await run("strict", "unshare -n true || echo refused", seccomp="strict")
    await run("sys", f"ls -d {cgroup}; mkdir {cgroup}/mine || echo refused", network="host")

anyio.run(main, *sys.argv[1:])
"""


@pytest.fixture
def own_cgroup() -> Iterator[Path]:
    """A cgroup of the ordinary user's, as systemd delegates one."""
    points = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    mounted = [Path(fields[1]) for fields in points if fields[2] in ("cgroup", "cgroup2")]
    folder = mounted[-1] / f"runc-async-test-{os.getpid()}"
    folder.mkdir()
    os.chown(folder, USER, USER)
    yield folder
    if (folder / "mine").exists():
        (folder / "mine").rmdir()
    folder.rmdir()


def test_keywords_hold_for_an_ordinary_user(runtime_path: Path, rootfs: Path, own_cgroup: Path) -> None:
    needs_init()
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        home = Path(name)
        shutil.copytree(rootfs, home / "rootfs", symlinks=True)
        for file in ("resolv.conf", "hosts"):
            (home / "rootfs/etc" / file).touch()
        os.chown(home, USER, USER)
        environment = {"XDG_RUNTIME_DIR": name, "TMPDIR": name, "HOME": name}
        done = run_as_ordinary_user(ROOTLESS_KEYWORDS, runtime_path, home, home / "rootfs", own_cgroup, env=environment)
        assert done.returncode == 0, done.stderr
    assert not (own_cgroup / "mine").exists()
    printed = done.stdout.split("\n\n")
    assert printed[0].startswith("init 134 ")
    assert "rlimits 0 99\n100\n" in done.stdout
    assert "devices 0 2\n" in done.stdout
    assert "sysctl 0 7\n" in done.stdout
    assert "names 0 own resolv.conf\nown hosts\n" in done.stdout
    assert "inodes 0 100\n" in done.stdout
    assert "strict 0 " in done.stdout
    assert done.stdout.count("refused\n") == 2
    assert f"sys 0 {own_cgroup}\n" in done.stdout
    assert "Read-only file system" in done.stdout
