"""Cgroups: found, looked into, killed, frozen and removed, and never another one at the same path."""

from __future__ import annotations

import contextlib
import errno
import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from runc_async._linux import cgroups
from runc_async._linux.cgroups import (
    Hierarchy,
    cgroups_of,
    freeze,
    hierarchies,
    identity,
    is_populated,
    kill,
    open_cgroups,
    parse_membership,
    processes,
    remove_cgroup,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from runc_async import Runc

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to make a cgroup: run the suite as root")


def hierarchy_of(controller: str) -> str:
    """The directory of this process's cgroup: of v1 with this controller, else of v2."""
    found = cgroups_of()
    return next((path for names, path in found.items() if controller in names), found.get((), ""))


@pytest.fixture
def cgroup(new_id: Callable[[], str]) -> Iterator[Path]:
    """A new cgroup of the hierarchy that can freeze."""
    above = Path(hierarchy_of("freezer"))
    folder = (above.parent if (above / "cgroup.controllers").exists() and above.name == "main" else above) / new_id()
    folder.mkdir()
    yield folder
    with contextlib.suppress(FileNotFoundError):
        for found in sorted((Path(at) for at, _, _ in os.walk(folder)), reverse=True):
            found.rmdir()


@pytest.fixture
def descriptor(cgroup: Path) -> Iterator[int]:
    fd = os.open(cgroup, os.O_PATH)
    yield fd
    os.close(fd)


@pytest.fixture
def sleeper() -> Iterator[Callable[[Path], subprocess.Popen[bytes]]]:
    """Starts a process in a cgroup."""
    with contextlib.ExitStack() as stack:

        def start(folder: Path) -> subprocess.Popen[bytes]:
            process = stack.enter_context(subprocess.Popen(["sleep", "60"]))
            stack.callback(process.kill)
            (folder / "cgroup.procs").write_text(str(process.pid))
            return process

        yield start


def test_membership_is_parsed_also_with_colons_and_blanks() -> None:
    content = b"12:cpu,cpuacct:/a b:c\n1:name=systemd:/\n0::/x\n"
    assert parse_membership(content) == {("cpu", "cpuacct"): "/a b:c", ("name=systemd",): "/", (): "/x"}


@pytest.mark.parametrize(
    ("root", "cgroup", "path"),
    [
        ("/", "/", "/m"),
        ("/", "/a/b", "/m/a/b"),
        ("/a", "/a/b", "/m/b"),
        ("/a", "/ab", None),
        ("/a", "/", None),
        ("/..", "/../x", "/m/x"),
        ("/..", "/x", None),
        ("/", "/../x", None),
    ],
)
def test_the_directory_of_a_cgroup_by_what_is_mounted(root: str, cgroup: str, path: str | None) -> None:
    assert Hierarchy(2, (), "/m", root).path(cgroup) == path


def test_every_hierarchy_that_is_mounted_is_found_once() -> None:
    found = hierarchies()
    assert found
    assert len({hierarchy.controllers for hierarchy in found}) == len(found)
    assert all((Path(hierarchy.point) / "cgroup.procs").exists() for hierarchy in found)
    assert hierarchies() is found  # not read again


def test_this_process_is_in_the_cgroups_that_are_said_to_be_its_own() -> None:
    found = cgroups_of()
    assert found == cgroups_of(os.getpid())
    for path in found.values():
        assert str(os.getpid()) in (Path(path) / "cgroup.procs").read_text().split()


def test_the_cgroups_of_a_process_are_opened_but_not_those_that_this_process_has_too(
    cgroup: Path, sleeper: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    process = sleeper(cgroup)
    opened = open_cgroups(process.pid)
    try:
        assert [identity(fd) for fd in opened.values()] == [identity(str(cgroup))]
    finally:
        for fd in opened.values():
            os.close(fd)
    assert open_cgroups(os.getpid()) == {}
    assert open_cgroups(os.getppid()) == {}


def test_only_the_hierarchies_that_were_asked_for(
    cgroup: Path, sleeper: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    process = sleeper(cgroup)
    opened = open_cgroups(process.pid, frozenset({"memory"}))
    assert [*opened] == ([()] if (cgroup / "cgroup.events").exists() else [])
    for fd in opened.values():
        os.close(fd)


def test_without_a_descriptor_to_spare_none_stays_open(
    cgroup: Path, sleeper: Callable[[Path], subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    process = sleeper(cgroup)
    real, calls = os.open, []

    def fail(*args: object, **kwargs: object) -> int:
        calls.append(args)
        raise OSError(errno.EMFILE, "too many")

    monkeypatch.setattr(cgroups.os, "open", fail)
    with pytest.raises(OSError, match="too many"):
        open_cgroups(process.pid)
    monkeypatch.setattr(cgroups.os, "open", real)
    assert len(calls) == 1


def test_processes_in_a_cgroup_and_below_are_opened(
    cgroup: Path, descriptor: int, sleeper: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    assert processes(descriptor) == []
    assert not is_populated(descriptor)
    deep = cgroup / "a" / "b"
    deep.mkdir(parents=True)
    (cgroup / "c").mkdir()
    pids = {sleeper(folder).pid for folder in (cgroup, deep, cgroup / "c")}
    found = processes(descriptor)
    assert {process.pid for process in found} == pids
    assert is_populated(descriptor)
    for process in found:
        process.close()


@pytest.mark.parametrize("has_file", [True, False])
def test_what_is_in_a_cgroup_is_killed_and_nothing_else(
    has_file: bool,
    cgroup: Path,
    descriptor: int,
    sleeper: Callable[[Path], subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With and without ``cgroup.kill``."""
    if not has_file:
        monkeypatch.setattr(cgroups, "_write", lambda *_: os.close(-1))
    below, beside = cgroup / "below", cgroup.with_name(f"{cgroup.name}-beside")
    below.mkdir()
    beside.mkdir()
    try:
        inside, deep, outside = sleeper(cgroup), sleeper(below), sleeper(beside)
        killed = kill(descriptor)
        assert {process.pid for process in killed} == {inside.pid, deep.pid}
        assert inside.wait() == deep.wait() == -9
        assert outside.poll() is None
        for process in killed:
            process.close()
        outside.kill()
        outside.wait()
    finally:
        beside.rmdir()


def test_frozen_processes_are_suspended_until_they_are_let_go(
    cgroup: Path, descriptor: int, sleeper: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    process = sleeper(cgroup)
    assert freeze(descriptor)
    process.kill()
    if not (cgroup / "cgroup.events").exists():  # of v2 a frozen process can be killed
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.1)
    assert freeze(descriptor, False)
    assert process.wait() == -9


def test_what_cannot_be_frozen_says_so(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    assert not freeze(fd)
    os.close(fd)


def test_a_cgroup_is_removed_with_those_below(cgroup: Path) -> None:
    for name in ("a/b/c", "a/d", "e"):
        (cgroup / name).mkdir(parents=True)
    expected = identity(str(cgroup))
    assert expected is not None
    remove_cgroup(str(cgroup), expected)
    assert not cgroup.exists()
    remove_cgroup(str(cgroup), expected)  # it is gone
    remove_cgroup(f"{cgroup}/a/b", expected)


def test_of_a_thousand_cgroups_in_one_another_few_are_open_at_a_time(cgroup: Path) -> None:
    folder = cgroup
    for _ in range(200):
        folder = folder / "d"
        folder.mkdir()
    before = len(os.listdir("/proc/self/fd"))
    fd = os.open(cgroup, os.O_PATH)
    most = max(len(os.listdir("/proc/self/fd")) for _ in cgroups._walk(fd))
    assert most <= before + 3
    os.close(fd)
    remove_cgroup(str(cgroup), identity(str(cgroup)) or (0, 0))
    assert not cgroup.exists()


def test_another_cgroup_at_the_same_path_stays(cgroup: Path) -> None:
    expected = identity(str(cgroup))
    assert expected is not None
    cgroup.rmdir()
    cgroup.mkdir()
    assert identity(str(cgroup)) != expected
    (cgroup / "below").mkdir()
    remove_cgroup(str(cgroup), expected)
    assert (cgroup / "below").is_dir()


def test_a_cgroup_with_a_process_is_not_removed(
    cgroup: Path, sleeper: Callable[[Path], subprocess.Popen[bytes]]
) -> None:
    process = sleeper(cgroup)
    expected = identity(str(cgroup))
    assert expected is not None
    with pytest.raises(OSError) as caught:  # noqa: PT011
        remove_cgroup(str(cgroup), expected)
    assert caught.value.errno == errno.EBUSY
    assert process.poll() is None
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while cgroup.exists():  # it stays busy for a moment
        assert time.monotonic() < deadline
        with contextlib.suppress(OSError):
            remove_cgroup(str(cgroup), expected)


def test_a_link_in_the_place_of_a_cgroup_is_not_followed(tmp_path: Path, cgroup: Path) -> None:
    (cgroup / "below").mkdir()
    link = tmp_path / "link"
    link.symlink_to(cgroup)
    assert identity(str(link)) != identity(str(cgroup))
    remove_cgroup(str(link), identity(str(cgroup)) or (0, 0))
    assert (cgroup / "below").is_dir()


def test_what_is_gone_has_no_identity(tmp_path: Path) -> None:
    assert identity(str(tmp_path / "missing")) is None
    (tmp_path / "file").touch()
    assert identity(str(tmp_path / "file" / "below")) is None


@pytest.mark.anyio
async def test_the_cgroups_of_a_container_are_opened_and_can_be_read_after_its_end(
    runc: Runc, make_bundle: Callable[..., Path], container_id: str
) -> None:
    async with runc.container(container_id, make_bundle("true")) as container:
        opened = open_cgroups(container.pid)
        assert opened
        await container.start()
        await container.wait()
        assert all(cgroups.read(fd, "cgroup.procs") == b"" for fd in opened.values())
        for fd in opened.values():
            assert not is_populated(fd)
            assert "cgroup.procs" in os.listdir(f"/proc/self/fd/{fd}")
    for fd in opened.values():
        assert processes(fd) == []  # it is gone
        os.close(fd)
