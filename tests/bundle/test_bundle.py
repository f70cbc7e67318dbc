"""Bundles: written whole or not at all, temporary ones gone after, root file systems from anywhere, nothing hostile."""

from __future__ import annotations

import copy
import hashlib
import io
import itertools
import json
import math
import os
import shutil
import stat
import subprocess
import tarfile
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import pytest

from runc_async import (
    Bundle,
    PipeIO,
    Runc,
    busybox_rootfs,
    default_spec,
    tar_rootfs,
    temporary_bundle,
    unpack_image,
)

from .._slowness import SLOWNESS, within
from .._streams import read_all

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

pytestmark = pytest.mark.anyio

SPEC = default_spec(["true"])


async def output(runc: Runc, id: str, bundle: Bundle) -> str:
    """Run a container to its end; what it wrote, which must be no error."""
    async with PipeIO(stdin=False) as io, anyio.create_task_group() as group:
        texts: dict[str, bytes] = {}

        async def collect(name: str, stream: Any) -> None:
            texts[name] = await read_all(stream)

        group.start_soon(collect, "out", io.stdout)
        group.start_soon(collect, "err", io.stderr)
        status = await runc.run(id, bundle, io=io)
    assert (status, texts["err"]) == (0, b"")
    return texts["out"].decode()


# -- config.json ----------------------------------------------------------------------------------------------


async def test_a_bundle_is_written_loaded_changed_and_saved(tmp_path: Path, rootfs: Path) -> None:
    bundle = Bundle.create(tmp_path / "a/b", SPEC, rootfs=rootfs)
    assert os.fspath(bundle) == str(bundle.path) == str(tmp_path / "a/b")
    assert bundle.spec["root"] == {"path": str(rootfs), "readonly": True}
    assert SPEC["root"]["path"] == "rootfs"  # what was given is copied
    again = Bundle.load(bundle.path)
    assert again.spec == bundle.spec
    again.spec["hostname"] = "changed"
    await again.save()
    assert Bundle.load(bundle).spec == {**bundle.spec, "hostname": "changed"}
    assert os.listdir(bundle) == ["config.json"]


async def test_nobody_else_reads_a_bundle_and_its_environment(tmp_path: Path, rootfs: Path) -> None:
    for writable in (False, True, "1M"):
        bundle = Bundle.create(tmp_path / "a" / str(writable), SPEC, rootfs=rootfs, writable=writable)
        await bundle.save()
        assert stat.S_IMODE(bundle.path.stat().st_mode) == 0o700
        assert stat.S_IMODE((bundle.path / "config.json").stat().st_mode) == 0o600


async def test_what_cannot_be_written_leaves_the_old_one(tmp_path: Path, rootfs: Path) -> None:
    bundle = Bundle.create(tmp_path / "b", SPEC, rootfs=rootfs)
    before = (bundle.path / "config.json").read_bytes()
    bundle.spec["annotations"] = {"a": object()}  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        await bundle.save()
    assert (bundle.path / "config.json").read_bytes() == before
    assert os.listdir(bundle) == ["config.json"]


