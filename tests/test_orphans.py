"""Children that were left to this process: which are reaped, when, and that none is taken from somebody who waits."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING

import anyio
import pytest

from runc_async import _orphans as orphans
from runc_async._linux import libc, procfs
from runc_async._orphans import Orphans, is_reaper, is_stub

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def found() -> Orphans:
    return Orphans()


def start(*command: str) -> int:
    """Start a child; nobody but the test waits for it."""
    return os.posix_spawnp(command[0], command, os.environ)


def ended() -> int:
    pid = start("true")
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return pid


def is_there(pid: int) -> bool:
    """Whether a child was not reaped yet."""
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


async def until_reaped(pid: int) -> None:
    with anyio.fail_after(10):
        while is_there(pid):
            await anyio.sleep(0.001)


async def turns() -> None:
    """Let the event loop find whatever has ended."""
    for _ in range(20):
        await anyio.sleep(0.001)


async def test_what_a_call_has_left_is_reaped_when_it_ends(found: Orphans) -> None:
    pid = start("sleep", "60")
    found.learn(pid)
    found.adopt()
    await turns()
    assert is_there(pid)
    os.kill(pid, 9)
    await until_reaped(pid)


async def test_what_nobody_has_left_is_not(found: Orphans) -> None:
    pids = [ended(), ended()]
    found.adopt()
    found.adopt(object())
    await turns()
    assert all(map(is_there, pids))
    for pid in pids:
        os.waitpid(pid, 0)


async def test_another_process_of_the_same_number_is_not(found: Orphans) -> None:
    pid = ended()
    found.learn(pid)
    found._leaders[pid] = found._leaders[pid]._replace(start_time=found._leaders[pid].start_time - 1)
    found.adopt()
    await turns()
    assert is_there(pid)
    os.waitpid(pid, 0)


async def test_a_process_that_is_no_child_is_not_remembered(found: Orphans) -> None:
    found.learn(os.getppid())
    found.learn(os.getpid())
    assert not found._leaders


async def test_while_a_call_may_claim_it_an_orphan_is_not_reaped(found: Orphans) -> None:
    pid = ended()
    found.learn(pid)
    with found.call():
        found.adopt()
        await turns()
        found.adopt()
        assert is_there(pid)
    assert not is_there(pid)


async def test_one_that_is_claimed_is_its_claimants(found: Orphans) -> None:
    pid = ended()
    found.learn(pid)
    asked: list[int] = []
    with found.call():
        found.adopt()
        await turns()
        found.claim(pid, lambda: asked.append(pid))
    found.adopt()
    await turns()
    assert is_there(pid)
    assert asked == [pid]
    found.release(pid)
    found.adopt()
    await until_reaped(pid)


async def test_one_that_was_claimed_while_it_lived_is_its_claimants(found: Orphans) -> None:
    pid = start("sleep", "60")
    found.learn(pid)
    found.adopt()
    found.claim(pid, lambda: None)
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    await turns()
    assert is_there(pid)
    os.waitpid(pid, 0)


async def test_only_the_calls_under_way_when_it_was_found_are_waited_for(found: Orphans) -> None:
    pid = ended()
    found.learn(pid)
    with found.call():
        found.adopt()
    with found.call():
        await until_reaped(pid)


async def test_a_claim_in_another_thread_is_heeded(found: Orphans) -> None:
    pid = start("sleep", "60")
    found.learn(pid)
    found.adopt()
    thread = threading.Thread(target=found.claim, args=(pid, lambda: None))
    thread.start()
    thread.join()
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    await turns()
    assert is_there(pid)
    os.waitpid(pid, 0)


SHELL = "setsid sh -c 'sleep 60 >/dev/null & echo $!' & wait"


@pytest.fixture
def adopting() -> Iterator[None]:
    before = libc.is_child_subreaper()
    libc.set_child_subreaper(True)
    yield
    libc.set_child_subreaper(before)


@pytest.mark.parametrize("owner", [None, "somebody"])
async def test_what_other_programs_have_left_is_found_for_an_owner_alone(
    found: Orphans, adopting: None, owner: str | None
) -> None:
    """In a session of its own that somebody else leads: this is no child that was started here."""
    assert is_reaper()
    output = subprocess.run(["sh", "-c", SHELL], stdout=subprocess.PIPE, check=True).stdout
    pid = int(output)
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    found.adopt(owner)
    if owner is None:
        await turns()
        assert is_there(pid)
        os.waitpid(pid, 0)
    else:
        await until_reaped(pid)


async def test_what_a_known_process_has_left_in_its_session_is_found_and_what_that_leaves(
    found: Orphans, adopting: None, tmp_path: Path
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    os.mkfifo(first)
    os.mkfifo(second)
    leader = start("setsid", "sh", "-c", f"sh -c 'sleep 60 & read line < {second}' & read line < {first}")
    below: list[int] = []
    while not (below and (last := procfs.children(below[0])) and procfs.comm(last[0]) == "sleep"):
        await anyio.sleep(0.001)
        below = procfs.children(leader)
    child, grandchild = below[0], last[0]
    found.learn(leader)
    first.write_text("")
    os.waitid(os.P_PID, leader, os.WEXITED | os.WNOWAIT)
    found.adopt()
    await until_reaped(leader)
    assert is_there(child)
    second.write_text("")
    await until_reaped(child)
    assert is_there(grandchild)
    os.kill(grandchild, 9)
    await until_reaped(grandchild)


def test_what_was_found_in_an_event_loop_that_has_ended_is_found_again() -> None:
    found = Orphans()
    pid = start("sleep", "60")
    found.learn(pid)

    async def adopt() -> None:
        found.adopt()

    async def reap() -> None:
        found.adopt()
        os.kill(pid, 9)
        await until_reaped(pid)

    for step in (adopt, reap):
        asyncio.run(step())
    assert not found._orphans


async def test_leaving_gives_up_what_was_found_for_an_owner(found: Orphans) -> None:
    pid = start("sleep", "60")
    found.learn(pid)
    owner = object()
    found.adopt(owner)
    found.leave(owner)
    os.kill(pid, 9)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    await turns()
    assert is_there(pid)
    found.adopt()
    await until_reaped(pid)


async def test_where_no_descriptor_is_free_the_next_look_finds_it(
    found: Orphans, monkeypatch: pytest.MonkeyPatch
) -> None:
    pid = start("sleep", "60")
    found.learn(pid)

    def fail(pid: int) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "pidfd_open", fail)
        found.adopt()
    assert not found._orphans
    found.adopt()
    os.kill(pid, 9)
    await until_reaped(pid)


def test_a_process_that_is_forked_has_none() -> None:
    program = """if True:
        import os
        from runc_async._orphans import ORPHANS
        ORPHANS.claim(1, print)
        with ORPHANS.call(), ORPHANS._lock:
            pid = os.fork()
            if pid == 0:
                ORPHANS._lock.acquire()
                os._exit(bool(ORPHANS._claims or ORPHANS._calls))
        assert os.waitpid(pid, 0)[1] == 0
        assert ORPHANS._claims
    """
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_process_is_a_reaper_if_it_is_pid_1_or_adopts_orphans(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_reaper() == libc.is_child_subreaper()
    with monkeypatch.context() as patch:
        patch.setattr(orphans.os, "getpid", lambda: 1)
        assert is_reaper()


STUB = {"Name": "exe", "Uid": "65534\t65534", "CapEff": "0000000000240000", "NoNewPrivs": "1", "Seccomp": "2"}


@pytest.mark.parametrize(
    "other",
    [
        {"Name": "runsc"}, {"Uid": "0\t0\t0\t0"}, {"CapEff": "0000000000000000"}, {"NoNewPrivs": "0"}, {"Seccomp": "0"},
        {"Name": ""}, {"Uid": ""},
    ],
)  # fmt: skip
def test_a_stub_of_gvisor_is_told_from_other_processes(other: dict[str, str]) -> None:
    assert is_stub(STUB)
    assert not is_stub({**STUB, **other})
    assert not is_stub({})
