"""The filter of system calls, tried from inside: every number, and what the table cannot show."""

from __future__ import annotations

import platform
import shutil
import signal
import subprocess
from errno import EAFNOSUPPORT, ENOSYS, EPERM
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from runc_async import PipeIO, Runc, default_spec, temporary_bundle
from runc_async._bundle import seccomp

from .._seccomp import syscall_table
from .._streams import read_all

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the numbers are those of x86-64"),
]

VSOCK, ALG, UNIX, INET, NETLINK = 40, 38, 1, 2, 16
STREAM = 1
NEWUSER = 0x10000000
SOCKET, CLONE, UNSHARE, PTRACE, KEYCTL, SETNS = 41, 56, 272, 101, 250, 308
I386_GETPID, I386_SOCKETCALL = 20, 102
LATEST = 480
BY_ARGUMENTS = {"clone", "personality", "socket", "socketpair", "unshare"}  # with those that pass


@pytest.fixture
def anyio_backend() -> str:
    """One event loop: what is proved here is the specification."""
    return "asyncio"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program that tries them, static."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("gcc is missing: install the Debian packages gcc and libc6-dev")
    path = tmp_path_factory.mktemp("syscalls") / "try"
    source = Path(__file__).with_name("try_syscalls.c")
    subprocess.run([compiler, "-static", "-O1", "-Wall", "-Werror", "-o", path, source], check=True)
    return path


@pytest.fixture
def tried(runc: Runc, rootfs: Path, new_id: Callable[[], str], program: Path) -> Callable[..., Awaitable[str]]:
    """What that program prints in a container."""

    async def run(*words: object, change: Callable[[Any], None] = lambda _: None, **keywords: Any) -> str:
        args = ["/tmp/try", *map(str, words)]
        spec = default_spec(args, rootless=False, mounts=[f"{program}:/tmp/try:ro"], **keywords)
        change(spec)
        async with temporary_bundle(spec, rootfs=rootfs) as bundle, PipeIO(stdin=False, stderr=False) as io:
            container = runc.container(new_id(), bundle, io=io)
            async with container as running:
                await running.start()
                output = await read_all(io.stdout)
        return output.decode()

    return run


def outcomes(output: str) -> dict[int, int]:
    return {int(number): int(outcome) for number, outcome in (line.split() for line in output.splitlines())}


@pytest.mark.parametrize("choice", ["default", "strict"])
async def test_every_number_passes_or_fails_as_the_table_says(tried: Callable[..., Any], choice: str) -> None:
    without = outcomes(await tried(LATEST, seccomp="unconfined"))
    within = outcomes(await tried(LATEST, seccomp=choice))
    assert without.keys() == within.keys() == set(range(LATEST + 1))
    groups = [*seccomp.ALLOWED, *(seccomp.ALLOWED_BY_DEFAULT if choice == "default" else [])]
    others = [*seccomp.REFUSED, *seccomp.BY_CAPABILITY.values()]
    others += seccomp.ALLOWED_BY_DEFAULT if choice == "strict" else []
    allowed, refused = set(seccomp._names(groups)) | BY_ARGUMENTS, set(seccomp._names(others))
    names = {call.numbers["x86_64"]: name for name, call in syscall_table().items()}
    wrong = {}
    for number, outcome in within.items():
        name = names.get(number, "unknown")
        expected = {without[number]} if name in allowed else {EPERM} if name in refused else {ENOSYS}
        if number > 450:  # a libseccomp that does not know it leaves it out
            expected.add(ENOSYS)
        if outcome not in expected:
            wrong[name] = (number, outcome, expected)
    assert wrong == {}
    assert sum(without[number] != outcome for number, outcome in within.items()) > 50


async def test_sockets_that_leave_the_container_or_have_had_bugs(tried: Callable[..., Any]) -> None:
    async def socket(family: int, **keywords: Any) -> int:
        return int(await tried("call", SOCKET, family, STREAM, 0, **keywords))

    assert await socket(VSOCK, seccomp=False) in (0, EAFNOSUPPORT)
    assert [await socket(family) for family in (VSOCK, ALG, 1 << 32 | VSOCK)] == [EPERM] * 3
    assert [await socket(family) for family in (UNIX, INET)] == [0, 0]
    assert [await socket(family, seccomp="strict") for family in (UNIX, INET, VSOCK)] == [0, 0, EPERM]
    # An address no filter sees: with the host's network, Internet sockets would reach other machines.
    assert [await socket(family, seccomp="strict", network="host") for family in (UNIX, INET)] == [0, EPERM]


async def test_no_namespaces_keyrings_or_in_strict_ptrace(tried: Callable[..., Any]) -> None:
    for choice in ("default", "strict"):
        assert int(await tried("call", CLONE, NEWUSER | signal.SIGCHLD, seccomp=choice)) == EPERM
        assert int(await tried("call", UNSHARE, NEWUSER, seccomp=choice)) == EPERM
        assert int(await tried("call", SETNS, 0, 0, seccomp=choice)) == EPERM
        assert int(await tried("call", KEYCTL, 0, -3, seccomp=choice)) == EPERM
    traceme = 0
    assert int(await tried("call", PTRACE, traceme)) == 0
    assert int(await tried("call", PTRACE, traceme, seccomp="strict")) == EPERM


async def test_the_32_bit_entry_is_closed_until_it_is_asked_for(tried: Callable[..., Any]) -> None:
    def open_it(spec: Any) -> None:
        spec["linux"]["seccomp"]["architectures"].append("SCMP_ARCH_X86")

    if int(await tried("call32", I386_GETPID, seccomp=False)) != 0:
        pytest.skip("this kernel runs no 32-bit programs (CONFIG_IA32_EMULATION)")
    assert int(await tried("call32", I386_GETPID)) == -signal.SIGSYS
    assert int(await tried("call32", I386_GETPID, change=open_it)) == 0
    assert int(await tried("call32", I386_SOCKETCALL, 1, 0, change=open_it)) == EPERM
