"""The ways to start a child: which one is taken, and that each gives the child exactly what was asked for."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from runc_async import _spawn
from runc_async._linux import libc
from runc_async._process.child_fds import ChildFds
from runc_async._process.memfile import memory_file, read_output

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

pytestmark = pytest.mark.anyio

REPORT = """
import json, os, signal, sys
fds = {}
for fd in os.listdir("/proc/self/fd"):
    try:
        fds[int(fd)] = os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        pass
json.dump({
    "argv0": open("/proc/self/cmdline").read().split("\\0")[0],
    "fds": fds,
    "cwd": os.getcwd(),
    "env": dict(os.environ),
    "leads_group": os.getpgid(0) == os.getpid(),
}, sys.stdout)
"""

PYTHON = os.path.realpath(sys.executable)


@pytest.fixture
async def fds() -> AsyncIterator[ChildFds]:
    with ChildFds(()) as fds:
        yield fds


async def run(fds: ChildFds, *, held: bool = False, code: str = REPORT, **keywords: Any) -> tuple[int, bytes]:
    """Run a Python program in the way that is chosen; its status and output."""
    stdin = fds.adopt(os.open(os.devnull, os.O_RDONLY))
    stdout = fds.adopt(memory_file("stdout", limit=1 << 20))
    fds.stdio(stdin, stdout, stdout)
    path = PYTHON
    if held:
        path = f"/proc/self/fd/{fds.executable(os.open(PYTHON, os.O_PATH | os.O_CLOEXEC))}"
    keywords.setdefault("env", {"PYTHONHOME": sys.base_prefix, "WORD": "hello"})
    request = _spawn.Request(path, ["name", "-I", "-c", code], descriptors=fds.child_map(), **keywords)
    child = await _spawn.start(request)
    return await child.wait(), read_output(stdout)


@pytest.fixture
def inheritable() -> Iterator[int]:
    """A descriptor that this process has made inheritable, like one that a library has forgotten, or a shell passed."""
    with open(os.devnull) as file:
        fd = os.dup2(file.fileno(), 60, inheritable=True)
    yield fd
    os.close(fd)


@pytest.fixture(params=["closefrom", "no closefrom"])
def c_library(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """This machine's C library, and one that cannot close all descriptors from a number on (musl)."""
    if request.param == "no closefrom":
        monkeypatch.setattr(libc, "ADDCLOSEFROM", None)
    elif libc.ADDCLOSEFROM is None:
        pytest.skip("this C library has no posix_spawn_file_actions_addclosefrom_np: glibc 2.34 has")
    return str(request.param)


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"cwd": "/usr"}, {"process_group": True}, {"cwd": "/usr", "process_group": True}]
)
@pytest.mark.parametrize("preserved", [0, 2])
async def test_a_child_gets_what_was_asked_for(options: dict[str, Any], preserved: int, held: bool) -> None:
    reader, writer = os.pipe()
    with ChildFds([reader, writer][:preserved]) as fds:
        kept = fds.keep(fds.adopt(memory_file("kept", content=b"kept")))
        status, output = await run(fds, held=held, **options)
    os.close(reader)
    os.close(writer)
    assert status == 0, output
    report = json.loads(output)
    assert report["argv0"] == "name"
    assert report["env"].get("WORD") == "hello"
    assert "HOME" not in report["env"]
    fds = {int(fd): what for fd, what in report["fds"].items()}
    assert list(fds)[: 3 + preserved] == list(range(3 + preserved))
    assert len(fds) == 4 + preserved + held
    assert fds[kept].startswith("/memfd:kept")
    if held:
        assert fds[max(fds)] == PYTHON
    assert report["cwd"] == options.get("cwd", os.getcwd())
    assert report["leads_group"] == options.get("process_group", False)


@pytest.mark.parametrize("preserved", [0, 2])
@pytest.mark.parametrize("held", [False, True])
async def test_a_descriptor_that_this_process_has_made_inheritable_does_not_arrive(
    inheritable: int, c_library: str, preserved: int, held: bool
) -> None:
    with ChildFds([inheritable] * preserved) as fds:
        fds.keep(fds.adopt(memory_file("kept")))
        status, output = await run(fds, held=held)
    assert status == 0, output
    fds = json.loads(output)["fds"]
    assert str(inheritable) not in fds
    assert len(fds) == 4 + preserved + held


