"""Files of a container, through a descriptor: in and out, and nothing but what may go."""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from runc_async import ContainerNotRunningError, PipeIO

from ._ordinary import USER, run_as_ordinary_user

if TYPE_CHECKING:
    from collections.abc import Callable

    from runc_async import Runc
    from runc_async._container import Container

pytestmark = pytest.mark.anyio
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root: run the suite as root")

WORK = {"destination": "/work", "type": "tmpfs", "source": "tmpfs", "options": ["mode=1777", "size=8m"]}


def with_work(spec: dict[str, Any]) -> None:
    """A tmpfs of 8 MiB at /work."""
    spec["mounts"].append(WORK)


@pytest.fixture
def make(runc: Runc, make_bundle: Callable[..., Path], new_id: Callable[[], str], rootfs: Path) -> Callable[..., Any]:
    """Makes containers that run a script with a tmpfs at /work."""
    (rootfs / "work").mkdir(exist_ok=True)
    return lambda script, **options: runc.container(
        new_id(), make_bundle("sh", "-c", script, spec=options.pop("spec", with_work)), **options
    )


async def test_in_before_the_start_and_out_after_the_removal(make: Callable[..., Any]) -> None:
    script = "cd /work && cat in/main.txt >out.txt && mkdir -p results && echo 42 >results/answer && rm in/main.txt"
    async with make(script) as container:
        files = container.files("/work")
        await files.write("in/main.txt", "hello")
        await files.write("raw", b"\0\1", mode=0o4755)
        assert await files.list() == ["in", "raw"]
        await container.start()
        assert (await container.wait()).status in (0, None)
    assert await files.read("out.txt") == b"hello"
    assert await files.read("results/answer") == b"42\n"
    assert await files.list("in") == []
    with pytest.raises(FileNotFoundError):
        await files.read("in/main.txt")
    await files.write("later", b"also then")
    assert await files.read("later") == b"also then"
    files.close()
    files.close()
    with pytest.raises(ValueError, match="is closed"):
        await files.list()
    assert repr(files) == "<ContainerFiles '/work' closed>"


async def test_a_quota_is_the_programs_and_a_files_own(make: Callable[..., Any]) -> None:
    """The program gets ENOSPC; so does who writes too much, and then there is no half file."""
    script = "dd if=/dev/zero of=/work/fill bs=1M count=9 2>/work.err; rm /work/fill; exec sleep 60"
    async with make(script) as container:
        with container.files("/work") as files:
            with pytest.raises(OSError, match="No space left") as caught:
                await files.write("large", b"x" * (9 << 20))
            assert caught.value.errno == errno.ENOSPC
            assert await files.list() == []
            await files.write("large", b"x" * (7 << 20))
            assert len(await files.read("large")) == 7 << 20


async def test_permissions_are_as_asked_for_and_a_file_is_replaced_whole(make: Callable[..., Any]) -> None:
    async with make("true") as container:
        with container.files("/work") as files:
            before = os.umask(0o077)
            try:
                await files.write("a/b/plain", b"1")
                await files.write("tool", b"1", mode=0o755)
                await files.write("private", b"1", mode=0o600)
            finally:
                os.umask(before)
            work = Path(f"/proc/{container.pid}/root/work")
            modes = {name: stat.S_IMODE((work / name).stat().st_mode) for name in ("a/b/plain", "tool", "private", "a")}
            assert modes == {"a/b/plain": 0o644, "tool": 0o755, "private": 0o600, "a": 0o755}
            inode = (work / "tool").stat().st_ino
            await files.write("tool", b"22")
            assert (work / "tool").read_bytes() == b"22"
            assert (work / "tool").stat().st_ino != inode
            with pytest.raises(IsADirectoryError):
                await files.write("a", b"")
            with pytest.raises(OSError, match="is not a directory"):
                await files.write("tool/below", b"")
            assert await files.list() == ["a", "private", "tool"]


