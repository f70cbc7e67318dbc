"""The ways to start a child: which one is taken, and that each gives the child exactly what was asked for."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import pytest

from runc_async import _spawn
from runc_async._process.capture import memory_file, printed
from runc_async._process.child_fds import Leases

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.anyio

REPORT = """
import json, os, signal, sys
fds = {int(fd): os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
fds = {fd: path for fd, path in fds.items() if os.path.lexists(f"/proc/self/fd/{fd}")}
# uvloop duplicates stdin, stdout and stderr, and lets the child have the duplicates.
fds = [fd for fd in sorted(fds) if fd < 3 or fds[fd] not in (fds[0], fds[1], fds[2])]
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
def leases() -> Iterator[Leases]:
    with Leases(()) as leases:
        yield leases


async def run(leases: Leases, *, held: bool = False, code: str = REPORT, **keywords: Any) -> tuple[int, bytes]:
    """Run a Python program by the road that is chosen; its status and output."""
    stdin = leases.adopt(os.open(os.devnull, os.O_RDONLY))
    stdout = leases.adopt(memory_file("stdout", limit=1 << 20))
    leases.stdio(stdin, stdout, stdout)
    path = PYTHON
    if held:
        path = f"/proc/self/fd/{leases.executable(os.open(PYTHON, os.O_PATH | os.O_CLOEXEC))}"
    keywords.setdefault("env", {"PYTHONHOME": sys.base_prefix, "WORD": "hello"})
    request = _spawn.Request(path, ["name", "-I", "-c", code], descriptors=leases.child_map(), **keywords)
    child = await _spawn.start(request)
    return await child.wait(), printed(stdout)


def inherited(fd: int) -> bool:
    try:
        return os.get_inheritable(fd)
    except OSError:
        return False


@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"cwd": "/usr"}, {"process_group": True}, {"cwd": "/usr", "process_group": True}]
)
@pytest.mark.parametrize("preserved", [0, 2])
async def test_a_child_gets_what_was_asked_for(options: dict[str, Any], preserved: int, held: bool) -> None:
    reader, writer = os.pipe()
    with Leases([reader, writer][:preserved]) as leases:
        status, output = await run(leases, held=held, **options)
    os.close(reader)
    os.close(writer)
    assert status == 0, output
    report = json.loads(output)
    assert report["env"].get("WORD") == "hello"
    assert "HOME" not in report["env"]
    # What this process has made inheritable goes through posix_spawn, too.
    fds = [fd for fd in report["fds"] if fd < 3 + preserved or not inherited(fd)]
    assert fds[: 3 + preserved] == list(range(3 + preserved))
    assert len(fds) == 3 + preserved + held
    assert report["cwd"] == options.get("cwd", os.getcwd())
    assert report["leads_group"] == options.get("process_group", False)


@pytest.mark.parametrize("preserved", [0, 1])
async def test_signals_that_python_ignores_are_as_the_system_has_them(preserved: int) -> None:
    with Leases([0][:preserved]) as leases:
        null = leases.adopt(os.open(os.devnull, os.O_RDWR))
        stdout = leases.adopt(memory_file("stdout", limit=1000))
        leases.stdio(null, stdout, null)
        argv = ["grep", "SigIgn", "/proc/self/status"]
        child = await _spawn.start(_spawn.Request("/bin/grep", argv, {}, leases.child_map()))
        assert await child.wait() == 0
        ignored = int(printed(stdout).split()[1], 16)
    assert not ignored & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1)


async def test_a_child_ended_by_a_signal(leases: Leases) -> None:
    status, _ = await run(leases, code="import os; os.kill(os.getpid(), 15)")
    assert status == -signal.SIGTERM


@pytest.mark.parametrize("preserved", [0, 1])
async def test_a_file_that_cannot_be_executed_leaves_nothing(preserved: int) -> None:
    with Leases([0][:preserved]) as leases:
        null = leases.adopt(os.open(os.devnull, os.O_RDWR))
        leases.stdio(null, null, null)
        request = _spawn.Request("/etc/passwd", ["x"], {}, leases.child_map())
        with pytest.raises(PermissionError):
            await _spawn.start(request)


async def test_killing_one_that_has_ended_does_nothing(leases: Leases) -> None:
    null = leases.adopt(os.open(os.devnull, os.O_RDWR))
    leases.stdio(null, null, null)
    child = await _spawn.start(_spawn.Request("/bin/true", ["true"], {}, leases.child_map()))
    assert await child.wait() == 0
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    assert await child.wait() == 0


def roads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Which road every start takes."""
    import asyncio
    import subprocess

    taken: list[str] = []

    def spy(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def wrapped(*args: Any, **keywords: Any) -> Any:
            taken.append(name)
            return original(*args, **keywords)

        monkeypatch.setattr(owner, name, wrapped)

    spy(asyncio, "create_subprocess_exec")
    spy(os, "posix_spawn")
    if "trio" in sys.modules:
        spy(subprocess, "Popen")
    return taken


async def test_descriptors_under_chosen_numbers_go_by_posix_spawn_and_all_else_by_the_event_loops_own_way(
    monkeypatch: pytest.MonkeyPatch, anyio_backend: tuple[str, dict[str, Any]]
) -> None:
    taken = roads(monkeypatch)
    with Leases([0]) as leases:
        await run(leases)
    with Leases(()) as leases:
        await run(leases)
    own = "Popen" if anyio_backend[0] == "trio" else "create_subprocess_exec"
    assert taken[:2] == ["posix_spawn", own]