async def test_who_may_read_it_stays_when_it_is_saved(tmp_path: Path, rootfs: Path) -> None:
    bundle = Bundle.create(tmp_path / "b", SPEC, rootfs=rootfs)
    config = bundle.path / "config.json"
    config.chmod(0o640)
    os.chown(config, 54321, 54321)
    await bundle.save()
    status = config.stat()
    assert (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (0o640, 54321, 54321)


async def test_a_reader_finds_the_old_one_or_the_new_one_whole(tmp_path: Path, rootfs: Path) -> None:
    bundle = Bundle.create(tmp_path / "b", SPEC, rootfs=rootfs)
    bundle.spec["annotations"] = {"filler": "x" * 100_000}
    await bundle.save()
    seen: set[str] = set()
    done = False

    def read() -> None:
        while not done:
            seen.add(json.loads((bundle.path / "config.json").read_bytes())["hostname"])

    async with anyio.create_task_group() as group:
        group.start_soon(anyio.to_thread.run_sync, read)
        for number in itertools.count():
            bundle.spec["hostname"] = str(number)
            await bundle.save()
            if number > 100 and len(seen) > 10:  # it did read meanwhile
                break
        done = True
    assert seen <= {SPEC.get("hostname"), *map(str, range(number + 1))}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "small", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


async def test_a_save_onto_a_full_disk_leaves_the_old_one(small_disk: Path, rootfs: Path) -> None:
    bundle = Bundle.create(small_disk / "b", SPEC, rootfs=rootfs)
    before = (bundle.path / "config.json").read_bytes()
    bundle.spec["annotations"] = {"filler": "x" * 100_000}
    with pytest.raises(OSError, match="No space left"):
        await bundle.save()
    assert (bundle.path / "config.json").read_bytes() == before
    assert os.listdir(bundle) == ["config.json"]


@pytest.mark.parametrize("writable", [False, True])
async def test_a_bundle_that_cannot_be_made_leaves_nothing(tmp_path: Path, rootfs: Path, writable: bool) -> None:
    for part, error in ((object(), TypeError), (b"sh", TypeError), (math.nan, ValueError)):
        wrong: Any = {**SPEC, "annotations": {"a": part}}
        with pytest.raises(error, match="JSON"):
            Bundle.create(tmp_path / "b", wrong, rootfs=rootfs, writable=writable)
    with pytest.raises(NotADirectoryError, match="rootfs is not a directory"):
        Bundle.create(tmp_path / "b", SPEC, rootfs=tmp_path / "missing", writable=writable)
    with pytest.raises(ValueError, match="cannot have a comma, colon or backslash"):
        Bundle.create(tmp_path / "b,c", SPEC, rootfs=rootfs, writable=True)
    assert not (tmp_path / "b").exists()
    assert not (tmp_path / "b,c").exists()
    Bundle.create(tmp_path / "b", SPEC, rootfs=rootfs)
    with pytest.raises(FileExistsError, match=r"config\.json exists"):
        Bundle.create(tmp_path / "b", SPEC, rootfs=rootfs)
    with pytest.raises(FileNotFoundError):
        Bundle.load(tmp_path / "missing")


async def test_a_temporary_bundle_is_private_and_gone_after_by_any_road(scratch: Path, rootfs: Path) -> None:
    async with temporary_bundle(SPEC, rootfs=rootfs) as bundle:
        assert bundle.path.parent == scratch
        assert stat.S_IMODE(bundle.path.stat().st_mode) == 0o700
    assert not bundle.path.exists()
    with pytest.raises(ZeroDivisionError):
        async with temporary_bundle(SPEC, rootfs=rootfs, writable=True) as bundle:
            raise ZeroDivisionError
    assert not bundle.path.exists()
    with anyio.CancelScope() as scope:
        async with temporary_bundle(SPEC, rootfs=rootfs, writable=True) as bundle:
            scope.cancel()
            await anyio.sleep_forever()
    assert scope.cancelled_caught
    assert not bundle.path.exists()
    assert rootfs.exists()


async def test_a_thousand_bundles_over_one_root_are_two_inodes_each(tmp_path: Path, rootfs: Path) -> None:
    spec = default_spec(["true"], memory="64M", mounts=["/usr:/host:ro"])
    began = time.perf_counter()
    bundles = [Bundle.create(tmp_path / str(number), spec, rootfs=rootfs) for number in range(1000)]
    seconds = time.perf_counter() - began
    inodes = {path.stat().st_ino for bundle in bundles for path in (bundle.path, *bundle.path.rglob("*"))}
    assert len(inodes) == 2000  # a directory and its config.json
    assert sum(path.stat().st_size for bundle in bundles for path in bundle.path.iterdir()) < 50_000_000
    assert all(bundle.spec["root"]["path"] == str(rootfs) for bundle in bundles)
    assert seconds < 20 * SLOWNESS  # 0.3 s, measured on two cores
    for bundle in bundles:
        shutil.rmtree(bundle)


# -- one root, many containers --------------------------------------------------------------------------------


async def test_containers_share_a_root_and_write_each_in_an_overlay_or_tmpfs_of_its_own(
    runc: Runc, new_id: Callable[[], str], rootfs: Path
) -> None:
    def census() -> dict[str, float]:
        return {str(path): path.lstat().st_mtime for path in rootfs.rglob("*")}

    (rootfs / "var").mkdir(exist_ok=True)
    (rootfs / "file").write_text("copied\n")
    before = census()
    script = (
        "ls /etc /root; echo mine >/etc/own; rm /bin/vi; echo t >/var/x; "
        "cat /etc/own; ls /bin/vi 2>&1; touch /x; ls -d /x; cat /file"
    )
    tmpfs: Any = {"destination": "/var", "type": "tmpfs", "source": "tmpfs", "options": ["size=1m"]}
    spec = default_spec(["sh", "-c", script], mounts=[tmpfs])
    expected = "/etc:\n\n/root:\nmine\nls: /bin/vi: No such file or directory\n/x\ncopied\n"
    async with (
        temporary_bundle(spec, rootfs=rootfs, writable=True) as first,
        temporary_bundle(spec, rootfs=rootfs, writable=True) as second,
    ):
        for bundle in (first, second):
            assert await output(runc, new_id(), bundle) == expected
            assert (bundle.path / "upper/etc/own").read_text() == "mine\n"
            assert (bundle.path / "root/x").exists()
            assert not (bundle.path / "upper/var/x").exists()  # on the tmpfs
    script = "echo x >/etc/own; true"
    async with temporary_bundle(default_spec(["sh", "-c", f"({script}) 2>&1"]), rootfs=rootfs) as third:
        refused = await output(runc, new_id(), third)
        assert refused.endswith("can't create /etc/own: Read-only file system\n")  # busybox may number the line
    assert census() == before


FILL = """
exec 2>&1
for d in etc usr; do dd if=/dev/zero of=/$d/big bs=64k count=1000; done
stat -c %s /etc/big /usr/big
ls -A /.writable | wc -l
n=0; while echo >/etc/$n; do n=$((n+1)); done 2>/dev/null
ls /etc | wc -l
rm -r /etc/big /bin/vi; mkdir /bin/vi && rmdir /bin/vi
touch /x; true
"""


async def test_a_writable_root_of_a_size_is_full_at_that_size_and_leaves_nothing(
    runc: Runc, new_id: Callable[[], str], rootfs: Path
) -> None:
    (rootfs / "usr").mkdir(exist_ok=True)
    async with temporary_bundle(default_spec(["sh", "-c", FILL]), rootfs=rootfs, writable="4M") as bundle:
        for _ in range(2):  # the second finds nothing of the first
            text = await output(runc, new_id(), bundle)
            assert text.count("No space left on device") == 2, text
            first, second, hidden, files = (int(line) for line in text.splitlines() if line.isdigit())
            assert 3 << 20 <= first + second <= 4 << 20
            assert hidden == 0  # nobody gets at the layers themselves
            assert files <= 1024  # inodes are limited, too
            assert "touch: /x: Read-only file system" in text
        assert not [path for path in bundle.path.rglob("*") if path.name == "big"]
        assert str(bundle.path) not in Path("/proc/self/mountinfo").read_text()


async def test_a_writable_root_of_a_size_leaves_nothing_mounted_when_its_container_is_cancelled(
    runc: Runc, container_id: str, rootfs: Path
) -> None:
    (rootfs / "usr").mkdir(exist_ok=True)
    async with temporary_bundle(
        default_spec(["sh", "-c", "echo x >/etc/x; echo written; sleep 60"]), rootfs=rootfs, writable="4M"
    ) as bundle:
        with anyio.CancelScope() as scope:
            async with (
                PipeIO(stdin=False) as io,
                runc.container(container_id, bundle, io=io) as container,
            ):
                await container.start()
                assert await io.stdout.receive() == b"written\n"
                scope.cancel()
                await anyio.sleep_forever()
        assert scope.cancelled_caught
        assert str(bundle.path) not in Path("/proc/self/mountinfo").read_text()
    assert not bundle.path.exists()


@pytest.mark.parametrize(
    ("writable", "error", "reason"),
    [
        ("lots", ValueError, "writable must be a number of bytes"),
        ("1k", ValueError, "writable must be at least 65536"),
        (-1, ValueError, "writable must be at least"),
        (1.5, TypeError, "writable must be bytes"),
        (None, TypeError, "writable must be bytes"),
    ],
)
async def test_a_size_that_is_none_is_refused(
    tmp_path: Path, rootfs: Path, writable: Any, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        Bundle.create(tmp_path / "b", SPEC, rootfs=rootfs, writable=writable)
    assert not (tmp_path / "b").exists()


# -- busybox --------------------------------------------------------------------------------------------------


async def test_a_root_of_busybox_runs(runc: Runc, container_id: str, tmp_path: Path) -> None:
    rootfs = await busybox_rootfs(tmp_path / "rootfs")
    assert rootfs == tmp_path / "rootfs"
    assert os.listdir(tmp_path / "rootfs/tmp") == []
    async with temporary_bundle(default_spec(["sh", "-c", "id -un; ls -d /tmp | wc -l"]), rootfs=rootfs) as bundle:
        assert await output(runc, container_id, bundle) == "root\n1\n"
    with pytest.raises(FileExistsError, match="exists"):
        await busybox_rootfs(rootfs)


@pytest.mark.skipif(os.geteuid() != 0, reason="another user in a container needs root here")
async def test_any_user_may_write_to_tmp_of_a_root_of_busybox(runc: Runc, container_id: str, tmp_path: Path) -> None:
    rootfs = await busybox_rootfs(tmp_path / "rootfs")
    spec = default_spec(["sh", "-c", "echo mine >/tmp/a; cat /tmp/a; stat -c %a /tmp"], user=65534)
    async with temporary_bundle(spec, rootfs=rootfs) as bundle:
        assert await output(runc, container_id, bundle) == "mine\n1777\n"


async def test_a_missing_tool_is_named_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    with pytest.raises(FileNotFoundError, match="busybox is missing: install the Debian package busybox-static"):
        await busybox_rootfs(tmp_path / "a")
    with pytest.raises(FileNotFoundError, match="umoci is missing: install the Debian package umoci"):
        await unpack_image(tmp_path, tmp_path / "b")
    program = tmp_path / "nowhere/busybox"
    program.parent.mkdir()
    program.write_bytes(b"\x7fELF\0\0/lib64/ld-linux-x86-64.so.2\0")
    program.chmod(0o755)
    with pytest.raises(FileNotFoundError, match="is not static: install the Debian package busybox-static"):
        await busybox_rootfs(tmp_path / "c")
    assert os.listdir(tmp_path / "nowhere") == ["busybox"]
    assert not {"a", "b", "c"} & set(os.listdir(tmp_path))


# -- tar archives ---------------------------------------------------------------------------------------------


def member(
    name: str,
    kind: bytes = tarfile.REGTYPE,
    *,
    to: str = "",
    mode: int = 0o644,
    data: bytes = b"",
    pax: dict[str, str] | None = None,
) -> Any:
    info = tarfile.TarInfo(name)
    info.pax_headers = pax or {}
    info.type, info.linkname, info.mode, info.size, info.mtime = kind, to, mode, len(data), 1_000_000
    info.uid, info.gid = os.geteuid(), os.getegid()
    return info, data


def write_tar(path: Path, members: Sequence[Any], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for info, data in members:
            tar.addfile(info, io.BytesIO(data))
    return path


@pytest.mark.parametrize("compression", ["", "gz", "bz2", "xz"])
async def test_a_tar_archive_becomes_a_root_with_its_modes_times_and_links(tmp_path: Path, compression: str) -> None:
    archive = write_tar(
        tmp_path / "a.tar",
        [
            member(".", tarfile.DIRTYPE, mode=0o700),
            member("./usr/bin", tarfile.DIRTYPE, mode=0o555),
            member("./usr/bin/tool", data=b"x" * 3_000_000, mode=0o4755),
            member("usr/bin/hard", tarfile.LNKTYPE, to="./usr/bin/tool"),
            member("bin", tarfile.SYMTYPE, to="usr/bin"),
            member("bin/through", data=b"inside"),
            member("etc/mtab", tarfile.SYMTYPE, to="/proc/self/mounts"),
            member("etc/up", tarfile.SYMTYPE, to="../../../../etc/passwd"),
            member("pipe", tarfile.FIFOTYPE),
            member("twice", tarfile.SYMTYPE, to="/etc/passwd"),
            member("twice", data=b"replaced, not written through"),
            member("var/tmp", tarfile.DIRTYPE, mode=0o1777),
        ],
        f"w:{compression}",
    )
    root = await tar_rootfs(archive, tmp_path / "rootfs")
    tool = (root / "usr/bin/tool").stat()
    assert stat.S_IMODE(tool.st_mode) == 0o755  # no set-user-id
    assert (tool.st_mtime, tool.st_size, tool.st_nlink) == (1_000_000, 3_000_000, 2)
    assert stat.S_IMODE((root / "usr/bin").stat().st_mode) == 0o555
    assert stat.S_IMODE((root / "var/tmp").stat().st_mode) == 0o1777
    assert stat.S_IMODE(root.stat().st_mode) == 0o755
    assert (root / "usr/bin/through").read_bytes() == b"inside"
    assert os.readlink(root / "etc/mtab") == "/proc/self/mounts"
    assert os.readlink(root / "etc/up") == "../../../../etc/passwd"
    assert stat.S_ISFIFO((root / "pipe").lstat().st_mode)
    assert (root / "twice").read_bytes() == b"replaced, not written through"
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "rootfs", "scratch", "state"]


HOSTILE: dict[str, tuple[list[Any], str]] = {
    "dots": ([member("../victim", data=b"x")], r"absolute or has \.\."),
    "dots inside": ([member("a/../../victim", data=b"x")], r"absolute or has \.\."),
    "absolute": ([member("{tmp}/victim", data=b"x")], "absolute"),
    "directory outside": ([member("../victim.d", tarfile.DIRTYPE)], r"\.\."),
    "symlink and through": (
        [member("out", tarfile.SYMTYPE, to="{tmp}"), member("out/victim", data=b"x")],
        "would leave the root",
    ),
    "relative symlink and through": (
        [member("out", tarfile.SYMTYPE, to="../"), member("out/victim", data=b"x")],
        "would leave the root",
    ),
    "two symlinks and through": (
        [
            member("a", tarfile.DIRTYPE),
            member("a/b", tarfile.SYMTYPE, to=".."),
            member("c", tarfile.SYMTYPE, to="a/b/.."),
            member("c/victim", data=b"x"),
        ],
        "would leave the root",
    ),
    "a symlink that leads nowhere yet, and through": (
        [member("out", tarfile.SYMTYPE, to="{tmp}/victim.d"), member("out/victim", data=b"x")],
        "would leave the root",
    ),
    "directory in a symlink's name": (
        [member("out", tarfile.SYMTYPE, to="{tmp}"), member("out/victim.d", tarfile.DIRTYPE)],
        "would leave the root",
    ),
    "hard link outside": ([member("h", tarfile.LNKTYPE, to="../secret")], r"\.\."),
    "hard link absolute": ([member("h", tarfile.LNKTYPE, to="{tmp}/secret")], "absolute"),
    "hard link through a symlink": (
        [member("out", tarfile.SYMTYPE, to="{tmp}"), member("h", tarfile.LNKTYPE, to="out/secret")],
        "would leave the root",
    ),
    "hard link to a symlink, whose mode would change": (
        [member("s", tarfile.SYMTYPE, to="{tmp}/secret"), member("h", tarfile.LNKTYPE, to="s", mode=0o777)],
        "no file unpacked before",
    ),
    "hard link to what comes later": (
        [member("h", tarfile.LNKTYPE, to="later"), member("later", tarfile.CHRTYPE)],
        "no file unpacked before",
    ),
    "character device": ([member("null", tarfile.CHRTYPE)], "is a device"),
    "block device": ([member("disk", tarfile.BLKTYPE)], "is a device"),
    "a file where a directory is": ([member("a/b", data=b"x"), member("a", data=b"x")], "place of a directory"),
    "through a file": ([member("a", data=b"x"), member("a/b", data=b"x")], "not a directory"),
    "a loop of symlinks": ([member("a", tarfile.SYMTYPE, to="a"), member("a/b", data=b"x")], "would leave the root"),
    "the root as a symlink": ([member(".", tarfile.SYMTYPE, to="/etc")], "place of a directory"),
    "no name": ([member("", data=b"x")], "place of a directory"),
    "a symlink to nothing": ([member("s", tarfile.SYMTYPE)], "nothing that a root file system has"),
    "an unknown kind": ([member("x", b"Z", data=b"x")], "nothing that a root file system has"),
    "a name too long": ([member("x" * 300, data=b"x")], "File name too long"),
    "another name in its extended header": ([member("x", data=b"x", pax={"path": "../victim"})], r"\.\."),
    "another link in its extended header": (
        [member("x", tarfile.LNKTYPE, to="y", pax={"linkpath": "{tmp}/secret"})],
        "absolute",
    ),
    "a name with a NUL": ([member("x", data=b"x", pax={"path": "a\0b"})], "null byte"),
    "a negative size": ([member("x", data=b"x", pax={"size": "-1"})], "negative size|broken header"),
    "a size that is not there": ([member("x", data=b"x", pax={"size": str(1 << 60)})], "unexpected end of data"),
    "an impossible owner": ([member("x", data=b"x", pax={"uid": str(1 << 40)})], "uid"),
    "an impossible time": ([member("x", data=b"x", pax={"mtime": "nan"})], "NaN"),
    "a time beyond all time": ([member("x", data=b"x", pax={"mtime": "1e300"})], "out of range"),
    "an impossible hole": (
        [member("x", data=b"x", pax={"GNU.sparse.map": "-5,1", "GNU.sparse.size": "1"})],
        "Invalid argument|negative",
    ),
    "a hole in nothing": (
        [member("x", data=b"x", pax={"GNU.sparse.map": "0,9999", "GNU.sparse.size": "1"})],
        "unexpected end of data",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_hostile_archives_are_refused_and_nothing_of_them_is_left(tmp_path: Path, name: str) -> None:
    members, reason = HOSTILE[name]
    filled = [member("first", data=b"harmless")]
    for original, data in members:
        info = copy.copy(original)
        info.name = info.name.replace("{tmp}", str(tmp_path))
        info.linkname = info.linkname.replace("{tmp}", str(tmp_path))
        info.pax_headers = {key: value.replace("{tmp}", str(tmp_path)) for key, value in original.pax_headers.items()}
        filled.append((info, data))
    archive = write_tar(tmp_path / "a.tar", filled)
    secret = tmp_path / "secret"
    secret.write_text("of the host")
    secret.chmod(0o600)
    before = {str(path): path.stat().st_mode for path in tmp_path.rglob("*")}
    with pytest.raises(ValueError, match=reason) as caught:
        await tar_rootfs(archive, tmp_path / "rootfs")
    assert str(archive) in str(caught.value)
    assert {str(path): path.stat().st_mode for path in tmp_path.rglob("*")} == before
    assert secret.stat().st_nlink == 1


@pytest.mark.parametrize("name", ["dev", "proc", "sys", "tmp"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_a_runtime_mounts_on_is_a_directory_or_the_root_is_refused(tmp_path: Path, name: str) -> None:
    link = write_tar(tmp_path / "link.tar", [member("a/b", data=b"x"), member(name, tarfile.SYMTYPE, to="/etc")])
    with pytest.raises(ValueError, match=rf"link\.tar: /{name} is a symbolic link in the root file system, to '/etc'"):
        await tar_rootfs(link, tmp_path / "rootfs")
    file = write_tar(tmp_path / "file.tar", [member(name, data=b"x")])
    with pytest.raises(ValueError, match=rf"file\.tar: /{name} is not a directory"):
        await tar_rootfs(file, tmp_path / "rootfs")
    assert sorted(os.listdir(tmp_path)) == ["file.tar", "link.tar", "scratch", "state"]
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / name).symlink_to("a")
    for writable in (False, True, "1M"):
        with pytest.raises(ValueError, match=f"/{name} is a symbolic link in the root file system, to 'a'"):
            Bundle.create(tmp_path / "bundle", SPEC, rootfs=tmp_path / "planted", writable=writable)
    assert not (tmp_path / "bundle").exists()


# -- what an archive may cost ---------------------------------------------------------------------------------


async def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    bomb = write_tar(tmp_path / "a.tar.gz", [member("x", data=bytes(50 << 20))], "w:gz")
    assert bomb.stat().st_size < 100_000
    for most in ("20M", 20 << 20):
        with pytest.raises(ValueError, match=r"a\.tar\.gz: it has more than max_bytes=20971520 bytes"):
            await tar_rootfs(bomb, tmp_path / "rootfs", max_bytes=most)
    assert not [name for name in os.listdir(tmp_path) if "rootfs" in name]
    assert (await tar_rootfs(bomb, tmp_path / "rootfs", max_bytes="60M")).joinpath("x").stat().st_size == 50 << 20


async def test_an_archive_of_too_many_members_is_refused(tmp_path: Path) -> None:
    many = write_tar(tmp_path / "a.tar", [member(str(number)) for number in range(30)])
    with pytest.raises(ValueError, match=r"a\.tar: it has more than max_members=29 members"):
        await tar_rootfs(many, tmp_path / "rootfs", max_members=29)
    assert len(os.listdir(await tar_rootfs(many, tmp_path / "rootfs", max_members=30))) == 30


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_header_of_too_many_bytes_costs_no_memory(tmp_path: Path, form: int) -> None:
    name = "d/" * (30 << 20)
    info = tarfile.TarInfo(name)
    (tmp_path / "a.tar").write_bytes(info.tobuf(form) + bytes(1024))
    del info, name
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"a\.tar: what describes one member has more than max_header=1048576"):
            await tar_rootfs(tmp_path / "a.tar", tmp_path / "rootfs")
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()


async def test_headers_for_all_members_add_up(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for number in range(5):
            header = tarfile.TarInfo.create_pax_global_header({f"key{number}": "x" * 300_000})
            assert tar.fileobj is not None
            tar.fileobj.write(header)
            tar.offset += len(header)
            tar.addfile(member(str(number))[0])
    with pytest.raises(ValueError, match=r"a\.tar: its global headers have more than max_header="):
        await tar_rootfs(tmp_path / "a.tar", tmp_path / "rootfs")
    assert (await tar_rootfs(tmp_path / "a.tar", tmp_path / "rootfs", max_header="4M")).exists()


@pytest.mark.parametrize(
    ("keywords", "error", "reason"),
    [
        ({"max_bytes": 0}, ValueError, "max_bytes must be at least 1"),
        ({"max_bytes": "lots"}, ValueError, "max_bytes must be a number of bytes"),
        ({"max_header": None}, TypeError, "max_header must be bytes"),
        ({"max_members": 0}, ValueError, "max_members must be at least 1"),
        ({"max_members": "7"}, TypeError, "max_members must be int, not str"),
    ],
)
async def test_a_limit_that_is_none_is_refused(
    tmp_path: Path, keywords: Any, error: type[Exception], reason: str
) -> None:
    with pytest.raises(error, match=reason):
        await tar_rootfs(tmp_path / "a.tar", tmp_path / "rootfs", **keywords)


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_hundred_thousand_members_take_seconds(tmp_path: Path) -> None:
    archive = write_tar(tmp_path / "a.tar", [member(f"a/b/c/d/e/{number}") for number in range(100_000)])
    began = time.perf_counter()
    root = await tar_rootfs(archive, tmp_path / "rootfs")
    seconds = time.perf_counter() - began
    assert len(os.listdir(root / "a/b/c/d/e")) == 100_000
    assert seconds < 30 * SLOWNESS  # 8 s, measured on two cores; a minute with Path and a list of members
    shutil.rmtree(root)


# -- holes, broken headers ------------------------------------------------------------------------------------


async def test_a_hole_of_a_terabyte_costs_nothing(tmp_path: Path) -> None:
    end = 1 << 40
    sparse = {"GNU.sparse.map": f"0,4,{end},4", "GNU.sparse.size": str(end + 4), "GNU.sparse.numblocks": "2"}
    archive = write_tar(tmp_path / "a.tar", [member("x", data=b"headtail", pax=sparse)])
    path = await tar_rootfs(archive, tmp_path / "rootfs") / "x"
    assert path.stat().st_size == end + 4
    assert path.stat().st_blocks * 512 < 1 << 20
    with path.open("rb") as file:
        assert file.read(5) == b"head\0"
        file.seek(end)
        assert file.read() == b"tail"


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, b"L", b"x", b"Z"])
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_negative_size_in_the_header_itself_does_not_lead_round_in_circles(tmp_path: Path, kind: bytes) -> None:
    info, _ = member("x", kind)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    header[124:136] = (-512).to_bytes(12, "big", signed=True)
    header[148:156] = b"%06o\0 " % (256 + sum(header[:148]) + sum(header[156:]))
    (tmp_path / "a.tar").write_bytes(header + bytes(2048))
    with within(10), pytest.raises(ValueError, match=r"a\.tar: "):
        await tar_rootfs(tmp_path / "a.tar", tmp_path / "rootfs")


async def test_what_is_no_archive_or_is_cut_short_is_refused(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar.gz", [member("x", data=os.urandom(100_000))], "w:gz").read_bytes()
    two = write_tar(tmp_path / "two.tar", [member("first", data=b"x"), member("second", data=b"x")]).read_bytes()
    broken = two.replace(b"second", b"seconD")  # its checksum is not that of the header
    for number, data in enumerate(
        (b"", b"no archive", broken, whole[:50_000], whole[:5000] + b"\0" * 1000 + whole[6000:])
    ):
        archive = tmp_path / f"{number}.tar"
        archive.write_bytes(data)
        with pytest.raises(ValueError, match=rf"{number}\.tar: "):
            await tar_rootfs(archive, tmp_path / "rootfs")
    with pytest.raises(FileNotFoundError):
        await tar_rootfs(tmp_path / "missing.tar", tmp_path / "rootfs")
    assert not [name for name in os.listdir(tmp_path) if "rootfs" in name]


async def test_unpacking_does_not_block_the_loop_and_is_cancelled_in_the_middle(tmp_path: Path) -> None:
    files = [member(f"d{number % 7}/f{number}", data=b"x" * 1000) for number in range(3000)]
    archive = write_tar(tmp_path / "a.tar", files)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await anyio.sleep(0.001)
            ticks += 1

    async with anyio.create_task_group() as group:
        group.start_soon(tick)
        await tar_rootfs(archive, tmp_path / "rootfs")
        group.cancel_scope.cancel()
    assert ticks > 10  # a blocked loop has none
    assert sum(len(names) for _, _, names in os.walk(tmp_path / "rootfs")) == 3000
    with anyio.move_on_after(0.02) as scope:
        await tar_rootfs(archive, tmp_path / "other")
    assert scope.cancelled_caught
    assert not [name for name in os.listdir(tmp_path) if "other" in name]


# -- images ---------------------------------------------------------------------------------------------------


def write_image(layout: Path, layer: Path, config: dict[str, Any], tag: str = "latest") -> Path:
    """An OCI image layout of one layer (image-layout.md of the OCI image specification)."""

    def blob(data: bytes, kind: str) -> dict[str, Any]:
        digest = hashlib.sha256(data).hexdigest()
        (layout / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    (layout / "blobs/sha256").mkdir(parents=True)
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    unpacked = blob(layer.read_bytes(), "layer.v1.tar")
    image = {
        "architecture": "amd64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [unpacked["digest"]]},
    }
    described = blob(json.dumps(image).encode(), "config.v1+json")
    manifest = {"schemaVersion": 2, "config": described, "layers": [unpacked]}
    entry = blob(json.dumps(manifest).encode(), "manifest.v1+json")
    entry["annotations"] = {"org.opencontainers.image.ref.name": tag}
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    return layout


@pytest.fixture(scope="session")
def image_layout(tmp_path_factory: pytest.TempPathFactory, rootfs: Path) -> Path:
    folder = tmp_path_factory.mktemp("image")
    with tarfile.open(folder / "layer.tar", "w") as tar:
        tar.add(rootfs, arcname=".")
        for name, text in (
            ("etc/passwd", b"root:x:0:0::/root:/bin/sh\nworker:x:1234:1235::/srv:/bin/sh\n"),
            ("etc/group", b"root:x:0:\nworker:x:1235:\nextra:x:1300:worker\n"),
        ):
            tar.addfile(member(name, data=text)[0], io.BytesIO(text))
        tar.addfile(member("srv", tarfile.DIRTYPE, mode=0o755)[0])
    config = {
        "Entrypoint": ["sh", "-c"],
        "Cmd": ['echo "$GREETING $EMPTY $(pwd) $(id -u):$(id -g) $(id -G)"'],
        "Env": ["GREETING=hello=you", "EMPTY=", "PATH=/bin"],
        "User": "worker",
        "WorkingDir": "/srv",
    }
    return write_image(folder / "layout", folder / "layer.tar", config, "v1")


needs_umoci = pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed (package umoci)")


@needs_umoci
async def test_an_image_runs_with_its_own_entrypoint_environment_user_and_directory(
    runc: Runc, new_id: Callable[[], str], tmp_path: Path, image_layout: Path
) -> None:
    image = await unpack_image(image_layout, tmp_path / "image", tag="v1")
    assert image.rootfs == tmp_path / "image/rootfs"
    # It may have set-user-id programs and devices, which are nothing for other users of the host.
    assert stat.S_IMODE((tmp_path / "image").stat().st_mode) == 0o700
    assert os.listdir(tmp_path / "image") == ["rootfs"]
    assert (image.cwd, image.user, image.additional_gids) == ("/srv", "1234:1235", [1300])
    assert image.env["GREETING"] == "hello=you"
    async with temporary_bundle(image.spec(), rootfs=image.rootfs) as bundle:
        assert await output(runc, new_id(), bundle) == "hello=you  /srv 1234:1235 1235 1300\n"
    own = image.spec(["sh", "-c", "echo $GREETING $MORE; pwd; id -u"], env={"MORE": "2"}, cwd="/tmp", user=7)
    async with temporary_bundle(own, rootfs=image.rootfs) as bundle:
        assert await output(runc, new_id(), bundle) == "hello=you 2\n/tmp\n7\n"
    assert image.spec(rootless=True)["process"]["user"] == {"uid": 0, "gid": 0}


@needs_umoci
async def test_what_umoci_refuses_is_said_in_its_words_and_leaves_nothing(tmp_path: Path, image_layout: Path) -> None:
    with pytest.raises(ValueError, match=r"layout:v2: .*tag is not found: v2"):
        await unpack_image(image_layout, tmp_path / "image", tag="v2")
    with pytest.raises(ValueError, match="invalid image"):
        await unpack_image(tmp_path, tmp_path / "image")
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError, match="exists"):
        await unpack_image(image_layout, tmp_path / "there", tag="v1")
    assert not [name for name in os.listdir(tmp_path) if "image" in name]


@needs_umoci
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_an_image_with_a_link_where_a_runtime_mounts_is_refused(tmp_path: Path) -> None:
    layer = write_tar(tmp_path / "layer.tar", [member("bin/sh", data=b"x"), member("dev", tarfile.SYMTYPE, to="/etc")])
    layout = write_image(tmp_path / "layout", layer, {"Cmd": ["sh"]})
    with pytest.raises(ValueError, match=r"layout:latest: /dev is a symbolic link in the root file system, to '/etc'"):
        await unpack_image(layout, tmp_path / "image")
    assert not [name for name in os.listdir(tmp_path) if "image" in name]


async def test_an_unpacking_that_is_cancelled_leaves_no_process_and_no_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = tmp_path / "started"
    os.mkfifo(started)
    (tmp_path / "bin").mkdir()
    umoci = tmp_path / "bin/umoci"  # a stand-in that never ends
    umoci.write_text(f"#!/bin/sh\nfor last; do :; done; mkdir $last; echo begun >{started}; exec sleep 1000\n")
    umoci.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    async with anyio.create_task_group() as group:
        group.start_soon(unpack_image, tmp_path, tmp_path / "image")
        assert await anyio.to_thread.run_sync(started.read_text) == "begun\n"  # the loop runs on meanwhile
        group.cancel_scope.cancel()
    assert sorted(os.listdir(tmp_path)) == ["bin", "scratch", "started", "state"]