@needs_root
async def test_owners_are_in_the_containers_numbers(make: Callable[..., Any]) -> None:
    def with_users(spec: dict[str, Any]) -> None:
        with_work(spec)
        spec["linux"]["namespaces"].append({"type": "user"})
        for kind in ("uidMappings", "gidMappings"):
            spec["linux"][kind] = [{"containerID": 0, "hostID": 100000, "size": 1000}]

    async with make("true", spec=with_users) as container:
        with container.files("/work") as files:
            await files.write("default/file", b"")
            await files.write("seven", b"", owner=7)
            await files.write("eight", b"", owner=(8, 9))
            work = Path(f"/proc/{container.pid}/root/work")
            owners = {
                name: ((work / name).stat().st_uid, (work / name).stat().st_gid)
                for name in ("default", "default/file", "seven", "eight")
            }
            assert owners["default"] == owners["default/file"] == (100000, 100000)
            assert owners["seven"] == (100007, 100007)
            assert owners["eight"] == (100008, 100009)
            with pytest.raises(ValueError, match="has no uid 1000"):
                await files.write("x", b"", owner=1000)


HOSTILE = """
cd /work
ln -s /etc/shadow link; ln -s . loop; ln -s /proc up
mkfifo fifo
mkdir -p sub/deep; echo inside >sub/deep/file; ln sub/deep/file hard
echo good >good; cp good suid; chmod 6755 suid
dd if=/dev/zero of=sparse bs=1 count=1 seek=300M 2>/dev/null || truncate -s 300M sparse
echo unreadable >secret; chmod 000 secret
nc -l -U socket 2>/dev/null & sleep 0.1
echo ready; sleep 60
"""


async def wait_until_ready(container: Container[PipeIO]) -> None:
    await container.start()
    assert container.io is not None
    assert (await container.io.stdout.receive()).endswith(b"ready\n")


async def test_only_regular_files_and_directories_come_out(make: Callable[..., Any], tmp_path: Path) -> None:
    def change(spec: dict[str, Any]) -> None:
        spec["mounts"].append({**WORK, "options": ["mode=1777"]})
        spec["process"]["capabilities"] = {kind: ["CAP_MKNOD"] for kind in ("bounding", "effective", "permitted")}

    async with make(HOSTILE, io=PipeIO(stdin=False), spec=change) as container:
        await wait_until_ready(container)
        if os.geteuid() == 0:
            os.mknod(f"/proc/{container.pid}/root/work/device", 0o644 | stat.S_IFCHR, os.makedev(1, 5))
        with container.files("/work") as files:
            refused = await files.copy_out(".", tmp_path / "out", max_bytes=1 << 20)
            out = tmp_path / "out"
            found = {str(path.relative_to(out)) for path in out.rglob("*")}
            if os.geteuid() == 0:
                assert refused.pop("device") == "is a character device"
                found.discard("secret")
            assert found == {"good", "suid", "hard", "sub", "sub/deep", "sub/deep/file"}
            assert not [path for path in out.rglob("*") if path.is_symlink() or path.is_fifo() or path.is_socket()]
            assert stat.S_IMODE((out / "suid").stat().st_mode) == 0o755
            assert (out / "sub/deep/file").read_text() == "inside\n"
            assert refused.pop("sparse") == f"has {300 * 1024 * 1024} bytes, and {1 << 20} are allowed" or refused
            refused.pop("socket", None)
            assert refused == {
                "fifo": "is a FIFO",
                **dict.fromkeys(("link", "loop", "up"), "is a symbolic link"),
            }
            for name, code in [
                ("link", errno.ELOOP),
                ("fifo", errno.EINVAL),
                ("sub", errno.EISDIR),
                ("up/1", errno.ELOOP),
            ]:
                with pytest.raises(OSError, match="is a ") as caught:
                    await files.read(name)
                assert caught.value.errno == code
                assert caught.value.filename in (name, "up")
            with pytest.raises(OSError, match="bytes, and 1048576 are allowed"):
                await files.read("sparse", max_bytes=1 << 20)
            with pytest.raises(OSError, match="is a symbolic link"):
                await files.write("loop/x", b"")
            await files.write("link", b"in its place")  # not through it
            assert await files.read("link") == b"in its place"
            await files.write("fifo", b"too")
            assert await files.read("fifo") == b"too"