async def test_numbers_are_chosen_without_a_gap_but_by_asyncio_itself(
    fds: ChildFds, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    log = fds.adopt(memory_file("log"))
    number = fds.keep(log)
    assert fds.path(log) == f"/proc/self/fd/{number}"
    null = fds.adopt(os.open(os.devnull, os.O_RDWR))
    fds.stdio(null, null, null)
    if anyio_backend == ("asyncio", {}):
        assert (number, fds.child_map()) == (log, ((null, null, null), (log,)))
    else:
        assert (number, fds.child_map()) == (3, ((null, null, null, log), None))


@pytest.mark.parametrize("preserved", [0, 1])
async def test_signals_that_python_ignores_are_as_the_system_has_them(preserved: int) -> None:
    assert not await ignored_signals(preserved) & {signal.SIGPIPE, signal.SIGXFSZ}


async def ignored_signals(preserved: int) -> set[int]:
    with ChildFds([0][:preserved]) as fds:
        null = fds.adopt(os.open(os.devnull, os.O_RDWR))
        stdout = fds.adopt(memory_file("stdout", limit=1000))
        fds.stdio(null, stdout, null)
        argv = ["grep", "SigIgn", "/proc/self/status"]
        child = await _spawn.start(_spawn.Request("/bin/grep", argv, {}, fds.child_map()))
        assert await child.wait() == 0
        mask = int(read_output(stdout).split()[1], 16)
    return {number for number in range(1, 65) if mask & 1 << number - 1}


@pytest.mark.parametrize("preserved", [0, 1])
async def test_none_for_the_environment_is_this_processs_own(preserved: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNC_ASYNC_TEST", "wörd\udcff")
    with ChildFds([0][:preserved]) as fds:
        status, output = await run(fds, env=None)
    assert status == 0, output
    assert json.loads(output)["env"].items() >= os.environ.items()


@pytest.mark.parametrize("preserved", [0, 1])
@pytest.mark.parametrize("status", [0, 3, 255, -signal.SIGTERM, -signal.SIGKILL])
async def test_the_status_is_the_childs_own(preserved: int, status: int) -> None:
    code = f"import os; os.kill(os.getpid(), {-status})" if status < 0 else f"raise SystemExit({status})"
    with ChildFds([0][:preserved]) as fds:
        assert (await run(fds, code=code))[0] == status


@pytest.mark.parametrize("preserved", [0, 1])
@pytest.mark.parametrize(
    ("path", "error"), [("/etc/passwd", errno.EACCES), ("/nowhere", errno.ENOENT), ("/etc/passwd/x", errno.ENOTDIR)]
)
async def test_a_file_that_cannot_be_executed_leaves_nothing(preserved: int, path: str, error: int) -> None:
    with ChildFds([0][:preserved]) as fds:
        null = fds.adopt(os.open(os.devnull, os.O_RDWR))
        fds.stdio(null, null, null)
        with pytest.raises(OSError, match=os.strerror(error)) as caught:
            await _spawn.start(_spawn.Request(path, ["x"], {}, fds.child_map()))
    assert caught.value.errno == error


async def test_killing_one_that_has_ended_does_nothing(fds: ChildFds) -> None:
    null = fds.adopt(os.open(os.devnull, os.O_RDWR))
    fds.stdio(null, null, null)
    child = await _spawn.start(_spawn.Request("/bin/true", ["true"], {}, fds.child_map()))
    assert await child.wait() == 0
    child.send_signal(signal.SIGKILL)
    assert await child.wait() == 0


def ways(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which way every start takes."""
    import asyncio

    from runc_async._spawn import posix_spawn

    taken: list[str] = []

    def spy(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **keywords: Any) -> Any:
            taken.append(name)
            return original(*args, **keywords)

        monkeypatch.setattr(owner, name, wrapped)

    spy(asyncio, "create_subprocess_exec")
    spy(posix_spawn, "posix_spawn")
    return taken


async def test_asyncio_itself_starts_what_needs_no_chosen_numbers_and_posix_spawn_all_else(
    monkeypatch: pytest.MonkeyPatch, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    taken = ways(monkeypatch)
    with ChildFds([0]) as fds:
        await run(fds)
    with ChildFds(()) as fds:
        await run(fds)
    own = "create_subprocess_exec" if anyio_backend == ("asyncio", {}) else "posix_spawn"
    assert taken == ["posix_spawn", own]