async def test_limits_of_bytes_and_entries_are_of_all_together(make: Callable[..., Any], tmp_path: Path) -> None:
    script = "cd /work; for i in 1 2 3 4 5; do head -c 1000 /dev/zero >f$i; mkdir d$i; done; echo ready; sleep 60"
    async with make(script, io=PipeIO(stdin=False)) as container:
        await wait_until_ready(container)
        with container.files("/work") as files:
            refused = await files.copy_out(".", tmp_path / "bytes", max_bytes=3500)
            assert refused == dict.fromkeys(("f4", "f5"), "has 1000 bytes, and 500 are allowed")
            refused = await files.copy_out(".", tmp_path / "entries", max_entries=7)
            assert refused == {".": "there are more than 7 files and directories"}
            assert len(list((tmp_path / "entries").iterdir())) == 7
            with pytest.raises(OSError, match="more than 9 names"):
                await files.list(max_entries=9)
            assert len(await files.list(max_entries=10)) == 10
            found = await files.collect(lambda name: name.startswith("f"), max_bytes=2500)
            assert {name: len(data) for name, data in found.files.items()} == {"f1": 1000, "f2": 1000}
            assert {*found.refused} == {"f3", "f4", "f5"}


async def test_a_tree_of_the_host_goes_in_and_comes_out_the_same(make: Callable[..., Any], tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/data").write_bytes(random.Random(1).randbytes(3 << 20))
    (source / "tool").write_text("#!/bin/sh\n")
    (source / "tool").chmod(0o755)
    (source / "link").symlink_to("tool")
    async with make("true") as container:
        with container.files("/work") as files:
            await files.copy_in(source, "tree")
            await files.copy_in(source / "tool", "x/y/one")
            assert await files.copy_out("tree", tmp_path / "back") == {"tree/link": "is a symbolic link"}
            assert (tmp_path / "back/a/b/data").read_bytes() == (source / "a/b/data").read_bytes()
            assert stat.S_IMODE((tmp_path / "back/tool").stat().st_mode) == 0o755
            assert os.readlink(f"/proc/{container.pid}/root/work/tree/link") == "tool"
            assert await files.copy_out("x/y/one", tmp_path / "one") == {}
            assert (tmp_path / "one").read_text() == "#!/bin/sh\n"
            with pytest.raises(FileExistsError):  # nothing is overwritten
                await files.copy_out("x/y/one", tmp_path / "one")
            with pytest.raises(FileExistsError):
                await files.copy_out("tree", tmp_path / "back")
            (tmp_path / "trap").symlink_to("/etc")
            with pytest.raises(FileExistsError):
                await files.copy_out("tree", tmp_path / "trap")
            os.mkfifo(source / "fifo")
            with pytest.raises(OSError, match="neither a file, a directory nor"):
                await files.copy_in(source, "other")


@pytest.mark.parametrize("name", ["", "/etc/passwd", "../x", "a/../../x", "a\0b"])
async def test_names_that_lead_elsewhere_are_refused(make: Callable[..., Any], name: str, tmp_path: Path) -> None:
    async with make("true") as container:
        with container.files("/work") as files:
            for call in (
                files.write(name, b""),
                files.read(name),
                files.list(name),
                files.copy_in(tmp_path, name),
                files.copy_out(name, tmp_path / "out"),
            ):
                with pytest.raises(ValueError, match="name must be a relative path"):
                    await call
            assert await files.list() == []


async def test_what_is_no_directory_of_the_container_is_not_opened(make: Callable[..., Any], rootfs: Path) -> None:
    async with make("true") as container:
        for path, error in [
            ("work", ValueError),
            ("/work/../etc", ValueError),
            ("/missing", FileNotFoundError),
            ("/bin/busybox", NotADirectoryError),
            ("/bin/sh", OSError),
            ("/proc/self/root", OSError),
        ]:
            with pytest.raises(error):
                container.files(path)
        with container.files("/") as files:
            assert "work" in await files.list()


async def test_of_a_container_that_has_ended_nothing_is_opened(make: Callable[..., Any]) -> None:
    async with make("true") as container:
        await container.start()
        await container.wait()
        with pytest.raises(ContainerNotRunningError, match="has ended"):
            container.files("/work")


@needs_root
async def test_what_is_mounted_below_does_not_come_out(make: Callable[..., Any], tmp_path: Path) -> None:
    """A program that is root in a user namespace may mount a ``proc`` there, which the host's root can read all of."""

    def change(spec: dict[str, Any]) -> None:
        with_work(spec)
        spec["mounts"] += [
            {"destination": "/work/other", "type": "tmpfs", "source": "tmpfs"},
            {"destination": "/work/file", "type": "bind", "source": "/etc/hostname", "options": ["bind"]},
        ]

    async with make("true", spec=change) as container:
        with container.files("/work") as files:
            refused = await files.copy_out(".", tmp_path / "out")
            assert refused == dict.fromkeys(("file", "other"), "is on another mount")
            with pytest.raises(OSError, match="is on another mount"):
                await files.read("other/version")
            with pytest.raises(OSError, match="is on another mount"):
                await files.read("file")


async def test_a_program_that_swaps_directories_and_links_gains_nothing(
    make: Callable[..., Any], tmp_path: Path
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("secret")
    script = f"""cd /work; mkdir real; echo fine >real/secret; ln -s {tmp_path} link; echo ready
    while :; do mv real d 2>/dev/null; mv d real; mv link d; mv d link; done"""
    async with make(script, io=PipeIO(stdin=False)) as container:
        await wait_until_ready(container)
        with container.files("/work") as files:
            seen = set()
            for _ in range(300):
                try:
                    seen.add(await files.read("d/secret"))
                except OSError as exc:
                    seen.add(exc.errno)
            assert seen <= {b"fine\n", errno.ENOENT, errno.ELOOP}, seen
            for _ in range(100):
                with contextlib.suppress(OSError):
                    await files.write("d/written", b"x")
            assert not (tmp_path / "written").exists()


async def test_a_directory_that_is_too_deep_is_left(make: Callable[..., Any], tmp_path: Path) -> None:
    script = "cd /work; for i in $(seq 150); do mkdir d; cd d; done; echo >bottom; echo ready; sleep 60"
    async with make(script, io=PipeIO(stdin=False)) as container:
        await wait_until_ready(container)
        with container.files("/work") as files:
            refused = await files.copy_out(".", tmp_path / "out")
            assert [*refused.values()] == ["is 100 directories deep: what is in it is left out"]


async def test_cancelled_copies_end_and_leave_no_descriptor(make: Callable[..., Any], tmp_path: Path) -> None:
    script = "cd /work; for i in $(seq 300); do echo $i >$i; done; echo ready; sleep 60"
    async with make(script, io=PipeIO(stdin=False)) as container:
        await wait_until_ready(container)
        with container.files("/work") as files:
            before = len(os.listdir("/proc/self/fd"))
            with anyio.move_on_after(0.005):
                await files.copy_out(".", tmp_path / "out")
            count = len([*(tmp_path / "out").iterdir()]) if (tmp_path / "out").exists() else 0
            assert len(os.listdir("/proc/self/fd")) == before
            await anyio.sleep(0.02)
            assert count == (len([*(tmp_path / "out").iterdir()]) if (tmp_path / "out").exists() else 0)
            with anyio.move_on_after(0.001):
                await files.write("large", b"x" * (6 << 20))
            assert [name for name in await files.list() if name.startswith(".")] == []


ROOTLESS = """
import anyio, os, sys
from runc_async import Bundle, Runc, default_spec

async def main(runtime, home, rootfs):
    mounts = [{"destination": "/work", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]}]
    script = "cat /work/in >/work/out; chmod 000 /work/out"
    spec = default_spec(["sh", "-c", script], rootless=True, pids=None, mounts=mounts)
    bundle = Bundle.create(home + "/bundle", spec, rootfs=rootfs)
    async with Runc(runtime, root=home + "/state").container("files", bundle) as container:
        files = container.files("/work")
        await files.write("in", b"hello", owner=0)
        await container.start()
        await container.wait()
    print(await files.list())
    try:
        await files.read("out")
    except OSError as exc:
        print(exc.strerror)
    files.close()

anyio.run(main, *sys.argv[1:])
"""


@needs_root
def test_without_root_too(runtime_path: Path, rootfs: Path, runtime_name: str) -> None:
    if runtime_name == "crun":
        pytest.skip("crun lets no ordinary user into a container before its start: run with runc")
    (rootfs / "work").mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        os.chown(name, USER, USER)
        shutil.copytree(rootfs, f"{name}/rootfs", symlinks=True)
        environment = {"XDG_RUNTIME_DIR": name, "HOME": name}
        done = run_as_ordinary_user(ROOTLESS, runtime_path, name, f"{name}/rootfs", env=environment)
    assert done.stdout == "['in', 'out']\nPermission denied\n", done.stderr
